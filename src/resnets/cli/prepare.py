"""`resnets prepare`: a folder of images into shards."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from resnets.cli import flags
from resnets.specs.errors import counted
from resnets.specs.visible import in_line, json_text

if TYPE_CHECKING:
    from resnets.data.shard_index import ShardIndex

DESCRIPTION = """\
Make shards of a folder of images: tar files of thousands of images each, in WebDataset's layout, with an index and
checksums. They are copied, stored and read faster than a million small files, from a disk or a web server, and --data
takes them where it takes the folder. Copied as they are, the images give bit for bit the same training run;
resized, they take a fraction of the bytes and of the time to decode. Interrupted, the same command goes on.
"""
EPILOG = """\
examples:
  resnets prepare photos/ shards/                            every file as it is
  resnets prepare imagenet/ imagenet-256/ --resize 256       shorter side 256, JPEG of quality 95
  resnets prepare imagenet/ imagenet-raw/ --resize 256 --raw pixels: many more bytes, next to no decoding
  resnets train folder.scratch --data shards/
  resnets train imagenet.resnet50 --data https://server/imagenet-256 --dataset.shuffle-shards 16
"""


def main(arguments: list[str]) -> int:
    """Make the shards that `arguments` describe."""
    parser = _parser()
    given = parser.parse_args(arguments)
    for name, text in (("SRC", given.source), ("DST", given.destination)):
        if not text.strip():
            parser.error(f"{name} is empty; it is a path")
    if given.resize == 0:
        parser.error("--resize is 0; without it every size is kept")
    if given.quality is not None and (given.raw or not given.resize):
        parser.error("--quality is of JPEG, which is only written with --resize and without --raw")
    from resnets import api

    # Unlike Path's, no error where the name is too long: that is said when it is written.
    finished_before = os.path.isfile(Path(given.destination).expanduser() / "shards.json")  # noqa: PTH113
    index = api.prepare(
        given.source,
        given.destination,
        resize_px=given.resize or 0,
        raw=given.raw,
        quality=95 if given.quality is None else given.quality,
        shard_mb=given.shard_mb,
        workers=given.workers,
        quiet=given.quiet,
    )
    if given.json:
        print(json_text(_report(given.destination, index)))
    else:
        if finished_before:
            print(
                in_line(
                    f"{given.destination} was finished before, and is left as it is; where images have changed since, "
                    "remove it and run the command again"
                )
            )
        _print_result(given.destination, index)
    return 0


def _parser() -> flags.Parser:
    parser = flags.Parser("prepare", DESCRIPTION, "SRC DST [options]", EPILOG)
    parser.add_argument("source", metavar="SRC", help="a folder of images or shards, or shards' address")
    parser.add_argument("destination", metavar="DST", help="a new folder for the shards")
    group = parser.add_argument_group("what becomes of the images")
    group.add_argument("--resize", type=int, metavar="PX", help="shorter side of the larger images")
    group.add_argument("--raw", action="store_true", help="store pixels (.npy) instead of JPEG")
    group.add_argument("--quality", type=int, metavar="N", help="of JPEG, 1 to 100 (95)")
    group.add_argument("--shard-mb", type=int, default=128, metavar="N", help="megabytes a shard (128)")
    group = parser.add_argument_group("machine (changes the speed, not the result)")
    group.add_argument("--workers", type=int, default=-1, metavar="N", help="processes that decode; -1: one a core")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    flags.add_json(parser)
    return parser


def _report(destination: str, index: ShardIndex) -> dict[str, object]:
    return {
        "shards": destination,
        "images": index.images,
        "bytes": sum(shard.bytes for shard in index.shards),
        "files": len(index.shards),
        "splits": {split: sum(classes.values()) for split, classes in index.splits.items()},
        "classes": len({name for classes in index.splits.values() for name in classes}),
        "left_out": [{"path": path, "reason": reason} for path, reason in index.left_out.items()],
    }


def _print_result(destination: str, index: ShardIndex) -> None:
    size = sum(shard.bytes for shard in index.shards)
    splits = ", ".join(f"{sum(classes.values()):,} {split}" for split, classes in index.splits.items())
    print(
        in_line(
            f"{destination}: {counted(index.images, 'image')} in {counted(len(index.shards), 'shard')}, {_size(size)}"
        )
    )
    print(f"  {splits}")
    for path, reason in list(index.left_out.items())[:5]:
        print(in_line(f"  left out: {path}: {reason}"))
    if len(index.left_out) > 5:
        print(f"  and {len(index.left_out) - 5:,} more, which --json and the index name")
    print(in_line(f"train on it with --data {shlex.quote(destination)}"))


def _size(count: int) -> str:
    """Return a number of bytes as people say it.

    >>> _size(999), _size(2_340_000), _size(140_000_000_000)
    ('999 B', '2.34 MB', '140 GB')
    """
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"
