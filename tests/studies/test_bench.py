"""The frame of the benchmarks, with systems that only move a clock: rows, ratios, what is absent, what fails."""

import dataclasses
import json
import signal
import sys

import pytest
import torch

from resnets.specs.errors import DataError, UserError
from resnets.studies.bench import (
    Need,
    Prepared,
    System,
    Work,
    benchmark,
    chosen,
    joined,
    missing,
    reason_of,
)
from resnets.studies.bench_process import prepare_in_process
from resnets.studies.timing import LostError

ABSENT = Need("no_such_module_at_all", "no-such-package")


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def system(self, name, seconds, images=10, **fields):
        def start():
            def run(number):
                self.now += seconds(number) if callable(seconds) else seconds

            return run

        return Work(name=name, images=images, start=start, **fields)


def measured(clock, systems, **options):
    return benchmark(systems, what="work", clock=clock, quiet=True, **options)


def test_rows_have_medians_quartiles_and_ratios_to_the_first_system():
    clock = Clock()
    times = [9.0, 1.0, 2.0, 4.0, 5.0, 10.0]  # the first is the warm-up's
    found = measured(
        clock, [clock.system("usual", lambda n: 2 * times[n]), clock.system("ours", lambda n: times[n])], rounds=5
    )
    usual, ours = (row.to_json() for row in found.rows)
    assert (ours["images_per_second"], ours["spread"], ours["range"]) == (2.5, [2.0, 5.0], [1.0, 10.0])
    assert (ours["ratio"], ours["ratio_spread"], ours["against"]) == (2.0, [2.0, 2.0], "usual")
    assert (usual["images_per_second"], usual["ratio"]) == (1.25, 1.0)
    assert (ours["ms"], ours["ms_p90"]) == (4000.0, 8000.0)
    assert found.rows[1].round_rates == (10.0, 5.0, 2.5, 2.0, 1.0)


def test_systems_with_other_images_a_call_are_compared_by_rate():
    clock = Clock()
    found = measured(clock, [clock.system("a", 1.0, images=8), clock.system("b", 1.0, images=32)], rounds=2)
    assert [row.images_per_second.median for row in found.rows] == [8.0, 32.0]
    assert found.rows[1].ratio.median == 4.0


def test_a_ratio_can_be_to_another_system_than_the_first():
    clock = Clock()
    systems = [clock.system("a", 1.0), clock.system("b", 2.0, against="b"), clock.system("c", 1.0, against="b")]
    assert [row.ratio.median for row in measured(clock, systems, rounds=1).rows] == [1.0, 1.0, 2.0]


def test_what_is_not_installed_is_listed_without_a_figure():
    clock = Clock()
    found = measured(clock, [clock.system("a", 1.0), clock.system("b", 1.0, needs=(ABSENT,))], rounds=1)
    assert found.rows[1].to_json() == {
        "system": "b",
        "images_per_second": None,
        "ratio": None,
        "spread": None,
        "reason": "not installed",
        "hint": "pip install no-such-package",
    }
    assert missing((ABSENT, Need("numpy", "numpy"))) == (ABSENT,)


def test_a_version_is_stated_of_what_a_system_needs():
    clock = Clock()
    systems = [clock.system("a", 1.0, needs=(Need("hypothesis", "hypothesis"), ABSENT))]
    document = measured(clock, [clock.system("b", 1.0), *systems], rounds=1).document()
    assert document["versions"]["hypothesis"]
    assert {"python", "torch"} <= set(document["versions"])


def test_what_fails_has_a_reason_and_does_not_end_the_others():
    clock = Clock()

    def breaks(number):
        if number == 2:
            raise MemoryError("no room\nat all")
        return 1.0

    def cannot_start():
        raise RuntimeError("no compiler")

    systems = [
        clock.system("a", 1.0),
        clock.system("b", breaks),
        Work(name="c", images=1, start=cannot_start),
        clock.system("d", 1.0),
    ]
    rows = measured(clock, systems, rounds=3).rows
    assert [row.reason for row in rows] == [
        "",
        "failed: MemoryError: no room at all",
        "failed: RuntimeError: no compiler",
        "",
    ]
    assert rows[3].images_per_second.median == 10.0


def test_without_its_reference_a_row_has_a_rate_and_no_ratio():
    clock = Clock()
    rows = measured(clock, [clock.system("a", 1.0, needs=(ABSENT,)), clock.system("b", 2.0)], rounds=1).rows
    assert (rows[1].images_per_second.median, rows[1].ratio, rows[1].to_json()["ratio"]) == (5.0, None, None)


def test_bad_input_ends_the_benchmark():
    def refuse():
        raise DataError("no photographs")

    with pytest.raises(DataError, match="no photographs"):
        measured(Clock(), [Work(name="a", images=1, start=refuse)], rounds=1)
    with pytest.raises(UserError, match="--rounds is 0"):
        measured(Clock(), [], rounds=0)


def test_what_a_library_prints_is_not_on_stdout(capsys):
    def start():
        print("Welcome to a library")
        return lambda number: print("at work") or 1.0

    measured(Clock(), [Work(name="a", images=1, start=start)], rounds=1)
    output = capsys.readouterr()
    assert (output.out, "Welcome to a library" in output.err) == ("", True)


