"""What an experiment measures in each cell: names, units, and which way is better."""

from typing import Literal

from napctl.model.value import Value

__all__ = ["ALL", "BY_NAME", "Metric"]


class Metric(Value, frozen=True, kw_only=True):
    """One figure of a cell."""

    name: str
    """As in Cell.metrics, with its unit."""
    title: str
    """For the head of a column."""
    unit: str = ""
    factor: float = 1.0
    """From the metric's unit to the one shown: 100 for shares shown in percent."""
    better: Literal["lower", "higher", ""] = ""
    """Empty: neither, it explains the others."""
    of: str = ""
    """Of CPU time: what it is a share of, in words."""
    compared: bool = True
    """Whether treatments are compared in it. Not where the tick samples it: what timers drive it misses, so treatments
    would differ by how they are seen."""


COUNTED = "of the CPUs that count"
NETWORK = "of the busy CPU time; without what the server takes itself"
"""All of the machine; where the load is made on the same one, only those of the server (napctl.experiment.meter)."""
ONE = "of one CPU"
"""1 is a whole CPU: several threads may come to more."""

ALL: tuple[Metric, ...] = (
    Metric(name="requests_per_second", title="requests/s", better="higher"),
    Metric(name="latency_avg_us", title="avg", unit="µs", better="lower"),
    Metric(name="latency_p50_us", title="p50", unit="µs", better="lower"),
    Metric(name="latency_p95_us", title="p95", unit="µs", better="lower"),
    Metric(name="latency_p99_us", title="p99", unit="µs", better="lower"),
    Metric(name="latency_p999_us", title="p99.9", unit="µs", better="lower"),
    Metric(name="server_latency_p50_us", title="p50 at server", unit="µs", better="lower"),
    Metric(name="server_latency_p99_us", title="p99 at server", unit="µs", better="lower"),
    Metric(name="wait_p50_us", title="p50 wait for poll", unit="µs", better="lower"),
    Metric(name="wait_p99_us", title="p99 wait for poll", unit="µs", better="lower"),
    Metric(name="packets_per_second", title="packets/s"),
    Metric(name="bits_per_second", title="Mb/s", factor=1e-6, better="higher"),
    Metric(name="jitter_us", title="jitter", unit="µs", better="lower"),
    Metric(name="cpu_share", title="CPU", unit="%", factor=100, better="lower", of=COUNTED),
    Metric(name="cpu_us_per_request", title="CPU/request", unit="µs", better="lower"),
    Metric(name="server_cpu_share", title="server CPU", unit="%", factor=100, better="lower", of=ONE),
    Metric(name="server_cpu_us_per_request", title="server CPU/request", unit="µs", better="lower"),
    Metric(name="server_user_share", title="server CPU, user", unit="%", factor=100, of=ONE, compared=False),
    Metric(name="server_system_share", title="server CPU, system", unit="%", factor=100, of=ONE, compared=False),
    Metric(name="network_cpu_share", title="softirqs and NAPI threads", unit="%", factor=100, of=NETWORK),
    Metric(name="napi_thread_share", title="NAPI threads", unit="%", factor=100, of=ONE),
    Metric(name="softirq_share", title="softirq", unit="%", factor=100, of=COUNTED),
    Metric(name="irq_share", title="interrupt handlers", unit="%", factor=100, of=COUNTED),
    Metric(name="user_share", title="CPU in user mode", unit="%", factor=100, of=COUNTED, compared=False),
    Metric(name="system_share", title="CPU in the kernel", unit="%", factor=100, of=COUNTED, compared=False),
    Metric(name="steal_share", title="taken by the hypervisor", unit="%", factor=100, of=COUNTED, compared=False),
    Metric(name="context_switches_per_second", title="context switches/s"),
    Metric(name="interrupts_per_second", title="interrupts/s"),
    Metric(name="net_rx_softirqs_per_second", title="NET_RX softirqs/s"),
    Metric(name="polls_per_second", title="polls/s"),
    Metric(name="packets_per_poll", title="packets/poll"),
    Metric(name="server_poll_share", title="polls by the server", unit="%", factor=100),
    Metric(name="empty_poll_share", title="empty polls", unit="%", factor=100),
    Metric(name="errors_per_second", title="errors/s", better="lower"),
    Metric(name="drops_per_second", title="drops/s", better="lower"),
    Metric(name="retransmits_per_second", title="retransmits/s", better="lower"),
    Metric(name="package_watts", title="package", unit="W", better="lower"),
    Metric(name="dram_watts", title="DRAM", unit="W", better="lower"),
    Metric(name="platform_watts", title="platform", unit="W", better="lower"),
    Metric(name="estimated_watts", title="power, estimated", unit="W", better="lower"),
    Metric(name="joules_per_request", title="energy/request", unit="J", better="lower"),
)
"""In the order in which they are shown."""

BY_NAME = {metric.name: metric for metric in ALL}
