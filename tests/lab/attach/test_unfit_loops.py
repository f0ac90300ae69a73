"""Loops that suspension does not fit, in the ways in which real ones do not: refused, or taken back as they starve."""

import re
from contextlib import ExitStack
from typing import Any

import pytest

from napctl.attach.fitness import verdicts
from napctl.attach.inspect_target import examine
from napctl.attach.target import parse, resolve
from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from napctl.lab.servers import Server
from napctl.model.activity import Attached
from napctl.model.change import EpollChange, NapiChange
from napctl.model.value import from_json
from tests.lab.helpers import PREFERS, UNSET, Napctl, Ran, ending, machine_of, params_of, until
from tests.lab.other_servers import loops
from tests.lab.trial import held

pytestmark = pytest.mark.lab

SELDOM = LoadSpec(rate_per_second=40, seconds=100, connections=4, warmup_seconds=0.1, protocol="http", sleeps=True)
OFTEN = LoadSpec(rate_per_second=2000, seconds=100, connections=16, warmup_seconds=0.1, protocol="http", sleeps=True)
PROMPTLY = ("--defer-us", 200)
STARVES = 1
"""The exit status of an attach of which that, or something else, was seen."""
MOST_ATTACHES = 20


@pytest.mark.parametrize(("kind", "why"), [("nested", "watches this one"), ("polled", "timeout 0")])
def test_a_loop_that_waits_elsewhere_is_refused_however_seldom_it_asks(
    lab: Lab, kind: str, why: str, napctl: Napctl
) -> None:
    with ending(loops(lab, kind)) as server, started(lab, server, SELDOM) as load:
        load.wait_for_warmup()

        def refused() -> Ran | None:
            """It is not where a busy machine has let the loop wait for as long as it was looked at."""
            done = napctl("attach", server.pid, *PROMPTLY, "--window", 0)
            return done if done.status or napctl("detach", server.pid).status else None

        done = until(refused, "a look at a loop that asks")
        assert done is not None
        assert done.failed_with(3, why, "may block" if kind == "nested" else "")


def test_an_instance_that_another_one_watches_is_known_without_a_look_at_its_loop(lab: Lab) -> None:
    with ending(loops(lab, "nested")) as server, held(lab, server, "http"):
        verdict, *rest = (each for each in verdicts(examined(server)) if each.judgement != "nothing to poll")

    assert (verdict.judgement, rest) == ("does not fit", [])
    assert "watches this one" in verdict.why


def test_an_epoll_instance_of_several_processes_is_one_whatever_each_of_them_holds(napctl: Napctl) -> None:
    with Lab.build(queues=2) as lab, ending(loops(lab, "shared", "shared")) as server, ExitStack() as stack:
        for _ in range(15):
            stack.enter_context(held(lab, server, "http"))
        (instance,) = (each for each in examined(server).instances if each.sockets_by_napi)

        assert {pid for pid, _ in instance.places} == {server.pid, *server.workers}
        assert sum(instance.sockets_by_napi.values()) == 15
        assert len(instance.sockets_by_napi) == 2
        assert napctl("attach", server.pid, *PROMPTLY, "--steer").failed_with(3, "2 threads wait in it")


def test_what_starves_is_taken_back_at_once_with_the_reason(lab: Lab, napctl: Napctl) -> None:
    with ending(loops(lab, "shy")) as server, started(lab, server, OFTEN) as load:
        load.wait_for_warmup()
        before = machine_of(lab.server)

        told = starving(napctl, server)

        assert (told.status, told.stderr) == (1, "")
        words = " ".join(told.stdout.split())
        assert "STARVING: packets of NAPI" in words
        assert "until the safety timer (irq-suspend-timeout) stepped in" in words
        assert "detached at once: " in words
        assert "undo with" not in words
        assert napctl.live() == []
        assert set(params_of(server.pid).values()) == {UNSET}
        assert machine_of(lab.server).devices == before.devices


def test_forced_what_starves_stays(lab: Lab, napctl: Napctl) -> None:
    with ending(loops(lab, "shy")) as server, started(lab, server, OFTEN) as load:
        load.wait_for_warmup()

        told = starving(napctl, server, "--force", "--json")

        assert (told.status, told.json["verdict"], told.json["taken_back"]) == (1, "starving", [])
        assert len(napctl.live()) == 1


def starving(napctl: Napctl, server: Server, *options: str) -> Ran:
    """What attach says, in a window in which the machine has let the load come and go: of the last one, if none was."""
    for _ in range(MOST_ATTACHES):
        done = napctl("attach", server.pid, *PROMPTLY, *options)
        starves = re.search('STARVING|"verdict": ?"starving"', done.stdout)
        if starves or done.status not in (0, STARVES) or napctl("detach", server.pid).status:
            break
    return done


@pytest.mark.alone
def test_a_worker_that_starves_is_taken_back_alone(napctl: Napctl) -> None:
    with Lab.build(queues=2) as lab, ending(loops(lab, "shy", "usual")) as server:
        shy, usual = server.workers

        def alone() -> Attached | None:
            """The other one had its CPU meanwhile."""
            attaching = napctl.start("attach", server.pid, *PROMPTLY, "--steer", "--window", "3s", "--json")
            until(napctl.live, "it to be attached")
            with started(lab, server, OFTEN):
                told, _ = attaching.communicate()
            report = from_json(told, Attached)
            if len(report.starving) == attaching.returncode == 1:
                return report
            assert napctl("detach", "--all").status == 0
            return None

        report = until(alone, "one that starves")
        assert report is not None
        (left,) = napctl.live()

        assert report.verdict == "starving"
        (starved,) = report.starving
        assert report.taken_back == tuple(
            change.where
            for change in report.transaction.changes
            if (isinstance(change, EpollChange) and change.pid == shy)
            or (isinstance(change, NapiChange) and change.napi_id == starved)
        )
        assert {each.where for each in left.changes} == {
            each.where for each in report.transaction.changes if each.where not in report.taken_back
        }
        assert set(params_of(shy).values()) == {UNSET}
        assert PREFERS in params_of(usual).values()
        suspended = {napi.napi_id for napi in lab.server.napis() if napi.settings.irq_suspend_timeout_ns}
        assert suspended == {napi.napi_id for napi in lab.server.napis()} - {starved}


def examined(server: Server) -> Any:
    return examine("loops", resolve(parse(str(server.pid))))
