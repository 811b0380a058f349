"""The contract of a plugin as tests: one for each rule of its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from publisher.api import Scope
from publisher.errors import PrerequisiteError, UsageError, in_words
from publisher.testing import common, of_attacks, of_families, of_metrics, of_others, of_scorers, of_steps
from publisher.testing.plugin import SCOPE, BrokenRuleError, PluginUnderTest, Rule


def rules_of(one: PluginUnderTest) -> dict[str, Rule]:
    """Return the rules that hold for a plugin: name -> function.

    Raises:
        UsageError: the class is no plugin.
    """
    own: Mapping[str, Callable[[], dict[str, Rule]]] = {
        "step": lambda: of_steps.RULES,
        "attack": lambda: of_attacks.rules(one.plugin),
        "scorer": lambda: of_scorers.RULES,
        "metric": lambda: of_metrics.RULES,
        "family": lambda: of_families.rules(one),
        "report_format": lambda: of_others.REPORT_FORMAT,
        "executor": lambda: of_others.EXECUTOR,
        "source": lambda: of_others.SOURCE,
    }
    return common.rules(one.kind) | own[one.kind]()


def contract(
    plugin: type[Any],
    *,
    params: Mapping[str, Any] | None = None,
    expected: Mapping[str, str] | None = None,
    scope: Scope = SCOPE,
    files: Mapping[str, Path] | None = None,
    model: Path | None = None,
    configs: Mapping[str, Mapping[str, Any]] | None = None,
) -> Callable[..., None]:
    """Return a test of a plugin's contract with one case for each rule. Assign it to a name that pytest collects.

    Nothing is computed before a case runs. A step or an attack works on a copy of a very small Stable Diffusion.

    Args:
        plugin: the class.
        params: parameters as a manifest has them; keep them small.
        expected: rule -> reason why the plugin breaks it. Such a case has to fail.
        scope: concepts to go and to stay.
        files: name, as the plugin's ``inputs`` gives it -> the file or folder.
        model: a diffusers folder to work on, or that a family recognises.
        configs: for a family, in place of a folder: ``"model_index"`` and each component -> its configuration. Rules
            that run the model are left out then.

    Raises:
        UsageError: the class is no plugin, or ``expected`` names a rule that is none of its kind.
        PrerequisiteError: pytest is not installed.

    Example:
        ``test_contract = contract(Dampen, params={"strength": 0.5})``
    """
    try:
        import pytest
    except ImportError as error:
        raise PrerequisiteError("the contract is run by pytest, which is missing", hint="pip install pytest") from error
    one = PluginUnderTest(plugin, params or {}, scope, files or {}, model, configs or {})
    rules, excused = rules_of(one), dict(expected or {})
    strange = sorted(set(excused) - set(rules))
    if strange:
        raise UsageError(
            f"{plugin.__name__} has no rule {', '.join(strange)}", hint=f"Its rules are: {', '.join(rules)}."
        )
    cases = [
        pytest.param(
            rule,
            id=name,
            marks=[pytest.mark.xfail(reason=excused[name], strict=True)] if name in excused else [],
        )
        for name, rule in rules.items()
    ]

    @pytest.mark.parametrize("rule", cases)
    def test_contract(rule: Rule) -> None:
        """Test one rule."""
        rule(one)

    test_contract.plugin = one  # type: ignore[attr-defined]
    return test_contract


def broken_rules(one: PluginUnderTest) -> dict[str, str]:
    """Return the rules that a plugin breaks: name -> how. For those who do not use pytest."""
    found = {}
    for name, rule in rules_of(one).items():
        try:
            rule(one)
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises when a rule asks it
            found[name] = str(error) if isinstance(error, BrokenRuleError) else in_words(error)
    return found
