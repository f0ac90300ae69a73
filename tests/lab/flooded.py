"""A bed in which a flood can take the CPU of a server; how much that answers at most is measured once for all tests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from napctl.lab.bed import End, Lab
from napctl.lab.flood import (
    DEAR_RULES,
    FLOOD_PORT,
    FloodSpec,
    make_packets_dear,
    peak_per_second,
    take_as_softirq,
    udp_server,
)
from napctl.lab.servers import Server


@dataclass(frozen=True)
class FloodBed:
    """All of the receiver on CPU 1, packets that are dear, and threads that leave as little as a softirq."""

    lab: Lab
    server: Server
    peak: float

    @property
    def nice(self) -> list[int]:
        """Of the NAPI threads."""
        pids = [each.thread_pid for each in self.lab.server.napis()]
        return [os.getpriority(os.PRIO_PROCESS, pid) for pid in pids if pid is not None]

    @property
    def flooding(self) -> FloodSpec:
        """For as long as a test needs."""
        return self.offered(4, seconds=10)

    def offered(self, times: float, *, seconds: float, port: int = FLOOD_PORT) -> FloodSpec:
        """So many times the peak, also where the generator has many answers to read."""
        return FloodSpec(rate_per_second=times * self.peak, seconds=seconds, port=port, past_stack=True)


def let_packets_take_the_cpu(end: End, *beside: End, rules: int = DEAR_RULES) -> None:
    """They are dear, and come before every process; `beside`: more devices of that namespace."""
    make_packets_dear(end, rules)
    for each in (end, *beside):
        take_as_softirq(each)


@contextmanager
def flood_bed() -> Iterator[FloodBed]:
    with Lab.build(server_cpu=1, client_cpu=0) as lab, udp_server(lab) as server:
        let_packets_take_the_cpu(lab.server)
        yield FloodBed(lab, server, peak_per_second(lab, past_stack=True))
