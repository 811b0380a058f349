"""Open a model by its reference, as a manifest would: for commands that have no manifest."""

from __future__ import annotations

from pathlib import Path

from publisher.errors import UsageError
from publisher.model.folder import ModelFolder, read_configs
from publisher.registry.load import load_registry


def open_model(reference: str, relative_to: Path = Path()) -> ModelFolder:
    """Open the model that a reference names: a folder, or what a source provides.

    Args:
        reference: as a manifest would have it.
        relative_to: folder that a path is seen from.

    Raises:
        PublisherError: it is not there, malformed, or of no known family.
    """
    registry = load_registry()
    problem = registry.catalog().source_problem(reference)
    if problem:
        raise UsageError(problem, where=reference)
    source = registry.source_for(reference)
    adapter = source.make()
    with source.asked("for the model"):
        path = adapter.fetch(reference, relative_to)
    configs = read_configs(path)
    _, anatomy = registry.recognise(configs, str(path))
    return ModelFolder(path, anatomy, configs)
