"""Every rule finds its own fault, and nothing in the nearest thing that is none. A rule without such a pair fails.

That each fault is real is shown where one can be planted: tests/lab/doctor/test_rules.py and tests/vm/test_doctor.py.
"""

import pytest
from msgspec.structs import replace

from napctl.doctor.rules import RULES, diagnose
from napctl.model.counts import CpuCounts, PollerCounts
from napctl.model.finding import Checkup
from napctl.model.machine import Coalescing, DeviceDeferral
from tests.unit.doctor.checkups import (
    OFF,
    checkup,
    device,
    idle_cpus,
    napi,
    on_application_cpu,
    poller,
    process,
    row,
    two_on_cpu_0,
)
from tests.unit.doctor.test_bypass import behind, with_poller
from tests.unit.doctor.test_bypass import loaded as loaded_bypass
from tests.unit.doctor.test_bypass import spinning as spinning_thread
from tests.unit.doctor.test_others import both
from tests.unit.doctor.test_overload import everywhere, load, loaded, overloaded
from tests.unit.doctor.test_past_kernel import polled_by_xdp, with_program
from tests.unit.doctor.test_udp_senders import delaying, sending


def squeezed(times: int) -> Checkup:
    return checkup(row(), counted=(CpuCounts(cpu=0, net_rx_softirqs=1000, time_squeezes=times),))


def wide(defer: int) -> Checkup:
    return checkup(row(), on=device(deferral=DeviceDeferral(defer_hard_irqs=defer, gro_flush_timeout_ns=20_000)))


def watching(*napi_ids: int) -> Checkup:
    return checkup(row(), on=device(napi(), napi(1)), pollers=(poller(*napi_ids),))


def burning(share: float) -> Checkup:
    counts = PollerCounts(pid=7, name="memcached", polls=1_000_000, empty=999_000, packets=1000)
    return checkup(row(busy={0: 999_000, 1: 1000}, poller=counts), processes=(process(share=share),))


def spinning(threaded: str) -> Checkup:
    own = napi(settings=replace(OFF, threaded=threaded), thread_pid=99)
    return checkup(row(own, thread={0: 900_000, 1: 100_000}), on=device(own, bus=None))


def kept_by(driver: str) -> Checkup:
    own = napi(settings=replace(OFF, defer_hard_irqs=100, gro_flush_timeout_ns=20_000))
    return checkup(row(own), on=device(own, driver=driver))


def sent_late(usecs: int) -> Checkup:
    return checkup(row(), on=device(coalescing=Coalescing(tx_usecs=usecs), rings=None))


def adaptive(usecs: int) -> Checkup:
    on = device(coalescing=Coalescing(rx_usecs=usecs, use_adaptive_rx=True, use_cqe_mode_rx=False))
    return checkup(row(softirq={8: 2000}), on=on)


def crowded(queues: int) -> Checkup:
    own = [napi(number, cpus=str(number % 2)) for number in range(queues)]
    rows = [row(each, softirq={2: 500}) for each in own]
    return checkup(*rows, on=device(*own), cpus=idle_cpus(cpu0=0.95, cpu1=0.95))


def moved(to: str) -> Checkup:
    was, now = device(napi(cpus="0")), device(napi(cpus=to))
    return checkup(row(softirq={2: 500}), was=was, on=now, processes=(process(70, "irqbalance"),))


PAIRS: dict[str, tuple[Checkup, Checkup]] = {
    "overload": (overloaded(), overloaded(late=0.0, idle=0.06)),
    "packets-beside-their-server": (loaded(load(0.45, 0.1, idle=0.2)), loaded(load(0.44, 0.1, idle=0.2))),
    "no-cpu-left-by-a-flood": (everywhere(0.45, 0.45), everywhere(0.45, 0.44)),
    "ring-drops": (checkup(row(), rx_missed=10), checkup(row(), rx_missed=9)),
    "backlog-drops": (
        checkup(row(), counted=(CpuCounts(cpu=0, backlog_drops=10),)),
        checkup(row(), counted=(CpuCounts(cpu=0, backlog_drops=9),)),
    ),
    "time-squeezes": (squeezed(10), squeezed(9)),
    "epoll-over-several-queues": (watching(8193, 8194), watching(8193)),
    "busy-polling-while-idle": (burning(0.25), burning(0.24)),
    "napi-thread-polling-while-idle": (spinning("busy-poll"), spinning("enabled")),
    "bypass-idle": (loaded_bypass(0, 100), loaded_bypass(1, 100)),
    "poller-behind": (behind(10), behind(9)),
    "poller-at-rest": (with_poller(spinning_thread(work_share=0.05)), with_poller(spinning_thread(work_share=0.06))),
    "busy-polling-without-deferral": (polled_by_xdp(), polled_by_xdp(prefers=False)),
    "generic-xdp": (with_program(generic=3), with_program(native=3)),
    "device-wide-deferral": (wide(2), wide(0)),
    "settings-lost-at-reset": (kept_by("igc"), kept_by("ice")),
    "tx-completions-too-late": (sent_late(977), sent_late(976)),
    "tx-only-interrupts": (checkup(row(softirq={0: 2000, 1: 8000})), checkup(row(softirq={0: 1999, 1: 8001}))),
    "single-packet-interrupts": (checkup(row(softirq={1: 10_000})), checkup(row(softirq={1: 9_999}))),
    "udp-held-by-tx-delay": (sending(delaying(284)), sending(delaying(283))),
    "adaptive-coalescing-stuck": (adaptive(256), adaptive(8)),
    "several-queues-on-one-cpu": two_on_cpu_0(),
    "interrupt-on-application-cpu": (on_application_cpu(), on_application_cpu(cpu0=0.94)),
    "more-busy-queues-than-cpus": (crowded(3), crowded(2)),
    "irqbalance-moves-interrupts": (moved("1"), moved("0")),
    "set-by-two": (both(), both("rings")),
}
"""Rule: a checkup with its fault, and one that comes as near as can be without having it."""


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_a_rule_finds_its_fault_alone_and_only_where_it_is(rule: str) -> None:
    fault, none = PAIRS[rule]
    assert [each.rule for each in diagnose(fault)] == [rule]
    assert diagnose(none) == ()


def test_no_fault_stands_for_a_rule_that_is_no_more() -> None:
    assert PAIRS.keys() == {rule.name for rule in RULES}
