"""Plugins that mean harm, or are merely broken: each is a line, none stops the tool or takes another one's place."""

from __future__ import annotations

import logging
import sys
import textwrap
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest

from publisher.api import ModelError, PluginError, UsageError
from publisher.registry import Registry, load
from publisher.registry.load import build_registry, installed

STEP = """
    from publisher import api

    class Bad(api.Step[api.NoParams]):
        name, version, summary = "bad", "1", "bad"
        def claims(self, params, scope): return []
        def plan(self, params, scope, model): return api.StepPlan({})
        def run(self, params, ctx): pass

    @api.hookimpl
    def publisher_register_steps(): return [Bad]
"""
FAMILY = """
    from publisher import api

    class Kind(api.ModelFamily):
        name, version = "kind", "1"
        def recognise(self, configs): {recognise}
        def why_not(self, configs): {why}

    @api.hookimpl
    def publisher_register_families(): return [Kind]
"""
GOOD = STEP.replace('"bad"', '"good"')
ODD = """class Odd(api.Params):
        x: api.Step
        model_config = {'arbitrary_types_allowed': True}

    class Bad"""
UNREADABLE = "class E(Exception):\n        def __str__(self): raise SystemExit(0)\n    raise E"

SET_ASIDE = {
    "ends the process": ("    raise SystemExit(0)", "SystemExit: 0"),
    "ends a generator": ("    raise GeneratorExit", "GeneratorExit"),
    "an exception of its own": ("    class E(BaseException): pass\n    raise E('no')", "E: no"),
    "a text that raises": (f"    {UNREADABLE}", "E: (its text cannot be read)"),
    "a hook that ends the process": (STEP.replace("return [Bad]", "raise SystemExit"), "SystemExit"),
    "an endless hook": (STEP.replace("return [Bad]", "return iter(lambda: Bad, 0)"), "more than 1000 classes"),
    "a generator that ends oddly": (STEP.replace("return [Bad]", "yield Bad; raise GeneratorExit"), "GeneratorExit"),
    "a summary that is no text": (STEP.replace('"1", "bad"', '"1", {1: 2}'), "is no text"),
    "a name that is no text": (STEP.replace('= "bad", "1"', '= b"bad", "1"'), "has no name"),
    "parameters that are none": (STEP.replace("return [Bad]", "Bad.Params = dict; return [Bad]"), "no publisher.api."),
    "parameters without a schema": (
        STEP.replace("class Bad", ODD).replace("api.NoParams", "Odd"),
        "PydanticInvalidForJson",
    ),
}


def distribution(folder: Path, name: str, points: str) -> None:
    """Put a distribution with this ``entry_points.txt`` below ``[publisher]`` there."""
    info = folder / f"{name}-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[publisher]\n{points}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to install into; a good plugin is there already, and comes last."""
    before = set(sys.modules)
    (tmp_path / "zz_good.py").write_text(textwrap.dedent(GOOD))
    distribution(tmp_path, "zz-good", "zz-good = zz_good")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def registry_of(site: Path, points: str = "", **modules: str) -> Registry:
    for name, source in modules.items():
        (site / f"{name}.py").write_text(textwrap.dedent(source))
    distribution(site, "bad", points or "\n".join(f"{name} = {name}" for name in modules))
    return build_registry(*installed(distributions(path=[str(site)])))


@pytest.mark.parametrize(("source", "reason"), SET_ASIDE.values(), ids=SET_ASIDE)
def test_it_is_set_aside_with_its_reason_and_the_others_stay(site: Path, source: str, reason: str) -> None:
    registry = registry_of(site, bad=source)
    assert registry.names("step") == ("good",)
    ((plugin, why),) = [(broken.plugin, broken.reason) for broken in registry.broken]
    assert (plugin, reason in why) == ("bad", True), why


@pytest.mark.parametrize(
    ("points", "plugin", "reason"),
    [
        ("bad = parent.child", "bad", "SystemExit"),
        ("bad = not a module : x", "bad", "is neither 'module' nor 'module:object'"),
        ("bad = bad:no.such.object", "bad", "AttributeError"),
        ("bad = unittest.mock:MagicMock", "bad", "it implements no hook"),
        ("bad =", "bad", "is neither 'module' nor 'module:object'"),
        ("a line without an equals sign", "bad", "its entry points cannot be read"),
    ],
)
def test_an_entry_point_that_leads_nowhere_is_set_aside(site: Path, points: str, plugin: str, reason: str) -> None:
    (site / "parent").mkdir()
    (site / "parent" / "__init__.py").write_text("raise SystemExit(0)")
    registry = registry_of(site, points, bad=STEP)
    assert registry.names("step") == ("good",)
    ((found, why),) = [(broken.plugin, broken.reason) for broken in registry.broken]
    assert (found, reason in why) == (plugin, True), why


