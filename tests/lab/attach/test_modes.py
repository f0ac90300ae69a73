"""What fits where suspension does not: by threads, by deferral, by busy polling; offered with its price, and undone."""

import json
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from napctl.kernel.napi_threads import scheduled
from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from napctl.lab.servers import MEMCACHED_PORT, Server
from napctl.model.activity import Attached
from napctl.model.change import NapiChange, SocketChange, ThreadChange
from napctl.model.modes import Mode, mode_of
from napctl.model.settings import NapiSettings
from napctl.model.value import from_json
from tests.lab.following import connections, flap, following
from tests.lab.helpers import (
    UNSET,
    Napctl,
    Ran,
    Sampled,
    another_memcached,
    answers,
    ask,
    at,
    ending,
    machine_of,
    params_of,
    polling_of,
    state_of,
    until,
    victims,
)
from tests.lab.other_servers import echo, echoed, loops

pytestmark = pytest.mark.lab

LOAD = LoadSpec(rate_per_second=2000, seconds=100, connections=16, warmup_seconds=0.1, sleeps=True)
HTTP = LoadSpec(rate_per_second=2000, seconds=100, connections=16, warmup_seconds=0.1, protocol="http", sleeps=True)
DEFERS = NapiSettings(defer_hard_irqs=100, gro_flush_timeout_ns=50_000, irq_suspend_timeout_ns=0, threaded="enabled")
MODES: list[tuple[Mode, tuple[object, ...]]] = [("thread", ()), ("defer", ("--defer-us", 50))]
FEW = [MODES[0], pytest.param(*MODES[1], marks=pytest.mark.long)]


def thread_of(lab: Lab) -> tuple[int, str] | None:
    """Nice value and CPUs of the one thread that takes the server's packets."""
    (napi,) = lab.server.napis()
    assert napi.thread_pid is not None
    return scheduled(napi.thread_pid)


