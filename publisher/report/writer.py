"""One report, many forms."""

from __future__ import annotations

from collections.abc import Iterable

from publisher.api import PluginError, ReleaseReport, ReportFormat
from publisher.errors import CRASHES, in_words


def render_each(
    report: ReleaseReport, formats: Iterable[type[ReportFormat]]
) -> tuple[dict[str, bytes], list[PluginError]]:
    """Render ``report`` in every form that can be rendered.

    Returns:
        File name -> the whole file, sorted by name; and why others are missing.
    """
    files, problems = {}, []
    for form in formats:
        try:
            files[form.filename] = render(report, form)
        except PluginError as error:
            problems.append(error)
    return dict(sorted(files.items())), problems


def render(report: ReleaseReport, form: type[ReportFormat]) -> bytes:
    """Render ``report`` in one form, which gets a copy: nothing that it does to it changes the record.

    Raises:
        PluginError: the form crashed or gave no bytes.
    """
    try:
        data = form().render(report.model_copy(deep=True))
    except PluginError:
        raise
    except CRASHES as error:
        raise PluginError(f"report format {form.name!r} crashed: {in_words(error)}") from error
    if not isinstance(data, bytes):
        raise PluginError(f"report format {form.name!r} gave {type(data).__name__}, not bytes")
    return data