@pytest.mark.parametrize("module", ["aa_thief", "zz_good"])
def test_an_entry_point_of_the_same_name_takes_nobodys_place(site: Path, module: str) -> None:
    registry = registry_of(site, f"zz-good = {module}", aa_thief=GOOD)
    assert registry.broken == ()
    with pytest.raises(UsageError) as caught:
        registry.get("step", "good")
    assert str(caught.value) == (
        f"the step 'good' is provided by {module}:Bad of bad and zz_good:Bad of zz-good\n  Uninstall one of them."
    )


@pytest.mark.parametrize(
    ("name", "reference", "refused"),
    [("model", "model", False), ("hf:a/b@0", "hf:a/b@0", True), ("./model", "./model", False), ("hf", "hf:a", True)],
)
def test_a_source_cannot_catch_what_belongs_to_another(site: Path, name: str, reference: str, *, refused: bool) -> None:
    one = """
        from publisher import api

        class {cls}(api.ModelSource):
            name, version = "{name}", "1"
            def check(self, reference): return None
            def locate(self, reference, relative_to): return relative_to
            fetch = locate
    """
    hook = "\n        @api.hookimpl\n        def publisher_register_sources(): return [{}]\n"
    both = one.format(cls="Hub", name="hf") + one.format(cls="Folder", name="folder") + hook.format("Hub, Folder")
    thief = one.format(cls="Thief", name=name) + hook.format("Thief")
    registry = registry_of(site, sources=both, thief=thief)
    if refused:
        with pytest.raises(UsageError, match=r"is provided by .*Thief"):
            registry.source_for(reference)
    else:
        assert registry.source_for(reference).name == "folder"


@pytest.mark.parametrize("way", ["raise SystemExit(0)", "raise GeneratorExit", "return 1/0", "return 'an anatomy'"])
def test_a_family_that_crashes_stops_nobody(site: Path, way: str) -> None:
    good = FAMILY.format(recognise="return api.Anatomy('kind', 'unet', (), 1, api.Latents(4, 8, 8))", why="return ''")
    registry = registry_of(site, bad=FAMILY.format(recognise=way, why="return ''"), whole=good.replace("kind", "whole"))
    assert registry.recognise({}, "here")[0].name == "whole"


@pytest.mark.parametrize("part", ["recognise", "why"])
def test_a_family_that_crashes_is_named_where_no_other_knows_the_model(site: Path, part: str) -> None:
    source = FAMILY.format(**{"recognise": "return None", "why": "return ''", part: "raise SystemExit(0)"})
    with pytest.raises(ModelError, match="the family 'kind' crashed when asked whether it knows this model: System"):
        registry_of(site, bad=source).recognise({}, "here")


def test_labels_that_crash_are_an_error_that_names_the_origin(site: Path) -> None:
    source = """
        from publisher import api

        class Judge(api.Scorer):
            name, version = "judge", "1"
            @classmethod
            def labels(cls): raise GeneratorExit
            def card(self): pass
            def load(self, device): pass
            def judge(self, images): pass

        @api.hookimpl
        def publisher_register_scorers(): return [Judge]
    """
    with pytest.raises(
        PluginError, match=r"the scorer 'judge' crashed when asked for its labels: GeneratorExit\n.*bad"
    ):
        registry_of(site, bad=source).catalog().labels("judge")


@pytest.mark.parametrize("way", ["raise SystemExit(0)", "raise GeneratorExit", "1/0"])
def test_an_observer_that_ends_the_process_is_reported(site: Path, way: str) -> None:
    source = f"from publisher import api\n@api.hookimpl\ndef publisher_on_release_end(event): {way}"
    (problem,) = registry_of(site, bad=source).notify("publisher_on_release_end", None)
    assert problem.startswith("observer bad: publisher_on_release_end raised ")


def test_stopping_the_program_is_no_failure_of_a_plugin(site: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        registry_of(site, bad="raise KeyboardInterrupt")


def test_a_slow_import_says_whose_it_is(
    site: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(load, "SLOW_S", 0.05)
    with caplog.at_level(logging.WARNING):
        registry_of(site, slow=f"import time; time.sleep(0.5)\n{textwrap.dedent(STEP)}")
    assert [record.message for record in caplog.records] == [
        "importing the plugin 'slow' (slow) takes more than 0.05 s ..."
    ]
