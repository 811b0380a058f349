"""The model card's section about the freeze mask: what it freezes, whom it binds, how to honour it, how to check it."""

from __future__ import annotations

from publisher.api import MaskRecord, ReleaseReport
from publisher.report.kept_gains import KeptGains, kept_gains
from publisher.report.relearning import title, trained
from publisher.report.wording import figure
from publisher.text import code, markdown, table

_BINDS = """**A user who ignores the mask is not stopped.** It is an agreement, not a lock: plain diffusers trains every
tensor, and so does anyone who deletes the file. It binds those who honour it, and a hub or a training service can check
who did.

To fine-tune under it, add one line to a training script:

```python
import publisher

guard = publisher.guard(pipeline, "{folder}", verify_key="publisher.pub")
optimizer = torch.optim.AdamW(guard.parameters(), lr=1e-5)
```

To check a fine-tuned model:

```
publisher audit MY-MODEL --against {folder} --key publisher.pub
```

The audit sees whether each frozen tensor is bit for bit the published one, or its cast to 16 bits, and adapters on
frozen layers. It does not see what the model can do: a model whose frozen tensors are untouched can have learned
anything through the others, through a new token, or through parts that are loaded beside it."""
_GRANULARITIES = {"tensor": "whole tensors", "head": "the rows of attention heads", "row": "single rows"}


def freeze_mask(report: ReleaseReport, folder: str) -> str:
    """Return what is frozen, what that left of attackers' gains, and how to use it; empty without a mask.

    Args:
        report: of the release.
        folder: the package's name.
    """
    mask = report.freeze_mask
    if mask is None:
        return ""
    found = kept_gains([check for _, check in trained(report)])
    parts = ["## Fine-tuning: the freeze mask", _what(mask), *(_kept(found) if found else ())]
    return "\n\n".join([*parts, _BINDS.format(folder=folder)])


def _what(mask: MaskRecord) -> str:
    text = (
        f"`release/freeze-mask.json` names what a fine-tuning of {code(mask.component)} is to leave as it is:"
        f" {mask.parameters.frozen:,} of {mask.parameters.total:,} parameters"
        f" ({figure(round(mask.parameters.value, 4), 'share')}), in {mask.tensors.frozen:,} of"
        f" {mask.tensors.total:,} tensors ({figure(round(mask.tensors.value, 4), 'share')}); frozen as one:"
        f" {_GRANULARITIES.get(mask.granularity, markdown(mask.granularity))}."
    )
    lines = [text]
    if mask.largest:
        largest = ", ".join(f"{code(tensor.name)} ({tensor.frozen:,})" for tensor in mask.largest[:3])
        lines.append(f"Most of it is in {largest}.")
    for name, value in mask.others.items():
        lines.append(f"It has {figure(round(value, 4), 'share')} in common with {markdown(title(name, masked=True))}.")
    return "\n".join(lines)


def _kept(found: KeptGains) -> list[str]:
    heads = ["concept", "attack", "gain", "of", *map(markdown, found.models)]
    rows = [
        [f"{row.concept} (innocent)" if row.innocent else row.concept, row.attack, row.gain, row.of, *row.cells]
        for row in found.rows
    ]
    said = "What was left of an attacker's gain, by mask; random masks freeze as many parameters:"
    return [said, "\n".join(table(heads, rows))]
