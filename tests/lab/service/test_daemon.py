"""napctl daemon with targets: attached, taken over, executed anew, restored by its guard, and what it says of it."""

import os
import random
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from tests.lab.conftest import LoadStarter
from tests.lab.following import (
    all_unset,
    assert_no_mixture,
    attached,
    attached_in_kernel,
    flap,
    killed,
    served,
    settings_of,
)
from tests.lab.helpers import Napctl, another_memcached, answers, ask, at_server, machine_of, until
from tests.lab.kernel_writes import TRACED, writes_in
from tests.lab.service.services import (
    SLEEPING,
    WITHOUT_ADOPTION,
    guarding,
    guards_gone,
    policy_of,
    serving,
    write,
)
from tests.tries import in_one_of

pytestmark = pytest.mark.lab


@pytest.mark.alone
def test_a_target_is_attached_within_two_seconds_of_its_first_connection_and_put_back_at_the_stop(
    lab: Lab, server: Server, napctl: Napctl, tmp_path: Path
) -> None:
    before = settings_of(lab)

    def attempt() -> None:
        with serving(napctl, policy_of(tmp_path, server.pid)) as it:
            it.told("it has no connection yet")
            began = time.time()
            with ask(lab, server) as connection:
                taken = it.told("attached memcached").seconds - began
                assert attached_in_kernel(lab, server)
                assert answers(connection)
                assert it.end(signal.SIGTERM) == 0
            assert (it.since()[-1], it.errors) == ("stopped: all is put back", "")
        assert settings_of(lab) == before
        assert all_unset(server.pid)
        assert napctl.live() == []
        guards_gone(napctl)
        assert taken < 2

    in_one_of(attempt)


