"""Plugins come in one by one behind a guard; a broken one is a line, not a traceback."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from publisher.api import ModelError, StepEnd, StepRecord, UsageError, hookspecs
from publisher.registry.load import build_registry
from publisher.registry.registry import Registry
from support.toys import ORIGIN

Install = Callable[..., Registry]
GOOD = """
    from publisher import api

    class Blur(api.Step[api.NoParams]):
        \"\"\"Blurs.\"\"\"
        name = "blur"
        version = "3"
        summary = "Blur it."
        def claims(self, params, scope): return []
        def plan(self, params, scope, model): return api.StepPlan({})
        def run(self, params, ctx): pass

    @api.hookimpl
    def publisher_register_steps(): return [Blur]
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Write modules and make a registry of them."""
    monkeypatch.syspath_prepend(tmp_path)
    names: list[str] = []

    def make(**modules: str) -> Registry:
        for name, source in modules.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
            names.append(name)
        return build_registry(EntryPoint(name, name, "publisher") for name in modules)

    yield make
    for name in names:
        sys.modules.pop(name, None)


def test_a_class_comes_with_its_origin(install: Install) -> None:
    entry = install(good_blur=GOOD).get("step", "blur")
    assert (entry.version, entry.summary, entry.origin.module) == ("3", "Blur it.", "good_blur:Blur")
    assert len(entry.origin.digest) == 64


def test_the_digest_follows_the_source(install: Install) -> None:
    one = install(blur_one=GOOD).get("step", "blur").origin.digest
    two = install(blur_one=GOOD + "\n    # changed\n").get("step", "blur").origin.digest
    assert one != two


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1/0", "ZeroDivisionError"),
        ("import nowhere_to_be_found", "ModuleNotFoundError"),
        ("x = 1", "it implements no hook"),
        (GOOD.replace("register_steps", "register_stepz"), "there is no hook 'publisher_register_stepz'"),
        (GOOD.replace("@api.hookimpl", "@api.hookimpl(wrapper=True)"), "is a hook wrapper"),
        (GOOD.replace("@api.hookimpl", ""), "is not marked"),
        (GOOD.replace("return [Blur]", "return [Blur()]"), "is no class derived from publisher.api.Step"),
        (GOOD.replace("return [Blur]", "return [str]"), "is no class derived from publisher.api.Step"),
        (GOOD.replace("return [Blur]", "raise OSError('no')"), "OSError: no"),
        (GOOD.replace('version = "3"', ""), "has no version"),
        (GOOD.replace("def run(self, params, ctx): pass", ""), "lacks run"),
    ],
)
def test_a_broken_plugin_is_set_aside_with_its_reason(install: Install, source: str, reason: str) -> None:
    registry = install(broken_blur=source, whole_blur=GOOD.replace('"blur"', '"other"'))
    assert registry.names("step") == ("other",)
    assert [(broken.plugin, reason in broken.reason) for broken in registry.broken] == [("broken_blur", True)]


ATTACK = """
    from publisher import api

    class Poke(api.Attack[api.NoParams]):
        name, version = "poke", "1"
        access = {access}
        def requests(self, params, concept, sampling): return []

    @api.hookimpl
    def publisher_register_attacks(): return [Poke]
