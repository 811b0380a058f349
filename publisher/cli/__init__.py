"""The command ``publisher``. One file a command; no logic here."""

from __future__ import annotations

import click

from publisher import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="publisher %(version)s")
def main() -> None:
    """Release text-to-image models: harden, attack, sign, package.

    This version lays the ground and has no commands yet. What works is the embedded model, which draws and judges
    emoji:

      python -m publisher_emoji --help
    """
