"""Plans for a machine that is to outlive a flood: which instances get a thread, on which CPUs, what becomes of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.change.one_change import touched
from napctl.model.change import ThreadChange
from napctl.model.errors import BadInput, Unsupported
from napctl.model.histogram import Histogram
from napctl.model.machine import Device, EpollPoller, Machine, Napi, Queue
from napctl.model.plan import Advice, DevicePlan, InstanceThread, Plan
from napctl.model.settings import EpollParams, NapiSettings, ThreadSettings
from napctl.model.window import NapiWindow, Window
from napctl.plan.bounds import beyond, mismatch
from napctl.plan.diff import changes
from napctl.plan.export import export
from napctl.plan.file import plan_of, plan_text
from napctl.plan.goals import GOALS
from napctl.plan.propose import propose
from tests.strategies import THREADS

SOFTIRQ = ThreadSettings(threaded="disabled", nice=0, cpus="0-3")
OWN = NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0, irq_suspend_timeout_ns=0, threaded="disabled")


def napi(number: int, **more: Any) -> Napi:
    fields: dict[str, Any] = {"irq": 40 + number, "cpus": str(number), "settings": OWN, "thread": SOFTIRQ}
    return Napi(napi_id=10 + number, ifindex=2, **fields | more)


def machine(*napis: Napi, **more: Any) -> Machine:
    """One device with an RX queue for each."""
    queues = tuple(
        Queue(ifindex=2, kind=kind, index=index, napi_id=each.napi_id)
        for kind in ("rx", "tx")
        for index, each in enumerate(napis)
    )
    device = Device(name="eth0", ifindex=2, up=True, driver="any", bus="0000:03:00.0", queues=queues, napis=napis)
    fields: dict[str, Any] = {"pollers": (), "cpus_online": "0-3"}
    return Machine(kernel="6.18", netns=7, devices=(device,), **fields | more)


def window(*packets: int) -> Window:
    """In which each instance took so many."""
    rows = tuple(
        NapiWindow(
            napi_id=10 + number, device="eth0", ifindex=2, netns=7,
            softirq=Histogram.of({1: each}),
        )
        for number, each in enumerate(packets)
    )  # fmt: skip
    return Window(source="bpf", lacks=(), started_unix_ns=1, seconds=1.0, napis=rows, cpus=(), devices=())


def advice(machine: Machine, window: Window | None = None) -> Advice:
    return propose(machine, window, GOALS["resilient"], None, {})


def threads(advice: Advice) -> dict[int, ThreadSettings]:
    return {each.instance: each.thread for device in advice.plan.devices for each in device.threads}


def test_busy_instances_get_a_thread_at_nice_19_where_their_interrupt_is() -> None:
    found = advice(machine(napi(0), napi(1), napi(2)), window(9_000, 5, 1_000))
    assert threads(found) == {
        0: ThreadSettings(threaded="enabled", nice=19, cpus="0"),
        2: ThreadSettings(threaded="enabled", nice=19, cpus="2"),
    }
    assert [(each.setting, each.now, each.proposed) for each in found.proposals] == [
        ("thread_0", "softirq", "thread, nice 19, CPU 0"),
        ("thread_2", "softirq", "thread, nice 19, CPU 2"),
    ]


def test_where_the_interrupt_is_not_told_the_scheduler_chooses_the_cpu() -> None:
    found = advice(machine(napi(0, irq=None, cpus=None)))
    assert threads(found) == {0: ThreadSettings(threaded="enabled", nice=19)}
    assert "left to the scheduler" in found.proposals[0].sources[1]


def test_without_a_window_every_instance_counts_as_busy() -> None:
    assert set(threads(advice(machine(napi(0), napi(1))))) == {0, 1}


def test_without_a_packet_nobody_knows_which_instances_are_busy() -> None:
    found = advice(machine(napi(0)), window(0))
    assert threads(found) == {}
    assert "no packet came in the window" in found.missing[0]


def test_an_instance_that_a_task_polls_itself_is_left() -> None:
    attached = napi(0, settings=replace(OWN, irq_suspend_timeout_ns=20_000_000))
    prefers = EpollPoller(
        pid=1, name="x", epoll_fd=3, napi_ids=(11,),
        params=EpollParams(busy_poll_usecs=0, busy_poll_budget=8, prefer_busy_poll=True),
    )  # fmt: skip
    found = advice(machine(attached, napi(1), napi(2), pollers=(prefers,)))
    assert set(threads(found)) == {2}
    assert len(found.left) == 2
    assert "protects it while that holds; `napctl protect`" in found.left[0]


def test_what_has_its_thread_already_is_not_proposed() -> None:
    own = ThreadSettings(threaded="enabled", nice=19, cpus="0")
    assert threads(advice(machine(napi(0, thread=own)))) == {}


def together(number: int) -> Napi:
    """As before Linux 6.17."""
    return napi(number, settings=replace(OWN, threaded=None))


def test_where_threads_are_switched_for_a_whole_device_all_instances_get_one() -> None:
    before_6_17 = machine(together(0), together(1))
    found = advice(before_6_17, window(500, 0))
    assert set(threads(found)) == {0, 1}
    assert all(isinstance(each, ThreadChange) and each.whole_device for each in changes(found.plan, before_6_17))
    (planned,) = found.plan.devices
    part = replace(found.plan, devices=(replace(planned, threads=planned.threads[:1]),))
    assert "the plan has none for 1" in mismatch(part, before_6_17)[0]


def test_without_a_switch_for_threads_none_are_proposed() -> None:
    found = advice(machine(napi(0, thread=None)))
    assert threads(found) == {}
    assert "no NAPI threads that can be switched" in found.left[0]


@given(st.lists(st.tuples(st.integers(0, 10_000), THREADS | st.just(SOFTIRQ)), min_size=1, max_size=4))
def test_once_applied_nothing_is_left_to_propose(queues: list[tuple[int, ThreadSettings]]) -> None:
    napis = [napi(number, thread=replace(SOFTIRQ, **{
        name: value for name in ("threaded", "nice", "cpus") if (value := getattr(thread, name)) is not None
    })) for number, (_, thread) in enumerate(queues)]  # fmt: skip
    here = machine(*napis)
    plan = advice(here, window(*(packets for packets, _ in queues))).plan
    assert mismatch(plan, here) == ()
    assert beyond(plan, here) == ()
    assert plan_of(plan_text(plan), "x") == plan
    for change in changes(plan, here):
        assert isinstance(change, ThreadChange)
        number = change.napi_id - 10
        asked = {name: getattr(change.after, name) for name in touched(change)}
        assert asked
        assert all(getattr(napis[number].thread, name) == getattr(change.before, name) != asked[name] for name in asked)
        thread = napis[number].thread
        assert thread is not None
        napis[number] = replace(napis[number], thread=replace(thread, **asked))
    assert changes(plan, machine(*napis)) == ()


def plan(*asked: InstanceThread) -> Plan:
    planned = DevicePlan(name="eth0", driver="any", rx_queues=2, tx_queues=2, threads=asked)
    return Plan(goal="resilient", max_added_latency_ns=0, devices=(planned,))


NICE = ThreadSettings(threaded="enabled", nice=19)


def test_a_cpu_that_is_offline_and_an_instance_that_is_not_there_are_refused() -> None:
    here = machine(napi(0), napi(1))
    away = InstanceThread(instance=0, thread=replace(NICE, cpus="2-5"))
    assert "CPU 4-5, which is not online here" in mismatch(plan(away), here)[0]
    assert "NAPI instance 9 is not there: it has 2" in mismatch(plan(InstanceThread(instance=9, thread=NICE)), here)[0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('threaded = "enabled"\nnice = 20', "from 0 to 19"),
        ('threaded = "enabled"\nnice = -1', "from 0 to 19"),
        ('threaded = "disabled"', "allowed are enabled, busy-poll"),
        ('threaded = "enabled"\ncpus = "x"', 'a list of CPUs such as "0-3,8"'),
        ('threaded = "enabled"\ncpus = "3-1"', "a list of CPUs"),
        ('threaded = "enabled"\ncpus = 1', "a list of CPUs"),
        ("nice = 19", "the key threaded is missing"),
        ('threaded = "enabled"\nfoo = 1', "there is no such key"),
    ],
)
def test_what_is_no_thread_is_not_read_as_one(line: str, words: str) -> None:
    text = plan_text(plan()) + f"[eth0.thread.0]\n{line}\n"
    with pytest.raises(BadInput, match=r"eth0\.thread\.0") as error:
        plan_of(text, "plan.toml")
    assert words in str(error.value)


def test_no_other_tool_has_words_for_a_thread() -> None:
    with pytest.raises(Unsupported, match="no words for anything in this plan"):
        export(plan(InstanceThread(instance=0, thread=NICE)), "ethtool")