def test_commands_say_what_is_the_services(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    name = f"pid:{server.pid}"
    with serving(napctl, policy_of(tmp_path, server.pid)) as it:
        it.told("attached memcached")
        kept = f"kept by the service ({it.pid})"
        assert kept in " ".join(napctl("attached").stdout.split())
        assert napctl("attached", "--json").json["attachments"][0]["transaction"]["keeper"]["entry"] == name
        assert f"memcached ({server.pid}): {kept}" in napctl("status", *at_server(lab)).stdout
        assert napctl("history").stdout.splitlines()[-1] == "kept by the service: 1"
        assert napctl("history", "1").stdout.splitlines()[1].endswith(kept)
        assert "attached memcached" in napctl("why", name).stdout
        assert napctl("why").stdout.splitlines()[-1] == f"also about: {name}"
        assert napctl("why", "nothing-of-that-name").failed_with(2, "has decided nothing about it", name)
        killed(it)
        left = f"left by the service ({it.process.pid}), which has ended"
        assert left in " ".join(napctl("attached").stdout.split())
        assert napctl("why").failed_with(2, "no napctl daemon runs here")
    assert napctl("detach", server.pid).stderr == "", "no service leaves it so"


def test_with_on_stop_keep_nothing_changes_and_the_next_one_takes_it_over(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    before, trace = machine_of(lab.server), tmp_path / "trace"
    policy = policy_of(tmp_path, server.pid, service='on-stop = "keep"')
    for told in ("attached memcached", "took over memcached"):
        with serving(napctl, policy, under=[*TRACED, str(trace)]) as it:
            it.told(told)
            time.sleep(1)
            size = trace.stat().st_size if told.startswith("attached") else 0
            assert it.end(signal.SIGTERM) == 0
            assert "everything stays as it is" in it.since()[-1]
            assert writes_in(trace, since=size) == set()
        (kept,) = napctl.live()
        assert (kept.state, kept.keeper, kept.guard) == ("attached", None, None)
        assert attached_in_kernel(lab, server)
        assert napctl("recover").stdout == "nothing to recover\n"
    guards_gone(napctl)
    assert napctl("detach", server.pid).status == 0
    assert machine_of(lab.server) == before


def test_killed_under_load_it_is_taken_over_and_a_reload_and_an_upgrade_write_nothing_either(
    lab: Lab, server: Server, load: LoadStarter, napctl: Napctl, tmp_path: Path
) -> None:
    before, trace, policy = machine_of(lab.server), tmp_path / "trace", policy_of(tmp_path, server.pid)
    running = load(2_000)
    with serving(napctl, policy) as it:
        it.told("attached memcached")
        (first,) = napctl.live()
        killed(it)
    assert attached_in_kernel(lab, server)
    with serving(napctl, policy, under=[*TRACED, str(trace)]) as it:
        it.told("took over memcached")
        pid, (second,) = it.pid, napctl.live()
        assert (second.number, second.changes) == (first.number, first.changes)
        assert second.keeper is not None
        assert second.keeper.pid == pid
        time.sleep(1.5)
        os.kill(pid, signal.SIGHUP)
        time.sleep(0.5)
        assert [each for each in it.since() if "took over" not in each and "runs too" not in each] == []

        began = time.time()
        os.kill(pid, signal.SIGUSR2)
        it.told("took over memcached", since=began)
        time.sleep(1.5)
        (third,) = napctl.live()
        assert (it.pid, third.keeper, third.changes) == (pid, second.keeper, first.changes)
        assert writes_in(trace) == set()
        assert attached_in_kernel(lab, server)
        until(lambda: len(napctl.guards()) == 1, "the former guards to go home")

        assert it.end(signal.SIGTERM) == 0
        assert writes_in(trace) >= {"napi-set", "EPIOCSPARAMS"}
    result = running.stop()
    assert result.answered
    assert result.unanswered == 0
    assert machine_of(lab.server) == before


def test_without_adoption_the_same_trace_shows_the_writes(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    policy, trace = policy_of(tmp_path, server.pid, service='guard-wait = "1s"'), tmp_path / "trace"
    with serving(napctl, policy) as it:
        it.told("attached memcached")
        killed(it)
    with serving(napctl, policy, under=[*TRACED, str(trace)], before=WITHOUT_ADOPTION) as it:
        it.told("attached memcached")
        assert writes_in(trace) >= {"napi-set", "EPIOCSPARAMS"}
        assert it.end(signal.SIGTERM) == 0


def test_of_a_changed_policy_only_what_differs_is_touched(napctl: Napctl, tmp_path: Path) -> None:
    with served() as one, served() as two:
        pids, before = (one.server.pid, two.server.pid), machine_of(two.lab.server)
        with serving(napctl, policy_of(tmp_path, *pids)) as it:
            for pid in pids:
                it.told(f"pid:{pid}: attached memcached")
            first = next(each for each in napctl.live() if each.pid == pids[0])
            began = time.time()
            policy_of(tmp_path, pids[0], (pids[1], 50))
            os.kill(it.pid, signal.SIGHUP)
            it.told(f"pid:{pids[1]}: put back memcached ({pids[1]}): its entry is another one now")
            it.told(f"pid:{pids[1]}: attached memcached", since=began)
            assert [each.gro_flush_timeout_ns for each in settings_of(two.lab)] == [50_000]

            policy_of(tmp_path, pids[0])
            it.told(f"pid:{pids[1]}: put back memcached ({pids[1]}): the policy no longer names it")
            assert machine_of(two.lab.server) == before
            assert not [each for each in it.since(began) if each.startswith(f"pid:{pids[0]}: ")]
            assert napctl.live() == [first]
            assert it.end(signal.SIGTERM) == 0
        assert all_unset(*pids)


@pytest.mark.parametrize("of_its_own", [False, True], ids=["forked", "napctl guard"])
def test_not_started_again_in_time_it_is_restored(
    of_its_own: bool, lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    before, policy = machine_of(lab.server), policy_of(tmp_path, server.pid, service='guard-wait = "2s"')
    with ExitStack() as stack:
        guard = stack.enter_context(guarding(napctl)) if of_its_own else None
        with serving(napctl, policy) as it:
            it.told("attached memcached")
            until(lambda: len(napctl.guards()) == (not of_its_own), "its own guard, or none")
            killed(it)
        began = time.monotonic()
        time.sleep(0.5)
        assert attached_in_kernel(lab, server) or time.monotonic() - began > 1
        until(lambda: not napctl.live(), "the guard")
        assert 0.5 < time.monotonic() - began < 30, "or it waits for a minute, as it does unless told otherwise"
        assert machine_of(lab.server) == before
    assert guard is None or [each.startswith("put back memcached") for each in guard] == [True]
    guards_gone(napctl)


def test_a_target_that_comes_later_is_attached_and_so_it_is_after_a_link_reset_and_a_restart(
    lab: Lab, unusual: str, port: int, napctl: Napctl, tmp_path: Path
) -> None:
    name = Path(unusual).name
    with serving(napctl, policy_of(tmp_path, name)) as it:
        it.told(f"{name}: waiting for {name}: it is not running")
        with another_memcached(lab, port, program=unusual) as server, ask(lab, server) as connection:
            it.told(f"{name}: attached {name}")
            began = time.time()
            flap(lab)
            it.told("attached NAPI", since=began)
            assert attached_in_kernel(lab, server)
            assert answers(connection)
        with another_memcached(lab, port, program=unusual) as server, ask(lab, server):
            until(lambda: attached_in_kernel(lab, server), "the next of that name to be attached")
            assert it.end(signal.SIGTERM) == 0
            assert all_unset(server.pid)
    assert not any(map(attached, settings_of(lab)))


@pytest.mark.trials
@pytest.mark.timeout(1800)
def test_killed_at_any_moment_there_is_never_a_mixture(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path, trials: Callable[[int, int], int]
) -> None:
    """While it attaches, and while another timer comes into force; the next one has it attached again each time."""
    before, chance = machine_of(lab.server), random.Random(13)
    adopted = 0
    with guarding(napctl):
        for number in range(trials(4, 200)):
            with serving(napctl, policy_of(tmp_path, (server.pid, 50 if number % 2 else 200))) as it:
                if number % 3:
                    adopted += "took over" in it.told(f"pid:{server.pid}: ").text
                    time.sleep(chance.uniform(0, 0.05))
                else:
                    time.sleep(chance.uniform(0.3, 1.5))
                killed(it)
            if assert_no_mixture(lab, server, napctl, before) and number % 4 == 3:
                assert napctl("detach", server.pid).status == 0  # or it might be adopted every time
        with serving(napctl, policy_of(tmp_path, (server.pid, 50))) as it:
            until(
                lambda: (
                    [each.gro_flush_timeout_ns for each in settings_of(lab)] == [50_000]
                    and attached_in_kernel(lab, server)
                ),
                "it to be attached with its timer",
            )
            assert answers(client)
            assert it.end(signal.SIGTERM) == 0
    assert machine_of(lab.server) == before
    assert napctl.live() == []
    assert adopted


def test_after_a_sleep_of_the_machine_what_was_put_off_is_tried_at_once(napctl: Napctl, tmp_path: Path) -> None:
    """A device that refuses: tried again after 1, 2, 4 s … and in between when the machine wakes."""
    policy = write(tmp_path / "policy.toml", '[[device]]\nname = "lo"\n[device.coalescing]\nrx-usecs = 5\n')
    with serving(napctl, policy, before=SLEEPING) as it:
        slept = it.told("the machine has slept for 8h: looks at everything at once")
        assert it.told("lo: the driver refuses", since=slept.seconds).text.endswith("tried again in 1s")
        assert it.end(signal.SIGTERM) == 0
        assert it.errors == ""
