"""What a trial has found: which stage limits and by how much, what would help, and both in plain sentences."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from resnets.specs.errors import counted
from resnets.studies.machine_limits import gib

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from resnets.studies.machine_limits import Finding
    from resnets.studies.trial import Rate

Limit = Literal["disk", "decode", "transfer", "model", "batches"]

_SMALLEST_GAIN = 1.05
_ABOUT_EVEN = 1.15
CROWDED = 0.8
"""Below this share of what the cores could do, they are busy with waiting for each other."""
_MOST_OF_THE_TIME = 5.0
_UNSTEADY = 0.25
_KEPT = 1.5
"""From this ratio on, reading a file again comes from memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """The rates of the stages alone and of the whole, and on what they were measured."""

    images: int
    """Images of the training set."""
    total_bytes: float
    """Of all files, from the mean of those that were read; 0 for images in memory."""
    batch: int
    """Images of a step in the trial."""
    recipe_batch: int
    """Images of a forward and backward pass in the run."""
    workers: int
    threads: int
    device: str
    cores: int
    """That the run may use."""
    cached: bool
    """Whether the system keeps the files in memory after they were read once, so that the trial read them before."""
    read: Rate | None
    """Reading files that are not in memory, with as many `readers` as the run has."""
    read_again: Rate | None
    """Reading the same files once more."""
    mean_bytes: float
    decode_one: Rate | None
    """Decoding and cropping on one core, from memory."""
    decode: Rate | None
    """The loader with its workers, from memory; beside an accelerator without the way to it."""
    load: Rate
    """The loader with its workers, from the disk to the device."""
    transfer: Rate | None
    """Decoded images on their way to the device, one batch at a time; None where there is no such way."""
    model: Rate
    """The training step on a batch that is there."""
    whole: Rate
    contents: tuple[bytes, ...] = ()
    """Content of some files."""

    @property
    def readers(self) -> int:
        """How many read side by side: the workers, or without any the threads of the run's own process."""
        return self.workers or self.threads

    @property
    def reading(self) -> Rate | None:
        """The rate of reading that counts for most of the run."""
        return self.read_again if self.cached else self.read

    @property
    def limit(self) -> Limit:
        """The stage that is the slowest where each has the machine for itself.

        Loading includes reading, decoding and the way to the device. That way is the limit where loading is about as
        fast as it (or faster: batches that follow each other need not wait as those that are measured alone) and
        clearly slower than what is read and decoded.
        """
        load = self.load.images_per_second
        if self.model.images_per_second <= load:
            return "model"
        if self.decode is None:
            return "batches"
        # On the CPU, what is loaded is what was decoded; beside it, it goes to the device, and batches are made of it.
        if self.device != "cpu" and self.on_host > _ABOUT_EVEN * load:
            # A slow way holds up `load` and never lies far below it.
            is_near = self.transfer is not None and load >= self.transfer.images_per_second / _ABOUT_EVEN
            return "transfer" if is_near else "batches"
        if self.reading is not None and self.reading.images_per_second < self.decode.images_per_second:
            return "disk"
        return "decode"

    @property
    def on_host(self) -> float:
        """Images a second that are read and decoded, one after the other, by the rates of both; inf without files."""
        rates = [rate.images_per_second for rate in (self.reading, self.decode) if rate is not None]
        return 1 / sum(1 / max(rate, 1e-9) for rate in rates) if rates else float("inf")

    @property
    def factor(self) -> float:
        """How many times as fast the other side of the loop is: model against data, or data against model."""
        load, model = self.load.images_per_second, self.model.images_per_second
        return max(load, model) / max(min(load, model), 1e-9)

    @property
    def attainable(self) -> float:
        """Images a second that the cores could do, from the processor time of the stages alone; inf on an accelerator.

        The stages are measured while the other cores rest, so this is rather too much.
        """
        if self.device != "cpu":
            return float("inf")
        load, model = max(self.load.images_per_second, 1e-9), max(self.model.images_per_second, 1e-9)
        if not self.workers:  # one after the other
            return 1 / (1 / load + 1 / model)
        core_seconds = min(self.threads, self.cores) / model
        if self.decode_one is not None:
            core_seconds += 1 / max(self.decode_one.images_per_second, 1e-9)
        return min(self.cores / core_seconds, load, model)

    @property
    def shares_cores(self) -> bool:
        """Whether threads of the model and workers are more than the cores, and neither is idle most of the time."""
        more = self.threads + self.workers > self.cores
        return self.device == "cpu" and self.workers > 0 and more and self.factor < _MOST_OF_THE_TIME

    def crowding(self, rate: float) -> float:
        """Return which share of what the cores could do is reached with `rate` images a second; 1 on an accelerator."""
        return 1.0 if self.device != "cpu" else min(1.0, rate / max(self.attainable, 1e-9))

    @property
    def waiting_share(self) -> float:
        """Share of the time in which the model has nothing to do.

        A host runs ahead of an accelerator, and where it waits the device may compute: there, it is what is missing
        from the rate of the model alone.
        """
        if self.device == "cpu":
            return self.whole.waiting_share
        return max(0.0, 1 - self.whole.images_per_second / max(self.model.images_per_second, 1e-9))


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """An option, and the rate of the whole with it."""

    kind: str
    label: str
    rate: Rate
    gain: float
    """Images a second, relative to the run as it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """What to do, and what it brings."""

    kinds: tuple[str, ...]
    label: str
    commands: tuple[str, ...]
    """What to type."""
    images_per_second: float
    gain: float
    hours_before: float
    """Of the training steps of the whole run."""
    hours_after: float
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the advice for a document."""
        values = asdict(self)
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """What limits a run on this machine, what would help, and what endangers it."""

    recipe: str
    command: str
    """The run as it would be started."""
    measured: Measured
    hours: float
    """Of the training steps of the whole run, at the rate of the trial."""
    baselines: tuple[float, ...]
    """Images a second of the unchanged whole, each time that it was measured."""
    tried: tuple[Tried, ...]
    advice: tuple[Advice, ...]
    findings: tuple[Finding, ...]
    """Limits of the machine that concern this run."""
    notes: tuple[str, ...]
    """What a reader has to know about the trial."""
    seconds: float

    @property
    def baseline(self) -> float:
        """Images a second of the unchanged whole: the most that was measured, as disturbances only take from it."""
        return max(self.baselines)

    @property
    def noise(self) -> float:
        """How far the measurements of the unchanged whole lie apart, relative to the largest."""
        return (max(self.baselines) - min(self.baselines)) / max(self.baseline, 1e-9)

    @property
    def is_crowded(self) -> bool:
        """Whether threads and workers wait for each other on cores that they share."""
        measured = self.measured
        return measured.threads > 1 and measured.shares_cores and measured.crowding(self.baseline) < CROWDED

    @property
    def sentences(self) -> tuple[str, ...]:
        """The diagnosis in plain sentences, the most important first."""
        return tuple(_sentences(self))

    def document(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        measured = self.measured
        return {
            "recipe": self.recipe,
            "command": self.command,
            "limit": measured.limit,
            "factor": round(measured.factor, 3),
            "waiting_share": round(measured.waiting_share, 4),
            "images_per_second": round(self.baseline, 4),
            "baselines": [round(rate, 4) for rate in self.baselines],
            "crowding": round(measured.crowding(self.baseline), 4),
            "hours": round(self.hours, 4),
            "noise": round(self.noise, 4),
            "stages": {
                name: None if rate is None else {key: round(value, 4) for key, value in asdict(rate).items()}
                for name, rate in stages(measured).items()
            },
            "trial": {
                "seconds": round(self.seconds, 1),
                "batch": measured.batch,
                "recipe_batch": measured.recipe_batch,
                "workers": measured.workers,
                "threads": measured.threads,
                "device": measured.device,
                "files_stay_in_memory": measured.cached,
                "mean_bytes": round(measured.mean_bytes),
                "total_bytes": round(measured.total_bytes),
                "images": measured.images,
            },
            "tried": [
                {
                    "kind": one.kind,
                    "label": one.label,
                    "images_per_second": round(one.rate.images_per_second, 4),
                    "gain": round(one.gain, 4),
                }
                for one in self.tried
            ],
            "advice": [one.to_json() for one in self.advice],
            "findings": [finding.to_json() for finding in self.findings],
            "sentences": list(self.sentences),
            "notes": list(self.notes),
        }


def stages(measured: Measured) -> dict[str, Rate | None]:
    """Return the rates by the name of their stage, in the order of an image's way."""
    return {
        "read": measured.read,
        "read_again": measured.read_again,
        "decode_one_core": measured.decode_one,
        "decode": measured.decode,
        "load": measured.load,
        "transfer": measured.transfer,
        "model": measured.model,
        "whole": measured.whole,
    }


def worth_it(gain: float, noise: float) -> bool:
    """Return whether a gain is more than the trial's own noise.

    >>> worth_it(1.04, 0.0), worth_it(1.2, 0.01), worth_it(1.2, 0.2)
    (False, True, False)
    """
    return gain >= max(_SMALLEST_GAIN, 1 + 1.5 * noise)


def figure(rate: int | float) -> str:
    """Return images a second with three figures.

    >>> figure(12345.6), figure(123.4), figure(4.567), figure(0.5)
    ('12,300', '123', '4.57', '0.5')
    """
    if rate >= 1000:
        digits = 10 ** (len(str(int(rate))) - 3)
        return f"{round(rate / digits) * digits:,}"
    return f"{rate:.3g}"


def duration(hours: int | float) -> str:
    """Return a time in two units.

    >>> duration(0.004), duration(0.05), duration(0.25), duration(30.5), duration(100)
    ('14 s', '3 min 0 s', '15 min', '1 d 6 h', '4 d 4 h')
    """
    seconds = 3600 * hours
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 600:
        return f"{round(seconds) // 60} min {round(seconds) % 60} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    whole, minutes = divmod(minutes, 60)
    if whole < 24:
        return f"{whole} h {minutes} min"
    return f"{whole // 24} d {whole % 24} h"


def percent(share: int | float) -> str:
    """Return a share in whole percent.

    >>> percent(0.004), percent(0.875)
    ('under 1 %', '88 %')
    """
    return "under 1 %" if share < 0.005 else f"{100 * share:.0f} %"


def by(workers: int) -> str:
    """Return who reads and decodes.

    >>> by(0), by(1), by(8)
    ("the run's own process", '1 worker', '8 workers')
    """
    return "the run's own process" if workers == 0 else counted(workers, "worker")


def _sentences(diagnosis: Diagnosis) -> Iterator[str]:
    measured = diagnosis.measured
    yield _headline(measured)
    yield from _second(diagnosis)
    yield from _from_disk(measured)
    yield _outcome(diagnosis)


def _headline(measured: Measured) -> str:
    load, model = figure(measured.load.images_per_second), figure(measured.model.images_per_second)
    times = f"{figure(measured.factor)} times as many"
    if measured.factor < _ABOUT_EVEN:
        times = "about as many"
    who = by(measured.workers)
    match measured.limit:
        case "model":
            feeding = "the loader" if measured.decode else "the data"
            return f"The model limits: it trains on {model} images/s, and {feeding} could feed {load}, {times}."
        case "decode":
            verb = "reads and decodes" if measured.workers in (0, 1) else "read and decode"
            few = "" if measured.workers else ", while the model waits"
            return f"Decoding limits: {who} {verb} {load} images/s{few}; the model could train on {model}, {times}."
        case "disk":
            reading, decode = measured.reading, measured.decode
            assert reading is not None
            assert decode is not None
            megabytes = reading.images_per_second * measured.mean_bytes / 1e6
            return (
                f"The disk limits: {counted(measured.readers, 'reader')} get"
                f"{'' if measured.readers > 1 else 's'} {figure(reading.images_per_second)} images/s "
                f"({figure(megabytes)} MB/s) from it; decoding could take {figure(decode.images_per_second)}, and the "
                f"model {model}."
            )
        case "transfer":
            return (
                f"The way to the device limits: {load} images/s arrive there; {by(measured.workers)} could read and "
                f"decode {figure(measured.on_host)}, and the model could train on {model}."
            )
        case "batches":
            if measured.decode is not None:
                return (
                    f"Preparing the batches limits: {load} images/s are ready on the device, normalised and varied; "
                    f"{by(measured.workers)} could read and decode {figure(measured.on_host)}, and the model could "
                    f"train on {model}."
                )
            return (
                f"Preparing the batches limits: {load} images/s are cropped and mirrored; the model could train on "
                f"{model}, {times}."
            )


def _second(diagnosis: Diagnosis) -> Iterator[str]:
    measured = diagnosis.measured
    rate = figure(diagnosis.baseline)
    if diagnosis.noise > _UNSTEADY:
        rate = f"{figure(min(diagnosis.baselines))} to {figure(max(diagnosis.baselines))}"
    waiting = percent(measured.waiting_share)
    yield f"Together they reach {rate} images/s; the model waits for data {waiting} of the time."
    if diagnosis.is_crowded:
        yield (
            f"{counted(measured.threads, 'thread')} of the model and {counted(measured.workers, 'worker')} share "
            f"{counted(measured.cores, 'core')} and wait for each other, how long changes from moment to moment; by the "
            f"time that each stage computes alone, the cores could do up to {figure(measured.attainable)} images/s."
        )
    elif measured.shares_cores:
        yield (
            f"Decoding and the model share {counted(measured.cores, 'core')}, which could do up to "
            f"{figure(measured.attainable)} images/s of both: what one takes less, the other has more."
        )


def _from_disk(measured: Measured) -> Iterator[str]:
    read, again = measured.read, measured.read_again
    if read is None or again is None or not measured.cached:
        return
    if again.images_per_second < _KEPT * read.images_per_second:
        if measured.limit == "disk":
            yield "Reading the same files again is as slow: the system does not keep them in memory."
    elif read.images_per_second < _ABOUT_EVEN * measured.whole.images_per_second:
        yield (
            f"The files ({gib(measured.total_bytes)}) fit into memory. The first pass over them reads "
            f"{figure(read.images_per_second)} images/s from the disk and is limited by it; later ones are not."
        )


def _outcome(diagnosis: Diagnosis) -> str:
    if diagnosis.advice:
        best = diagnosis.advice[0]
        return (
            f"What helps most of what was tried: {best.label}, {best.gain:.2f} times as fast "
            f"({figure(best.images_per_second)} images/s)."
        )
    if not diagnosis.tried:
        return "Nothing was tried."
    least = max(_SMALLEST_GAIN, 1 + 1.5 * diagnosis.noise)
    return f"Nothing that was tried makes it faster by {percent(least - 1)} or more: {labels(diagnosis.tried)}."


def labels(tried: Sequence[Tried]) -> str:
    """Return the options in a row with what each brought."""
    return ", ".join(f"{one.label} ({100 * (one.gain - 1):+.0f} %)" for one in tried)
