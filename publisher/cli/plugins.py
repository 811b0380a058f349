"""``publisher plugins``: what is installed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from publisher.cli import output
from publisher.errors import UsageError
from publisher.program import command
from publisher.registry import Contribution, Registry, load_registry
from publisher.scaffold import KINDS, REGISTERED, name_of, plugin_files
from publisher.text import printable


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def plugins(ctx: click.Context, *, as_json: bool) -> None:
    """List what is installed, where it comes from, and what was set aside.

    \b
    Examples:
      publisher plugins
      publisher plugins --json
      publisher plugins show erase
      publisher plugins new publisher-dampen --kind step
    """
    if ctx.invoked_subcommand is None:
        registry = load_registry()
        if as_json:
            output.document(as_data(registry))
        else:
            output.result(as_text(registry))


@plugins.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def show(name: str, *, as_json: bool) -> None:
    """Show one contribution: what it is for, its origin, its parameters.

    \b
    Examples:
      publisher plugins show erase
      publisher plugins show concept-rate --json
    """
    registry = load_registry()
    found = [entry for entry in registry.contributions if entry.name == name]
    if not found:
        kinds = sorted({entry.name for entry in registry.contributions})
        raise click.UsageError(f"nothing is called {name!r}. Installed: {', '.join(kinds)}.")
    data = [_details(entry) for entry in found]
    if as_json:
        output.document(data)
    else:
        output.result("\n\n".join(_details_text(entry) for entry in data))


@plugins.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--kind", type=click.Choice(list(KINDS)), required=True, help="What it is to be.")
@click.option("--name", help="What manifests call it.  [default: DIR's, without publisher-]")
def new(*, folder: Path, kind: str, name: str | None) -> None:
    """Write a new plugin into DIR: four small files that work as they are, one of them its tests.

    A file that is there is never overwritten.

    \b
    Examples:
      publisher plugins new publisher-dampen --kind step
      publisher plugins new my-plugin --kind scorer --name brightness
    """
    name = name or name_of(folder.resolve().name)
    texts = plugin_files(kind, name)
    registered = REGISTERED.get(kind, kind)
    if name in load_registry().names(registered):
        raise UsageError(
            f"an installed plugin provides the {kind} {name!r} already", where="--name", hint="Choose another name."
        )
    there = [path for path in texts if (folder / path).exists()]
    if there:
        raise UsageError(f"{there[0]} is there already", where=str(folder), hint="Give another folder.")
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with (folder / path).open("x", encoding="utf-8") as file:
            file.write(text)
    output.result("\n".join(str(folder / path) for path in texts))
    place = shlex.quote(str(folder))
    output.note(
        f"\nInstall it:  pip install -e {shlex.quote(f'{folder}[test]')}\nTest it:     pytest {place}\n"
        f"See it:      {command(f'plugins show {name}')}"
    )


def as_data(registry: Registry) -> dict[str, Any]:
    """Return the registry as JSON data."""
    return {
        "plugins": [{**entry.record().as_json(), "summary": entry.summary} for entry in registry.contributions],
        "set_aside": set_aside(registry),
        "collisions": [
            {"kind": kind, "name": name, "origins": [entry.origin.as_json() for entry in entries]}
            for (kind, name), entries in registry.collisions().items()
        ],
    }


def set_aside(registry: Registry) -> list[dict[str, Any]]:
    """Return the plugins that cannot be used as JSON data: origin and reason."""
    return [
        {"plugin": broken.plugin, "origin": broken.origin.as_json(), "reason": broken.reason}
        for broken in registry.broken
    ]


def aside_line(broken: dict[str, Any]) -> str:
    """Return one line about a plugin that cannot be used."""
    origin = broken["origin"]
    place = f"{origin['module']} of {origin['distribution']}"
    return printable(f"set aside: {broken['plugin']} ({place}): {broken['reason']}")


def as_text(registry: Registry) -> str:
    """Return the registry as a table, with what was set aside below it."""
    header = ("kind", "name", "version", "from", "what it does")
    rows = [
        (entry.kind, entry.name, entry.version, f"{entry.origin.distribution} {entry.origin.version}", entry.summary)
        for entry in registry.contributions
    ]
    lines = _table([header, *(tuple(map(printable, row)) for row in rows)])
    lines += map(aside_line, set_aside(registry))
    for (kind, name), entries in registry.collisions().items():
        origins = " and ".join(entry.place for entry in entries)
        lines.append(printable(f"collision: {kind} {name!r} is provided by {origins}; neither can be used"))
    return "\n".join(lines)


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _details(entry: Contribution) -> dict[str, Any]:
    params = getattr(entry.cls, "Params", None)
    data = {**entry.record().as_json(), "summary": entry.summary, "description": (entry.cls.__doc__ or "").strip()}
    if params is not None:
        data["parameters"] = params.model_json_schema()
    return data


def _details_text(data: dict[str, Any]) -> str:
    origin = data["origin"]
    lines = [f"{data['kind']} {data['name']} {data['version']}: {data['summary']}", ""]
    lines += [*data["description"].splitlines(), ""]
    lines.append(f"from {origin['distribution']} {origin['version']}, {origin['module']}, sha256 {origin['digest']}")
    parameters = data.get("parameters", {}).get("properties", {})
    if parameters:
        lines += ["", "parameters:", *_parameters(parameters.items())]
    return "\n".join(map(printable, lines))


def _parameters(items: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    lines = []
    for name, schema in items:
        default = f" (default: {json.dumps(schema['default'])})" if "default" in schema else ""
        lines.append(f"  {name}{default}")
        lines += [f"      {line}" for line in schema.get("description", "").splitlines()]
    return lines
