"""Models on the Hugging Face Hub, or a server with its interface: one revision of the few files that a net needs.

```
CACHE/hub/OWNER/NAME/REVISION/
  source.json                address, commit, licence, checksums and sizes, as the hub stated them
  config.json                and, where there is one, preprocessor_config.json or mean_image.safetensors
  model.safetensors
  FILE.verified              what FILE was when its checksum was found right
```

No name in the hub's answer becomes a path: files are taken from a fixed list, and revisions are quoted. Where there is
a source.json, no file is used that has another checksum, whoever put it there; where there is none, nothing is said
about where the files come from.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import urllib.parse
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from resnets.data.download import DownloadError, StderrProgress, download_once, read_url
from resnets.specs.errors import DataError, ModelError, UserError

if TYPE_CHECKING:
    from pathlib import Path

    from resnets.data.download import Progress

PUBLIC_ENDPOINT = "https://huggingface.co"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
OPTIONAL = ("preprocessor_config.json", "mean_image.safetensors")
_REQUIRED = (CONFIG, WEIGHTS)
_FILES = (CONFIG, *OPTIONAL, WEIGHTS)
RECORD = "source.json"
LARGEST_WEIGHTS_BYTES = 8 << 30
"""More than any net of the paper's family has; the largest, VGG-19, has 0.6 GB."""

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_ID = re.compile(rf"({_PART})/({_PART})(?:@([\w./+-]{{1,200}}))?", re.ASCII)
_FOLDER_CHARACTERS = 200
_JSON_BYTES = 16 << 20
_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}|git:[0-9a-f]{40}")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")


