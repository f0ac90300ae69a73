"""doctor on a real driver: what only a NIC with interrupts can have.

Rates under emulation mean nothing, so tests of rules with a least rate lower it; shares and counts stay as they are.
"""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from napctl.doctor import coalescing, facts, udp_senders
from napctl.doctor.rules import diagnose
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.model.finding import Diagnosis, Finding
from napctl.model.machine import Napi
from napctl.model.settings import NapiSettings
from napctl.model.value import from_json
from napctl.observe.checkup import take_checkup
from tests.lab.helpers import Napctl
from tests.vm.wire import Wire

SETTLING_S = 0.5
"""Until a quiet NIC is looked at."""
WINDOW_S = 2.0
"""In which an emulated NIC has more than enough packets for what needs some."""


def doctor(napctl: Napctl, wire: Wire, seconds: float = 1) -> Diagnosis:
    done = napctl("doctor", wire.device, "--seconds", seconds, "--json", timeout_s=120)
    found = from_json(done.stdout, Diagnosis)
    assert done.status == (1 if found.findings else 0), done
    return found


def rules(found: Diagnosis) -> list[str]:
    return [finding.rule for finding in found.findings]


def findings_during(
    wire: Wire, traffic: Callable[[], None], halfway: Callable[[], object] = lambda: None
) -> list[Finding]:
    """What the rules find while a traffic goes on; `halfway` is called in the second half of the window."""
    stop = threading.Event()

    def progress(seconds_left: float) -> None:
        if seconds_left < WINDOW_S / 2:
            halfway()

    def go_on() -> None:
        while not stop.is_set():
            traffic()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        with NetworkNamespace.current() as here:
            return list(diagnose(take_checkup(here, [wire.device], WINDOW_S, progress)))
    finally:
        stop.set()
        thread.join()


def napi_of(wire: Wire) -> Napi:
    with Netdev() as netdev:
        (napi,) = netdev.napis(socket.if_nametoindex(wire.device))
    return napi


@contextmanager
def napi_set(wire: Wire, settings: NapiSettings, former: NapiSettings) -> Iterator[None]:
    with Netdev() as netdev:
        number = napi_of(wire).napi_id
        netdev.set_napi(number, settings)
        try:
            yield
        finally:
            netdev.set_napi(number, former)


def test_a_quiet_nic_has_no_finding(wire: Wire, napctl: Napctl) -> None:
    time.sleep(SETTLING_S)
    found = doctor(napctl, wire)

    assert rules(found) == []
    assert [each.why for each in found.unjudged if wire.device in each.devices] == [
        "the driver counts no drops per queue",
        "fewer than 100 packets came",
    ]


def single_packet_interrupts(wire: Wire, napctl: Napctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One ping at a time: each comes with an interrupt of its own."""
    monkeypatch.setattr(coalescing, "LOADED_PACKETS_PER_SECOND", 10)
    monkeypatch.setattr(coalescing, "LEAST_POLLS", 50)

    found = findings_during(wire, lambda: wire.ping(20))

    assert "single-packet-interrupts" in [finding.rule for finding in found]


def tx_completions_too_late(wire: Wire, napctl: Napctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """256 descriptors at 1 Gb/s are sent in 3.1 ms."""
    late = NapiSettings(defer_hard_irqs=1, gro_flush_timeout_ns=50_000_000)
    with napi_set(wire, late, NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0)):
        found = doctor(napctl, wire)

    assert rules(found) == ["tx-completions-too-late", "settings-lost-at-reset"]
    assert found.findings[0].title == "TX completions may wait 50,000 µs (gro-flush-timeout): sending stalls before"
    told = " ".join(each.text for each in found.findings[0].evidence)
    assert "after 977 µs two skbs, or 1/1024 s at its pacing rate, stall any TCP flow at 1,000 Mb/s" in told
    assert "fill the TX ring of 256 in 3150 µs" in told


def udp_held_by_tx_delay(wire: Wire, napctl: Napctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """212,992 bytes in 50 ms are 34 Mb/s; what is a load to an emulated NIC is little elsewhere."""
    monkeypatch.setattr(udp_senders, "LOADED_PACKETS_PER_SECOND", 1)
    late = NapiSettings(defer_hard_irqs=1, gro_flush_timeout_ns=50_000_000)

    def send() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            for _ in range(20):
                sender.sendto(b"datagram", (wire.peer_address, 9))
        time.sleep(0.2)

    with napi_set(wire, late, NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0)):
        found = findings_during(wire, send)

    (finding,) = (each for each in found if each.rule == "udp-held-by-tx-delay")
    assert finding.title == "one UDP stream sends at most 34 of 1,000 Mb/s"


def napi_thread_polling_while_idle(wire: Wire, napctl: Napctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with napi_set(wire, NapiSettings(threaded="busy-poll"), NapiSettings(threaded="disabled")):
        assert f" {napi_of(wire).thread_pid} busy-polls " in napctl("status", wire.device, timeout_s=120).stdout
        wire.ping(5)  # it spins from its first packet on
        found = doctor(napctl, wire)

    assert rules(found) == ["napi-thread-polling-while-idle"]


def irqbalance_moves_interrupts(wire: Wire, napctl: Napctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Somebody of that name runs, and the interrupt really moves, under what is much traffic for an emulated NIC."""
    monkeypatch.setattr(facts, "BUSY_PACKETS_PER_SECOND", 1)
    monkeypatch.setattr(facts, "LEAST_PACKETS", 10)
    balancer = tmp_path / "irqbalance"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", balancer)
    irq = napi_of(wire).irq
    assert irq is not None
    affinity = Path(f"/proc/irq/{irq}/smp_affinity_list")
    affinity.write_text("0")
    wire.ping(3)  # an interrupt moves when it is raised the next time

    def balance() -> None:
        affinity.write_text("1")

    with subprocess.Popen([balancer, "600"]) as running:
        try:
            found = findings_during(wire, lambda: wire.ping(20), balance)
        finally:
            running.kill()

    (finding,) = (each for each in found if each.rule == "irqbalance-moves-interrupts")
    assert finding.certainty == "possible", "one alone"
    assert f"interrupt {irq} " in finding.evidence[0].text
    assert finding.commands == ("systemctl stop irqbalance", f"irqbalance --banirq={irq}")


FAULTS = (
    single_packet_interrupts, tx_completions_too_late, udp_held_by_tx_delay, napi_thread_polling_while_idle,
    irqbalance_moves_interrupts,
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda each: each.__name__)
def test_a_fault_of_a_real_nic_is_found(
    fault: Callable[..., None], wire: Wire, napctl: Napctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fault(wire, napctl, monkeypatch, tmp_path)
