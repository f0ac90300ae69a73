"""A real dpdk-testpmd: named by the right evidence, at rest and under traffic, with its telemetry and without."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from napctl.census.pollers.tally import NOT_YET
from napctl.census.pollers.telemetry import dpdk_conversation
from napctl.kernel.sysfs import DeviceAttributes
from napctl.lab.bed import Lab
from napctl.lab.flood import FloodSpec, started_flood
from napctl.model.census import SpinningThread
from napctl.model.finding import Diagnosis, Finding
from napctl.model.value import from_json
from tests.lab.census.testpmd import Testpmd, looked, running_testpmd, spinning
from tests.lab.helpers import Napctl, at_server, until

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[3]
DEBIAN_13 = (str(ROOT / "scripts/in-debian-root"), "--network", "dpdk")
SLOW, FAST, RATES = 20_000, 100_000, (2_000, 5_000, 10_000, 20_000)
MOST_ABOVE, AT_REST = 0.15, 0.05


@contextmanager
def flooded(lab: Lab, rate: float, seconds: float = 100) -> Iterator[None]:
    with started_flood(lab, FloodSpec(rate_per_second=rate, seconds=seconds)) as flood:
        flood.wait_until_sending()
        time.sleep(0.2)
        yield


def on_the_senders_cpu(lab: Lab) -> None:
    """Leave the server's CPU to the poller: veth polls on the sender's CPU where there is no NAPI thread."""
    with DeviceAttributes(lab.server.namespace) as attributes:
        attributes.write(lab.server.device, "threaded", "0")


def test_at_rest_it_is_named_and_doctor_knows_what_to_do(lab: Lab, state: Path, napctl: Napctl) -> None:
    with running_testpmd(lab, f"net_af_packet0,iface={lab.server.device}") as running:
        found = spinning(state, running.pid)
        (finding,) = until(lambda: findings(napctl, lab, "poller-at-rest"), "doctor finds a poller at rest")
        with dpdk_conversation(os.fspath(running.telemetry), running.pid) as talk:
            told = talk.ask("/ethdev/xstats,0", dict[str, int]) or {}
    assert (found.kind, found.devices) == ("DPDK", (lab.server.device,))
    assert "dpdk_telemetry.v2 answers: DPDK" in found.evidence[0]
    assert found.trouble is None
    (thread,) = found.threads
    assert thread.most_work_share is not None
    assert thread.most_work_share < AT_REST
    assert finding.where == f"dpdk-testpmd ({running.pid})"
    assert {"rx_missed_errors", "rx_mbuf_allocation_errors"} <= told.keys()


def findings(napctl: Napctl, lab: Lab, rule: str) -> list[Finding]:
    done = napctl("doctor", "--seconds", 0.5, "--json", *at_server(lab))
    return [each for each in from_json(done.stdout, Diagnosis).findings if each.rule == rule]


def test_one_that_is_loaded_while_packets_come_through_the_kernel_is_idle(
    lab: Lab, napctl: Napctl, tmp_path: Path
) -> None:
    """What is merely linked is not: a name is enough for napctl."""
    library = sorted(Path("/usr/lib").glob("*/librte_eal.so.*"))
    if not library:
        pytest.skip("dpdk-dev is not installed")
    stack = tmp_path / "libonload.so"
    shutil.copy(next(Path("/usr/lib").glob("*/libz.so.1")), stack)
    waits = "import socket, time; s = socket.socket(); time.sleep(60)"
    loaded = lab.server.start(["env", f"LD_PRELOAD={stack}", sys.executable, "-c", waits])
    linked = lab.server.start(["env", f"LD_PRELOAD={library[0]}", sys.executable, "-c", waits])
    with flooded(lab, 2000):
        (finding,) = until(lambda: findings(napctl, lab, "bypass-idle"), "doctor finds an idle bypass")
    for each in (loaded, linked):
        each.kill()
        each.communicate()
    assert finding.where.endswith(f" ({loaded.pid})")
    assert "Onload loaded" in finding.title


@pytest.mark.long
def test_an_af_packet_port_gets_copies_and_no_bound_is_told_before_a_busy_window(lab: Lab, state: Path) -> None:
    with running_testpmd(lab, f"net_af_packet0,iface={lab.server.device}") as running, flooded(lab, 20_000):
        found = spinning(state, running.pid)
    assert found.really is not None
    assert found.really.port_packets
    assert found.really.kernel_packets
    assert found.really.share == 0
    assert "copies" in found.really.source
    (thread,) = found.threads
    assert (thread.most_work_share, thread.source) == (None, NOT_YET)


@pytest.mark.long
def test_an_af_xdp_port_takes_its_packets_past_the_kernel(lab: Lab, state: Path) -> None:
    with running_testpmd(lab, f"net_af_xdp0,iface={lab.server.device}") as running, flooded(lab, 20_000):
        found = spinning(state, running.pid)
        running.hide()
        hidden = looked(state, running.pid)
    assert (found.kind, found.devices) == ("DPDK", (lab.server.device,))
    for each in (found, hidden):
        assert each.really is not None
        assert each.really.port_packets
        assert each.really.share is not None
        assert each.really.share > 0.95
    assert hidden.trouble is not None


@pytest.mark.long
def test_ports_without_a_device_have_none(lab: Lab, state: Path) -> None:
    with running_testpmd(lab, "net_null0", mode="io") as running:
        found = spinning(state, running.pid)
    assert (found.kind, found.devices) == ("DPDK", ())
    assert found.really is not None
    assert found.really.kernel_packets is None


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.parametrize("port", ["af_packet", "af_xdp"])
def test_the_bound_is_never_below_what_it_says_itself_and_near_it_once_it_was_busy(
    lab: Lab, state: Path, port: str
) -> None:
    """DPDK 24.11, which tells its busy cycles; napctl is made to do without them. Its packets are dear (1,000 reads and
    writes of memory each), so that it can be made busy here. Of an af_packet port that loses packets nobody counts what
    it got: there the bound may be far off, but not below."""
    on_the_senders_cpu(lab)
    options = ("--record-core-cycles", "--noisy-lkup-memory=16", "--noisy-lkup-num-reads-writes=1000")
    device = f"net_{port}0,iface={lab.server.device}"
    with running_testpmd(lab, device, mode="noisy", options=options, under=DEBIAN_13) as running:
        (told,) = until(lambda: by_their_own_account(state, running.pid), "it forwards, and tells of its cycles")
        assert told.source == "DPDK telemetry /eal/lcore/usage"
        assert told.work_share == pytest.approx(0, abs=0.02)
        reached = running.hide()
        compare(state, reached, most_above=AT_REST)
        make_busy(lab, state, running.pid)
        for rate in RATES:
            with flooded(lab, rate):
                compare(state, reached, most_above=MOST_ABOVE if port == "af_xdp" else 1)


def make_busy(lab: Lab, state: Path, pid: int) -> None:
    """Until it just keeps up: a window in which it loses packets tells nothing."""
    slow, fast = SLOW, FAST
    while fast - slow > SLOW / 20:
        rate = (slow + fast) // 2
        with flooded(lab, rate):
            really = looked(state, pid, 1.0).really
        slow, fast = (slow, rate) if really is not None and really.lost else (rate, fast)


def by_their_own_account(state: Path, pid: int) -> list[SpinningThread]:
    return [each for each in spinning(state, pid).threads if each.work_share is not None]


def compare(state: Path, running: Testpmd, *, most_above: float) -> None:
    before = running.cycles()
    found = spinning(state, running.pid, 1.0)
    after = running.cycles()
    (thread,) = found.threads
    own = thread.run_share * (after[0] - before[0]) / (after[1] - before[1])  # cycles go by the clock
    assert thread.work_share is None
    most = 1.0 if thread.most_work_share is None else thread.most_work_share  # no bound yet
    assert own <= most <= own + most_above, (own, thread)
