"""Network softirq counters per CPU: /proc/net/softnet_stat and /proc/softirqs. Both are of the whole machine."""

from dataclasses import dataclass

from napctl.kernel.processes import PROC

__all__ = ["net_rx_softirqs", "softnet"]


@dataclass(frozen=True)
class Softnet:
    """One CPU's line of softnet_stat (softnet_seq_show() in net/core/net-procfs.c), since boot."""

    processed: int
    dropped: int
    """The backlog was full."""
    time_squeezes: int
    """net_rx_action ran out of budget or time with work left."""


def softnet() -> dict[int, Softnet]:
    """By CPU. The CPU's number is the 13th column since Linux 5.10 (commit 7d58e6555870); before, the line's number."""
    found = {}
    for line_number, line in enumerate((PROC / "net" / "softnet_stat").read_text().splitlines()):
        columns = [int(column, 16) for column in line.split()]
        cpu = columns[12] if len(columns) > 12 else line_number
        found[cpu] = Softnet(processed=columns[0], dropped=columns[1], time_squeezes=columns[2])
    return found


def net_rx_softirqs() -> dict[int, int]:
    """NET_RX softirqs by CPU, since boot."""
    header, *lines = (PROC / "softirqs").read_text().splitlines()
    cpus = [int(word.removeprefix("CPU")) for word in header.split()]
    for line in lines:
        label, _, rest = line.partition(":")
        if label.strip() == "NET_RX":
            return dict(zip(cpus, map(int, rest.split()), strict=False))
    return {}