"""


@pytest.mark.parametrize("access", ["None", "'prompt'"])
def test_an_attack_has_to_say_what_an_attacker_needs(install: Install, access: str) -> None:
    assert install(good_poke=ATTACK.format(access="api.Access.SEARCH")).names("attack") == ("poke",)
    (broken,) = install(mute_poke=ATTACK.format(access=access)).broken
    assert broken.reason == (
        "attack Poke does not say what an attacker needs to have: set access to one of Access.PROMPT, Access.SEARCH,"
        " Access.IMAGE, Access.EMBEDDING, Access.ADAPTER, Access.TRAINING, Access.BASE"
    )


def test_two_plugins_with_one_name_are_named_and_neither_is_used(install: Install) -> None:
    registry = install(first_blur=GOOD, second_blur=GOOD)
    with pytest.raises(UsageError, match="first_blur:Blur of unknown and second_blur:Blur of unknown"):
        registry.get("step", "blur")
    assert list(registry.collisions()) == [("step", "blur")]


def test_an_unknown_name_lists_the_nearest_and_all(install: Install) -> None:
    with pytest.raises(UsageError) as caught:
        install(good_blur2=GOOD).get("step", "blurr")
    assert str(caught.value) == (
        "no plugin provides the step 'blurr'\n"
        "  Did you mean 'blur'?  Installed: blur.\n"
        "  See what is installed with: publisher plugins"
    )


def test_an_observer_that_raises_is_reported_and_stops_nobody(install: Install) -> None:
    observer = """
        from publisher import api
        seen = []
        @api.hookimpl
        def publisher_on_step_end(event): {body}
    """
    registry = install(
        a_bad=observer.format(body="raise ValueError('no')"), b_good=observer.format(body="seen.append(event)")
    )
    event = StepEnd(record=None, cached=False, seconds=1.0)  # type: ignore[arg-type]
    assert registry.notify("publisher_on_step_end", event) == [
        "observer a_bad: publisher_on_step_end raised ValueError: no"
    ]
    assert sys.modules["b_good"].seen == [event]


def test_an_observer_cannot_change_what_it_is_told(install: Install) -> None:
    observer = """
        from publisher import api
        seen = []
        @api.hookimpl
        def publisher_on_step_end(event):
            seen.append((event.record.output, dict(event.record.params), event.cached))
            object.__setattr__(event.record, "output", "forged")
            object.__setattr__(event, "cached", True)
            event.record.params["by"] = 2.0
    """
    registry = install(first=observer, second=observer)
    record = StepRecord(
        id="add",
        name="add",
        version="1",
        origin=ORIGIN,
        params={"by": 1.0},
        input="a",
        output="b",
        changed={},
        changed_parameters=0,
    )
    event = StepEnd(record=record, cached=False, seconds=1.0)
    assert registry.notify("publisher_on_step_end", event) == []
    assert (record.output, record.params, event.cached) == ("b", {"by": 1.0}, False)
    assert sys.modules["first"].seen == sys.modules["second"].seen == [("b", {"by": 1.0}, False)]


def test_a_model_that_no_family_knows_is_refused_with_what_it_is(install: Install) -> None:
    with pytest.raises(ModelError, match=r"FluxPipeline with the components transformer is of no known family"):
        install(good_blur3=GOOD).recognise({"model_index": {"_class_name": "FluxPipeline"}, "transformer": {}}, "here")


def test_a_message_about_a_missing_step_mentions_the_plugin_that_was_set_aside(install: Install) -> None:
    catalog = install(good_blur4=GOOD, freeze_mask="import nowhere_to_be_found").catalog()
    assert "was set aside: ModuleNotFoundError" in (catalog.excuse("step", "freeze-mask") or "")
    assert catalog.excuse("step", "unheard-of") is None


REGISTER = [name for name in vars(hookspecs) if name.startswith("publisher_register_")]
EVENTS = [name for name in vars(hookspecs) if name.startswith("publisher_on_")]


@pytest.mark.parametrize("hook", REGISTER)
def test_each_hook_that_registers_is_asked_once(install: Install, hook: str) -> None:
    source = f"""
        from publisher import api
        asked = []
        @api.hookimpl
        def {hook}():
            asked.append(1)
            return []
    """
    registry = install(**{f"asks_{hook}": source})
    assert (registry.broken, sys.modules[f"asks_{hook}"].asked) == ((), [1])


@pytest.mark.parametrize("hook", EVENTS)
def test_each_event_reaches_its_observers_and_no_others(install: Install, hook: str) -> None:
    source = f"""
        from publisher import api
        seen = []
        @api.hookimpl
        def {hook}(event): seen.append(event)
    """
    registry = install(**{f"sees_{hook}": source})
    for name in EVENTS:
        assert registry.notify(name, name) == []
    assert sys.modules[f"sees_{hook}"].seen == [hook]
