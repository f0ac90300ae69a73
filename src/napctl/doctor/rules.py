"""All rules, and what they make of a Checkup."""

from napctl.doctor import bypass, coalescing, cpus, drops, others, overload, past_kernel, polling, udp_senders
from napctl.model.finding import Checkup, Diagnosis, Finding, Unjudged

__all__ = ["RULES", "diagnose", "diagnosis", "unjudged"]


RULES = (
    *overload.RULES,
    *drops.RULES,
    *polling.RULES,
    *bypass.RULES,
    *past_kernel.RULES,
    *coalescing.RULES,
    *udp_senders.RULES,
    *cpus.RULES,
    *others.RULES,
)

SEVERITIES, CERTAINTIES = ("danger", "cost", "risk"), ("certain", "likely", "possible")


def diagnose(seen: Checkup) -> tuple[Finding, ...]:
    """What the rules find, most serious first; certain before possible; also what somebody mends."""
    found = [finding for rule in RULES for finding in rule.find(seen)]
    return tuple(sorted(found, key=lambda each: (SEVERITIES.index(each.severity), CERTAINTIES.index(each.certainty))))


def unjudged(seen: Checkup) -> tuple[Unjudged, ...]:
    """What rules lacked, so that no finding of theirs means nothing."""
    devices: dict[str, dict[str, None]] = {}
    rules: dict[str, dict[str, None]] = {}
    for rule in RULES:
        for device, why in (found for lack in rule.lacks for found in lack(seen)):
            rules.setdefault(why, {})[rule.name] = None
            devices.setdefault(why, {}).update({device: None} if device else {})
    return tuple(Unjudged(why=why, devices=tuple(devices[why]), rules=tuple(rules[why])) for why in rules)


def diagnosis(seen: Checkup) -> Diagnosis:
    """Everything that is to be said of a Checkup."""
    found = diagnose(seen)
    return Diagnosis(
        findings=tuple(each for each in found if not each.mended_by),
        mended=tuple(each for each in found if each.mended_by),
        rules=tuple(rule.name for rule in RULES),
        unjudged=unjudged(seen),
        left_alone=tuple(past_kernel.left_alone(seen)),
        checkup=seen,
    )
