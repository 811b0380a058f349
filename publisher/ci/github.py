"""GitHub Actions: annotations in the log, and the outputs of a step."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from publisher.ci.annotations import Annotation
from publisher.errors import PublisherError
from publisher.report.wording import visible

COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}
"""Level -> command of the log."""
OUTPUTS = "GITHUB_OUTPUT"
"""Environment variable that names the file for a step's outputs."""


def annotate(annotations: Iterable[Annotation]) -> bytes:
    """Return one line for each annotation, such as ``::error file=manifest.yaml,line=14,title=small: kept::too low``.

    What is waived stands there as a notice that says so. Nothing in a foreign text can end its line or begin another
    command.
    """
    return "".join(f"{_line(one)}\n" for one in annotations).encode()


def _line(one: Annotation) -> str:
    site = one.site
    places = {"file": site.file, "line": site.line, "col": site.column} if site else {}
    properties = [f"{name}={_property(str(value))}" for name, value in places.items() if value is not None]
    properties.append(f"title={_property(_shown(one.title))}")
    command = "notice" if one.waived else COMMANDS[one.level]
    text = f"WAIVED ({one.waived}): {one.message}" if one.waived else one.message
    return f"::{command} {','.join(properties)}::{_data(_shown(text))}"


def _shown(text: str) -> str:
    return "\n".join(visible(line) for line in text.splitlines())


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def write_outputs(values: Mapping[str, str]) -> None:
    """Add outputs to the file that ``GITHUB_OUTPUT`` names; without the variable there is nobody to tell.

    Raises:
        PublisherError: the file cannot be written.
    """
    path = os.environ.get(OUTPUTS)
    if not path:
        return
    text = "".join(_output(name, value) for name, value in values.items())
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise PublisherError(f"the outputs of this step cannot be written: {error.strerror}", where=OUTPUTS) from error


def _output(name: str, value: str) -> str:
    """Return one output; a value of several lines between two marks that it cannot hold."""
    if not {"\n", "\r"} & set(value):
        return f"{name}={value}\n"
    mark = f"publisher-{uuid.uuid4()}"
    return f"{name}<<{mark}\n{value}\n{mark}\n"
