"""``publisher init``: write a first manifest."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from publisher.cli import output
from publisher.errors import UsageError
from publisher.program import command

FILE = "manifest.yaml"
MODELS = "A diffusers folder, hf:org/name@COMMIT, or embedded:emoji."


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path(), metavar="[DIR]")
@click.option(
    "--model",
    default="embedded:emoji",
    show_default=True,
    help=MODELS,
)
@click.option(
    "--step",
    "steps",
    multiple=True,
    metavar="NAME",
    help="A step; can be given several times.  [default: erase]",
)
def init(*, folder: Path, model: str, steps: tuple[str, ...]) -> None:
    """Write DIR/manifest.yaml, about a dozen lines; everything else is a default.

    A model that is a folder is looked at. A file that is there is never overwritten.

    \b
    Examples:
      publisher init demo
      publisher init demo --model ./stable-diffusion-v1-5 --step erase --step immunize
    """
    from publisher.engine.plan import locate_model
    from publisher.manifest.nearest import suggestion
    from publisher.manifest.starter import release_name, starter
    from publisher.registry import load_registry

    path = folder / FILE
    if path.exists():
        raise UsageError(
            "there is a manifest already", where=str(path), hint=f"Give another folder: {command('init DIR')}"
        )
    registry = load_registry()
    known = registry.names("step")
    for step in steps:
        if step not in known:
            raise UsageError(
                f"no plugin provides the step {step!r}", where="--step", hint=suggestion(step, known, "Steps")
            )
    problem = registry.catalog().source_problem(model)
    if problem:
        raise UsageError(problem, where="--model", hint=MODELS)
    found = locate_model(model, registry, Path(), fetch=False)
    defaults = registry.catalog().model_defaults(model)
    local = found is not None and found.source.name == "folder"
    reference = _seen_from(folder, Path(model.removeprefix("folder:"))) if local else model
    name = defaults.release or release_name(Path(model.partition("@")[0].rstrip("/")).name)
    release = command(f"release {shlex.quote(str(path))} --throwaway-key")
    chosen = {step: registry.get("step", step).cls.summary for step in dict.fromkeys(steps or ("erase",))}
    text = starter(name, reference, defaults, chosen)
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
    output.result(str(path))
    output.note(f"\nSee what it will do:  {command(f'plan {shlex.quote(str(path))}')}\nDo it:                {release}")


def _seen_from(folder: Path, model: Path) -> str:
    """Return the path of a model as a manifest in ``folder`` names it."""
    seen = Path(os.path.relpath(model.expanduser().resolve(), folder.resolve())).as_posix()
    return seen if seen.startswith(".") else f"./{seen}"
