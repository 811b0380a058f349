"""Write the reference pages that are made from the code; ``--check`` says which are out of date.

python docs/make_reference.py
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable
from enum import Enum
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import click

import publisher
from publisher import api, auditing, errors, testing
from publisher.api import (
    Params,
    choosing,
    evidence,
    freeze_mask,
    hookspecs,
    intervals,
    loading,
    membranes,
    presets,
    words,
)
from publisher.api.diffusion import checkpoints, ddim, denoiser, euler, latents, learner, loop, sampling, text, threads
from publisher.api.families import NEEDS
from publisher.cli import main
from publisher.safeguards.freeze_mask.audit.records import Audit
from publisher.safeguards.freeze_mask.guard.guard import Guard
from publisher.safeguards.membranes.attached import Attached, Scored
from publisher.testing.battery import rules_of
from publisher.testing.plugin import PluginUnderTest

REFERENCE = Path(__file__).parent / "reference"
MADE = "<!-- Made by docs/make_reference.py from the code; do not edit. -->\n\n"


def cli_page() -> str:
    """Return every command's help, as it prints."""
    parts = [f"{MADE}# Command line\n", _help(main, "publisher")]
    for name in main.list_commands(click.Context(main)):
        command = main.get_command(click.Context(main), name)
        assert command is not None  # noqa: S101  # listed above
        parts += [f"## publisher {name}\n", _help(command, f"publisher {name}")]
        if isinstance(command, click.Group):
            parts += [
                f"### publisher {name} {sub}\n\n{_help(inner, f'publisher {name} {sub}')}"
                for sub, inner in sorted(command.commands.items())
            ]
    return "\n".join(parts)


def _help(command: click.Command, path: str) -> str:
    context = click.Context(
        command, info_name=path, terminal_width=100, max_content_width=100, help_option_names=["-h", "--help"]
    )
    command._help_option = None  # noqa: SLF001 - click keeps that of the context which asked first
    return f"```text\n{command.get_help(context).rstrip()}\n```\n"


def exit_codes_page() -> str:
    """Return the exit codes with their meaning."""
    lines = [
        f"{MADE}# Exit codes\n",
        "The same for every command; the output format never changes the code. Nothing measured is never 0.\n",
        "| code | name | meaning |",
        "|---|---|---|",
    ]
    words = _attribute_docstrings(errors.ExitCode)
    lines += [f"| {code.value} | `{code.name}` | {words[code.name]} |" for code in errors.ExitCode]
    return "\n".join(lines) + "\n"


def _attribute_docstrings(cls: type) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
    found = {}
    for statement, following in pairwise(body):
        if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(following, ast.Expr):
            target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
            if isinstance(target, ast.Name) and isinstance(following.value, ast.Constant):
                found[target.id] = " ".join(str(following.value.value).split())
    return found


def hooks_page() -> str:
    """Return every hook with its signature and docstring."""
    parts = [
        f"{MADE}# Hooks\n",
        "A plugin is a module behind an entry point of the group `publisher`. It marks its implementations with",
        "`publisher.api.hookimpl`. Order comes from the manifest, never from registration; hook wrappers are refused;",
        "a plugin that cannot be loaded is a line in `publisher plugins`. How to write one:",
        "[a step](../plugins/write-a-step.md), [the other kinds](../plugins/other-plugins.md).\n",
    ]
    for name, hook in hooks():
        parts += [f"## {name}{_signature(hook)}\n", _markdown(hook.__doc__), ""]
    return "\n".join(parts)


def hooks() -> list[tuple[str, Callable[..., object]]]:
    """Return names and functions of all hooks, in the order of the file."""
    return [(name, value) for name, value in vars(hookspecs).items() if name.startswith("publisher_")]


def api_page() -> str:
    """Return every name that a plugin may import, with its docstring, fields and methods."""
    parts = [
        f"{MADE}# `publisher.api`\n",
        "All that a plugin may import. Importing it imports no torch.\n",
    ]
    for name in sorted(api.__all__):
        value = getattr(api, name)
        if isinstance(value, type):
            parts += _class_lines(value)
        elif inspect.isfunction(value):
            parts += _function_lines(value)
        elif not hasattr(value, "__args__"):
            parts += [f"## {name}\n", f"`{name}`: see [hooks](hooks.md).\n"]
        else:
            parts += [f"## {name}\n", f"One of {', '.join(f'`{choice}`' for choice in value.__args__)}.\n"]
    parts += ["# `publisher.api.loading`\n", *_function_lines(loading.load_component), *_function_lines(loading.quiet)]
    parts += ["# `publisher.api.membranes`\n", f"```text\n{inspect.cleandoc(membranes.__doc__ or '')}\n```\n"]
    for name in sorted(membranes.__all__):
        value = getattr(membranes, name)
        if isinstance(value, type):
            parts += _class_lines(value)
        elif inspect.isfunction(value):
            parts += _function_lines(value)
    of_steps = (choosing, presets, words, evidence, freeze_mask)
    for module in (
        *of_steps,
        intervals,
        text,
        denoiser,
        latents,
        learner,
        loop,
        sampling,
        ddim,
        euler,
        threads,
        checkpoints,
    ):
        parts += [f"# `{module.__name__}`\n", f"```text\n{inspect.cleandoc(module.__doc__ or '')}\n```\n"]
        for value in _own(module):
            parts += _class_lines(value) if isinstance(value, type) else _function_lines(value)
    return "\n".join(parts)


