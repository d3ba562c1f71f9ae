"""What holds for every table, figure and claim; a new file in `resnets.paper` is tested by being there."""

import json
import subprocess
import sys

import pytest

from resnets.paper.core.execute import reproduce
from resnets.paper.core.experiment import BUDGETS, FromRuns
from resnets.paper.core.find import canonical_name, experiment, experiment_names
from resnets.paper.core.listing import states
from resnets.paper.core.outcome import Outcome, RowOutcome
from resnets.paper.core.render import listing_text, outcome_text
from resnets.paper.core.verdict import AtLeast, AtMost, Within
from resnets.paper.core.workshop import Settings, directory_name
from resnets.specs.errors import UserError
from resnets.specs.io import from_json, spec_hash, to_json
from resnets.specs.run import TrainSpec

NAMES = experiment_names()


def plans(name):
    rows = experiment(name).rows
    return [plan for row in rows if isinstance(row.ours, FromRuns) for plan in row.ours.runs]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return {name: reproduce(name, Settings(run_root=root, roots=())) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_every_exact_check_passes(outcomes, name):
    failed = [row.row.run for row in outcomes[name].rows if row.verdict == "FAIL"]
    assert failed == []


@pytest.mark.parametrize("name", NAMES)
def test_runs_that_do_not_differ_confirm_no_claim_that_one_is_above_the_other(name):
    for row in experiment(name).rows:
        if isinstance(row.ours, FromRuns) and len(row.ours.runs) > 1:
            assert not (isinstance(row.rule, AtLeast | AtMost) and row.rule.limit == 0), row.run


@pytest.mark.parametrize("name", NAMES)
def test_json_has_the_fields_of_the_contract_and_every_empty_row_a_reason(outcomes, name):
    document = json.loads(json.dumps(outcomes[name].to_json(), allow_nan=False))
    assert document["experiment"] == name
    assert document["rows"]
    for row in document["rows"]:
        assert {"run", "ours", "paper", "delta", "verdict"} <= set(row)
        assert row["verdict"] in ("PASS", "FAIL", "REPORT")
        if row["ours"] is None:
            assert row["reason"]
            assert row["delta"] is None
            assert row["verdict"] == "REPORT"
        elif row["paper"] is not None:
            assert row["delta"] == row["ours"] - row["paper"]


@pytest.mark.parametrize("name", NAMES)
def test_without_runs_nothing_of_the_papers_stands_as_ours(outcomes, name):
    for row in outcomes[name].rows:
        if isinstance(row.row.ours, FromRuns):
            assert row.ours is None


@pytest.mark.parametrize("name", NAMES)
def test_text_fits_the_terminal(outcomes, name):
    for width in (80, 120):
        lines = outcome_text(outcomes[name], width).splitlines()
        assert max(map(len, lines)) <= width
        assert {"run", "ours", "paper", "difference", "verdict"} <= set(" ".join(lines).split())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("budget", ["cpu", "gpu", "full"])
def test_text_of_larger_budgets_fits_the_terminal(name, budget):
    planned = experiment(name)
    rows = tuple(RowOutcome(row=row, reason="not trained") for row in planned.rows_at(budget))
    text = outcome_text(Outcome(name=name, experiment=planned, budget=budget, rows=rows), 80)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", NAMES)
def test_rules_have_reasons_and_tolerances_a_number_of_the_paper(name):
    planned = experiment(name)
    for row in planned.rows:
        assert row.rule.why
        assert row.source
        assert len(row.run) <= 40
        assert not isinstance(row.rule, Within) or row.paper is not None
        if isinstance(row.ours, FromRuns):
            assert row.budget != "check"
            assert row.budget in planned.cost


@pytest.mark.parametrize("name", NAMES)
def test_runs_of_a_row_share_their_seeds_and_their_specs_survive_json(name):
    for row in experiment(name).rows:
        if isinstance(row.ours, FromRuns):
            assert len({plan.seeds for plan in row.ours.runs}) == 1
    for plan in plans(name):
        assert spec_hash(from_json(TrainSpec, to_json(plan.spec))) == spec_hash(plan.spec)


def test_different_runs_have_different_folders():
    folders = {}
    for name in NAMES:
        for plan in plans(name):
            folders.setdefault(directory_name(plan.spec), set()).add(spec_hash(plan.spec))
    assert all(len(specs) == 1 for specs in folders.values())


def test_only_the_papers_own_runs_stand_for_its_numbers():
    for name in NAMES:
        for row in experiment(name).rows:
            if isinstance(row.ours, FromRuns) and row.budget == "full":
                assert all(plan.spec.steps == plan.spec.full_steps for plan in row.ours.runs)


def test_figure_6_has_the_nets_of_its_claim():
    rows = experiment("figure6").rows
    full = {(row.run, row.meaning) for row in rows if row.budget == "full"}
    for net in ("ResNet-110", "ResNet-1202"):
        assert {(net, "training error at the end, %"), (net, "test error, %")} <= full
    assert ("ResNet-110 - ResNet-56", "training error at the end, points") in full


def test_errors_of_the_paper_stand_beside_full_runs_only():
    for name in NAMES:
        for row in experiment(name).rows:
            if isinstance(row.ours, FromRuns) and row.paper is not None and row.budget != "full":
                assert row.meaning.startswith("iterations until"), row.run


def test_json_has_the_costs_that_are_printed(outcomes):
    document = outcomes["table6"].to_json()
    assert document["cost"] == dict(experiment("table6").cost)
    assert document["trained"] == 0


def test_experiments_load_without_torch():
    names = ", ".join(f"resnets.paper.{name}" for name in NAMES)
    code = (
        f"import sys, {names}, resnets.cli.reproduce; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


def test_the_list_has_every_experiment_and_fits(tmp_path):
    found = states(tmp_path)
    assert [state.name for state in found] == NAMES
    assert not any(state.mark == "!" for state in found)
    for width in (80, 120):
        lines = listing_text(found, width).splitlines()
        assert max(map(len, lines)) <= width
        assert all(any(line.startswith(f"[{state.mark}] {state.name}") for line in lines) for state in found)
        assert lines[0].split() == list(BUDGETS)


def test_the_nets_of_the_identity_construction_are_built_once_in_a_process(monkeypatch):
    rows = experiment("identity").rows
    first = [row.ours.value() for row in rows]
    monkeypatch.setattr("resnets.models.build.build", lambda *arguments, **fields: pytest.fail("built again"))
    assert [row.ours.value() for row in rows] == first


def test_tables_and_figures_come_first_by_number():
    numbers = [int(name.removeprefix("table")) for name in NAMES if name.startswith("table")]
    assert numbers == sorted(numbers)
    assert NAMES[0] == "table1"


@pytest.mark.parametrize(
    ("typed", "name"), [("Table 6", "table6"), ("fig1", "figure1"), ("Depth-Sweep", "depth_sweep")]
)
def test_names_are_understood_as_people_write_them(typed, name):
    assert canonical_name(typed) == name


@pytest.mark.parametrize("typed", ["tabel6", "core", "__init__", "../table6", ""])
def test_an_unknown_name_is_an_error_that_says_where_the_list_is(typed):
    with pytest.raises(UserError, match="lists them all"):
        canonical_name(typed)
