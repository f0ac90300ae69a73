"""Several targets followed by one process; killed, the next one takes over what it has left, or a guard restores it."""

import os
import random
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from napctl.change.guard_lock import is_on_watch
from napctl.kernel import processes
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from tests.lab.conftest import LoadStarter
from tests.lab.following import (
    Following,
    all_unset,
    assert_no_mixture,
    attached,
    attached_in_kernel,
    flap,
    guards,
    killed,
    served,
    settings_of,
)
from tests.lab.helpers import Napctl, answers, machine_of, open_files, set_napi, until
from tests.lab.kernel_writes import TRACED, writes_in
from tests.lab.stays import staying

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]


def test_two_targets_are_followed_by_one_process_and_both_put_back(state: Path) -> None:
    with served() as one, served() as two:
        before = machine_of(one.lab.server), machine_of(two.lab.server)
        with staying("follow", state, one.server.pid, two.server.pid) as it:
            it.told(f"{one.server.pid}: attached memcached")
            it.told(f"{two.server.pid}: attached memcached")
            assert attached_in_kernel(one.lab, one.server)
            assert attached_in_kernel(two.lab, two.server)

            began = time.time()
            flap(two.lab)
            it.told(f"{two.server.pid}: attached NAPI", since=began)
            assert it.told(f"{two.server.pid}: {two.lab.server.device}: link", since=began)
            assert not [each for each in it.since(began) if each.startswith(f"{one.server.pid}: ")]
            assert it.end(signal.SIGTERM) == 0, it.errors
        assert settings_of(one.lab) == [each.settings for each in one.lab.server.napis()]
        assert machine_of(one.lab.server) == before[0]
        assert all_unset(one.server.pid, two.server.pid)
        assert not any(map(attached, settings_of(two.lab)))


def test_a_killed_one_is_taken_over_under_load_without_a_write_to_the_kernel(
    lab: Lab, server: Server, load: LoadStarter, napctl: Napctl, tmp_path: Path
) -> None:
    before = machine_of(lab.server)
    running = load(2_000)
    with staying("follow", napctl.state, server.pid) as it:
        it.told("attached memcached")
        (first,) = napctl.live()
        killed(it)
    assert attached_in_kernel(lab, server)
    trace = tmp_path / "trace"
    with staying("follow", napctl.state, server.pid, under=[*TRACED, str(trace)]) as it:
        it.told("took over memcached")
        (second,) = napctl.live()
        assert second.number == first.number
        assert second.changes == first.changes
        assert second.keeper is not None
        assert second.keeper.pid == it.pid
        assert second.keeper != first.keeper
        time.sleep(2.5)  # of several checks, and a trial
        assert writes_in(trace) == set()
        assert it.since() == [each for each in it.since() if "took over" in each]
        assert attached_in_kernel(lab, server)
        until(lambda: len(napctl.guards()) == 1, "the first guard to go home")

        it.end(signal.SIGTERM)
        assert writes_in(trace) >= {"napi-set", "EPIOCSPARAMS"}
    result = running.stop()
    assert result.answered
    assert result.unanswered == 0
    assert machine_of(lab.server) == before