def test_threads_are_as_before_in_the_end():
    seen = []
    before = torch.get_num_threads()
    systems = [Work(name="a", images=1, start=lambda: lambda number: seen.append(torch.get_num_threads()) or 1.0)]
    measured(Clock(), systems, rounds=1, threads=3)
    assert (set(seen), torch.get_num_threads()) == ({3}, before)


def test_everything_is_closed_in_the_end():
    closed = []

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Closing(System):
        def prepare(self):
            return Prepared(lambda number: 1.0, {"size": 3}, lambda: closed.append(self.name))

    found = measured(Clock(), [Closing(name="a", images=1), Closing(name="b", images=1)], rounds=1)
    assert sorted(closed) == ["a", "b"]
    assert found.rows[0].to_json()["size"] == 3


def test_the_document_says_what_how_and_where_and_is_json(tmp_path):
    clock = Clock()
    found = measured(clock, [clock.system("a", 1.0)], rounds=2, settings={"batch": 10}, notes=["made of noise"])
    document = found.document()
    assert {"rows", "hardware", "versions", "commit", "command", "date", "rounds"} <= set(document)
    assert {"system", "images_per_second", "ratio", "spread"} <= set(document["rows"][0])
    assert (document["settings"], document["rounds"], document["notes"][0]) == ({"batch": 10}, 2, "made of noise")
    found.write(tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text("utf-8")) == document


def test_several_benchmarks_are_one_document_with_all_rows():
    clock = Clock()
    found = [measured(clock, [clock.system("a", 1.0)], rounds=1) for _ in range(2)]
    assert [row.system for row in joined(found).rows] == ["a", "a"]


def test_only_keeps_what_is_named_and_the_references_of_it():
    clock = Clock()
    systems = [clock.system(name, 1.0, **extra) for name, extra in (("Pillow", {}), ("OpenCV", {}), ("timm", {}))]
    systems += [clock.system("loader", 1.0, against="loader"), clock.system("ours", 1.0, against="loader")]
    assert [one.name for one in chosen(systems, [])] == ["Pillow", "OpenCV", "timm", "loader", "ours"]
    assert [one.name for one in chosen(systems, ["opencv"])] == ["Pillow", "OpenCV"]
    assert [one.name for one in chosen(systems, ["ours"])] == ["loader", "ours"]
    with pytest.raises(UserError, match=r"--only tim2: .* Did you mean timm\?"):
        chosen(systems, ["tim2"])


def test_the_reason_of_an_error_in_a_worker_is_the_error_not_its_traceback():
    error = RuntimeError(
        'Caught OSError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File "a"\nOSError: no such file: b\n'
    )
    assert reason_of(error) == "OSError: no such file: b"
    assert reason_of(ValueError("a\n  b")) == "ValueError: a b"


PROCESS = """
import os
from dataclasses import dataclass
from resnets.specs.errors import DataError
from resnets.studies.bench import Prepared, System

@dataclass(frozen=True, kw_only=True)
class Elsewhere(System):
    problem: str = ""

    def prepare(self):
        if self.problem == "input":
            raise DataError("no such folder")
        if self.problem == "start":
            raise RuntimeError("cannot start")

        def run(number):
            if number == 3:
                os._exit(9)
            if number == 2:
                raise ValueError("cannot go on")
            return 0.25 * (number + 1)

        return Prepared(run, {"process": os.getpid()})
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals cannot be held back here")
def test_ctrl_c_does_not_interrupt_the_imports_of_a_process(tmp_path, monkeypatch):
    interrupted = "import multiprocessing, os, signal\nif multiprocessing.parent_process():\n    os.kill(os.getpid(), signal.SIGINT)\n"
    (tmp_path / "interrupted_system.py").write_text(interrupted + PROCESS, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import interrupted_system

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    prepared = prepare_in_process(interrupted_system.Elsewhere(name="a", images=1))
    assert prepared.run(0) == 0.25
    prepared.close()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    del sys.modules["interrupted_system"]


def test_a_process_of_its_own_does_the_work_and_its_troubles_are_told(tmp_path, monkeypatch):
    (tmp_path / "elsewhere_system.py").write_text(PROCESS, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import elsewhere_system

    system = elsewhere_system.Elsewhere(name="a", images=1)
    prepared = prepare_in_process(system)
    assert prepared.facts["process"] != elsewhere_system.os.getpid()
    assert [prepared.run(0), prepared.run(1)] == [0.25, 0.5]
    with pytest.raises(LostError, match="ValueError: cannot go on"):
        prepared.run(2)
    with pytest.raises(LostError, match="died"):
        prepared.run(0)
    prepared.close()
    dying = prepare_in_process(system)
    with pytest.raises(LostError, match="died"):
        dying.run(3)
    dying.close()
    with pytest.raises(LostError, match="cannot start"):
        prepare_in_process(dataclasses.replace(system, problem="start"))
    with pytest.raises(UserError, match="no such folder"):
        prepare_in_process(dataclasses.replace(system, problem="input"))
    del sys.modules["elsewhere_system"]
