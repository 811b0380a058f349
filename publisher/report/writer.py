"""One report, many forms."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from publisher.api import PluginError, ReleaseReport, ReportFormat
from publisher.errors import CRASHES, in_words
from publisher.package.layout import REPORTS, path_problem, type_problem

TIMINGS = "timings.json"
"""What a release writes beside the forms of its report."""
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
    formats = list(formats)
    require_names(formats)
    files, problems = render_each(report, formats)
    if problems:
        raise problems[0]
    return files


def require_names(formats: Iterable[type[ReportFormat]]) -> None:
    """Make sure that every form has a file name of its own that a report can have.

    Raises:
        PluginError: one has not.
    """
    seen = set()
    for form in formats:
        name = form.filename
        if not isinstance(name, str) or not FILENAME.fullmatch(name):
            raise PluginError(
                f"report format {form.name!r} wants to write {name!r}",
                hint="A report's file name has lower-case letters, digits, dots, dashes and no folder.",
            )
        problem = path_problem(REPORTS + name) or type_problem(REPORTS + name)
        if problem:
            raise PluginError(f"report format {form.name!r} wants to write {name!r}, which {problem}")
        if name in seen:
            raise PluginError(f"two report formats want to write {name!r}; one of them is {form.name!r}")
        if name == TIMINGS:
            raise PluginError(f"report format {form.name!r} wants to write {name!r}, which the release itself writes")
        seen.add(name)


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
