"""The core knows no U-Net: it asks a model's anatomy. Only where a file format names one may the word stand."""

from __future__ import annotations

import re
from pathlib import Path

CORE = Path(__file__).parents[2] / "publisher"
NAMED = {
    "builtin/families.py": "the families of Stable Diffusion",
    "api/ldm_names.py": "names in one-file checkpoints and in diffusers' folders",
    "package/hub_cache.py": "an example of a path in the hub's cache",
    "testing/sample.py": "a report of a model of Stable Diffusion",
    "testing/tiny.py": "a very small model of Stable Diffusion",
    "api/membranes/__init__.py": "kohya's names of adapters begin so",
    "api/membranes/kohya_flux.py": "kohya's names of adapters begin so",
    "api/membranes/names.py": "diffusers' names of adapters begin so",
    "api/membranes/parts.py": "kohya's names of adapters begin so",
    "safeguards/membranes/lora.py": "kohya's and diffusers' names of adapters begin so",
    "api/weight_names.py": "names in files of a fine-tuned denoiser begin so",
}


def test_the_word_stands_where_a_format_has_it_and_nowhere_else() -> None:
    found = {
        path.relative_to(CORE).as_posix()
        for path in CORE.rglob("*.py")
        if re.search(r"(?<![A-Za-z])unet(?![A-Za-z2])", path.read_text(encoding="utf-8"))
    }
    assert found == set(NAMED)
