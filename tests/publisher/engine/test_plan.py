"""What a step gets to decide: all that the manifest itself does not give, also inside of parameters."""

from __future__ import annotations

from pathlib import Path

from publisher.release.prepare import prepare

MANIFEST = """
release: {name: x, version: 1.0.0, license: MIT}
model: embedded:emoji
concepts: [skull]
steps: [{use: immunize, with: {check: {seeds: 5}, lam: 100}}]
"""


def test_what_is_given_inside_of_a_parameter_leaves_the_rest_of_it_open(tmp_path: Path) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text(MANIFEST, encoding="utf-8")
    (step,) = prepare(path, tmp_path / "work", fetch=False).steps
    check = step.identity.params["check"]
    assert (check["seeds"], check["evaluation_steps"]) == (5, [0, 8, 16, 32])
    assert step.decided["check.evaluation_steps"] == [0, 8, 16, 32]
    assert not {"check.seeds", "check", "lam"} & set(step.decided)
