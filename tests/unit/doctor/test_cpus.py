"""Promises of the rules about CPUs: crowded ones are named, and what is offered is free."""

import pytest
from msgspec.structs import replace

from napctl.doctor.rules import diagnose
from napctl.model.finding import Checkup
from tests.unit.doctor.checkups import (
    checkup,
    device,
    idle_cpus,
    napi,
    on_application_cpu,
    only,
    process,
    row,
    rules,
    told,
    two_on_cpu_0,
)


def test_two_busy_queues_on_a_crowded_cpu_are_found_and_parted() -> None:
    together, apart = two_on_cpu_0()
    found = only(together)
    assert (found.rule, found.where) == ("several-queues-on-one-cpu", "CPU 0")
    assert found.title == "2 busy queues share CPU 0, which is 75.0 % busy"
    assert found.commands == ("echo 1 > /proc/irq/25/smp_affinity_list",)
    assert diagnose(apart) == ()


def test_sharing_a_cpu_harms_only_if_it_is_crowded_and_another_is_free() -> None:
    together, _ = two_on_cpu_0()
    assert diagnose(replace(together, cpus=idle_cpus(cpu0=0.74))) == ()
    assert diagnose(replace(together, cpus=idle_cpus(1, cpu0=0.75))) == ()
    assert diagnose(replace(together, cpus=idle_cpus(cpu0=0.75, cpu1=0.51))) == (), "there is no room elsewhere"


def test_quiet_queues_and_queues_that_an_application_polls_may_share_a_cpu() -> None:
    pair = (napi(), napi(1, cpus="0"))
    on, cpus = device(*pair), idle_cpus(cpu0=0.9)
    assert diagnose(checkup(row(pair[0], softirq={2: 500}), row(pair[1], softirq={1: 999}), on=on, cpus=cpus)) == ()
    polled = [row(each, softirq={2: 450}, busy={1: 50}) for each in pair]
    assert diagnose(checkup(*polled, on=on, cpus=cpus)) == ()


def test_an_interrupt_on_the_full_cpu_of_its_application() -> None:
    found = only(on_application_cpu())
    assert (found.rule, found.where) == ("interrupt-on-application-cpu", "NAPI 8193 of eth0 (rx0 tx0)")
    assert found.title == "packets for memcached (7) are taken on its own full CPU 0, while CPU 1 is idle"
    assert found.commands == ("napctl attach 7", "echo 1 > /proc/irq/24/smp_affinity_list")


@pytest.mark.parametrize(
    "seen",
    [
        on_application_cpu(cpu0=0.94),
        on_application_cpu(cpu1=0.51),
        on_application_cpu(share=0.29),
        on_application_cpu(cpu=1),
        on_application_cpu(softirq={1: 999}),
        on_application_cpu(softirq={2: 450}, busy={2: 50}),
    ],
    ids=["room left", "no idle CPU", "not the application", "another CPU", "no load", "polls itself"],
)
def test_an_interrupt_on_its_applications_cpu_is_right(seen: Checkup) -> None:
    assert diagnose(seen) == ()


def test_interrupts_that_shall_move_are_spread_over_the_idle_cpus_of_a_large_machine() -> None:
    own = [napi(number) for number in range(3)]
    full = {f"cpu{number}": 1.0 for number in range(3)}
    seen = checkup(
        *(row(each, softirq={2: 500}) for each in own),
        on=device(*own),
        cpus=idle_cpus(64, **full),
        processes=tuple(process(7 + n, share=0.9, cpu=n, feeds=each) for n, each in enumerate(own)),
    )
    found = diagnose(seen)

    assert [each.commands[1] for each in found] == [
        f"echo {3 + number} > /proc/irq/{24 + number}/smp_affinity_list" for number in range(3)
    ]
    assert found[0].title.endswith("while CPU 3-63 are idle")


@pytest.mark.parametrize(("queues", "busy", "found"), [(3, 0.95, True), (2, 0.95, False), (3, 0.94, False)])
def test_more_busy_queues_than_full_cpus(queues: int, busy: float, found: bool) -> None:
    own = [napi(number, cpus=str(number % 2)) for number in range(queues)]
    rows = [row(each, softirq={2: 500}) for each in own]
    seen = checkup(*rows, on=device(*own), cpus=idle_cpus(cpu0=busy, cpu1=busy))
    assert rules(seen) == ["more-busy-queues-than-cpus"] * found
    assert all(finding.commands == ("ethtool -L eth0 rx 2",) for finding in diagnose(seen))


def test_irqbalance_is_named_only_if_an_interrupt_moved_while_it_runs() -> None:
    was, now = device(napi(cpus="0")), device(napi(cpus="1"))
    balancing, busy = (process(70, "irqbalance"),), row(softirq={2: 500})
    found = only(checkup(busy, was=was, on=now, processes=balancing))
    assert (found.rule, found.certainty) == ("irqbalance-moves-interrupts", "possible")
    assert "interrupt 24 (NAPI 8193 of eth0 (rx0 tx0)) from CPU 0 to 1" in told(found)
    assert diagnose(checkup(busy, was=was, on=was, processes=balancing)) == ()
    assert diagnose(checkup(busy, was=was, on=now)) == ()
    thread = [device(napi(cpus=cpu, thread_pid=99)) for cpu in "01"]
    assert diagnose(checkup(busy, was=thread[0], on=thread[1], processes=balancing)) == (), "a thread has moved"


@pytest.mark.parametrize(
    ("packets", "certainty"), [((1000, 1000), "likely"), ((1000, 999), "possible"), ((9, 9), None)]
)
def test_only_moves_of_busy_interrupts_count_and_one_alone_proves_little(
    packets: tuple[int, int], certainty: str | None
) -> None:
    was, now = ((napi(cpus=cpus[0]), napi(1, cpus=cpus[1])) for cpus in ("01", "10"))
    rows = [row(each, softirq={1: count}) for each, count in zip(now, packets, strict=True)]
    seen = checkup(*rows, was=device(*was), on=device(*now), processes=(process(70, "irqbalance"),))
    assert [each.certainty for each in diagnose(seen)] == [certainty] * (certainty is not None)
