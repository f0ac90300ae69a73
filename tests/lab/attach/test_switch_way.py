"""An attachment changes from one way to another, is undone like any other, and no request waits for it."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from napctl.attach.attachment import attachments, detach
from napctl.attach.switch_way import in_way, switch_way, way_words
from napctl.change.journal import Journal
from napctl.change.transaction import amend
from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from napctl.lab.servers import Server, serve
from napctl.model.change import EpollChange, NapiChange, Switch, Transaction
from napctl.model.settings import EpollParams, NapiSettings
from napctl.model.suspension import Suspension
from napctl.model.suspension_counts import WAIT_BOUNDS_US, suspended_between
from napctl.probe.suspension import SuspensionProbe
from tests.lab.following import get, get_again
from tests.lab.helpers import (
    STEPS,
    UNSET,
    Napctl,
    Sampled,
    Step,
    at,
    in_namespace,
    machine_of,
    params_of,
    set_napi,
    steps_in,
    until,
    victims,
)
from tests.meanwhile import again_and_again

pytestmark = pytest.mark.lab

WANTED = Suspension()
INTERRUPTS = None
RESTING = EpollParams(busy_poll_usecs=0, busy_poll_budget=64, prefer_busy_poll=False)
"""An epoll instance that napctl has switched to interrupts."""
ROOT = Path(__file__).parents[3]


def switched(napctl: Napctl, timer_ns: int | None, why: str = "a test") -> tuple[Transaction, tuple[str, ...]]:
    """What is attached, in another way; and what was left alone."""
    with Journal(napctl.state) as journal:
        (attached,) = attachments(journal)
        switch = Switch(unix_ns=time.time_ns(), to=way_words(timer_ns), why=why)
        done = switch_way(journal, attached, in_way(WANTED, timer_ns), switch)
    return done.transaction, done.left


def in_kernel(lab: Lab, server: Server) -> tuple[tuple[int | None, ...], bool]:
    """Deferral, its timer and the suspend timer of the one NAPI instance; whether the server prefers to poll."""
    (napi,) = lab.server.napis()
    found = napi.settings
    prefers = any(each.prefer_busy_poll for each in params_of(server.pid).values())
    return (found.defer_hard_irqs, found.gro_flush_timeout_ns, found.irq_suspend_timeout_ns), prefers


def test_the_kernel_has_what_each_way_is_and_in_the_end_what_it_had(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = machine_of(lab.server)
    napctl.attach_quickly(server.pid)

    for timer_ns in (50_000, None, 20_000, None, 200_000, 20_000, None):
        transaction, left = switched(napctl, timer_ns, f"for {timer_ns}")
        assert left == ()
        way = ((100, timer_ns, 20_000_000), True) if timer_ns else ((0, 0, 0), False)
        assert in_kernel(lab, server) == way
        assert napctl.live() == [transaction]
        assert transaction.state == "attached"
        assert not any(getattr(each, "leaving", None) for each in transaction.changes)

    assert [each.why for each in transaction.switches][-2:] == ["for 20000", "for None"]
    assert [each.to for each in transaction.switches][-2:] == ["gro-flush-timeout 20us", "interrupts"]
    assert RESTING in params_of(server.pid).values()
    assert napctl("detach", server.pid).status == 0
    assert machine_of(lab.server) == before
    assert napctl.live() == []


def test_attached_tells_that_adapting_has_chosen_interrupts_and_why(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    napctl.attach_quickly(server.pid)
    switched(napctl, None, "they cost the least")
    shown = napctl("attached")
    assert shown.status == 0
    assert "adapts, and takes packets by interrupts for now: they cost the least" in " ".join(shown.stdout.split())
    assert napctl("detach", server.pid).status == 0


def test_history_tells_each_switch_with_its_reason(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    number = napctl.attach_quickly(server.pid).number
    switched(napctl, 50_000, "p99 was 300 µs, of 150 µs")
    switched(napctl, None, "the cheapest")
    lines = napctl("history", number).stdout.splitlines()
    told = [line for line in lines if "to gro-flush-timeout 50us: p99 was 300 µs, of 150 µs" in line]
    assert len(told) == 1
    assert lines.index(told[0]) + 1 == next(
        place for place, line in enumerate(lines) if "to interrupts: the cheapest" in line
    )
    napctl("detach", server.pid)


@pytest.mark.parametrize("timer_ns", [None, 20_000])
def test_what_somebody_else_has_changed_is_left_alone_and_named(
    timer_ns: int | None, lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    napctl.attach_quickly(server.pid)
    (napi,) = lab.server.napis()
    set_napi(lab, napi.napi_id, NapiSettings(gro_flush_timeout_ns=777_000))

    _, left = switched(napctl, timer_ns)

    assert len(left) == 1
    assert left[0].startswith(f"NAPI {napi.napi_id} of ")
    assert "gro-flush-timeout is now 777us; it was 200us" in left[0]
    assert left[0].endswith("somebody else has changed it; napctl leaves it")
    settings, prefers = in_kernel(lab, server)
    assert settings == (100, 777_000, 20_000_000)
    assert prefers == (timer_ns is not None)
    done = napctl("detach", server.pid)
    assert done.status == 5
    assert "gro-flush-timeout is now 777us; somebody else changed it, so napctl leaves it (it was 0)" in done.stderr
    assert in_kernel(lab, server) == ((0, 777_000, 0), False)
    assert set(params_of(server.pid).values()) == {UNSET}


def test_a_value_that_napctl_had_set_before_is_another_hands_now(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    napctl.attach_quickly(server.pid)
    switched(napctl, 50_000)
    (napi,) = lab.server.napis()
    set_napi(lab, napi.napi_id, NapiSettings(gro_flush_timeout_ns=200_000))
    assert napctl("detach", server.pid).status == 5
    assert in_kernel(lab, server)[0] == (0, 200_000, 0)


def test_a_server_that_has_gone_does_not_keep_its_device_from_being_switched(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    napctl.attach_quickly(server.pid)
    server.process.kill()
    server.process.wait()

    _, left = switched(napctl, None)

    assert left == (), "who follows it tells that it has ended"
    (napi,) = lab.server.napis()
    assert napi.settings.gro_flush_timeout_ns == 0
    assert napctl("recover").status == 0
    assert napctl.live() == []


def test_an_instance_that_is_away_is_recorded_in_the_new_way_and_may_still_have_the_old_one(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    napctl.attach_quickly(server.pid)
    in_namespace(lab.server.namespace, "ip", "link", "set", lab.server.device, "down")
    try:
        transaction, left = switched(napctl, None)
    finally:
        in_namespace(lab.server.namespace, "ip", "link", "set", lab.server.device, "up")
    assert left == ()
    (change,) = (each for each in transaction.changes if isinstance(each, NapiChange))
    assert change.after == in_way(WANTED, None).napi
    assert change.leaving is not None
    assert change.leaving.gro_flush_timeout_ns == 200_000
    assert napctl("detach", server.pid).status == 0
    assert napctl.live() == []


@pytest.mark.parametrize("timer_ns", [None, 20_000, 200_000])
def test_what_was_refused_half_way_is_brought_into_the_next_way(
    timer_ns: int | None, lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    """As it is recorded after a refusal: it was to have 50 µs, and has some of what it had before."""
    napctl.attach_quickly(server.pid)
    transaction, _ = switched(napctl, 50_000)
    (change,) = (each for each in transaction.changes if isinstance(each, NapiChange))
    half = replace(change, leaving=in_way(WANTED, None).napi)
    with Journal(napctl.state) as journal:
        rest = (half if each is change else each for each in transaction.changes)
        journal.update(replace(transaction, changes=tuple(rest)), transaction.state)
    set_napi(lab, change.napi_id, NapiSettings(defer_hard_irqs=0, irq_suspend_timeout_ns=0))

    transaction, left = switched(napctl, timer_ns)

    assert left == ()
    way = ((100, timer_ns, 20_000_000), True) if timer_ns else ((0, 0, 0), False)
    assert in_kernel(lab, server) == way
    assert not any(getattr(each, "leaving", None) for each in transaction.changes)
    assert napctl("detach", server.pid).status == 0


def started_switching(
    napctl: Napctl, server: Server, ways: Sequence[str], *under: str, pause_seconds: float = 0
) -> "subprocess.Popen[str]":
    """services/switching.py, which waits for a line once it has attached."""
    arguments = [str(server.pid), str(pause_seconds), *ways]
    command = [*under, sys.executable, "-m", "tests.lab.services.switching", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=napctl.environment, cwd=ROOT, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


def switching(napctl: Napctl, server: Server, ways: Sequence[str], *under: str) -> int:
    """The same at once; its status when it was killed, or has ended without detaching."""
    process = started_switching(napctl, server, ways, *under)
    output, errors = process.communicate("\n", timeout=60)
    assert not output, (output, errors)
    return process.returncode


ONCE_ROUND = ("interrupts", "50", "20")
"""Down, up again, and from one timer to the other."""


def steps_of_switching(napctl: Napctl, server: Server, trace: Path) -> list[Step]:
    """System calls by which it switches or records something, from the first switch on."""
    traced = ("strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={','.join((*STEPS, 'newfstatat', 'stat'))}")
    assert switching(napctl, server, ONCE_ROUND, *traced) == 0
    return steps_in(trace, "/switching-begins")


@pytest.mark.trials
@pytest.mark.timeout(900)
def test_killed_at_any_step_of_a_switch_the_journal_leads_back(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path, sampled: Sampled
) -> None:
    before = machine_of(lab.server)
    trial = Napctl(napctl.state / "trial")
    steps = steps_of_switching(trial, server, tmp_path / "trace")
    assert {"pwrite64", "fdatasync", "sendto", "ioctl"} <= {name for name, _ in steps}
    assert trial("recover").status == 0
    assert machine_of(lab.server) == before

    mixed, picked = 0, sampled(steps, 4)
    for step, victim in victims(napctl, picked):
        assert switching(victim, server, ONCE_ROUND, *at(step, "signal=SIGKILL")) == -9, step
        settings, prefers = in_kernel(lab, server)
        mixed += (bool(settings[2]), bool(settings[1])) != (prefers, prefers)
        recovered = victim("recover", "--json")
        assert recovered.status == 0, (step, recovered)
        assert {row["outcome"] for row in recovered.json["settings"]} <= {"restored", "unchanged"}, step
        assert machine_of(lab.server) == before, step
        assert victim.live() == [], step
    print(f"{mixed} of the kills came amid a switch")
    assert mixed or picked != steps, "some of the kills came amid a switch"


BUSY_US = 8_000
"""CPU time of a request of services/spending.py, in all of which interrupts are suspended."""


def to_interrupts_and_back(napctl: Napctl, server: Server) -> None:
    for timer_ns in (None, 200_000):
        time.sleep(0.05)
        assert switched(napctl, timer_ns)[1] == ()


def detached_and_attached_again(napctl: Napctl, server: Server) -> None:
    time.sleep(0.05)
    with Journal(napctl.state) as journal:
        detach(journal, attachments(journal))
    time.sleep(0.05)
    napctl.attach_quickly(server.pid)


def taken_back_in_part_and_attached_again(napctl: Napctl, server: Server) -> None:
    """The server alone, as one of several workers that share NAPI instances."""
    time.sleep(0.05)
    with Journal(napctl.state) as journal:
        (made,) = journal.live()
        epolls = [each for each in made.changes if isinstance(each, EpollChange)]
        made = amend(journal, made, without=epolls)
    time.sleep(0.05)
    with Journal(napctl.state) as journal:
        amend(journal, made, more=epolls)


@pytest.mark.alone
@pytest.mark.parametrize(
    "turn", [to_interrupts_and_back, detached_and_attached_again, taken_back_in_part_and_attached_again]
)
def test_a_server_that_stops_polling_amid_a_request_need_not_wait_for_the_suspend_timer(
    turn: Callable[[Napctl, Server], None], lab: Lab, napctl: Napctl, port: int
) -> None:
    module = [sys.executable, "-m", "tests.lab.services.spending", lab.server.address, str(port)]
    command = ["env", f"PYTHONPATH={ROOT}", *module, "--usecs", str(BUSY_US)]
    ours = {(lab.server.namespace.inode, napi.napi_id) for napi in lab.server.napis()}
    with serve(lab, command, port, patience_s=60) as server, get(lab, server) as connection:
        napctl.attach_quickly(server.pid)

        def none_waited() -> bool:
            """Six turns, in each of which one would, if it had to; one that waits for its CPU does now and then."""
            with SuspensionProbe.load() as probe, again_and_again(lambda: get_again(connection), 0):
                for _ in range(6):
                    turn(napctl, server)
                (seen,) = probe.read(ours)
            print(f"{seen.timeouts} rescues, {seen.suspensions} suspensions")
            return seen.suspensions > 6 and seen.timeouts <= 2

        until(none_waited, "turns in which nobody waits for the suspend timer", 15)
        assert napctl("detach", server.pid).status == 0


RATE = 5_000
LATE_US = 1_200
"""1 ms more than the longest of the timers."""
PAUSE_SECONDS = 0.03
ROUNDS = 2


@dataclass(frozen=True)
class Outcome:
    """Of one run under switches."""

    packets: int
    late: int
    """Packets of these that may have waited for their poll longer than that."""
    rescues: int
    """By the suspend timer, which lets packets wait for 20 ms."""


def under_switches(lab: Lab, server: Server, napctl: Napctl, ways: Sequence[str]) -> Outcome:
    """The load while the attachment is given these ways, one after the other, by a process that takes nobody's CPU."""
    nicely, ours = ("nice", "-n", "19"), {(lab.server.namespace.inode, napi.napi_id) for napi in lab.server.napis()}
    with (
        started_switching(napctl, server, ways, *nicely, pause_seconds=PAUSE_SECONDS) as process,
        SuspensionProbe.load() as probe,
    ):
        until(lambda: [each.state for each in napctl.live()] == ["attached"], "the attachment")
        with started(lab, server, LoadSpec(rate_per_second=RATE, seconds=120, warmup_seconds=0.5)) as load:
            load.wait_for_warmup()
            before = probe.read(ours)
            output, errors = process.communicate("\n", timeout=100)
            (seen,) = suspended_between(before, probe.read(ours)).values()
            result = load.stop()
    assert (process.returncode, output) == (0, ""), errors
    assert napctl("recover").status == 0
    assert result.unanswered == 0
    late = sum(count for bound_us, count in zip(WAIT_BOUNDS_US, seen.waits, strict=True) if bound_us > LATE_US)
    print(f"{late} of {seen.packets} late, {seen.timeouts} rescues; at most {result.histogram[-1][0] / 1000:.1f} ms")
    return Outcome(seen.packets, late, seen.timeouts)