def _own(module: ModuleType) -> list[type | Callable[..., object]]:
    """Return public classes and functions that a module defines, in its order."""
    return [
        value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (isinstance(value, type) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]


def load_page() -> str:
    """Return what a user of packages calls from Python."""
    parts = [
        f"{MADE}# Loading packages\n",
        "How to use it: [serve a package with permeability](../how-to/serve-with-permeability.md). The options of",
        "`Transport` are in the [manifest reference](manifest.md).\n",
        *_function_lines(publisher.load, "publisher.load"),
        *_class_lines(Attached),
        *_class_lines(Scored),
    ]
    return "\n".join(parts)


def masks_page() -> str:
    """Return what a user of freeze masks calls from Python."""
    parts = [
        f"{MADE}# Freeze masks\n",
        "How to use them: [fine-tune with the guard](../how-to/fine-tune-with-the-guard.md),",
        "[audit a fine-tuned model](../how-to/audit-a-fine-tuned-model.md). Schemas: of",
        "[`release/freeze-mask.json`](freeze-mask.schema.json), of [`publisher audit --json`](audit.schema.json).\n",
        *_function_lines(publisher.guard, "publisher.guard"),
        *_class_lines(Guard),
        *_function_lines(auditing.audit, "publisher.auditing.audit"),
        *_class_lines(Audit),
    ]
    return "\n".join(parts)


def policy_page() -> str:
    """Return every section of a policy."""
    from publisher.manifest.reference import section_lines
    from publisher.policy.schema import Policy

    parts = [
        f"{MADE}# The policy\n",
        "A policy is one YAML file, read as strictly as [a manifest](manifest.md): every mistake has its line. `plan`,",
        "`release` and `verify` take it with `--policy`: [how to use it in CI](../how-to/ci.md). Its JSON Schema is",
        "[beside this page](policy.schema.json).\n",
        *section_lines(Policy),
    ]
    return "\n".join(parts)


def slices_page() -> str:
    """Return every section of a file of ``publisher slices train``."""
    from publisher.manifest.reference import section_lines
    from publisher.slicing.recipe import SliceTraining

    parts = [
        f"{MADE}# Training by slices\n",
        "`publisher slices train` reads one YAML file, as strictly as [a manifest](manifest.md): every mistake has its",
        "line. What it is for, and an example: [Withdraw data](../how-to/withdraw-data.md).\n",
        *section_lines(SliceTraining),
    ]
    return "\n".join(parts)


KINDS: tuple[tuple[str, type], ...] = (
    ("Step", api.Step),
    ("Attack", api.Attack),
    ("Attack that trains", api.TrainingAttack),
    ("Attack that puts weights back", api.WeightAttack),
    ("Scorer", api.Scorer),
    ("Metric", api.Metric),
    ("Family", api.ModelFamily),
    ("Form of the report", api.ReportFormat),
    ("Executor", api.Executor),
    ("Source of models", api.ModelSource),
)


def testing_page() -> str:
    """Return what authors of plugins test with, and the rules of each kind."""
    parts = [
        f"{MADE}# `publisher.testing`\n",
        "How to use it: [test a plugin](../plugins/test-a-plugin.md).\n",
        *_function_lines(testing.contract),
        *_function_lines(testing.release),
        *_class_lines(testing.FakeScorer),
        *_function_lines(testing.save_tiny_model),
        *_function_lines(testing.open_model),
        *_function_lines(testing.installed),
        *_function_lines(testing.sample_report),
        "# Rules\n",
        "`contract` has one case for each rule of the plugin's kind.\n",
    ]
    told: set[str] = set()
    for title, cls in KINDS:
        rules = {
            name: rule for name, rule in rules_of(PluginUnderTest(cls)).items() if f"{title[:6]} {name}" not in told
        }
        told |= {f"{title[:6]} {name}" for name in rules}
        parts += [f"## {title}\n", "| rule | demands |", "|---|---|"]
        for name, rule in rules.items():
            said = inspect.cleandoc(rule.__doc__ or "").removeprefix("Demand ")
            parts.append(f"| `{name}` | {' '.join(said.split())} |")
        parts.append("")
    return "\n".join(parts)


def families_page() -> str:
    """Return what the families of this distribution can do, by what they say and what steps and attacks need."""
    from publisher.registry import load_registry

    ours = [one for one in load_registry().contributions if one.origin.distribution == "model-publisher"]
    families = [one.cls for one in ours if one.kind == "family"]
    lines = [
        f"{MADE}# Families of models\n",
        "Which family can do what. Tests hold every family against its pipeline in diffusers, on a very small model",
        "with random weights. It is recognised and generates the same bytes. Text enters where the family says, and",
        "nowhere else. What a training aims at is what the sampler reads. Each step is planned, or refused, as the",
        "table has it.\n",
        f"| | {' | '.join(f'`{family.name}`' for family in families)} |",
        f"|---|{'---|' * len(families)}",
    ]
    for name, what in NEEDS.items():
        cells = ["no" if name in family.lacks else "yes" for family in families]
        lines.append(f"| {what} (`{name}`) | {' | '.join(cells)} |")
    said = {"": "no", "denoiser": "of the denoiser", "all": "of all parts"}
    cells = [said[family.single_file] for family in families]
    lines.append(f"| [single files](../how-to/single-file.md), written and audited | {' | '.join(cells)} |")
    for kind in ("step", "attack"):
        for one in ours:
            needs = one.cls.requires.needs if one.kind == "step" else getattr(one.cls, "needs", ())
            if one.kind == kind and (needs or kind == "step"):
                cells = ["no" if set(needs) & set(family.lacks) else "yes" for family in families]
                lines.append(f"| {kind} `{one.name}` | {' | '.join(cells)} |")
    lines += ["\nAttacks that are not in the table need nothing of a family.\n"]
    for family in families:
        lines += [f"## {family.name}\n", f"{_sentence(family.summary)}\n"]
        lines += [f"- no `{name}`: {why}." for name, why in family.lacks.items()]
        lines += [""]
    return "\n".join(lines)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _schema(model: type[Params]) -> str:
    found = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    return json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _function_lines(function: Callable[..., object], name: str = "") -> list[str]:
    return [f"## {name or function.__name__}{_signature(function)}\n", _markdown(function.__doc__), ""]


def _markdown(docstring: str | None) -> str:
    """Return a Google-style docstring as Markdown: sections in bold, their entries as a list."""
    lines, inside = [], False
    for line in inspect.cleandoc(docstring or "").splitlines():
        if line in ("Attributes:", "Args:", "Returns:", "Raises:"):
            lines += [f"**{line[:-1]}**", ""]
            inside = True
        elif inside and re.match(r" {4}\S", line):
            lines.append(f"- {line.strip()}")
        elif inside and line.startswith("    "):
            lines.append(f"  {line.strip()}")
        else:
            inside = inside and not line
            lines.append(line)
    return "\n".join(lines)


def _class_lines(cls: type) -> list[str]:
    bases = ", ".join(base.__name__ for base in cls.__bases__ if base.__module__.startswith("publisher"))
    lines = [f"## {cls.__name__}" + (f"({bases})" if bases else "") + "\n", _markdown(cls.__doc__), ""]
    words = _attribute_docstrings(cls)
    annotations = vars(cls).get("__annotations__", {}).items()
    fields = {name: kind for name, kind in annotations if name[0] != "_" and not kind.startswith("ClassVar")}
    lines += [f"- `{name}: {kind}`" + (f": {words[name]}" if name in words else "") for name, kind in fields.items()]
    members = list(cls) if issubclass(cls, Enum) else []
    lines += [f"- `{cls.__name__}.{one.name}`, `{json.dumps(one.value)}`: {words[one.name]}" for one in members]
    lines += [""] if fields or members else []
    for name, method in vars(cls).items():
        if name.startswith("_") or not method.__doc__:
            continue
        function = getattr(method, "fget", None) or getattr(method, "__func__", method)
        if inspect.isfunction(function):
            lines += [f"### {cls.__name__}.{name}{_signature(function)}\n", _markdown(method.__doc__), ""]
    return lines


def _signature(hook: Callable[..., object]) -> str:
    text = str(inspect.signature(hook))
    return text.replace("'", "")


def pages() -> dict[str, str]:
    """Return the content of each file."""
    from publisher.manifest.reference import reference_page, schema_text
    from publisher.policy.schema import Policy
    from publisher.registry import load_registry
    from publisher.report import schema

    made = {"cli.md": cli_page(), "exit-codes.md": exit_codes_page(), "hooks.md": hooks_page(), "api.md": api_page()}
    made |= {
        "load.md": load_page(),
        "freeze-masks.md": masks_page(),
        "testing.md": testing_page(),
        "families.md": families_page(),
    }
    made |= {"freeze-mask.schema.json": _schema(freeze_mask.FreezeMask), "audit.schema.json": _schema(Audit)}
    made["slices.md"] = slices_page()
    made |= {"policy.md": policy_page(), "policy.schema.json": _schema(Policy)}
    catalog = load_registry().catalog()
    made |= {"manifest.md": reference_page(catalog), "manifest.schema.json": schema_text(catalog)}
    made["report.schema.json"] = json.dumps(schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return made


def stale() -> list[str]:
    """Return names of pages that are not what the code says."""
    found = []
    for name, text in pages().items():
        path = REFERENCE / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            found.append(name)
    return found


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit("\n".join(f"{name} is out of date: python docs/make_reference.py" for name in stale()) or 0)
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, encoding="utf-8")