def test_without_adoption_the_same_trace_shows_the_writes(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    with staying("follow", napctl.state, server.pid, "--wait", 1) as it:
        it.told("attached memcached")
        killed(it)
    trace = tmp_path / "trace"
    with staying("follow", napctl.state, server.pid, "--anew", under=[*TRACED, str(trace)]) as it:
        it.told("attached memcached")
        assert writes_in(trace) >= {"napi-set", "EPIOCSPARAMS"}
        assert it.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("by_service", [False, True])
def test_not_taken_over_in_time_it_is_restored(
    by_service: bool, lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = machine_of(lab.server)
    with ExitStack() as stack:
        if by_service:
            guard = stack.enter_context(staying("guard", napctl.state))
            until(lambda: is_on_watch(napctl.state), "the guard")
        words = ("--by-service",) if by_service else ()
        with staying("follow", napctl.state, server.pid, "--wait", 3, *words) as it:
            it.told("attached memcached")
            killed(it)
        began = time.monotonic()
        assert napctl("recover").stdout == "nothing to recover\n"

        def moment_is_recorded() -> bool:
            """Or it has come: a busy machine lets this test wait, too."""
            live = napctl.live()
            return not live or (live[0].guard is not None and live[0].guard.deadline_boot_ns > 0)

        until(moment_is_recorded, "the moment to be recorded")
        time.sleep(0.5)
        assert attached_in_kernel(lab, server) or time.monotonic() - began > 2
        until(lambda: not napctl.live(), "the guard")
        assert 1 < time.monotonic() - began < 30, "or it waits for a minute, as it does unless told otherwise"
        assert machine_of(lab.server) == before
        if by_service:
            assert guard.told("put back memcached")
            assert guard.end(signal.SIGTERM) == 0
        until(lambda: not napctl.guards(), "the guard to go home")


def test_the_guard_of_the_service_follows_each_new_keeper_and_may_itself_be_killed(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = machine_of(lab.server)

    def followed_in_time() -> bool:
        """Each new keeper came before the moment at which the guard puts back what the former one has left."""
        words = ("follow", napctl.state, server.pid, "--wait", WAIT_S, "--by-service")
        with staying("guard", napctl.state) as guard:
            until(lambda: is_on_watch(napctl.state), "the guard")
            for number in range(2):
                with staying(*words) as it:
                    if taken_over(it) != bool(number):
                        return False
                    killed(it)
            killed(guard)
        assert not is_on_watch(napctl.state)
        with staying("guard", napctl.state) as guard:
            until(lambda: is_on_watch(napctl.state), "the guard")
            with staying(*words) as it:
                if not taken_over(it):
                    return False
                time.sleep(WAIT_S + 1)
                assert attached_in_kernel(lab, server)
                killed(it)
            until(lambda: not napctl.live(), "the guard")
        return True

    def put_back_between() -> bool:
        """On a busy machine the next keeper may come too late, and attaches it anew."""
        found = followed_in_time()
        napctl("detach", "--all")
        assert machine_of(lab.server) == before
        return found

    until(put_back_between, "keepers that come in time")


WAIT_S = 2
"""How long a guard waits for the next keeper."""


def taken_over(it: Following) -> bool:
    """And not attached anew."""
    return "took over memcached" in it.told(" memcached (").text


@pytest.mark.parametrize("by_service", [False, True])
def test_killed_with_its_guard_it_is_recovered(
    by_service: bool, lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = machine_of(lab.server)
    words = ("--by-service",) if by_service else ()  # and no guard runs
    with staying("follow", napctl.state, server.pid, *words) as it:
        it.told("attached memcached")
        if not by_service:
            (guard,) = guards(napctl)  # by the journal: one that has just begun has not its name yet
            os.kill(guard, signal.SIGKILL)
        killed(it)
    until(lambda: not napctl.guards(), "the guard's end")
    assert attached_in_kernel(lab, server)
    assert napctl("recover").status == 0
    assert machine_of(lab.server) == before


def test_executed_anew_it_goes_on_as_the_same_process(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    with staying("follow", napctl.state, server.pid, under=[*TRACED, str(trace)]) as it:
        it.told("attached memcached")
        (first,) = napctl.live()
        until(lambda: not any("bpf" in each for each in open_files(it.pid)), "the end of its trial")
        pid, size, held = it.pid, trace.stat().st_size, descriptors(it.pid)
        os.kill(pid, signal.SIGUSR1)
        it.told("took over memcached")
        time.sleep(1.2)  # it has checked
        until(lambda: descriptors(pid) <= held, "as few descriptors as before")  # once its trial is over
        (second,) = napctl.live()
        assert second.keeper == first.keeper
        assert it.pid == pid
        assert writes_in(trace, since=size) == set()
        until(lambda: len(napctl.guards()) == 1, "its former guard to go home")
        assert it.end(signal.SIGTERM) == 0
    assert napctl.live() == []
    assert all_unset(server.pid)


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_what_is_kept_at_the_end_stays_until_somebody_detaches_or_adopts_it(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = machine_of(lab.server)
    for told in ("attached memcached", "took over memcached"):
        with staying("follow", napctl.state, server.pid, "--keep") as it:
            it.told(told)
            assert it.end(signal.SIGTERM) == 0
        (kept,) = napctl.live()
        assert (kept.state, kept.keeper, kept.guard) == ("attached", None, None)
        assert attached_in_kernel(lab, server)
        assert napctl("recover").stdout == "nothing to recover\n"
        until(lambda: not napctl.guards(), "its guard to go home")
    assert napctl("detach", server.pid).status == 0
    assert machine_of(lab.server) == before


def test_what_is_not_as_recorded_is_mended_and_other_options_come_into_force(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    (napi,) = lab.server.napis()
    with staying("follow", napctl.state, server.pid) as it:
        it.told("attached memcached")
        killed(it)
    set_napi(lab, napi.napi_id, napi.settings)
    with staying("follow", napctl.state, server.pid) as it:
        it.told("took over memcached")
        it.told("lost its settings")
        until(lambda: attached_in_kernel(lab, server), "what was lost")
        killed(it)
    with staying("follow", napctl.state, server.pid, "--timer-us", 50) as it:
        it.told("changed to gro-flush-timeout 50us: asked for")
        (settings,) = settings_of(lab)
        assert settings.gro_flush_timeout_ns == 50_000
        assert it.end(signal.SIGTERM) == 0
    assert settings_of(lab) == [napi.settings]


def test_adapting_goes_on_from_the_way_that_is_in_force(
    lab: Lab, server: Server, load: LoadStarter, napctl: Napctl, tmp_path: Path
) -> None:
    """First to a timer, at which it is killed; the next adopts that timer, and tries another way from there.

    A way is tried only where the budget is kept beyond the noise: here by any machine, at a load amid its octave.
    """
    before = machine_of(lab.server)
    load(1_500, seconds=100)
    words = ("follow", napctl.state, server.pid, "--budget-us", 1_000_000)

    def killed_with_a_timer() -> int | None:
        """Which: where the machine is busy it may be back to interrupts by then."""
        with staying(*words) as it:
            it.told("changed to gro-flush-timeout")
            killed(it)
        (settings,) = settings_of(lab)
        return settings.gro_flush_timeout_ns

    timer_ns = until(killed_with_a_timer, "a timer in force")
    assert timer_ns
    with staying(*words) as it:
        event = it.told("took over memcached")
        assert f"gro-flush-timeout {timer_ns // 1000}us" in event.text
        it.told("changed to")
        assert it.end(signal.SIGTERM) == 0
    assert machine_of(lab.server) == before


@pytest.mark.trials
@pytest.mark.timeout(1200)
def test_killed_at_any_moment_there_is_never_a_mixture(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, trials: Callable[[int, int], int]
) -> None:
    """While it attaches, and while another way comes into force; the next one has it attached again each time."""
    before = machine_of(lab.server)
    chance = random.Random(13)
    adopted = anew = 0
    with staying("guard", napctl.state) as guard:
        until(lambda: is_on_watch(napctl.state), "the guard")
        for number in range(trials(6, 200)):
            words = ("follow", napctl.state, server.pid, "--by-service", "--timer-us", 50 if number % 2 else 200)
            with staying(*words) as it:
                if number % 3:
                    first = it.told(f"{server.pid}: ").text
                    adopted, anew = adopted + ("took over" in first), anew + ("attached" in first)
                    time.sleep(chance.uniform(0, 0.05))
                else:
                    time.sleep(chance.uniform(0.2, 1.5))
                killed(it)
            if (
                assert_no_mixture(lab, server, napctl, before) and number % 4 == 3
            ):  # what was attached before it was killed might have been adopted every time
                assert napctl("detach", server.pid).status == 0
                assert machine_of(lab.server) == before, number
        with staying("follow", napctl.state, server.pid, "--by-service", "--timer-us", 50) as it:
            it.told("memcached")
            until(
                lambda: (
                    [each.gro_flush_timeout_ns for each in settings_of(lab)] == [50_000]
                    and attached_in_kernel(lab, server)
                ),
                "it to be attached with its timer",
            )
            assert answers(client)
            assert it.end(signal.SIGTERM) == 0
        assert guard.end(signal.SIGTERM) == 0
    assert machine_of(lab.server) == before
    assert napctl.live() == []
    assert adopted
    assert anew


def test_what_another_keeps_is_not_taken_over(lab: Lab, server: Server, client: socket.socket, napctl: Napctl) -> None:
    with staying("follow", napctl.state, server.pid) as it:
        it.told("attached memcached")
        with staying("follow", napctl.state, server.pid) as other:
            assert other.ended() == 1
            assert f"another napctl (pid {it.pid}) keeps it" in other.errors
        assert it.end(signal.SIGTERM) == 0
    assert processes.process(server.pid)