@dataclass(frozen=True, kw_only=True, slots=True)
class HubModel:
    """What the hub says about one revision of a model."""

    address: str
    """Its page."""
    commit: str
    """40 hexadecimal digits."""
    licence: str
    """Of the model card; empty where it states none."""
    checksums: dict[str, str]
    """Of the files that are taken: sha256:… or git:…."""
    sizes: dict[str, int]
    """Of the same files, in bytes at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """The files of one revision, complete, on this machine."""

    folder: Path
    model: HubModel | None
    """What the hub says about these very files; None where they were put there without its word."""

    def digest(self) -> str:
        """Return 64 hexadecimal digits that differ for other files, and for another origin."""
        if self.model is not None:
            stated = asdict(self.model)
        else:
            stated = {file: _sha256(self.folder / file) for file in _FILES if (self.folder / file).is_file()}
        return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def fetch_snapshot(name: str, cache: Path, *, on_progress: Progress | None = None) -> Snapshot:
    """Return the files of `OWNER/NAME[@REVISION]`; they are downloaded once, and then no request is made.

    The server is $HF_ENDPOINT, else huggingface.co; $HF_TOKEN, where it is set, is sent to it alone. The revision is
    a branch (main where none is given), a tag or a commit; what it stood for at the first download is kept.

    Args:
        name: the model on the hub.
        cache: folder of all hubs' models.
        on_progress: told of the bytes of the weights; None shows them on stderr.

    Raises:
        ModelError: there is no such model, its weights are not in safetensors, or it cannot be had now; then the
            message says what to put where.
        DataError: a file is larger or has another checksum than the hub states, or cannot be written.
    """
    match = _ID.fullmatch(name)
    quoted = urllib.parse.quote((match and match[3]) or "main", safe="")
    if match is None or ".." in name or quoted.startswith(".") or len(quoted) > _FOLDER_CHARACTERS:
        raise ModelError(
            f"hf-hub:{printable(name)} names no model; the form is hf-hub:OWNER/NAME or hf-hub:OWNER/NAME@REVISION."
        )
    owner, repository, revision = match[1], match[2], match[3] or "main"
    folder = cache / "hub" / owner / repository / quoted
    model = _read_record(folder / RECORD)
    if all((folder / file).is_file() for file in (_REQUIRED if model is None else model.checksums)):
        if model is not None:
            _fetch_files(model, folder, on_progress)
        return Snapshot(folder=folder, model=model)
    # A download that was broken off goes on with its revision, unless another server is asked now.
    if model is not None and model.address != f"{_endpoint()}/{owner}/{repository}":
        model = None
    try:
        if model is None:
            model = _ask(f"{owner}/{repository}", revision)
            _write_record(folder / RECORD, model)
        _fetch_files(model, folder, on_progress)
    except DownloadError as error:
        raise _explained(error, f"{owner}/{repository}", model.commit if model else quoted, folder) from error
    return Snapshot(folder=folder, model=model)


def _fetch_files(model: HubModel, folder: Path, on_progress: Progress | None) -> None:
    """Download the files that are not there, and verify those that are."""
    origin = f"{model.address} at {model.commit[:12]}"
    otherwise = f"or remove {folder / RECORD}, and the files are used without a word about their origin."
    for file in _FILES:
        path = folder / file
        if file not in model.checksums:
            if path.exists():
                raise DataError(f"{path} is none of the files of {origin}; remove it, {otherwise}")
            continue
        show = on_progress
        if show is None and file == WEIGHTS:
            show = StderrProgress(model.address.rpartition("/")[2])
        download_once(
            f"{model.address}/resolve/{model.commit}/{file}",
            path,
            checksum=model.checksums[file],
            advice=f"Put that of {origin} in its place, {otherwise}",
            limit_bytes=model.sizes[file],
            on_progress=show if file == WEIGHTS else None,
            authorization=_authorization(),
        )


def _ask(name: str, revision: str) -> HubModel:
    """Return what the hub says about a revision, checked."""
    endpoint = _endpoint()
    url = f"{endpoint}/api/models/{name}/revision/{urllib.parse.quote(revision, safe='')}?blobs=true"
    try:
        answer = json.loads(read_url(url, limit_bytes=_JSON_BYTES, authorization=_authorization()))
        commit, siblings = answer["sha"], answer["siblings"]
        files = {str(sibling["rfilename"]): sibling for sibling in siblings}
        card = answer.get("cardData") or {}
        licence = _licence(card, answer.get("tags") or [])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{url} does not answer as a model hub does; $HF_ENDPOINT is {endpoint}.") from error
    if not _is_digest(commit, 40):
        raise ModelError(f"{url} states no commit; the files of {name} cannot be identified.")
    if WEIGHTS not in files or CONFIG not in files:
        raise _unusable(f"{endpoint}/{name}", files)
    wanted = [file for file in _FILES if file in files]
    return HubModel(
        address=f"{endpoint}/{name}",
        commit=commit,
        licence=licence,
        checksums={file: _checksum(url, file, files[file]) for file in wanted},
        sizes={file: _size(url, file, files[file]) for file in wanted},
    )


def _checksum(url: str, file: str, sibling: dict[str, Any]) -> str:
    # A large file is kept outside git, where only its SHA-256 names the content.
    stored = sibling.get("lfs")
    if isinstance(stored, dict) and _is_digest(stored.get("sha256"), 64):
        return f"sha256:{stored['sha256']}"
    if not stored and _is_digest(sibling.get("blobId"), 40):
        return f"git:{sibling['blobId']}"
    raise ModelError(f"{url} states no checksum of {file}; it is not downloaded.")


def _size(url: str, file: str, sibling: dict[str, Any]) -> int:
    """Return how many bytes of a file are taken at most: those that the hub states, if it does."""
    if file.endswith(".json"):
        return _JSON_BYTES
    stored = sibling.get("lfs")
    stated = (stored if isinstance(stored, dict) and "size" in stored else sibling).get("size", LARGEST_WEIGHTS_BYTES)
    if not _is_size(stated):
        raise ModelError(
            f"{url} states {printable(repr(stated))[:40]} as the size of {file}; it is a number of bytes up to "
            f"{LARGEST_WEIGHTS_BYTES}. It is not downloaded."
        )
    return stated


def _is_size(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST_WEIGHTS_BYTES


def _licence(card: dict[str, Any], tags: list[Any]) -> str:
    stated = card.get("license")
    parts = [str(part) for part in (stated if isinstance(stated, list) else [stated]) if part]
    parts = parts or [tag.removeprefix("license:") for tag in tags if str(tag).startswith("license:")]
    # "other" is explained by a name and a link.
    parts += [str(card[field]) for field in ("license_name", "license_link") if card.get(field)]
    return printable(", ".join(parts))


def printable(text: str) -> str:
    """Return one line of at most 300 characters, without those that could steer a terminal."""
    return "".join(letter for letter in text if letter.isprintable())[:300]


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _is_digest(value: object, digits: int) -> bool:
    return isinstance(value, str) and re.fullmatch(rf"[0-9a-f]{{{digits}}}", value) is not None


def _unusable(address: str, files: dict[str, Any]) -> ModelError:
    pickled = [file for file in files if file.endswith(_PICKLED)]
    if WEIGHTS in files or not pickled:
        missing = " and ".join(file for file in (CONFIG, WEIGHTS) if file not in files)
        return ModelError(f"{address} has no {missing}; that is not a model that can be loaded by name.")
    return ModelError(
        f"{address} has its weights as {printable(', '.join(pickled[:3]))} only. Of a hub, only {WEIGHTS} is loaded, "
        "since other formats can execute code; download the file and use `resnets convert`."
    )


def _endpoint() -> str:
    endpoint = (os.environ.get("HF_ENDPOINT") or PUBLIC_ENDPOINT).rstrip("/")
    parts = urllib.parse.urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UserError(f"$HF_ENDPOINT is {endpoint!r}; it is the address of a server, such as {PUBLIC_ENDPOINT}.")
    return endpoint


def _authorization() -> str:
    token = (os.environ.get("HF_TOKEN") or "").strip()
    if not token:
        return ""
    if not re.fullmatch(r"[!-~]+", token):
        raise UserError("$HF_TOKEN holds characters that no token has; copy it again, or unset it.")
    return f"Bearer {token}"


def _explained(error: DownloadError, name: str, revision: str, folder: Path) -> ModelError:
    page = f"{_endpoint()}/{name}/tree/{revision}"
    if error.status in (401, 403, 404):
        token = "the token in $HF_TOKEN does not open it" if _authorization() else "it needs a token in $HF_TOKEN"
        tag = " timm's names end with the tag of the weights, as in timm:resnet50.a1_in1k." if "timm/" in name else ""
        return ModelError(
            f"{page} cannot be read (answer {error.status}): there is no such model or revision, or {token}.{tag}"
        )
    return ModelError(
        f"hf-hub:{name} is not on this machine, and {error} Without network, put {CONFIG} and {WEIGHTS} "
        f"(and {' and '.join(OPTIONAL)}, where they are) of {page} into {folder}; `sha256sum {WEIGHTS}` is then to "
        "print the SHA-256 that the hub shows for it."
    )


def _read_record(path: Path) -> HubModel | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        model = HubModel(**values)
        sound = isinstance(model.address, str) and isinstance(model.licence, str) and _is_digest(model.commit, 40)
        sound = sound and set(_REQUIRED) <= model.checksums.keys() <= set(_FILES)
        sound = sound and all(_CHECKSUM.fullmatch(checksum) for checksum in model.checksums.values())
        sound = sound and model.sizes.keys() == model.checksums.keys() and all(map(_is_size, model.sizes.values()))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    return model if sound else None


def _write_record(path: Path, model: HubModel) -> None:
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(asdict(model), indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}. $RESNETS_CACHE names another folder."
        ) from error
