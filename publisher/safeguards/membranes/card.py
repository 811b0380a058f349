"""The model card about membranes: how to load a package with them, and what its weights do alone."""

from __future__ import annotations

from publisher.api import ReleaseReport
from publisher.report.rows import check_table, columns
from publisher.text import code

_TEXT = """This package carries membranes for {concepts}: they are attached when it is loaded, and each prompt
opens them as far as it resembles what they are for.

```python
import publisher

pipeline = publisher.load("{folder}", verify_key="publisher.pub")
```

Plain diffusers loads the weights **without the membranes**: anyone who does so is free of them.

```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("{folder}", use_safetensors=True)
```"""


def how_to_load(report: ReleaseReport, folder: str) -> str:
    """Return how to load the package with its membranes and without; empty where it has none to attach.

    Args:
        report: of the release.
        folder: the package's name.
    """
    table = report.permeabilities
    if table is None:
        return ""
    return _TEXT.format(folder=folder, concepts=", ".join(map(code, table.membranes))) + "\n\n" + _alone(report)


def _alone(report: ReleaseReport) -> str:
    """Return what was measured of the weights alone, or that nobody measured it."""
    checks = [check for claim in report.claims for check in claim.checks if not check.attached]
    if not checks:
        return "What it generates then was not measured."
    shown = [column for column in columns() if column.name not in ("verdict", "gate")]
    return "\n".join(["What it generates then was measured:", "", *check_table(checks, shown)])
