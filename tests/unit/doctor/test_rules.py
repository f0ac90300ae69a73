"""Promises of all rules: a healthy machine has no finding; each finding cites what it saw."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.doctor.rules import RULES, diagnose, diagnosis, unjudged
from napctl.model.counts import PollerCounts
from napctl.model.finding import Checkup, Diagnosis
from napctl.model.machine import Coalescing, DeviceDeferral
from napctl.model.value import from_json, to_json
from tests.unit.doctor.checkups import (
    SUSPENDED,
    checkup,
    device,
    idle_cpus,
    napi,
    on_application_cpu,
    only,
    poller,
    process,
    row,
    two_on_cpu_0,
)

BEFORE = {0: 298525, 1: 233080, 2: 15828, 3: 2180, 4: 750}
AFTER = {0: 177186, 1: 228985, 2: 16056, 3: 2066, 4: 831}
"""Packets per poll before and after TX coalescing, as J. Kicinski published them."""
COALESCED = Coalescing(rx_usecs=8, tx_usecs=150, tx_max_frames=128)
"""What he set."""


def test_a_quiet_machine_has_no_finding() -> None:
    assert diagnose(checkup(row())) == ()


def test_ordinary_traffic_is_no_finding() -> None:
    assert diagnose(checkup(row(softirq={0: 900, 1: 2000, 2: 2000, 8: 1000}), seconds=1)) == ()


def test_suspension_at_work_is_no_finding() -> None:
    own = napi(settings=SUSPENDED)
    counts = PollerCounts(pid=7, name="memcached", polls=26_000, empty=12_000, packets=30_000)
    seen = checkup(
        row(own, softirq={0: 3000, 4: 4000}, busy={0: 12_000, 2: 14_000}, poller=counts),
        on=device(own),
        pollers=(poller(own.napi_id),),
        processes=(process(share=0.95, feeds=own),),
        cpus=idle_cpus(cpu0=0.99),
    )
    assert diagnose(seen) == ()


polls = st.dictionaries(st.integers(0, 100), st.integers(0, 10**6), max_size=6)


@given(polls, polls, st.floats(0.05, 60), st.sampled_from(["bpf", "proc"]), st.booleans())
def test_every_checkup_gets_a_diagnosis_that_survives_json(
    softirq: dict[int, int], busy: dict[int, int], seconds: float, source: str, known: bool
) -> None:
    on = (
        device()
        if known
        else device(bus=None, driver=None, speed_mbps=None, coalescing=None, rings=None, deferral=None)
    )
    found = diagnosis(checkup(row(softirq=softirq, busy=busy), on=on, seconds=seconds, source=source, tcp_limit=None))
    assert from_json(to_json(found), Diagnosis) == found


def test_the_most_serious_comes_first() -> None:
    wide = DeviceDeferral(defer_hard_irqs=2, gro_flush_timeout_ns=20_000)
    own = napi(settings=SUSPENDED)
    seen = checkup(row(own), on=device(own, driver="igc", deferral=wide), rx_missed=1000)
    assert [(each.rule, each.severity) for each in diagnose(seen)] == [
        ("ring-drops", "danger"),
        ("device-wide-deferral", "cost"),
        ("settings-lost-at-reset", "risk"),
    ]


def test_what_could_not_be_judged_is_said_with_the_reason() -> None:
    seen = checkup(row(), on=device(bus=None, coalescing=None), source="proc", queues=None)
    told = {each.why: each for each in unjudged(seen)}
    without_probe = told["the BPF probe is not available, so polls are not counted"]
    assert without_probe.devices == ()
    assert "busy-polling-while-idle" in without_probe.rules
    assert told["a software device has no interrupts"].devices == ("eth0",)
    assert "tx-only-interrupts" in told["fewer than 100 packets came"].rules
    assert unjudged(checkup(row(), on=device(up=False), source="bpf")) == ()


@pytest.mark.parametrize(
    "make",
    [
        lambda: checkup(row(softirq={0: 5000, 4: 4000})),
        lambda: checkup(row(), on=device(coalescing=Coalescing(tx_usecs=9000))),
        lambda: two_on_cpu_0()[0],
        on_application_cpu,
        lambda: checkup(row(), rx_missed=1000),
    ],
)
def test_every_finding_cites_evidence_and_basis_and_belongs_to_its_rule(make: Callable[[], Checkup]) -> None:
    found = only(make())
    assert found.rule in {rule.name for rule in RULES}
    assert all(evidence.text and evidence.source for evidence in found.evidence)
    assert found.evidence
    assert all((found.title, found.consequence, found.remedy, found.basis, found.where))
