"""Icon sets to reference images: SVG from npm packages, rendered on white.

Run once by the maintainer of the embedded model (needs npm and the registry)::

    python -m publisher_emoji.training.render

It writes ``data/images/<style>/<object>.png``. Training and scoring read only those files.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import resvg_py
from PIL import Image

from publisher_emoji.concepts import DATA, Style, vocabulary

SIZE = 64
"""Pixels a side of a reference image; training scales down from there."""
_FXEMOJI_PREFIX = re.compile(r"^u[0-9a-f]+-")


def main() -> None:
    """Fetch every style's package, and render each object that it has."""
    words = vocabulary()
    with tempfile.TemporaryDirectory() as folder:
        for style in words.styles:
            icons = _fetch(style, Path(folder))
            target = DATA / "images" / style.name
            target.mkdir(parents=True, exist_ok=True)
            for thing in words.objects:
                icon = dict(thing.icons).get(style.name)
                if icon in icons:
                    render(icons[icon]).save(target / f"{thing.slug}.png", optimize=True)
                elif icon:
                    print(f"{style.name}: no icon {icon!r} for {thing.name!r}")


def render(svg: str, size: int = SIZE) -> Image.Image:
    """Sample an SVG document on white, ``size`` pixels a side."""
    rendered = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size))))
    white = Image.new("RGBA", (size, size), "white")
    white.alpha_composite(rendered.convert("RGBA"), ((size - rendered.width) // 2, (size - rendered.height) // 2))
    return white.convert("RGB")


def _fetch(style: Style, folder: Path) -> dict[str, str]:
    """Install a style's package with npm; return icon name -> SVG document, aliases included."""
    subprocess.run(["npm", "install", "--silent", "--prefix", str(folder), style.package], check=True)
    package = style.package.rsplit("@", 1)[0]
    data = json.loads((folder / "node_modules" / package / "icons.json").read_text(encoding="utf-8"))
    icons = {_FXEMOJI_PREFIX.sub("", name): _document(icon, data) for name, icon in data["icons"].items()}
    for alias, target in data.get("aliases", {}).items():
        if set(target) == {"parent"} and target["parent"] in data["icons"]:
            icons.setdefault(alias, _document(data["icons"][target["parent"]], data))
    return icons


def _document(icon: dict[str, Any], defaults: dict[str, Any]) -> str:
    """Return an iconify entry as a stand-alone SVG document."""
    fallback = {"left": 0, "top": 0, "width": 16, "height": 16} | defaults
    box = " ".join(str(icon.get(key, fallback[key])) for key in ("left", "top", "width", "height"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box}">'
        f"{icon['body']}</svg>"
    )


if __name__ == "__main__":
    main()
