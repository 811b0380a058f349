"""One report, many forms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from publisher.api import PluginError, ReleaseReport, ReportFormat
from publisher.errors import CRASHES, in_words


def render_each(
    report: ReleaseReport, formats: Iterable[type[ReportFormat]], seconds: Mapping[str, float] | None = None
) -> tuple[dict[str, bytes], list[PluginError]]:
    """Render ``report`` in every form that can be rendered; ``seconds`` as for :func:`render`.

    Returns:
        File name -> the whole file, sorted by name; and why others are missing.
    """
    files, problems = {}, []
    for form in formats:
        try:
            files[form.filename] = render(report, form, seconds)
        except PluginError as error:
            problems.append(error)
    return dict(sorted(files.items())), problems


def render(report: ReleaseReport, form: type[ReportFormat], seconds: Mapping[str, float] | None = None) -> bytes:
    """Render ``report`` in one form, which gets a copy: nothing that it does to it changes the record.

    Args:
        report: of a release.
        form: class of the form.
        seconds: check -> how long it took on the machine that made it; None or empty: nobody knows, or the form goes
            into a package, whose bytes do not depend on that.

    Raises:
        PluginError: the form crashed or gave no bytes.
    """
    try:
        copy = report.model_copy(deep=True)
        data = form().timed(copy, dict(seconds)) if seconds else form().render(copy)
    except PluginError:
        raise
    except CRASHES as error:
        raise PluginError(f"report format {form.name!r} crashed: {in_words(error)}") from error
    if not isinstance(data, bytes):
        raise PluginError(f"report format {form.name!r} gave {type(data).__name__}, not bytes")
    return data
