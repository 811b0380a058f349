from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from publisher.errors import ManifestError, UsageError
from publisher.policy import LoadedPolicy, load_policy

Read = Callable[[str], LoadedPolicy]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("licence: [x]", 2, "the policy has no key 'licence'."),
        ("waivers:\n- {check: a, reason: b, approver: c}", 3, "lacks the key 'expires'"),
        ("waivers:\n- {check: a, reason: b, approver: '', expires: 2026-12-31}", 3, "'approver': must not be empty"),
        ("waivers:\n- {check: a, reason: b, approver: c, expires: 2026-02-30}", 3, "there is no day '2026-02-30'"),
        ("licenses: []", 2, "'licenses': must not be empty"),
        ("require: []", 2, "'require': must not be empty"),
        ("max_age: 0d", 2, "'max_age' must be"),
        ("scorers: {emoji: abc}", 2, "'emoji' must be"),
        ("require:\n- {attacks: [plain], metric: concept-rate, upper_at_most: '0.1'}", 3, "must be a number"),
        ("keys: [gone.pub]", 2, "the key 'gone.pub' cannot be used"),
        ("licenses: &a [x]", 2, "is an anchor"),
    ],
)
def test_every_mistake_has_its_line(policy: Read, text: str, line: int, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        policy(text)
    assert caught.value.problems[0].line == line
    assert message in str(caught.value)
    assert "manifest" not in str(caught.value)


def test_a_wrong_key_names_the_nearest(policy: Read) -> None:
    with pytest.raises(ManifestError, match="Did you mean 'licenses'"):
        policy("licences: [x]")


@pytest.mark.parametrize("raw", [b"", b"- a", b"policy: 2", b"\xff"])
def test_what_is_no_policy_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "policy.yaml").write_bytes(raw)
    with pytest.raises(ManifestError, match=r"policy\.yaml:1:1|policy\.yaml:1:9"):
        load_policy(tmp_path / "policy.yaml")
    with pytest.raises(UsageError, match="no such file"):
        load_policy(tmp_path / "gone.yaml")
