"""Promises of CPU time by kind: of which CPUs, from which source, and what is left out because nobody measured it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.experiment.cpu_shares import (
    ACCOUNTED,
    HANDLERS,
    PROBE,
    SCHEDULER,
    SPLIT,
    STEAL,
    TICKS,
    CpuReading,
    Ran,
    counted,
    cpu_shares,
)
from napctl.kernel.machine_stat import TICKS_PER_SECOND, machine_stat, parsed
from napctl.model.counts import CpuCounts
from napctl.model.experiment import Cell
from napctl.model.metrics import BY_NAME
from napctl.model.window import Window
from napctl.report.summary import summarise

HZ = TICKS_PER_SECOND
KINDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")


def line(cpu: int, **seconds: float) -> str:
    """A CPU's line, each column in s."""
    return f"cpu{cpu} " + " ".join(str(round(seconds.get(kind, 0) * HZ)) for kind in KINDS)


def stat(*lines: str) -> str:
    return "\n".join(["cpu  1 2 3 4 5 6 7 8 9 10", *lines, "intr 99 1 2 3", "ctxt 1234", "btime 1", "softirq 5 1"])


def reading(at: float, *lines: str, **changes: Any) -> CpuReading:
    whole: dict[str, Any] = {"at": at, "stat": parsed(stat(*lines)), "server": None, "threads": {}}
    return CpuReading(**(whole | changes))


def window(*cpus: CpuCounts, seconds: float = 1) -> Window:
    return Window(source="proc", lacks=(), started_unix_ns=0, seconds=seconds, napis=(), cpus=cpus, devices=())


def shares(
    before: CpuReading, after: CpuReading, over: Window | None = None, cpus: tuple[int, ...] = ()
) -> tuple[dict[str, float], dict[str, str]]:
    return cpu_shares(before, after, counted(before, after, cpus), over or window())


# /proc/stat


def test_each_cpu_has_its_columns_in_seconds_nice_being_user_and_iowait_idle() -> None:
    found = parsed(stat(line(0, user=1, nice=2, system=3, idle=4, iowait=5, irq=6, softirq=7, steal=8), line(3)))
    assert found.by_cpu.keys() == {0, 3}
    cpu = found.by_cpu[0]
    assert (cpu.user, cpu.system, cpu.idle, cpu.irq, cpu.softirq, cpu.steal) == (3, 3, 9, 6, 7, 8)
    assert found.context_switches == 1234


@pytest.mark.parametrize(
    ("columns", "lacking"),
    [("1 2 3 4", {"irq", "softirq", "steal"}), ("1 2 3 4 5 6 7", {"steal"}), ("1 2 3 4 5 6 7 8", set())],
)
def test_columns_that_an_old_kernel_does_not_have_are_missing_and_not_0(columns: str, lacking: set[str]) -> None:
    cpu = parsed(stat(f"cpu0 {columns}")).by_cpu[0]
    assert {name for name in ("irq", "softirq", "steal") if getattr(cpu, name) is None} == lacking
    assert cpu.idle == (4 + (5 if len(columns.split()) > 4 else 0)) / HZ


def test_an_interrupt_column_that_never_moved_is_no_measurement() -> None:
    """The tick cannot come within a handler: without a clock for it the kernel shows 0 for ever."""
    assert parsed(stat(line(0, user=1), line(1, user=1))).by_cpu[0].irq is None
    moved = parsed(stat(line(0, user=1), line(1, irq=0.5)))
    assert [cpu.irq for cpu in moved.by_cpu.values()] == [0, 0.5]


def test_this_machine_is_read() -> None:
    found = machine_stat()
    assert found.context_switches > 0
    assert all(cpu.idle >= 0 and cpu.user >= 0 for cpu in found.by_cpu.values())


# Shares


def test_shares_are_of_the_cpus_that_count_and_say_where_they_come_from() -> None:
    before = reading(10, line(0), line(1))
    after = reading(12, line(0, user=0.5, system=0.25, idle=1, softirq=0.2, steal=0.1), line(1, user=2))

    metrics, sources = shares(before, after, cpus=(0,))

    assert metrics == pytest.approx({
        "cpu_share": 0.5, "user_share": 0.25, "system_share": 0.125, "softirq_share": 0.1, "steal_share": 0.05,
    })  # fmt: skip
    assert sources["user_share"] == sources["system_share"] == f"{TICKS}, CPU 0"
    assert sources["softirq_share"] == f"all softirqs: {TICKS}, CPU 0"
    assert sources["steal_share"] == f"{STEAL}, CPU 0"
    everywhere, told = shares(before, after)
    assert everywhere["user_share"] == pytest.approx(2.5 / 4)
    assert told["cpu_share"].endswith("all CPUs")


def test_the_probe_is_better_than_samples_and_only_the_cpus_that_count_are_taken_from_it() -> None:
    before, after = reading(0, line(0), line(1)), reading(1, line(0, idle=0.5, softirq=0.9, irq=0.3), line(1))
    probed = window(
        CpuCounts(cpu=0, interrupt_ns=30_000_000, net_rx_softirq_ns=200_000_000),
        CpuCounts(cpu=1, interrupt_ns=900_000_000, net_rx_softirq_ns=900_000_000),
    )

    metrics, sources = shares(before, after, probed, cpus=(0,))

    assert metrics["softirq_share"] == pytest.approx(0.2)
    assert metrics["irq_share"] == pytest.approx(0.03)
    assert metrics["network_cpu_share"] == pytest.approx(0.4), "of the 0.5 s in which CPU 0 was busy"
    assert sources["softirq_share"] == f"NET_RX: {PROBE}, CPU 0"
    assert sources["irq_share"] == f"{HANDLERS}, CPU 0"


