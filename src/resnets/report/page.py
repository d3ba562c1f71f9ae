"""The page: templates filled, every text escaped, in one file that asks nothing of any network."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
from contextlib import suppress
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from resnets.specs.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def render(view: Mapping[str, Any]) -> str:
    """Return the HTML of a view; strings in it are escaped, whatever they hold."""
    style = resources.files("resnets.report").joinpath("templates/report.css").read_text("utf-8")
    # The policy names the one style sheet by its hash, and allows no other and no script at all.
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    template = _environment().get_template("report.html.jinja")
    return template.render(view, style=Markup(style), style_hash=f"sha256-{digest}").lstrip()


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("resnets.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["lower_first"] = lambda text: text[:1].lower() + text[1:]
    # No line ends between a number and its sign.
    environment.filters["tight"] = lambda text: text.replace(" %", "\N{NO-BREAK SPACE}%")
    return environment


def write_page(path: Path, html: str) -> None:
    """Write the page so that the file is either the old one or complete.

    Raises:
        RunError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(html)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise RunError(
            f"The report {path} cannot be written: {error.strerror or error}. Name another with --out."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
