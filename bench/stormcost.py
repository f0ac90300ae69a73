"""What storm control costs a packet, above an XDP program that does nothing: the kernel runs both on the same ones."""

import socket
from contextlib import ExitStack
from statistics import median

from tests.packets import BROADCAST, UDP, arp_request, ethernet, ipv4, udp

from bench.probecost import compiled
from napctl.kernel import bpf
from napctl.lab.bed import Lab
from napctl.model.storm import PASSING, StormLimits, limits_of
from napctl.probe.storm import StormMaps, StormProgram

ROUNDS = 7
TIMES = 1_000_000
XDP_DROP, XDP_PASS = 1, 2
MAC = bytes.fromhex("020000000001")
PORT, CLOSED = 7_000, 7_001
PLENTY, FEW = limits_of(1_000_000_000), limits_of(1)


def run() -> None:
    """Print ns per packet, net of the empty program."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab.build())
        stack.enter_context(lab.server.namespace.entered())
        listener = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        listener.bind((lab.server.address, PORT))
        program = stack.enter_context(StormProgram.load(MAC))
        maps = stack.enter_context(StormMaps.of(program.number))
        assert maps is not None
        maps.set_addresses([lab.server.address])
        empty = compiled("empty_xdp")
        stack.callback(empty.close)
        empty.load()
        floor = empty.program_fds()["passes"]

        def to_port(port: int) -> bytes:
            return ethernet(MAC, 0x0800, ipv4(lab.server.address, UDP, udp(port)))

        broadcast = ethernet(BROADCAST, 0x0806, arp_request("10.199.0.77"))
        kinds: dict[str, tuple[StormLimits, bytes, int]] = {
            "armed, everything passes": (PASSING, to_port(PORT), XDP_PASS),
            "limiting: to an open port": (PLENTY, to_port(PORT), XDP_PASS),
            "limiting: a broadcast passed": (PLENTY, broadcast, XDP_PASS),
            "limiting: a broadcast dropped": (FEW, broadcast, XDP_DROP),
            "limiting: to a closed port, dropped": (FEW, to_port(CLOSED), XDP_DROP),
        }
        rows: list[dict[str, int]] = []
        for _ in range(ROUNDS):
            row = {}
            for name, (limits, packet, verdict) in kinds.items():
                maps.set_limits(limits)
                bpf.tried(program.fd, packet, 100)  # what is left of a burst
                (_, least), (found, ns) = bpf.tried(floor, packet, TIMES), bpf.tried(program.fd, packet, TIMES)
                assert found == verdict, name
                row[name] = ns - least
            rows.append(row)
    print(f"storm control, ns per packet above an empty XDP program: median of {ROUNDS} runs (least-most)")
    for name in kinds:
        costs = sorted(row[name] for row in rows)
        print(f"  {name:<36} {median(costs):4.0f} ({costs[0]}-{costs[-1]})")