SAME, MANY = ("200", "199"), ("interrupts", "50", "interrupts", "200", "20")
"""Ways, by turns: such between which nothing can wait, as one timer is only written for another; and all kinds."""


def no_request_waits_for_a_switch(lab: Lab, server: Server, napctl: Napctl, switches: int) -> None:
    """By turns with as many that do the same work and change next to nothing.

    The kernel's own account of how long packets wait for their poll is judged: what switches can do is to make them
    wait there, and other work of the machine shows less in it than in what clients see. A stall comes in all rounds.
    """
    seen: dict[tuple[str, ...], list[Outcome]] = {SAME: [], MANY: []}
    each = switches // ROUNDS
    for _ in range(ROUNDS):
        for ways, outcomes in seen.items():
            outcomes.append(under_switches(lab, server, napctl, (list(ways) * each)[:each]))
    same, many = seen.values()
    assert min(one.late / one.packets for one in many) <= max(one.late / one.packets for one in same) + 0.005, seen
    assert min(one.rescues for one in many) <= max(one.rescues for one in same) + 1, seen


@pytest.mark.long
@pytest.mark.alone
def test_no_request_waits_for_a_switch(lab: Lab, server: Server, client: socket.socket, napctl: Napctl) -> None:
    no_request_waits_for_a_switch(lab, server, napctl, 40)


@pytest.mark.alone
@pytest.mark.long
@pytest.mark.timeout(300)
def test_no_request_waits_for_one_of_200_switches(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    no_request_waits_for_a_switch(lab, server, napctl, 200)
