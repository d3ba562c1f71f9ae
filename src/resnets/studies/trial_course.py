"""The course of a trial: first every stage alone, then the whole, then the whole with what may help switched on.

Everything is measured on the run's own images, net and loader, with batches small enough that a few of them fit into
the time. Predictions are measurements of the whole with an option switched on: where loader and model share the cores,
no formula of the stages' rates gives them.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from resnets.data.loader import in_layout
from resnets.data.splits import FileSplit
from resnets.engine.gpu_memory import is_out_of_memory, release
from resnets.engine.threads import threads
from resnets.specs.errors import DataError, ResnetsError, counted
from resnets.studies.diagnosis import Measured, worth_it
from resnets.studies.trial import (
    Rate,
    Trainee,
    decoding_rate,
    first_batch,
    host_rate,
    loading_rate,
    repeated,
    step_rate,
    training_rate,
    training_stream,
    transfer_rate,
    with_images,
    with_spec,
)
from resnets.studies.trial_images import (
    ImagesInMemory,
    are_larger,
    drop_from_cache,
    is_raw,
    make_smaller,
    read_images,
)
from resnets.studies.trial_options import (
    Option,
    data_options,
    is_data_idle,
    is_model_idle,
    model_options,
    no_workers,
    other_net,
    shorter_side,
    smaller_images,
    thread_options,
    waiting_options,
)
from resnets.studies.trial_process import rate_in_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from resnets.data.splits import Batch
    from resnets.studies.machine_facts import MachineFacts
    from resnets.studies.trial_images import Reading
    from resnets.tasks.classify.prepare import Parts

_MOST_READ = 1_024
_PROBE_IMAGES = 4
_LOADING_SECONDS = 0.6
"""A worker's batch takes no longer in the trial, so that it sees several."""
_STEP_SECONDS = 0.8
"""A step takes hardly longer in the trial. On a CPU, fewer images a step than the run has cost more time each."""
_LONGEST = 1.4
"""Of the time that was asked for, what the options may take it to."""
_ALWAYS_TRIED = 3
"""Options, even if it gets late: an answer is worth more than the time."""
_EPOCHS_FROM_MEMORY = 1.5
"""A run of fewer passes over the files reads most of them from the disk, whatever fits into memory."""
_MEMORY_SHARE = 0.7
"""Of the memory that is free, what the files may take so that all of them stay there."""
_SAME_MODEL = frozenset({"workers", "resize", "raw", "memory", "threads"})
_SAME_RATE = 0.97
"""Of two numbers of workers whose rates lie closer than this, the smaller is enough."""
_EXCLUSIVE = (frozenset({"resize", "raw", "memory"}), frozenset({"threads", "wait"}))
"""Kinds that do the same in another way: the better one is taken."""


