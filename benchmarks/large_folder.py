"""How long a folder of ImageNet's number of files takes to open, and what its workers' memory does over epochs.

    python benchmarks/large_folder.py --folder /tmp/million --out benchmarks/results/DATE-HARDWARE-large-folder.json

The folder is made where it is missing: 1,281,167 JPEG files of 32 x 32 pixels in 1,000 classes, and 50,000 for
validation (7 GB of blocks). It is opened in fresh processes: with the operating system's caches dropped (as root; else
said to be warm), once more with nothing kept by us, and then from what the first start kept. After that, batches of it
are read by worker processes through some epochs; the memory that each worker has of its own (not shared with the
others) is looked at several times an epoch.

What was learned: the names as Python strings and paths cost 400 MB, and every worker came to have its own copy of
them, since counting a reference writes to its page; packed into one string of bytes they cost 60 MB, shared. Each
epoch's permutation is 10 MB a worker; those of past epochs have to be let go. The first full garbage collection, in the
third epoch, wrote to all objects that a worker had inherited: 37 MB more, until they were frozen.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image

from resnets.artifacts.run_directory import environment, write_json

CLASSES = 1_000
IMAGES = {"train": 1_281_167, "val": 50_000}
LOOKS_AN_EPOCH = 8
BATCH = 256
OPEN = """
import json, sys, time
from pathlib import Path
began = time.perf_counter()
from resnets.data.open import open_folder
from resnets.specs.data import ImageFolder
imported = time.perf_counter()
dataset = open_folder(ImageFolder(), Path(sys.argv[1]))
opened = time.perf_counter()
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps({
    "images": {name: len(split) for name, split in dataset.splits.items()},
    "import_seconds": imported - began,
    "open_seconds": opened - imported,
    "peak_mb": int(status["VmHWM"].split()[0]) / 1e3,
}))
"""


def make(folder: Path, share: float) -> None:
    """Write the folder."""
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "gray").save(file, "JPEG")
    for split, count in IMAGES.items():
        for label in range(CLASSES):
            place = folder / split / f"n{label:08}"
            place.mkdir(parents=True)
            for number in range(int(share * (count + label) / CLASSES)):
                (place / f"n{label:08}_{number}.JPEG").write_bytes(file.getvalue())


def opened(folder: Path, kept: Path, *, cold: bool) -> dict[str, Any]:
    """Return what a fresh process says of opening the folder; `kept` is where it keeps its listing."""
    if cold:
        os.sync()
        try:
            Path("/proc/sys/vm/drop_caches").write_text("3")
        except OSError:
            cold = False
    command = [sys.executable, "-c", OPEN, str(folder)]
    answer = subprocess.run(
        command, env=os.environ | {"RESNETS_DATA_ROOT": str(kept)}, check=True, capture_output=True, text=True
    ).stdout
    return json.loads(answer) | {"caches": "dropped" if cold else "warm"}


def private_mb(process: int) -> float:
    """Return the memory of a process that no other shares, in megabytes."""
    fields = dict(line.split(":") for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:])
    # Pages of programs and libraries are clean, and become private when another process that has them ends.
    return int(fields["Private_Dirty"].split()[0]) / 1e3


def memory(folder: Path, epochs: int, workers: int) -> dict[str, Any]:
    """Return the private memory of the workers, several times an epoch."""
    import torch

    from resnets.data.batches import training_batches
    from resnets.data.open import open_folder
    from resnets.data.preprocess import preprocess_for
    from resnets.specs.catalogue import model_spec
    from resnets.specs.data import AreaCrop, ImageFolder
    from resnets.specs.run import TrainSpec

    torch.set_num_threads(1)
    spec = TrainSpec(
        model=model_spec("resnet18"),
        dataset=ImageFolder(image_px=16, resize_px=18),
        augment=AreaCrop(),
        global_batch=BATCH,
    )
    train = open_folder(spec.dataset, folder).splits["train"]
    preprocessor = preprocess_for(spec.dataset, train)
    stream = training_batches(
        train, preprocessor, spec, device=torch.device("cpu"), channels_last=True, workers=workers
    )
    batches = stream.batches(0)
    steps = len(train) // BATCH
    looks = []
    began = time.perf_counter()
    for step in range(epochs * steps):
        next(batches)
        if step % (steps // LOOKS_AN_EPOCH) == steps // (2 * LOOKS_AN_EPOCH):
            each = [private_mb(process.pid) for process in multiprocessing.active_children() if process.pid]
            looks.append({"epoch": step / steps, "private_mb": [round(one, 1) for one in each]})
    seconds = time.perf_counter() - began
    stream.close()
    by_epoch = [
        median(sum(look["private_mb"]) / workers for look in looks if int(look["epoch"]) == epoch)
        for epoch in range(epochs)
    ]
    return {
        "epochs": epochs,
        "workers": workers,
        "images_per_second": epochs * steps * BATCH / seconds,
        "private_mb_a_worker_by_epoch": by_epoch,
        "looks": looks,
    }


def main() -> None:
    """Measure and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--what", choices=("all", "starts", "memory"), default="all")
    parser.add_argument("--share", type=float, default=1.0, help="of ImageNet's number of files")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if not given.folder.exists():
        make(given.folder, given.share)
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as kept, tempfile.TemporaryDirectory() as other:
        if given.what != "memory":
            report["starts"] = [
                {"start": "first", **opened(given.folder, Path(kept), cold=True)},
                {"start": "second, kept listing", **opened(given.folder, Path(kept), cold=True)},
                {"start": "third, kept listing", **opened(given.folder, Path(kept), cold=False)},
                {"start": "nothing kept", **opened(given.folder, Path(other), cold=False)},
            ]
        if given.what != "starts":
            os.environ["RESNETS_DATA_ROOT"] = kept
            report["memory"] = memory(given.folder, given.epochs, given.workers)
    report |= {"command": sys.argv, "environment": environment()}
    print(json.dumps(report | {"environment": None}, indent=1))
    if given.out:
        write_json(given.out, report)


if __name__ == "__main__":
    main()
