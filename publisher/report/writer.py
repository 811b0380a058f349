"""One report, many forms."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from publisher.api import PluginError, ReleaseReport, ReportFormat

FILENAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def render_all(report: ReleaseReport, formats: Iterable[type[ReportFormat]]) -> Mapping[str, bytes]:
    """Render ``report`` in every form.

    Args:
        report: the record.
        formats: classes of forms; each is made once.

    Returns:
        File name -> the whole file, sorted by name.

    Raises:
        PluginError: two forms have one file name, a name is no plain file name, or a form crashed or gave no bytes.
    """
    files: dict[str, bytes] = {}
    for form in formats:
        if not FILENAME.fullmatch(form.filename):
            raise PluginError(
                f"report format {form.name!r} wants to write {form.filename!r}",
                hint="A report's file name has lower-case letters, digits, dots, dashes and no folder.",
            )
        if form.filename in files:
            raise PluginError(f"two report formats want to write {form.filename!r}; one of them is {form.name!r}")
        files[form.filename] = render(report, form)
    return dict(sorted(files.items()))


def render(report: ReleaseReport, form: type[ReportFormat]) -> bytes:
    """Render ``report`` in one form.

    Raises:
        PluginError: the form crashed or gave no bytes.
    """
    try:
        data = form().render(report)
    except PluginError:
        raise
    except Exception as error:
        raise PluginError(f"report format {form.name!r} crashed: {type(error).__name__}: {error}") from error
    if not isinstance(data, bytes):
        raise PluginError(f"report format {form.name!r} gave {type(data).__name__}, not bytes")
    return data
