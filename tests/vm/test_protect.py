"""Protection on a real driver whose packets come in softirqs: it gives it NAPI threads at nice 19 in a flood, and takes
them back."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from time import sleep

import pytest

from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.lab.bed import Lab
from napctl.lab.compiled import compiled
from napctl.lab.flood import make_packets_dear
from napctl.model.machine import Napi
from tests.lab.following import Following, ended_by
from tests.lab.helpers import Napctl
from tests.vm.test_apply import ifindex_of
from tests.vm.test_cpu_hotplug import offline
from tests.vm.wire import Wire, run

PORT, SERVED_US = 7000, 60
FLOOD_CPU, FLOODED_CPU = 0, 1
PATIENCE_S = 90


@pytest.fixture
def napctl(state: Path) -> Napctl:
    """It is started, and runs for a while."""
    return Napctl(state)


def napi_of(device: str) -> Napi:
    with Netdev() as netdev:
        return netdev.napis(ifindex_of(device))[0]


@contextmanager
def on(cpu: int, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["taskset", "-c", str(cpu), *command], stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def taken_on_its_cpu(wire: Wire) -> Iterator[None]:
    """All its packets."""
    affinity = Path(f"/proc/irq/{napi_of(wire.device).irq}/smp_affinity_list")
    former = affinity.read_text()
    affinity.write_text(str(FLOODED_CPU))
    try:
        yield
    finally:
        affinity.write_text(former)


@contextmanager
def flooded(wire: Wire) -> Iterator[subprocess.Popen[bytes]]:
    """Packets that are dear come to one CPU, on which their server runs."""
    with ExitStack() as undo:
        netns = undo.enter_context(NetworkNamespace.current())
        undo.enter_context(taken_on_its_cpu(wire))
        with Lab(netns, netns) as ends:
            make_packets_dear(ends.server)
        undo.callback(run, "nft", "delete", "table", "ip", "dear")
        undo.enter_context(
            on(FLOODED_CPU, str(compiled("floodserver")), wire.address, str(PORT), str(SERVED_US * 1000), "recv")
        )
        options = {"host": wire.address, "port": PORT, "rate": 40_000, "seconds": 600, "size": 64}
        sender = [str(compiled("flood")), *(f"--{name}={value}" for name, value in options.items())]
        yield undo.enter_context(on(FLOOD_CPU, "ip", "netns", "exec", wire.peer_namespace, *sender))


@pytest.mark.long
def test_a_softirq_device_gets_threads_at_nice_19_in_a_flood_and_loses_them_after_it(
    wire: Wire, napctl: Napctl
) -> None:
    compiled("floodserver"), compiled("flood")
    assert (napi_of(wire.device).settings.threaded, napi_of(wire.device).thread_pid) == ("disabled", None)
    started = napctl.start("protect", wire.device, "--json")
    with ended_by(signal.SIGINT, Following(started)) as it:
        it.told("watched: ", patience_s=PATIENCE_S)
        it.told("napctl runs", patience_s=PATIENCE_S)
        with flooded(wire):
            it.told("overload: NAPI threads for NAPI", patience_s=PATIENCE_S)
            it.told("overload: nice 19 for the thread of NAPI", patience_s=PATIENCE_S)
            napi = napi_of(wire.device)
            assert napi.settings.threaded == "enabled"
            assert napi.thread_pid is not None
            assert os.getpriority(os.PRIO_PROCESS, napi.thread_pid) == 19
            (transaction,) = napctl.live()
            assert (transaction.kind, transaction.state) == ("protect", "applied")
            after = [(each.after.threaded, each.after.nice) for each in transaction.changes]  # type: ignore[union-attr]
            assert after == [("enabled", None), (None, 19)]
        it.told("overload is over: nice and threads put back", patience_s=PATIENCE_S)
        assert (napi_of(wire.device).settings.threaded, napi_of(wire.device).thread_pid) == ("disabled", None)
        assert napctl.live() == []
        assert it.end(signal.SIGINT, patience_s=PATIENCE_S) == 0
    assert it.errors == ""
    print("\n".join(it.since()))
    wire.ping(5)


@pytest.mark.long
def test_a_cpu_that_goes_offline_in_the_flood_leaves_it_protected_and_all_is_put_back(
    wire: Wire, napctl: Napctl
) -> None:
    """The flooded one, on which the server and the thread ran."""
    compiled("floodserver"), compiled("flood")
    with (
        taken_on_its_cpu(wire),
        ended_by(signal.SIGINT, Following(napctl.start("protect", wire.device, "--json"))) as it,
    ):
        it.told("napctl runs on CPU 0", patience_s=PATIENCE_S)
        with flooded(wire):
            it.told("overload: nice 19 for the thread of NAPI", patience_s=PATIENCE_S)
            for turn in (offline, nullcontext):
                with turn():
                    sleep(5)
                    # nice may be put back by then: on one CPU with what floods, less is served than before
                    assert napi_of(wire.device).settings.threaded == "enabled"
        it.told("overload is over: ", patience_s=PATIENCE_S)
        assert (napi_of(wire.device).settings.threaded, napi_of(wire.device).thread_pid) == ("disabled", None)
        assert napctl.live() == []
        assert it.end(signal.SIGINT, patience_s=PATIENCE_S) == 0
    assert it.errors == ""
    wire.ping(5)


@pytest.mark.long
def test_beside_programs_that_never_wait_the_thread_is_not_left_at_nice_19(wire: Wire, napctl: Napctl) -> None:
    """One on each CPU: the thread may run on both."""
    compiled("floodserver"), compiled("flood")
    spins = ("sh", "-c", "while :; do :; done")
    with (
        taken_on_its_cpu(wire),
        ended_by(signal.SIGINT, Following(napctl.start("protect", wire.device, "--json"))) as it,
    ):
        it.told("napctl runs on CPU 0", patience_s=PATIENCE_S)
        with flooded(wire), on(FLOOD_CPU, *spins), on(FLOODED_CPU, *spins):
            it.told("overload: NAPI threads for NAPI", patience_s=PATIENCE_S)
            said = it.told("overload, and nice ", patience_s=PATIENCE_S)
            assert "never waits" in said.text
            napi = napi_of(wire.device)
            assert napi.thread_pid is not None
            assert os.getpriority(os.PRIO_PROCESS, napi.thread_pid) == 0
        it.told("overload is over: threads put back", patience_s=PATIENCE_S)
        assert it.end(signal.SIGINT, patience_s=PATIENCE_S) == 0
    print("\n".join(it.since()))
