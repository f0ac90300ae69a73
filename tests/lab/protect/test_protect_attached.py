"""napctl protect where a server is attached: threads at nice 19 let its suspension hold, and each of both keeps and
puts back what is its own."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from napctl.lab.flood import AS_SOFTIRQ, RunningFlood, flood, started_flood, udp_server
from napctl.lab.servers import Server
from napctl.model.change import Kind, Transaction
from tests.lab.flooded import FloodBed
from tests.lab.following import Following, following, killed
from tests.lab.helpers import Napctl, at_server, ending, machine_of, params_of, until
from tests.lab.protect.test_protect import protecting
from tests.lab.service.services import policy_of, serving, write
from tests.tries import in_one_of

pytestmark = [pytest.mark.lab, pytest.mark.alone]

PORT = 7001
HARDLY = ("--defer-us", 20, "--irq-suspend-timeout", "30us", "--window", 0)
"""The safety timer ends each suspension before the server has polled again: protection has to act."""
NICE_19 = "overload: nice 19 for the thread of NAPI"


@pytest.fixture
def bed(shared_flood_bed: FloodBed) -> FloodBed:
    return shared_flood_bed


@pytest.fixture
def server(bed: FloodBed) -> Iterator[Server]:
    """One that waits in epoll, beside that of the bed, which has nothing to do."""
    with ending(udp_server(bed.lab, waits_in="epoll", port=PORT)) as server:
        yield server


@contextmanager
def attached(napctl: Napctl, server: Server, *how: object) -> Iterator[None]:
    """Until somebody detaches it."""
    done = napctl("attach", server.pid, *how)
    assert done.status == 0, done
    try:
        yield
    finally:
        if in_force(napctl, "attach"):
            assert napctl("detach", server.pid).status == 0


def in_force(napctl: Napctl, kind: Kind) -> list[Transaction]:
    return [each for each in napctl.live() if each.kind == kind]


def settings(bed: FloodBed, server: Server) -> tuple[object, object]:
    """All that attaching sets."""
    return [each.settings for each in bed.lab.server.napis()], params_of(server.pid)


@contextmanager
def made_nice(bed: FloodBed, it: Following, *, seconds: float = 20) -> Iterator[RunningFlood]:
    """A flood of four times the peak, in which protection has acted."""
    with started_flood(bed.lab, bed.offered(4, seconds=seconds, port=PORT)) as running:
        running.wait_until_sending()
        it.told(NICE_19)
        assert bed.nice == [19]
        yield running


def test_killed_amid_a_flood_its_guard_puts_back_the_nice_value_and_the_server_stays_attached(
    bed: FloodBed, server: Server, napctl: Napctl
) -> None:
    with attached(napctl, server, *HARDLY):
        before = settings(bed, server)
        with protecting(napctl, bed) as it, made_nice(bed, it):
            assert settings(bed, server) == before
            killed(it)
            until(lambda: bed.nice == [AS_SOFTIRQ], "the guard to put it back")
            until(lambda: not in_force(napctl, "protect"), "the journal to say so")
        assert settings(bed, server) == before
        assert len(in_force(napctl, "attach")) == 1


@pytest.mark.long
def test_ten_seconds_after_a_flood_all_is_as_before_and_the_attachment_was_so_throughout(
    bed: FloodBed, server: Server, napctl: Napctl
) -> None:
    with attached(napctl, server, *HARDLY):
        before, machine = settings(bed, server), machine_of(bed.lab.server)
        with protecting(napctl, bed) as it:
            with made_nice(bed, it, seconds=4) as running:
                (made,) = in_force(napctl, "protect")
                assert [type(each).__name__ for each in made.changes] == ["ThreadChange"]
                assert settings(bed, server) == before
                running.result()
                over = time.time()
            back = it.told("overload is over: nice put back")
            assert 9.5 < back.seconds - over < 12
            assert (bed.nice, machine_of(bed.lab.server)) == ([AS_SOFTIRQ], machine)
            assert settings(bed, server) == before
            assert [each.kind for each in napctl.live()] == ["attach"]
            assert it.end(signal.SIGINT) == 0
        assert it.errors == ""


@pytest.mark.long
def test_an_attached_server_keeps_its_throughput(bed: FloodBed, server: Server, napctl: Napctl) -> None:
    """Its suspension may hold or not beside a thread that goes before all else, and be lost amid a flood."""
    in_one_of(lambda: it_keeps_its_throughput(bed, server, napctl))


def it_keeps_its_throughput(bed: FloodBed, server: Server, napctl: Napctl) -> None:
    with attached(napctl, server, "--defer-us", 200, "--window", 0), protecting(napctl, bed) as it:
        time.sleep(0.6)
        found = flood(bed.lab, bed.offered(4, seconds=6, port=PORT))
        share = found.answered_per_second(2) / bed.peak
        print(f"goodput {share:.0%} of the peak; {[each for each in it.since() if NICE_19 in each]}")
    assert share >= 0.8


@pytest.mark.long
def test_who_stays_attached_takes_no_offence_and_detaching_leaves_protection_its_own(
    bed: FloodBed, server: Server, napctl: Napctl
) -> None:
    before = settings(bed, server)
    with following(napctl, server.pid, *HARDLY[:-2]) as stay:
        until(lambda: [each.state for each in in_force(napctl, "attach")] == ["attached"], "the attachment")
        with protecting(napctl, bed) as it:
            held = settings(bed, server)
            began = time.time()
            with made_nice(bed, it):
                time.sleep(3)  # it looks once a second
                assert stay.since(began) == []
                assert settings(bed, server) == held
                assert stay.end(signal.SIGINT) == 0
                assert settings(bed, server) == before
                assert [each.kind for each in napctl.live()] == ["protect"]
                assert bed.nice == [19]
                assert it.end(signal.SIGINT) == 0
            assert it.since()[-1] == "protection ends: 1 setting put back"
    assert (napctl.live(), bed.nice) == ([], [AS_SOFTIRQ])


@pytest.mark.long
def test_protection_that_ends_while_a_server_is_attached_leaves_that_attached(
    bed: FloodBed, server: Server, napctl: Napctl
) -> None:
    with protecting(napctl, bed) as it, attached(napctl, server, *HARDLY):
        before = settings(bed, server)
        with made_nice(bed, it):
            assert it.end(signal.SIGINT) == 0
            assert it.since()[-1] == "protection ends: 1 setting put back"
        assert bed.nice == [AS_SOFTIRQ]
        assert settings(bed, server) == before
        assert [each.kind for each in napctl.live()] == ["attach"]


@pytest.mark.long
def test_the_service_attaches_and_protects_the_same_instance(
    bed: FloodBed, server: Server, napctl: Napctl, tmp_path: Path
) -> None:
    policy = policy_of(tmp_path, (server.pid, 20))
    timeout = 'irq-suspend-timeout = "30us"\n'
    text = policy.read_text().replace("[service]", f'{timeout}[protect]\ndevices = ["server0"]\n[service]')
    with serving(napctl, write(policy, text), *at_server(bed.lab)) as it:
        it.told("attached ")
        it.told("runs on CPU 0, where none of the packets come that may flood")
        before = settings(bed, server)
        began = time.time()
        with started_flood(bed.lab, bed.offered(4, seconds=6, port=PORT)) as running:
            running.wait_until_sending()
            it.told(f"server0: {NICE_19}")
            assert bed.nice == [19]
            running.result()
        it.told("server0: overload is over: nice put back")
        assert [each for each in it.since(began) if "overload" not in each] == []
        assert settings(bed, server) == before
        assert [each.kind for each in napctl.live()] == ["attach"]
        assert it.end(signal.SIGTERM) == 0
    assert (napctl.live(), bed.nice) == ([], [AS_SOFTIRQ])
