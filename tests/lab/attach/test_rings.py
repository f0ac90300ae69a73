"""Servers that wait in io_uring: busy polling from outside, the way back, and the rings that refuse."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from napctl.change.journal import Journal
from napctl.kernel import io_uring, open_files, processes
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.model.change import IoUringChange, NapiChange
from napctl.model.fitness import Fitness, SocketFitness
from napctl.model.modes import mode_of
from napctl.model.settings import NapiSettings, RingPolling
from napctl.model.value import from_json
from napctl.model.window import own_polls
from napctl.observe.window import Observer
from tests.lab.following import following, get, get_again
from tests.lab.helpers import Napctl, Sampled, at, machine_of, until, victims
from tests.lab.other_servers import datagrams, echoed
from tests.lab.uring_server import OFF, ON, rings_of, uring

pytestmark = pytest.mark.lab

QUICKLY = ("--window", "0s", "--defer-us", 200)
DEFERRED = NapiSettings(defer_hard_irqs=100, gro_flush_timeout_ns=200_000, irq_suspend_timeout_ns=0, threaded="enabled")
OWN = RingPolling(tracking="dynamic", busy_poll_usecs=20, prefer_busy_poll=False)
OF_SOMEBODY_ELSE = RingPolling(tracking="dynamic", busy_poll_usecs=70, prefer_busy_poll=True)


@pytest.fixture
def server(lab: Lab, uring_program: Path) -> Iterator[Server]:
    """A UDP echo that has had a datagram."""
    with uring(lab, uring_program, "udp", cpus={lab.server.cpu}) as server:
        assert echoed(lab, server, 3) == 3
        yield server


@contextmanager
def ring_of(server: Server) -> Iterator[int]:
    """A copy of its one ring."""
    (fd,) = rings_of(server.pid)
    with processes.Handle(server.pid) as handle, handle.copy_of(fd) as copy:
        yield copy


def explained(napctl: Napctl, server: Server, *, status: int) -> SocketFitness:
    """What a dry run says of its ring, which it leaves as it is."""
    before = rings_of(server.pid)
    done = napctl("attach", server.pid, "--dry-run", "--json")
    assert (done.status, done.stderr) == (status, ""), done
    assert rings_of(server.pid) == before
    (ring,) = (each for each in from_json(done.stdout, Fitness).sockets if each.kind == "io_uring")
    return ring


def settings(lab: Lab) -> list[NapiSettings]:
    return [each.settings for each in lab.server.napis()]


def test_exactly_the_ring_gets_busy_polling_and_what_feeds_it_deferral_and_both_come_back(
    lab: Lab, server: Server, napctl: Napctl
) -> None:
    before = machine_of(lab.server)
    ring = explained(napctl, server, status=0)
    (napi,) = lab.server.napis()
    assert (ring.judgement, ring.napi_id) == ("fits", napi.napi_id)
    assert "busy polling, not suspension" in ring.why
    assert "busy_poll_usecs" in napctl("attach", server.pid, "--dry-run").stdout

    assert napctl("attach", server.pid, *QUICKLY).status == 0
    (transaction,) = napctl.live()

    assert [type(each) for each in transaction.changes] == [NapiChange, IoUringChange]
    assert rings_of(server.pid) == {ring.fd: ON}
    assert settings(lab) == [DEFERRED]
    (poller,) = machine_of(lab.server).ring_pollers
    assert (poller.pid, poller.fd, poller.polling, poller.napi_ids) == (server.pid, ring.fd, ON, (napi.napi_id,))
    assert "tracking" in napctl("status", "--netns", f"pid:{server.pid}").stdout
    assert napctl("attach", server.pid).failed_with(2, "already attached", f"napctl detach {server.pid}")
    assert echoed(lab, server, 3) == 3

    assert napctl("detach", server.pid).status == 0
    assert rings_of(server.pid) == {ring.fd: OFF}
    assert machine_of(lab.server) == before
    assert echoed(lab, server, 3) == 3


def test_a_server_that_waits_in_a_ring_polls_once_it_is_attached_and_not_once_more_when_it_is_detached(
    lab: Lab, server: Server, napctl: Napctl
) -> None:
    with datagrams(lab, server), Observer(lab.server.namespace) as observer:

        def own() -> int:
            return own_polls(observer.window().napis, server.pid).polls

        observer.restart()
        assert own() == 0
        assert napctl("attach", server.pid, *QUICKLY).status == 0
        until(lambda: own() > 20, "polls of its own")

        def told() -> str:
            report = napctl("attached", "--interval", 0.3)
            return report.stdout if ": active" in report.stdout else ""

        words = " ".join(until(told, "a window in which it is active").split())
        assert "busy polling, without suspension: the server uses" in words
        assert "suspended" not in words
        assert napctl("detach", server.pid).status == 0
        observer.restart()
        assert echoed(lab, server, 20) == 20
        assert own() == 0, "what it has learned is forgotten"


def test_what_it_costs_is_measured_and_told_beside_what_it_was(lab: Lab, server: Server, napctl: Napctl) -> None:
    report = napctl("attach", server.pid, "--window", "0.3s", "--defer-us", 200, "--json").json

    assert report["verdict"] == "quiet"
    assert 0 <= report["busy_cpus"] < 0.9, "at rest it sleeps"
    assert 0 <= report["busy_cpus_before"] < 0.9
    assert report["suspensions_per_second"] is None
    assert napctl("detach", server.pid).status == 0


@pytest.mark.long
def test_connections_over_several_queues_are_all_polled_and_deferred(uring_program: Path, napctl: Napctl) -> None:
    with Lab.build(queues=2) as lab, uring(lab, uring_program, "tcp") as server, ExitStack() as connections:
        before = machine_of(lab.server)

        def both() -> bool:
            connections.enter_context(get(lab, server))
            return "," in explained(napctl, server, status=0).why.partition("NAPI ")[2].partition(" itself")[0]

        until(both, "connections over both queues")
        assert napctl("attach", server.pid, *QUICKLY).status == 0

        assert settings(lab) == [DEFERRED, DEFERRED]
        assert list(rings_of(server.pid).values()) == [ON]
        assert napctl("detach", server.pid).status == 0
        connections.close()
        assert machine_of(lab.server) == before


@pytest.mark.long
def test_connections_that_only_the_ring_holds_are_found_by_its_registered_files(
    lab: Lab, uring_program: Path, napctl: Napctl
) -> None:
    with uring(lab, uring_program, "tcp", "direct") as server, get(lab, server) as connection:
        (napi,) = lab.server.napis()
        ring = explained(napctl, server, status=0)
        assert (ring.judgement, ring.napi_id) == ("fits", napi.napi_id)

        assert napctl("attach", server.pid, *QUICKLY).status == 0
        get_again(connection)
        assert (settings(lab), list(rings_of(server.pid).values())) == ([DEFERRED], [ON])
        assert napctl("detach", server.pid).status == 0


def test_a_ring_that_polled_by_itself_gets_back_what_it_had(lab: Lab, uring_program: Path, napctl: Napctl) -> None:
    with uring(lab, uring_program, "udp", "napi") as server:
        assert echoed(lab, server, 3) == 3
        (fd,) = rings_of(server.pid)
        assert rings_of(server.pid) == {fd: OWN}

        assert napctl("attach", server.pid, *QUICKLY).status == 0
        assert rings_of(server.pid) == {fd: ON}
        assert napctl("detach", server.pid).status == 0
        assert rings_of(server.pid) == {fd: OWN}


def test_a_ring_that_polls_as_napctl_would_have_it_is_told_as_one_that_polls(server: Server, napctl: Napctl) -> None:
    with ring_of(server) as ring:
        io_uring.set_polling(ring, ON)
    before = rings_of(server.pid)
    assert napctl("attach", server.pid, *QUICKLY).status == 0
    (told,) = napctl("attached", "--interval", 0.1, "--json").json["attachments"]
    assert told["mode"] == mode_of(napctl.live()[0].changes) == "poll"
    assert napctl("detach", server.pid).status == 0
    assert rings_of(server.pid) == before


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("single-issuer", "IORING_SETUP_SINGLE_ISSUER"),
        ("restricted", "IORING_REGISTER_RESTRICTIONS"),
        ("static", "static tracking"),
        ("sqpoll", "IORING_SETUP_SQPOLL"),
    ],
)
def test_a_ring_that_cannot_be_set_or_put_back_is_refused_with_the_reason_and_untouched(
    option: str, words: str, lab: Lab, uring_program: Path, napctl: Napctl
) -> None:
    with uring(lab, uring_program, "udp", option) as server:
        assert echoed(lab, server, 3) == 3
        before = machine_of(lab.server), rings_of(server.pid)

        ring = explained(napctl, server, status=1)
        assert ring.judgement == "does not fit"
        assert words in ring.why
        assert napctl("attach", server.pid).failed_with(3, words, f"ring {ring.fd}", "nothing was changed")

        assert (machine_of(lab.server), rings_of(server.pid)) == before
        assert napctl.live() == []
        assert echoed(lab, server, 3) == 3


def test_a_ring_that_feeds_on_no_packet_yet_is_refused(lab: Lab, uring_program: Path, napctl: Napctl) -> None:
    with uring(lab, uring_program, "udp") as server:
        assert explained(napctl, server, status=1).judgement == "nothing to poll"
        assert napctl("attach", server.pid).failed_with(3, "io_uring", "nothing was changed")


def test_a_ring_that_is_closed_meanwhile_is_told_and_the_device_put_back(
    lab: Lab, server: Server, napctl: Napctl
) -> None:
    before = machine_of(lab.server)
    assert napctl("attach", server.pid, *QUICKLY).status == 0
    ((_, ring),) = (each.changes for each in napctl.live())
    assert isinstance(ring, IoUringChange)
    replace_ring(server, signal.SIGUSR2)
    assert list(rings_of(server.pid)) == [ring.fd], "another one with its descriptor"

    told = napctl("attached", "--interval", 0.1)
    assert (told.status, f"{ring.where} has been closed" in " ".join(told.stdout.split())) == (1, True)
    outcomes = {row["setting"]: row["outcome"] for row in napctl("detach", server.pid, "--json").json["settings"]}

    assert {outcomes[each] for each in ("tracking", "busy_poll_usecs", "prefer_busy_poll")} == {"gone"}
    assert {outcomes[each] for each in ("defer_hard_irqs", "gro_flush_timeout_ns")} == {"restored"}
    assert list(rings_of(server.pid).values()) == [OFF]
    assert machine_of(lab.server) == before


def replace_ring(server: Server, how: signal.Signals) -> None:
    """It goes on with another one, which has the same descriptor after SIGUSR2."""

    def rings() -> set[int | None]:
        return {open_files.inode_of(server.pid, fd) for fd in open_files.open_files(server.pid).rings}

    former = rings()
    os.kill(server.pid, how)
    until(lambda: (now := rings()) and None not in now and not now & former, "another ring")


def test_who_stays_attached_follows_to_the_next_ring(lab: Lab, server: Server, napctl: Napctl) -> None:
    before = machine_of(lab.server)
    with following(napctl, server.pid, "--defer-us", 200) as stay:
        until(lambda: list(rings_of(server.pid).values()) == [ON], "the first ring")
        replace_ring(server, signal.SIGUSR1)
        until(lambda: echoed(lab, server, 1, patience_s=0.5), "an answer by the next ring")

        until(lambda: list(rings_of(server.pid).values()) == [ON], "the next ring", 60)
        until(lambda: settings(lab) == [DEFERRED], "its device")
        until(
            lambda: sum(isinstance(each, IoUringChange) for each in napctl.live()[0].changes) == 1,
            "an end of the former",
        )
        stay.end()
    assert list(rings_of(server.pid).values()) == [OFF]
    assert machine_of(lab.server) == before


def test_what_somebody_else_has_registered_meanwhile_is_left_alone_and_named(
    lab: Lab, server: Server, napctl: Napctl
) -> None:
    assert napctl("attach", server.pid, *QUICKLY).status == 0
    with ring_of(server) as copy:
        io_uring.set_polling(copy, OF_SOMEBODY_ELSE)

    done = napctl("detach", server.pid)

    assert done.status == 5
    assert "ring" in done.stderr + done.stdout
    assert list(rings_of(server.pid).values()) == [OF_SOMEBODY_ELSE]


def test_a_kill_while_polling_is_switched_off_leaves_a_way_back(lab: Lab, server: Server, napctl: Napctl) -> None:
    """Between the two calls by which that is done the ring has an empty list of its own."""
    before = machine_of(lab.server)
    number = napctl.attach_quickly(server.pid).number
    with ring_of(server) as copy:
        io_uring._register(copy, io_uring.REGISTER_NAPI, io_uring._packed(io_uring.FORGETTING))
    with Journal(napctl.state) as journal:
        journal.set_state(number, "restoring")

    assert napctl("recover").status == 0

    assert list(rings_of(server.pid).values()) == [OFF]
    assert machine_of(lab.server) == before


@pytest.mark.trials
@pytest.mark.timeout(600)
def test_attach_and_detach_killed_at_any_step_leave_a_way_back(
    lab: Lab, server: Server, napctl: Napctl, tmp_path: Path, sampled: Sampled
) -> None:
    before, off = machine_of(lab.server), rings_of(server.pid)
    trial = Napctl(napctl.state / "trial")
    steps = trial.steps(tmp_path / "attach", "attach", server.pid, *QUICKLY)
    undoing = trial.steps(tmp_path / "detach", "detach", server.pid)
    assert {name for name, _ in steps} >= {"io_uring_register", "sendto", "pwrite64"}
    assert sum(name == "io_uring_register" for name, _ in undoing) == 2

    def brought_back(victim: Napctl) -> None:
        assert victim("recover").status == 0
        if victim.live():
            assert victim("detach", server.pid).status == 0
        assert (machine_of(lab.server), rings_of(server.pid), victim.live()) == (before, off, [])

    changing = [step for step in steps if step[0] in ("io_uring_register", "sendto", "pwrite64", "fdatasync")]
    killed = 0
    for step, victim in victims(napctl, sampled(changing, 1)):
        killed += victim("attach", server.pid, *QUICKLY, under=at(step, "signal=SIGKILL")).status == -9
        brought_back(victim)
    for step in sampled(undoing, 1):
        trial.attach_quickly(server.pid)
        killed += trial("detach", server.pid, under=at(step, "signal=SIGKILL")).status == -9
        brought_back(trial)
    assert killed
