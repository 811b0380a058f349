"""Import plugins in a fresh process and ask them what a plan asks; print which heavy libraries that imported.

``publisher.testing.common`` runs it: a question for each plugin comes as JSON on stdin.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

HEAVY = ("torch", "diffusers", "transformers")


def main() -> None:
    """Answer all questions in order: the names of what each of them was the first to import."""
    asked = json.load(sys.stdin)
    sys.path[:] = asked["path"]
    answers = []
    for question in asked["questions"]:
        before = {name for name in HEAVY if name in sys.modules}
        _ask(question, Path(asked["model"]))
        answers.append([name for name in HEAVY if name in sys.modules and name not in before])
    sys.stdout.write(f"\n{json.dumps(answers)}\n")


def _ask(question: dict[str, Any], model: Path) -> None:
    from publisher.api import NoParams, Scope, SearchAttack, TrainingAttack, WeightAttack

    plugin: Any = importlib.import_module(question["module"])
    for name in question["name"].split("."):
        plugin = getattr(plugin, name)
    scope = Scope.parse(question["scope"])
    params = getattr(plugin, "Params", NoParams).parse(question["params"] or {})
    files = {name: Path(path) for name, path in question["files"].items()}
    folder = Path(question["folder"] or model)
    if question["kind"] == "step":
        _plan(plugin(), params, scope, files, folder)
    if question["kind"] == "attack":
        from publisher.api import Sampling

        plugin().requests(params, scope.concepts[0], Sampling(images=4))
        if issubclass(plugin, SearchAttack):
            plugin().limits(plugin().sized(params))
        if issubclass(plugin, TrainingAttack) and not issubclass(plugin, WeightAttack):
            plugin().captions(params, scope.concepts[0])
            plugin().prior_images(params)
    if question["kind"] == "scorer":
        scorer = plugin(params)
        scorer.inputs()
        scorer.labels()
        scorer.files = files
        scorer.check_files()
    if question["kind"] == "family":
        from publisher.model.folder import read_configs

        plugin().recognise(read_configs(folder))


def _plan(step: Any, params: Any, scope: Any, files: dict[str, Path], folder: Path) -> None:
    from publisher.model.folder import ModelFolder, read_configs
    from publisher.registry import load_registry

    configs = read_configs(folder)
    _, anatomy = load_registry().recognise(configs, str(folder))
    model = ModelFolder(folder, anatomy, configs)
    step.inputs(params)
    step.files = files
    decided = step.decide(params, scope, model)
    list(step.claims(decided, scope))
    step.plan(decided, scope, model)


if __name__ == "__main__":
    main()
