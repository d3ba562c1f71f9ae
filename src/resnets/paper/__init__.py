"""The paper's tables, figures and claims as experiments: one file each, found by listing this folder.

To add one, write a file here; its name is what `resnets reproduce NAME` takes (`table3`, `figure7`, or a word for a
claim). It needs one thing, `EXPERIMENT`, an `Experiment` of `core/experiment.py`:

```python
from resnets.paper.core.cifar import test_error        # and what else is named here, from core/ and recipes/

PUBLISHED = {20: 8.75, 56: 6.97}                       # the paper's numbers as data, with what they are

def _row(depth: int) -> Row:
    plan = PlannedRun(name=f"ResNet-{depth}", spec=recipe(f"cifar10.resnet{depth}"), seeds=(0,))
    return Row(
        run=plan.name, meaning="test error, %", source="Table 6", paper=PUBLISHED[depth], budget="full",
        ours=FromRuns(runs=(plan,), read=test_error),
        rule=Within(tolerance=0.8, why="what public reproductions scatter"),
    )

EXPERIMENT = Experiment(title="Table 6. …", claim="…", rows=tuple(map(_row, PUBLISHED)), cost={"full": "… hours"})
```

A row's `ours` is one of three:

- `Computed(value=…)`: a function without arguments that gives the number in seconds. It may raise `Unavailable`.
- `FromRuns(runs=…, read=…)`: `read` takes one finished run (`artifacts.found_runs.FoundRun`) for each planned one, all
  of one seed, and gives a number; it raises `Unavailable` where a run does not have it, as `test_error` does. Seeds are
  read one by one and joined by the mean (or the best). The runs are found by their spec or trained when the command's
  budget is the row's; nothing is trained at `check`, so such a row has another. With `needs_weights` the model folder is
  there too, and with `has_to_train` a loss that is no finite number is a FAIL in the call that trained it.
- `NotRun(reason=…)`: the paper's row is listed, ours stays empty.

Rows with budget `check` and `full` are shown at every budget, `cpu` and `gpu` ones at their own. The rule says when a
row passes, with its reason: `Within`, `AtLeast`, `AtMost`, `Above`, `Below`; or `Report` where the run cannot
support a verdict. `Picture` draws error curves of runs that are there, or what its own `draw` function draws.
`core/scaled.py` makes the paper's CIFAR runs smaller. Modules here import no torch at their top; functions that compute
import what they need.
"""