@dataclass(slots=True)
class Course:
    """A trial of a run."""

    parts: Parts
    root: Path | None
    """The folder of the data, where they are files here that something else can be made of."""
    facts: MachineFacts
    seconds: int | float
    on_stage: Callable[[str], None]
    compile_trial: bool = False
    notes: list[str] = field(default_factory=list)
    tried: list[tuple[Option, Rate]] = field(default_factory=list)
    baselines: list[Rate] = field(default_factory=list)
    net: tuple[Option, Rate] | None = None
    """The next larger or smaller net of the family."""
    left_out: list[str] = field(default_factory=list)
    """Options for which there was no time."""
    smaller_per_second: float = 0.0
    """Images a second that can be made smaller on this machine."""
    _started: float = field(default_factory=time.perf_counter)
    _trainee: Trainee | None = None
    _batch: Batch | None = None
    _expected: float = 0.0
    """Images a second that may be read, for which files are dropped from the cache."""
    _turns: int = 0
    _cached: bool = True
    _whole_seconds: float = 0.0
    """What the latest measurement of the whole took, its start and the forgetting of files before it included."""

    @property
    def elapsed(self) -> float:
        """Seconds since the trial began."""
        return time.perf_counter() - self._started

    def _share(self, twentieths: int | float) -> float:
        return self.seconds * twentieths / 20

    def measure(self) -> Measured:
        """Return the rates of the stages and of the whole.

        Raises:
            DataError: no image can be read.
            ResnetsError: a worker died, or not even two images fit into the memory of the device.
        """
        self._started = time.perf_counter()
        split = self.parts.dataset.splits["train"]
        recipe_batch = self.parts.spec.global_batch // self.parts.spec.accumulation
        self.parts = with_spec(self.parts, global_batch=recipe_batch, accumulation=1)
        reading = again = decode_one = None
        memory = self.parts
        total_bytes = 0.0
        if isinstance(split, FileSplit):
            reading, again = self._read(split)
            total_bytes = reading.mean_bytes * len(split)
            self._cached = self._stays_in_memory(total_bytes, recipe_batch)
            kept = ImagesInMemory(reading.contents, len(split))
            memory = with_images(self.parts, dataclasses.replace(split, images=kept))
            self.on_stage("decoding on one core")
            few = with_spec(memory, global_batch=min(_PROBE_IMAGES, recipe_batch))
            decode_one = decoding_rate(few, self._share(0.7))
        self._trainee, batch, loaded = self._begin(memory, recipe_batch, reading, decode_one)
        self.parts, memory = with_spec(self.parts, global_batch=batch), with_spec(memory, global_batch=loaded)
        if isinstance(split, FileSplit) and reading is not None and self._cached:
            self.parts = with_images(self.parts, split.taken(np.sort(np.array(reading.indices, np.int64))))
        decode = transfer = None
        if isinstance(split, FileSplit):
            self.on_stage(f"decoding with {self._who}")
            # On the CPU, normalising is part of what decoding takes from the cores.
            on_cpu = self.parts.ranks.device.type == "cpu"
            decode = (loading_rate if on_cpu else host_rate)(memory, self._share(1.2))
            self._expected = decode.images_per_second
        self.on_stage("loading")
        loading = with_spec(self.parts, global_batch=loaded)
        load = loading_rate(loading, self._share(1.2), self._turn(loading))
        # Images in memory are on the device from the start.
        if isinstance(split, FileSplit) and self.parts.ranks.device.type != "cpu":
            self.on_stage("transfer to the device")
            transfer = transfer_rate(self.parts, self._share(0.3))
        self.on_stage("training step")
        model = self._step_rate(with_spec(memory, global_batch=batch), recipe_batch)
        self.on_stage("everything together")
        whole = self._whole_rate()
        self.baselines.append(whole)
        return Measured(
            images=len(split),
            total_bytes=total_bytes,
            batch=self.parts.spec.global_batch,
            recipe_batch=recipe_batch,
            workers=self.parts.workers if isinstance(split, FileSplit) else 0,
            threads=torch.get_num_threads(),
            device=self.parts.ranks.device.type,
            cores=_usable_cores(self.facts),
            cached=self._cached,
            read=None if reading is None else _rate(reading),
            read_again=None if again is None else _rate(again),
            mean_bytes=0.0 if reading is None else reading.mean_bytes,
            decode_one=decode_one,
            decode=decode,
            load=load,
            transfer=transfer,
            model=model,
            whole=whole,
            contents=() if reading is None else reading.contents,
        )

    def try_options(self, measured: Measured) -> None:
        """Measure the whole with one option after the other while there is time, then once more as it is.

        Where several help, all of them are measured together; that may take the trial past its time.
        """
        for option in self._options(measured):
            late = self.elapsed + 2 * self._whole_seconds > _LONGEST * self.seconds
            if late and len(self.tried) >= _ALWAYS_TRIED:
                self.left_out.append(option.label)
                continue
            self._try(option)
        if self.tried:
            self.on_stage("everything together, once more")
            assert self._trainee is not None
            self.baselines.append(self._training_rate(self.parts, self._trainee))
        helpful = self.best()
        together: list[Option] = []
        for option, _ in helpful:
            if not any({option.kind, other.kind} <= kinds for other in together for kinds in _EXCLUSIVE):
                together.append(option)
        if len(together) > 1:
            self._try(_together(together))
        if self.elapsed + self._whole_seconds < _LONGEST * self.seconds:
            self._try_net(measured)

    @property
    def baseline(self) -> float:
        """Images a second of the whole as it is: the most that was measured, as disturbances only take from it."""
        return max(rate.images_per_second for rate in self.baselines)

    @property
    def noise(self) -> float:
        """How far the measurements of the whole as it is lie apart, relative to the largest."""
        rates = [rate.images_per_second for rate in self.baselines]
        return (max(rates) - min(rates)) / max(self.baseline, 1e-9)

    def best(self) -> list[tuple[Option, Rate]]:
        """Return the options that help, one of each kind, the one that helps most first."""
        kinds: dict[str, tuple[Option, Rate]] = {}
        for option, rate in sorted(self.tried, key=_smaller_first):
            before = kinds.get(option.kind)
            if before is None or before[1].images_per_second < _SAME_RATE * rate.images_per_second:
                kinds[option.kind] = option, rate
        helpful = [pair for pair in kinds.values() if worth_it(pair[1].images_per_second / self.baseline, self.noise)]
        return sorted(helpful, key=lambda pair: -pair[1].images_per_second)

    @property
    def _who(self) -> str:
        return counted(self.parts.workers, "worker") if self.parts.workers else "no workers"

    @property
    def _readers(self) -> int:
        """How many read side by side: the workers, or without any the threads of the run's own process."""
        return self.parts.workers or torch.get_num_threads()

    def _read(self, split: FileSplit) -> tuple[Reading, Reading]:
        """Read some files from the disk, and once more."""
        self.on_stage("reading files")
        count = min(_MOST_READ, len(split))
        stream = training_stream(self.parts)
        numbers = stream.indices(np.arange(count, dtype=np.int64)).tolist()
        # By path: where few shards of a web server are here, their images come again under other numbers.
        chosen = list({split.images.path(number): number for number in numbers}.values())
        if not drop_from_cache(split.images, chosen):
            self.notes.append(
                "The files could not be dropped from memory before they were read; the disk may be slower."
            )
        readers = self._readers
        reading = read_images(split.images, chosen, readers=readers, seconds=self._share(1), at_least=_PROBE_IMAGES)
        if not reading.contents:
            raise DataError(
                f"None of {count} training images of {self.parts.dataset.name} can be read: is the data still there?"
            )
        if reading.unreadable:
            self.notes.append(f"Left out of every figure: {counted(reading.unreadable, 'image')} that cannot be read.")
        again = read_images(split.images, reading.indices, readers=readers, seconds=self._share(0.3))
        return reading, again

    def _stays_in_memory(self, total_bytes: float, batch: int) -> bool:
        epochs = self.parts.spec.steps * batch / max(1, len(self.parts.dataset.splits["train"]))
        free = self.facts.available_bytes
        return epochs > _EPOCHS_FROM_MEMORY and (free is None or total_bytes < _MEMORY_SHARE * free)

    def _begin(
        self, memory: Parts, recipe_batch: int, reading: Reading | None, decode_one: Rate | None
    ) -> tuple[Trainee, int, int]:
        """Return the net, and images a batch in training and in loading alone: several of them fit into the time."""
        self.on_stage("first steps")
        loaded = recipe_batch
        if reading is not None and decode_one is not None:
            one = 1 / max(decode_one.images_per_second, 1e-9)
            one += self._readers / max(reading.images_per_second, 1e-9)
            # A worker makes a batch alone; in the run's own process all threads work on the same one.
            at_once = 1 if memory.workers else self._readers
            loaded = _whole(min(self._share(_LOADING_SECONDS) * at_once / one, len(reading.indices)), recipe_batch)
        few = with_spec(memory, global_batch=min(_PROBE_IMAGES, recipe_batch))
        trainee = Trainee(few)
        if few.ranks.device.type != "cpu":
            return trainee, loaded, loaded
        probe = step_rate(few, trainee, first_batch(few), 0.1, warm_steps=1)
        return trainee, _whole(self._share(_STEP_SECONDS) * probe.images_per_second, loaded), loaded

    def _step_rate(self, memory: Parts, recipe_batch: int) -> Rate:
        """Measure the step; on an accelerator with the run's own batch, where fewer images would be too little work."""
        assert self._trainee is not None
        self._batch = first_batch(memory)
        resident = self._batch
        if memory.ranks.device.type != "cpu" and len(resident) < recipe_batch:
            resident = repeated(resident, recipe_batch)
        while (rate := self._if_it_fits(memory, self._trainee, resident)) is None:
            resident = repeated(resident, len(resident) // 2)
        self._take_at_most(len(resident))
        return rate

    def _if_it_fits(self, memory: Parts, trainee: Trainee, resident: Batch) -> Rate | None:
        try:
            return step_rate(memory, trainee, resident, self._share(1.5))
        except RuntimeError as error:
            self._free_memory(error, len(resident))
            return None

    def _whole_rate(self) -> Rate:
        """Measure the whole; images that were read ahead may take the memory that the step alone had left."""
        assert self._trainee is not None
        while True:
            batch = self.parts.spec.global_batch
            try:
                return self._training_rate(self.parts, self._trainee)
            except RuntimeError as error:
                self._free_memory(error, batch)
            self._take_at_most(batch // 2)

    def _free_memory(self, error: RuntimeError, images: int) -> None:
        """Note that passes of so many images do not fit into the memory of the device, and free what they held.

        Raises:
            RuntimeError: the error, where it is another one.
            ResnetsError: they were of a single image.
        """
        if not is_out_of_memory(error):
            raise error
        release(error)
        self.notes.append(
            f"A pass of {counted(images, 'image')} does not fit into the memory of {self.parts.ranks.device}: a larger "
            "--accumulation makes passes smaller."
        )
        if images < 2:
            raise ResnetsError(self.notes[-1]) from None

    def _take_at_most(self, images: int) -> None:
        """Let a pass of the whole have no more than so many images."""
        assert self._batch is not None
        if images < self.parts.spec.global_batch:
            self.parts = with_spec(self.parts, global_batch=images)
            self._batch = repeated(self._batch, images)

    def _turn(self, parts: Parts) -> int:
        """Return a first step whose images were not read before, dropped from the cache where it does not hold all."""
        if self._cached:
            return 0
        split, batch = parts.dataset.splits["train"], parts.spec.global_batch
        assert isinstance(split, FileSplit)
        first = self._turns * (len(split) // batch // 16)
        self._turns += 1
        count = min(2 * _MOST_READ, int(self._expected * self._share(4)) + 2 * batch)
        positions = np.arange(first * batch, first * batch + count, dtype=np.int64)
        drop_from_cache(split.images, training_stream(parts).indices(positions).tolist())
        return first

    def _options(self, measured: Measured) -> Iterator[Option]:
        """Yield what is worth a trial, the most promising first."""
        data, model = self._data_options(measured), self._model_options(measured)
        numbers = list(thread_options(self.parts, measured, self.facts))
        first, second = (model, data) if measured.limit == "model" else (data, model)
        if measured.shares_cores:
            yield from numbers[:1]
            del numbers[:1]
        yield from no_workers(measured)
        yield from first
        yield from waiting_options(measured, self.facts)
        yield from second
        yield from numbers

    def _data_options(self, measured: Measured) -> Iterator[Option]:
        # On cores that are shared, what decoding takes less the model has more.
        if is_data_idle(measured) or (measured.limit == "model" and not measured.shares_cores):
            return
        options = [
            option
            for option in data_options(self.parts, measured, self.facts)
            if self.root is not None or not option.prepare
        ]
        # More workers than cores help only where they wait, which decoding seldom does.
        if measured.limit == "decode" and self.parts.workers < self.facts.cores:
            yield from options[:1]
            del options[:1]
        yield from self._smaller_options(measured)
        yield from options

    def _smaller_options(self, measured: Measured) -> Iterator[Option]:
        shorter_px = shorter_side(self.parts)
        if shorter_px is None or self.root is None or is_raw(measured.contents):
            return
        self.on_stage("making images smaller")
        larger = are_larger(measured.contents, shorter_px)
        smaller = make_smaller(measured.contents, shorter_px, threads=self.facts.cores, seconds=self._share(1.5))
        self.smaller_per_second = smaller.images_per_second
        if smaller.encoded and larger:
            yield smaller_images(self.parts, smaller.encoded, shorter_px)
        if smaller.raw and measured.limit != "disk":
            yield smaller_images(self.parts, smaller.raw, shorter_px, raw=True)

    def _model_options(self, measured: Measured) -> Iterator[Option]:
        if not is_model_idle(measured):
            yield from model_options(self.parts, measured, self.facts, compile_trial=self.compile_trial)

    def _try(self, option: Option) -> None:
        if (rate := self._rate_if_possible(option)) is not None:
            self.tried.append((option, rate))

    def _rate_if_possible(self, option: Option) -> Rate | None:
        try:
            return self._rate_with(option)
        except Exception as error:  # no compiler, no memory for so many workers: the other options can still be tried
            reason = str(error) if isinstance(error, ResnetsError) else type(error).__name__
            self.notes.append(f"{option.label} could not be tried: {reason.rstrip('.')}.")
            return None

    def _try_net(self, measured: Measured) -> None:
        option = other_net(self.parts, larger=measured.limit != "model")
        if option is not None and (rate := self._rate_if_possible(option)) is not None:
            self.net = option, rate

    def _rate_with(self, option: Option) -> Rate:
        self.on_stage(option.label)
        assert self._trainee is not None
        assert self._batch is not None
        parts = option.change(self.parts)
        if option.environment:
            return rate_in_process(
                parts,
                self._share(1.8),
                first_step=self._turn(parts),
                threads=option.threads or torch.get_num_threads(),
                environment=dict(option.environment),
            )
        with threads(option.threads):
            same = set(option.kind.split("+")) <= _SAME_MODEL
            trainee = self._trainee if same else Trainee(parts)
            if not same or option.threads:
                step_rate(parts, trainee, in_layout(self._batch, parts.channels_last), 0.0)
            return self._training_rate(parts, trainee)

    def _training_rate(self, parts: Parts, trainee: Trainee) -> Rate:
        begun = time.perf_counter()
        rate = training_rate(parts, trainee, self._share(1.8), self._turn(parts))
        self._whole_seconds = time.perf_counter() - begun
        return rate


def _usable_cores(facts: MachineFacts) -> int:
    return facts.cores if facts.quota_cores is None else max(1, min(facts.cores, int(facts.quota_cores)))


def _whole(images: int | float, most: int) -> int:
    """Return a number of images a batch: the run's own, or that halved until it is no more than `images`."""
    batch = most
    while batch > max(images, _PROBE_IMAGES):
        batch = batch // 2
    return max(batch, min(most, _PROBE_IMAGES))


def _rate(reading: Reading) -> Rate:
    return Rate(images_per_second=reading.images_per_second, images=len(reading.indices), seconds=reading.seconds)


def _smaller_first(pair: tuple[Option, Rate]) -> tuple[int, float]:
    """Order numbers of workers from the fewest, so that the fewest that are enough are chosen."""
    option, rate = pair
    return (int(option.flags[0][1]), 0.0) if option.kind == "workers" else (0, -rate.images_per_second)


def _together(options: list[Option]) -> Option:
    """Return several options as one."""

    def change(parts: Parts) -> Parts:
        for option in options:
            parts = option.change(parts)
        return parts

    return Option(
        kind="+".join(option.kind for option in options),
        label=" + ".join(option.label for option in options),
        flags=tuple(flag for option in options for flag in option.flags),
        change=change,
        threads=max(option.threads for option in options),
        environment=tuple(variable for option in options for variable in option.environment),
        note="; ".join(option.note for option in options if option.note),
        prepare=tuple(command for option in options for command in option.prepare),
    )
