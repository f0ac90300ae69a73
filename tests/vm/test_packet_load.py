"""What the lab's kernel may lack: real interrupts, and run queues that the kernel tells of (/proc/schedstat).

A flood under emulation is small, and so is what it takes to be too much.
"""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from napctl.kernel.namespaces import NetworkNamespace
from napctl.lab.compiled import compiled
from napctl.lab.flood import FLOOD_PORT, dear_rules
from napctl.model.overload import CpuLoad, OverloadedCpu, PacketLoad, overloaded
from napctl.observe.packet_load import PacketLoadReader
from tests.vm.wire import Wire, run

SERVER_CPU, FLOOD_CPU = 0, 1


@contextmanager
def running(*command: str) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def loads(reader: PacketLoadReader, seconds: float) -> list[PacketLoad]:
    end, found = time.monotonic() + seconds, []
    while time.monotonic() < end:
        if load := reader.load():
            found.append(load)
        time.sleep(0.25)
    return found


def loads_until(reader: PacketLoadReader, seen: Callable[[PacketLoad], bool], most_s: float = 60) -> list[PacketLoad]:
    """Up to the first of which that is so: an emulated machine takes its time to start a program."""
    end, found = time.monotonic() + most_s, list[PacketLoad]()
    while not (found and seen(found[-1])):
        assert time.monotonic() < end, found[-1:]
        time.sleep(0.25)
        if load := reader.load():
            found.append(load)
    return found


@pytest.fixture
def reader(wire: Wire) -> Iterator[PacketLoadReader]:
    with NetworkNamespace.current() as here, PacketLoadReader([(here, [wire.device])]) as reader:
        yield reader


def on(cpu: int, load: PacketLoad) -> CpuLoad:
    return next(each for each in load.cpus if each.cpu == cpu)


def test_two_threads_on_one_cpu_wait_for_each_other_and_no_packet_is_blamed(reader: PacketLoadReader) -> None:
    spinning = ("taskset", "-c", str(SERVER_CPU), "sh", "-c", "while :; do :; done")
    with running(*spinning):
        alone = loads(reader, 1.5)
        with running(*spinning):
            found = loads_until(reader, lambda load: (on(SERVER_CPU, load).waited_share or 0) > 0.8)
    shares = [on(SERVER_CPU, load).waited_share for load in alone]
    assert min(share for share in shares if share is not None) < 0.5  # the tests themselves may run there, too
    assert not any(load.lacks for load in found)
    assert [each for load in found for each in overloaded(load)] == []


@pytest.mark.long
def test_a_flood_of_real_interrupts_is_overload(wire: Wire, reader: PacketLoadReader) -> None:
    for line in Path("/proc/interrupts").read_text().splitlines():
        if wire.device in line:
            Path(f"/proc/irq/{line.split(':')[0].strip()}/smp_affinity_list").write_text(str(SERVER_CPU))
    server = (str(compiled("floodserver")), wire.address, str(FLOOD_PORT), "20000", "recv")
    flood = (
        str(compiled("flood")),
        f"--host={wire.address}",
        f"--port={FLOOD_PORT}",
        "--rate=20000",
        "--seconds=30",
    )
    subprocess.run(["nft", "-f", "-"], input=dear_rules(600), text=True, check=True)
    try:
        with running("taskset", "-c", str(SERVER_CPU), *server):
            calm = loads(reader, 1.5)
            with running("ip", "netns", "exec", wire.peer_namespace, "taskset", "-c", str(FLOOD_CPU), *flood):
                seen = loads(reader, 6)
    finally:
        run("nft", "delete", "table", "ip", "dear")
    assert [each for load in calm for each in overloaded(load)] == []
    found: list[OverloadedCpu] = [each for load in seen for each in overloaded(load) if each.cpu == SERVER_CPU]
    assert found
    assert all(each.waited_share is not None and each.waited_share >= 0.5 for each in found)
    assert {each.level for each in found} == {"overloaded"}