def test_of_the_busy_time_of_a_cpu_that_was_idle_throughout_nothing_is_told() -> None:
    metrics, _ = shares(reading(0, line(0)), reading(1, line(0, idle=1)), window(CpuCounts(cpu=0)))

    assert metrics["cpu_share"] == metrics["softirq_share"] == 0
    assert "network_cpu_share" not in metrics, "a part of nothing"


def test_without_a_probe_interrupt_time_is_the_kernels_where_it_has_one() -> None:
    before, after = reading(0, line(0, irq=1)), reading(1, line(0, irq=1.25))
    metrics, sources = shares(before, after)
    assert (metrics["irq_share"], sources["irq_share"]) == (0.25, f"{ACCOUNTED}, all CPUs")
    assert "network_cpu_share" not in metrics
    assert "irq_share" not in shares(reading(0, line(0)), reading(1, line(0)))[0]


def test_a_cpu_that_came_or_went_in_between_does_not_count() -> None:
    before = reading(0, line(0, idle=5), line(1, idle=5))
    after = reading(1, line(0, idle=5.75, user=0.25), line(2, user=9))

    metrics, sources = shares(before, after)

    assert metrics["cpu_share"] == pytest.approx(0.25)
    assert metrics["user_share"] == pytest.approx(0.25)
    assert sources["cpu_share"].endswith("CPU 0"), "not all CPUs"
    assert shares(before, after, cpus=(1,))[0]["cpu_share"] == pytest.approx(0.25), "the one asked for has gone"


def test_the_servers_user_and_system_time_add_up_to_the_schedulers_figure() -> None:
    before = reading(0, line(0), server={7: Ran(10, 4, 6), 8: Ran(1, 1, 0), 9: Ran(3, 1, 2)})
    after = reading(2, line(0), server={7: Ran(11.5, 4.3, 7.2), 8: Ran(1.1, 1.1, 0)})

    metrics, sources = shares(before, after)

    assert metrics["server_cpu_share"] == pytest.approx(0.8), "without the process that has ended"
    assert metrics["server_user_share"] == pytest.approx(0.8 * 0.4 / 1.6)
    assert metrics["server_user_share"] + metrics["server_system_share"] == pytest.approx(0.8)
    assert sources["server_cpu_share"] == SCHEDULER
    assert sources["server_user_share"] == sources["server_system_share"] == SPLIT


def test_of_too_few_ticks_no_split_is_made() -> None:
    before = reading(0, line(0), server={7: Ran(10, 4, 6)})
    metrics, _ = shares(before, reading(1, line(0), server={7: Ran(10.15, 4.1, 6.05)}))
    assert metrics["server_cpu_share"] == pytest.approx(0.15)
    assert not {"server_user_share", "server_system_share"} & metrics.keys()
    assert not [name for name in shares(reading(0, line(0)), reading(1, line(0)))[0] if name.startswith("server")]


def test_napi_threads_are_shown_where_there_are_any() -> None:
    before, after = reading(0, line(0), threads={5: 1.0, 6: 9.0}), reading(2, line(0), threads={5: 2.0, 7: 0.5})
    metrics, sources = shares(before, after)
    assert metrics["napi_thread_share"] == pytest.approx(0.75)
    assert sources["napi_thread_share"] == SCHEDULER
    assert "napi_thread_share" not in shares(reading(0, line(0)), reading(1, line(0)))[0]


def test_treatments_are_not_compared_in_what_the_tick_samples() -> None:
    """Samples miss what timers drive: treatments would differ by how they are seen."""
    metrics, sources = shares(
        reading(0, line(0), server={7: Ran(0, 0, 0)}),
        reading(1, line(0, user=0.5), server={7: Ran(0.5, 0.4, 0.1)}),
        window(CpuCounts(cpu=0, interrupt_ns=1, net_rx_softirq_ns=1)),
    )
    sampled = {name for name in metrics if "tick samples" in sources[name]}
    assert sampled == {"user_share", "system_share", "server_user_share", "server_system_share"}
    cells = [
        Cell(
            treatment=treatment, load="max", asked_per_second=None, round=number, position=number, started_unix_ns=0,
            seconds=1, metrics={name: value * (1 + number / 1000) for name, value in metrics.items()},
        )
        for treatment in ("base", "new") for number in range(8)
    ]  # fmt: skip
    found = summarise(cells, "base", 1)
    assert sampled <= {each.metric for each in found.estimates}
    assert {each.metric for each in found.comparisons} == metrics.keys() - sampled - {"steal_share"}


SECONDS = st.dictionaries(st.sampled_from(KINDS), st.integers(0, 10**6).map(lambda ticks: ticks / HZ))


@given(st.lists(SECONDS, min_size=1, max_size=4), st.lists(SECONDS, min_size=1, max_size=4), st.floats(0.1, 3600))
def test_every_share_is_known_has_a_source_and_is_within_0_and_1(
    then: list[dict[str, float]], now: list[dict[str, float]], seconds: float
) -> None:
    before = reading(0, *(line(cpu, **each) for cpu, each in enumerate(then)))
    after = reading(seconds, *(line(cpu, **each) for cpu, each in enumerate(now)))
    metrics, sources = shares(before, after)
    assert metrics.keys() == sources.keys()
    assert metrics.keys() <= BY_NAME.keys()
    assert all(0 <= value <= 1 for value in metrics.values())
    assert all(BY_NAME[name].of for name in metrics)
