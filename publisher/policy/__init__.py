"""An organisation's minimum for releases: read as strictly as a manifest, and only ever stricter than its gates."""

from publisher.policy.answer import PolicyAnswer, PolicyError, under_policy
from publisher.policy.facts import facts_of_plan, facts_of_report
from publisher.policy.judge import judge_facts
from publisher.policy.loader import LoadedPolicy, load_policy

__all__ = [
    "LoadedPolicy",
    "PolicyAnswer",
    "PolicyError",
    "facts_of_plan",
    "facts_of_report",
    "judge_facts",
    "load_policy",
    "under_policy",
]
