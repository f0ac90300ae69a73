"""Promises of the rules about losses: every counter, from its threshold on and not below."""

import pytest

from napctl.doctor.rules import diagnose
from napctl.model.counts import CpuCounts, QueueCounts
from napctl.model.machine import Rings
from tests.unit.doctor.checkups import (
    checkup,
    device,
    only,
    row,
    rules,
)


@pytest.mark.parametrize(("squeezes", "softirqs", "found"), [(10, 1000, True), (9, 10, False), (10, 1001, False)])
def test_time_squeezes_need_a_number_and_a_share(squeezes: int, softirqs: int, found: bool) -> None:
    counted = (CpuCounts(cpu=0, net_rx_softirqs=softirqs, time_squeezes=squeezes), CpuCounts(cpu=1, time_squeezes=0))
    seen = checkup(row(), counted=counted)
    assert rules(seen) == ["time-squeezes"] * found
    assert all("on CPU 0 ran out" in finding.title for finding in diagnose(seen))


def test_a_limit_that_was_raised_already_is_not_lowered_by_the_remedy() -> None:
    counted = (CpuCounts(cpu=0, net_rx_softirqs=100, time_squeezes=50, backlog_drops=50),)
    commands = [command for finding in diagnose(checkup(row(), counted=counted)) for command in finding.commands]
    doubled = [command for command in commands if "-w" in command]
    assert doubled == [
        f"sysctl -w net.core.{name}=$((2 * $(sysctl -n net.core.{name})))"
        for name in ("netdev_max_backlog", "netdev_budget", "netdev_budget_usecs")
    ]


def test_a_machine_with_many_cpus_fills_no_screen() -> None:
    counted = tuple(CpuCounts(cpu=cpu, net_rx_softirqs=100, time_squeezes=10 + cpu) for cpu in (0, *range(8, 64)))
    found = only(checkup(row(), counted=counted))
    assert "softirqs on CPU 0 and 8-63 ran out" in found.title
    assert found.evidence[0].text == "73 time squeezes on CPU 63"
    assert found.evidence[-1].text.endswith("on 53 other CPUs")
    assert len(found.evidence) == 5


@pytest.mark.parametrize(("drops", "found"), [(0, False), (9, False), (10, True)])
def test_backlog_drops(drops: int, found: bool) -> None:
    assert rules(checkup(row(), counted=(CpuCounts(cpu=0, backlog_drops=drops),))) == ["backlog-drops"] * found


@pytest.mark.parametrize("counter", ["rx_missed", "hw_drops", "alloc_fail"])
@pytest.mark.parametrize(("drops", "found"), [(0, False), (9, False), (10, True)])
def test_ring_drops_are_found_in_every_counter(counter: str, drops: int, found: bool) -> None:
    queue = QueueCounts(kind="rx", index=0, **({counter: drops} if counter != "rx_missed" else {}))
    seen = checkup(row(), rx_missed=drops if counter == "rx_missed" else 0, queues=(queue,))
    assert rules(seen) == ["ring-drops"] * found


def test_a_longer_ring_is_offered_only_if_there_is_one() -> None:
    assert only(checkup(row(), rx_missed=50)).commands == ("ethtool -G eth0 rx 2048",)
    assert only(checkup(row(), on=device(rings=Rings(rx=8192, rx_max=8192)), rx_missed=50)).commands == ()
    assert only(checkup(row(), on=device(rings=None), rx_missed=50)).commands == ()