def test_a_thread_is_put_beside_the_server_and_brought_back(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before, former = state_of(lab.server), thread_of(lab)

    done = napctl("attach", server.pid, "--mode", "thread", "--window", 0)
    (transaction,) = napctl.live()
    (change,) = transaction.changes

    assert (done.status, done.stderr) == (0, "")
    assert isinstance(change, ThreadChange)
    assert thread_of(lab) == (0, change.after.cpus)
    assert f"mode thread: it costs a wake-up for each interrupt, on CPU {change.after.cpus}" in done.stdout
    assert set(params_of(server.pid).values()) == {UNSET}
    assert answers(client)
    assert napctl("detach", server.pid).status == 0
    assert (state_of(lab.server), thread_of(lab)) == (before, former)


def test_a_server_that_is_pinned_shares_its_cpu_with_no_thread(napctl: Napctl) -> None:
    with Lab.build() as lab, ending(loops(lab, "usual")) as server, connections(lab, server, 1):
        if lab.client.cpu == lab.server.cpu:
            pytest.skip("this machine has one CPU")
        for task in Path(f"/proc/{server.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {lab.server.cpu})
        assert napctl("attach", server.pid, "--mode", "thread", "--window", 0).status == 0
        assert thread_of(lab) == (0, str(lab.client.cpu))
        assert napctl("detach", server.pid).status == 0


def test_an_event_loop_over_several_queues_gets_a_thread_for_each(napctl: Napctl) -> None:
    with Lab.build(queues=2) as lab, ending(loops(lab, "usual")) as server, connections(lab, server, 12):
        before = state_of(lab.server)
        assert napctl("attach", server.pid, "--window", 0).failed_with(3, "2 NAPI instances")
        assert napctl("attach", server.pid, "--mode", "thread", "--window", 0).status == 0
        changes = napctl.live()[0].changes
        assert {type(each) for each in changes} == {ThreadChange}
        assert {each.napi_id for each in changes if isinstance(each, ThreadChange)} == {
            napi.napi_id for napi in lab.server.napis()
        }
        assert napctl("detach", server.pid).status == 0
        assert state_of(lab.server) == before


def test_deferral_is_of_exactly_the_instance_that_feeds_it(napctl: Napctl) -> None:
    with Lab.build(queues=2) as lab, another_memcached(lab, MEMCACHED_PORT) as server, ask(lab, server):
        before = state_of(lab.server)
        report = napctl("attach", server.pid, "--mode", "defer", "--defer-us", 50, "--window", 0, "--json").json
        (change,) = napctl.live()[0].changes

        assert isinstance(change, NapiChange)
        assert report["mode"] == "defer"
        now = {napi.napi_id: napi.settings for napi in lab.server.napis()}
        assert now.pop(change.napi_id) == DEFERS
        assert {each.gro_flush_timeout_ns for each in now.values()} == {0}
        assert set(params_of(server.pid).values()) == {UNSET}
        assert napctl("detach", server.pid).status == 0
        assert state_of(lab.server) == before


@pytest.mark.parametrize(("mode", "options"), FEW)
def test_what_is_said_of_it_is_who_polls_and_never_suspension(
    mode: Mode, options: tuple[object, ...], lab: Lab, server: Server, napctl: Napctl
) -> None:
    with started(lab, server, LOAD) as load:
        load.wait_for_warmup()

        def active() -> Attached | None:
            done = napctl("attach", server.pid, "--mode", mode, *options, "--window", "0.3s", "--json")
            told = from_json(done.stdout, Attached)
            if told.verdict != "active" or (told.thread_packet_share or 0) <= 0.5:
                assert napctl("detach", server.pid).status == 0
                return None
            return told

        report = until(active, "a window in which it is active")
        assert report is not None
        told = napctl("attached", "--interval", 0.3)
        (standing,) = napctl("attached", "--json", "--interval", 0.3).json["attachments"]

        assert (report.mode, standing["mode"]) == (mode, mode)
        assert report.server_packet_share == 0
        assert (report.suspended_share, report.suspensions_per_second) == (None, None)
        assert not standing["protects"]
        assert f"mode {mode}: " in told.stdout
        assert "suspend" not in told.stdout
        assert napctl("detach", server.pid).status == 0


def test_busy_polling_alone_leaves_epoll_and_suspension_alone(lab: Lab, napctl: Napctl) -> None:
    with echo(lab, wait_in="recv") as server:
        assert echoed(lab, server, 3) == 3
        before = state_of(lab.server)
        assert napctl("attach", server.pid, "--mode", "poll", "--defer-us", 50, "--window", 0).status == 0
        changes = napctl.live()[0].changes
        assert [type(each) for each in changes] == [NapiChange, SocketChange]
        assert mode_of(changes) == "poll"
        assert [each.settings for each in lab.server.napis()] == [DEFERS]
        assert [each.prefer_busy_poll for each in polling_of(server.pid).values()] == [True]
        assert napctl("detach", server.pid).status == 0
        assert state_of(lab.server) == before


def test_a_server_that_waits_in_epoll_alone_has_nothing_to_busy_poll(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    assert napctl("attach", server.pid, "--mode", "poll").failed_with(3, "waited for in epoll", "nothing was changed")


def test_who_is_not_fed_yet_is_refused_in_words_of_the_mode(lab: Lab, server: Server, napctl: Napctl) -> None:
    assert napctl("attach", server.pid, "--mode", "thread").failed_with(3, "no NAPI instance feeds it yet")


@pytest.mark.parametrize(("first", "second"), [("thread", "suspend"), ("defer", "thread")])
def test_an_instance_has_one_holder(
    first: Mode, second: Mode, lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    with another_memcached(lab, MEMCACHED_PORT + 1) as other, ask(lab, other):
        assert napctl("attach", server.pid, "--mode", first, "--window", 0).status == 0
        during = state_of(lab.server)
        refused = napctl("attach", other.pid, "--mode", second, "--window", 0)
        assert refused.failed_with(2, f"already attached for memcached ({server.pid})")
        assert state_of(lab.server) == during
        assert napctl("detach", server.pid).status == 0


def test_a_dry_run_says_what_fits_and_what_would_be_set_and_changes_nothing(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = state_of(lab.server)
    done = napctl("attach", server.pid, "--mode", "thread", "--dry-run")
    offers = napctl("attach", server.pid, "--dry-run", "--json").json["next_best"]
    assert done.status == 0
    assert "NAPI thread" in done.stdout
    assert "nothing was changed" in done.stdout
    assert {(each["mode"], each["fits"]) for each in offers} == {("poll", False), ("thread", True), ("defer", True)}
    assert state_of(lab.server) == before
    assert napctl.live() == []


def test_a_thread_that_spins_is_refused_where_the_kernel_has_none_or_no_cpu_is_left_for_it(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = state_of(lab.server)
    done = napctl("attach", server.pid, "--mode", "thread", "--spin", "--window", 0)
    if done.status == 0:  # Linux 6.19
        assert napctl("detach", server.pid).status == 0
    else:
        assert done.failed_with(3, "spin" if "would spin" in done.stderr else "busy-poll")
    assert state_of(lab.server) == before


@pytest.mark.trials
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("mode", "options"), FEW)
def test_killed_at_any_step_it_leaves_a_way_back(
    mode: Mode, options: tuple[object, ...], lab: Lab, server: Server, client: socket.socket, napctl: Napctl,
    tmp_path: Path, sampled: Sampled,
) -> None:  # fmt: skip
    arguments = ("attach", server.pid, "--mode", mode, *options, "--window", 0)
    trial = Napctl(napctl.state / "trial")
    before, former = machine_of(lab.server), thread_of(lab)
    found = trial.steps(tmp_path / "trace", *arguments)
    steps = [step for step in found if step[0] not in ("ioctl", "pidfd_getfd")]  # by which it only looks
    assert trial("detach", server.pid).status == 0

    for step, victim in victims(napctl, sampled(steps, 2)):
        done = victim(*arguments, under=at(step, "signal=SIGKILL"))
        assert done.status == -9, (step, done)
        assert victim("recover").status == 0, step
        assert victim("detach", "--all").status == 0, step
        assert (machine_of(lab.server), thread_of(lab)) == (before, former), step
        assert victim.live() == [], step


def test_what_fits_is_offered_with_its_price_and_nothing_stays_changed(lab: Lab, napctl: Napctl) -> None:
    with ending(loops(lab, "nested")) as server, started(lab, server, HTTP) as load:
        load.wait_for_warmup()
        before, former = machine_of(lab.server), thread_of(lab)

        def priced() -> Ran | None:
            """Once the machine has let the load come in each window."""
            done = napctl("attach", server.pid)
            return done if "under the traffic that is there:" in done.stdout else None

        done = until(priced, "what fits, with its price")

        assert done is not None
        assert done.status == 3
        assert done.stderr.splitlines()[-1].startswith("napctl: ")
        assert "watches this one" in done.stderr.splitlines()[-1]
        table = done.stdout
        assert "what fits instead of suspension, under the traffic that is there:" in table
        rows = {line.split()[0] for line in table.splitlines() if line.startswith("  ") and line.split()}
        assert {"as", "thread", "defer"} <= rows
        assert "poll: does not fit: " in table
        assert f"apply one with: napctl attach {server.pid} --mode MODE" in table
        assert (machine_of(lab.server), thread_of(lab)) == (before, former)
        assert napctl.live() == []


@pytest.mark.long
def test_auto_takes_the_best_of_them_or_leaves_all_as_it_is_and_says_the_figures(lab: Lab, napctl: Napctl) -> None:
    with ending(loops(lab, "nested")) as server, started(lab, server, HTTP) as load:
        load.wait_for_warmup()
        before = machine_of(lab.server)

        done = napctl("attach", server.pid, "--mode", "auto", "--window", 0, "--json")

        if done.status == 0:
            report = json.loads(done.stdout)
            best = report["next_best"]["best"]
            assert report["mode"] == best["mode"] == mode_of(napctl.live()[0].changes)
            assert best["cpu_saved"] or best["time_saved"]
            assert napctl("detach", server.pid).status == 0
        else:
            assert done.status == 3
            assert "beyond the noise" in done.stderr or "too little traffic" in done.stderr
        assert machine_of(lab.server) == before
        assert napctl.live() == []


def test_auto_suspends_where_that_fits(lab: Lab, server: Server, client: socket.socket, napctl: Napctl) -> None:
    done = napctl("attach", server.pid, "--mode", "auto", "--defer-us", 50, "--window", 0, "--json")
    assert (done.json["mode"], done.json["next_best"]) == ("suspend", None)
    assert napctl("detach", server.pid).status == 0


@pytest.mark.parametrize(("mode", "options"), FEW)
def test_followed_it_is_set_again_after_a_reset_and_put_back_in_the_end(
    mode: Mode, options: tuple[object, ...], lab: Lab, server: Server, napctl: Napctl
) -> None:
    with started(lab, server, LOAD) as load, following(napctl, server.pid, "--mode", mode, *options) as stay:
        load.wait_for_warmup()
        stay.told("attached memcached")
        (first,) = lab.server.napis()
        flap(lab)
        stay.told(f"{lab.server.device}: link ")  # its device is watched
        stay.told("(device reset)")

        def again() -> bool:
            napis = lab.server.napis()
            if not napis or napis[0].napi_id == first.napi_id:
                return False
            return napis[0].settings.gro_flush_timeout_ns == 50_000 if mode == "defer" else is_held(napctl, lab)

        until(again, "it to be set on the instance that came instead")
        assert sum("(device reset)" in each for each in stay.since()) == 1, "and nothing else has gone"
    assert napctl.live() == []
    assert [each.settings.gro_flush_timeout_ns for each in lab.server.napis()] == [0]


def test_followed_it_stays_when_the_process_that_it_is_named_for_ends_and_its_workers_go_on(napctl: Napctl) -> None:
    with Lab.build() as lab, ending(loops(lab, "usual", "usual")) as server, connections(lab, server, 4):
        workers = list(server.workers)
        try:
            with following(napctl, server.pid, "--mode", "defer", "--defer-us", 50) as stay:
                stay.told("attached ")
                (first,) = napctl.live()
                os.kill(first.pid, signal.SIGKILL)
                until(lambda: [each.pid for each in napctl.live()] not in ([], [first.pid]), "another name for it")
                assert napctl("recover").status == 0
                assert [each.settings for each in lab.server.napis()] == [DEFERS]
        finally:
            for pid in workers:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        assert napctl.live() == []


@pytest.mark.long
def test_followed_in_auto_it_is_given_the_best_or_waits(lab: Lab, napctl: Napctl) -> None:
    with ending(loops(lab, "nested")) as server, started(lab, server, HTTP) as load:
        load.wait_for_warmup()
        before = machine_of(lab.server)
        with following(napctl, server.pid, "--mode", "auto") as stay:
            stay.told("trying what fits instead of suspension")

            def decided() -> str:
                lines = (each for each in stay.since() if each.startswith(("mode ", "waiting: no other mode")))
                return next(lines, "")

            line = until(decided, "a decision", 60)
            if line.startswith("mode "):
                stay.told("attached loops")
                assert line.startswith(f"mode {mode_of(napctl.live()[0].changes)}")
            else:
                assert napctl.live() == []
        assert machine_of(lab.server) == before


def is_held(napctl: Napctl, lab: Lab) -> bool:
    ids = {each.napi_id for one in napctl.live() for each in one.changes if isinstance(each, ThreadChange)}
    return ids == {each.napi_id for each in lab.server.napis()}
