"""What a manifest leaves out and its model's source knows: prompts, scorer, sampling, and so what is to stay."""

from __future__ import annotations

from typing import Any

from publisher.api import Kind, ModelDefaults
from publisher.manifest.catalog import Catalog
from publisher.manifest.schema import Keep, Manifest
from publisher.manifest.scorers import ResolvedScorer, labels_of

KINDS: tuple[Kind, ...] = ("object", "style", "person", "unsafe")


def fill_in(manifest: Manifest, defaults: ModelDefaults) -> Manifest:
    """Return the manifest with its model's own defaults wherever it says nothing.

    Args:
        manifest: well-formed.
        defaults: of the source of its model.
    """
    prompts: dict[str, Any] = {kind: templates for kind in KINDS if (templates := getattr(defaults, kind))}
    written: dict[str, Any] = {kind: templates for kind in KINDS if (templates := getattr(manifest.prompts, kind))}
    evaluate = manifest.evaluate
    judged: dict[str, Any] = {} if evaluate.scorer or evaluate.scorers else {"scorer": defaults.scorer or None}
    known = {"steps": defaults.steps, "guidance": defaults.guidance}
    sampling = {
        name: value
        for name, value in known.items()
        if value is not None and name not in evaluate.sampling.model_fields_set
    }
    judged["sampling"] = evaluate.sampling.model_copy(update=sampling)
    return manifest.model_copy(
        update={
            "prompts": manifest.prompts.model_copy(update=prompts | written),
            "evaluate": evaluate.model_copy(update=judged),
        }
    )


def keep_the_rest(manifest: Manifest, scorers: dict[str, ResolvedScorer], catalog: Catalog) -> Manifest:
    """Return the manifest, with the rest of its scorer's labels to keep where it has no section ``keep``.

    Scorers that decide nothing are not asked.

    Nothing is kept where one of the scorer's kinds has no prompts, because nobody could ask for it, or takes any label.
    """
    deciding = [name for name, entry in scorers.items() if entry.decides]
    if "keep" in manifest.model_fields_set or len(deciding) != 1:
        return manifest
    (name,) = deciding
    labels = labels_of(name, scorers, catalog)
    listed = all(known is not None and getattr(manifest.prompts, kind, ()) for kind, known in labels.items())
    return manifest.model_copy(update={"keep": Keep(rest_of=name)}) if listed and labels else manifest
