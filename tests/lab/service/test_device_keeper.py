"""Settings of real devices are kept: through resets, other hands, refusals, kills, and put back in the end."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from napctl.attach.objections import RESET_SECONDS
from napctl.change import transaction
from napctl.change.journal import Journal
from napctl.change.one_change import make
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.model.change import Change
from napctl.model.errors import Unsupported
from napctl.model.machine import Coalescing
from napctl.model.settings import NapiSettings
from tests.lab.following import flap, set_channels, settings_of
from tests.lab.helpers import Napctl, in_namespace, machine_of, set_napi
from tests.lab.plans import frames_of, set_frames, write_plan
from tests.lab.service.device_keeping import DEFERRAL, SERVER, Keeping, deferral_of, entry, is_set, keeping
from tests.tries import in_one_of

__all__ = ["keeping"]

pytestmark = pytest.mark.lab

TUN = entry("tun0", coalescing=Coalescing(rx_max_frames=16))


def flush_by_hand(lab: Lab, microseconds: int) -> None:
    """Of the first NAPI instance."""
    set_napi(lab, lab.server.napis()[0].napi_id, NapiSettings(gro_flush_timeout_ns=microseconds * 1000))


def test_what_is_found_is_named_when_it_is_overwritten_and_is_back_in_the_end(bed: Lab, keeping: Keeping) -> None:
    set_frames(bed.server.namespace, 8)
    before = machine_of(bed.server)
    first = bed.server.napis()[0].napi_id
    assert keeping.look(SERVER, TUN) == [
        f"NAPI {first} and 1 more of server0: defer-hard-irqs 0 → 2, gro-flush-timeout 0 → 50us, as the policy wants",
        "tun0: rx-max-frames 8 → 16, as the policy wants",
    ]
    assert is_set(bed)
    assert frames_of(bed.server.namespace) == 16
    assert keeping.look() == []
    assert keeping.let_go() == []
    assert machine_of(bed.server) == before


def test_another_hand_is_overruled_twice_and_the_third_time_left_to_it_until_the_policy_is_asked_for(
    bed: Lab, keeping: Keeping
) -> None:
    before = machine_of(bed.server)
    first = bed.server.napis()[0].napi_id
    keeping.look(SERVER, TUN)
    keeping.later(60)  # since the device was reset by being set up
    for number in (1, 2):
        flush_by_hand(bed, 700 + number)
        assert keeping.look() == [
            f"NAPI {first} of server0: gro-flush-timeout {700 + number}us → 50us, as somebody else had changed it"
        ]
        assert is_set(bed)
        assert keeping.look() == []
    assert len(keeping.in_force.changes) == 3
    flush_by_hand(bed, 703)
    (line,) = keeping.look()
    assert line.startswith("server0 gro-flush-timeout: somebody else keeps changing it; left to him until the policy")
    assert keeping.look() == []
    flush_by_hand(bed, 704)
    assert keeping.look() == []
    assert keeping.objections.left == {"server0 gro-flush-timeout"}
    assert deferral_of(bed) == {(2, 50_000), (2, 704_000)}

    keeping.objections.forget()
    (line,) = keeping.look(SERVER, TUN)
    assert "704us → 50us" in line
    assert is_set(bed)
    assert keeping.let_go() == []
    assert machine_of(bed.server) == before


def test_who_comes_now_and_then_is_overruled_each_time_and_what_he_set_last_stays_and_is_named(
    bed: Lab, keeping: Keeping
) -> None:
    before = settings_of(bed)
    keeping.look(SERVER)
    for number in range(4):
        keeping.later(301)
        flush_by_hand(bed, 700 + number)
        assert len(keeping.look()) == 1
        assert is_set(bed)
    flush_by_hand(bed, 777)
    first = bed.server.napis()[0].napi_id
    (line,) = keeping.let_go()
    words = "gro-flush-timeout is now 777us; somebody else changed it, so napctl leaves it (it was 0)"
    assert line == f"NAPI {first} of server0: {words}"
    assert settings_of(bed)[1:] == before[1:]
    assert settings_of(bed)[0].defer_hard_irqs == 0


def test_over_twenty_resets_it_is_set_each_time_nobody_objects_and_the_transaction_does_not_grow(
    bed: Lab, keeping: Keeping
) -> None:
    before, ids = settings_of(bed), {each.napi_id for each in bed.server.napis()}
    keeping.look(SERVER, TUN)
    for number in range(20):
        if number % 5:
            flap(bed)
        else:
            set_channels(bed, 1)
            set_channels(bed, 2)
        assert not is_set(bed)
        (line,) = keeping.look()
        assert line.endswith("as the device was reset")
        assert is_set(bed)
        assert len(keeping.in_force.changes) == 3
    assert not ids & {each.napi_id for each in bed.server.napis()}
    assert keeping.objections.left == frozenset()
    assert len(Journal.read(keeping.state)) == 1
    in_namespace(bed.server.namespace, "ip", "link", "set", "server0", "down")
    assert keeping.look() == []
    in_namespace(bed.server.namespace, "ip", "link", "set", "server0", "up")
    keeping.look()
    assert keeping.let_go() == []
    assert settings_of(bed) == before


def test_what_is_lost_at_once_after_a_reset_was_lost_by_it_as_with_drivers_that_take_their_time(
    bed: Lab, keeping: Keeping
) -> None:
    keeping.look(SERVER)
    for number in range(4):
        flap(bed)
        keeping.look()
        flush_by_hand(bed, 700 + number)
        (line,) = keeping.look()
        assert line.endswith("→ 50us, as the device was reset")
    assert is_set(bed)
    keeping.later(6)
    flush_by_hand(bed, 800)
    (line,) = keeping.look()
    assert line.endswith("→ 50us, as somebody else had changed it")


@contextmanager
def later_device(netns: NetworkNamespace) -> Iterator[None]:
    lines = "link add late0 type veth peer name late1\nlink property add dev late0 altname wan"
    in_namespace(
        netns,
        "sh",
        "-ec",
        f"echo '{lines}' | ip -batch -; ethtool -K late0 gro on; ip link set late1 up; ip link set late0 up",
    )
    yield
    in_namespace(netns, "ip", "link", "delete", "late0")


def test_a_device_is_set_when_it_comes_also_by_another_name_and_again_when_it_comes_again(
    bed: Lab, keeping: Keeping
) -> None:
    assert keeping.look(entry("wan", deferral=DEFERRAL)) == []
    for _ in range(2):
        assert keeping.left_s > 5
        with later_device(bed.server.namespace):
            keeping.keeper.take_notices()
            assert keeping.left_s <= 1
            (line,) = keeping.look()
            assert line.endswith(" of late0: defer-hard-irqs 0 → 2, gro-flush-timeout 0 → 50us, as the policy wants")
            (change,) = keeping.in_force.changes
            with Netdev(bed.server.namespace) as netdev:
                napi = netdev.napi(change.napi_id)  # type: ignore[union-attr]
            assert napi is not None
            assert napi.settings.gro_flush_timeout_ns == 50_000
        keeping.look()
        assert keeping.keeper.settings_in_force is None
        assert keeping.look() == []


def test_rolled_back_by_hand_it_stays_so_until_there_is_another_policy(
    bed: Lab, keeping: Keeping, napctl: Napctl
) -> None:
    before = machine_of(bed.server)
    keeping.look(SERVER, TUN)
    assert napctl("rollback", keeping.in_force.number).status == 0
    (line,) = keeping.look()
    assert line.startswith("devices: somebody has rolled their settings back; left so until the policy is changed")
    assert keeping.look(SERVER, TUN) == []
    assert machine_of(bed.server) == before
    assert keeping.keeper.settings_in_force is None
    assert len(keeping.look(SERVER)) == 1
    assert is_set(bed)


def test_a_journal_that_was_moved_away_takes_nothing_with_it(bed: Lab, keeping: Keeping) -> None:
    before = machine_of(bed.server)
    keeping.look(SERVER, TUN)
    (keeping.state / "journal.sqlite").unlink()
    assert keeping.let_go() == []
    assert machine_of(bed.server) == before
    assert [each.state for each in Journal.read(keeping.state)] == ["restored"]


def test_what_is_refused_keeps_nothing_else_back_and_is_tried_again_ever_later(bed: Lab, keeping: Keeping) -> None:
    refused, *_ = lines = keeping.look(entry("tun0", coalescing=Coalescing(rx_usecs=5)), SERVER)
    assert "tun0: the driver refuses rx-usecs 5" in refused
    assert len(lines) == 2
    assert is_set(bed)
    for seconds in (1, 2, 4):
        assert lines[0].endswith(f"; tried again in {seconds}s")
        assert keeping.left_s == seconds
        keeping.later(seconds / 2)
        assert keeping.look() == []
        keeping.later(seconds / 2)
        lines = keeping.look()
        assert len(lines) == 1
    assert len(Journal.read(keeping.state)) == 1
    in_namespace(bed.server.namespace, "ip", "link", "delete", "tun0")
    assert keeping.look() == []
    keeping.later(20)
    assert keeping.look() == []
    assert keeping.left_s > 20


def test_what_is_refused_is_tried_at_once_when_its_device_was_reset_and_not_for_what_napctl_may_have_done_itself(
    bed: Lab, keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(change: Change, *_: object) -> Change:
        raise Unsupported(f"{change.where}: the driver refuses")

    monkeypatch.setattr(transaction, "make", refusing)
    keeping.look(SERVER)
    for _ in range(4):
        keeping.later(20)
        (line,) = keeping.look()
    assert line.endswith("; tried again in 16s")
    flap(bed)
    assert keeping.look() == []
    in_namespace(bed.server.namespace, "ip", "link", "set", "server0", "down")
    keeping.keeper.take_notices()
    keeping.later(2 * RESET_SECONDS)  # as long as some need to negotiate their speed
    in_namespace(bed.server.namespace, "ip", "link", "set", "server0", "up")
    assert keeping.look() == []

    keeping.later(RESET_SECONDS)
    flap(bed)
    (line,) = keeping.look()
    assert line.endswith("; tried again in 1s")


def test_all_refused_at_first_makes_one_transaction_which_ends_when_nothing_is_asked_for(
    bed: Lab, keeping: Keeping
) -> None:
    wrong = entry("tun0", coalescing=Coalescing(rx_usecs=5))
    keeping.look(wrong)
    for _ in range(3):
        keeping.later(10)
        assert len(keeping.look()) == 1
    assert len(Journal.read(keeping.state)) == 1
    assert keeping.look(entry("nothing", deferral=DEFERRAL)) == []
    assert Journal.read(keeping.state, live=True) == []


def test_what_the_driver_makes_of_a_value_is_said_and_taken(bed: Lab, keeping: Keeping) -> None:
    """tun takes no more than it polls at once (tun_set_coalesce() in drivers/net/tun.c)."""
    line = "tun0: rx-max-frames 0 → 100 (the driver made 64 of it), as the policy wants"
    assert keeping.look(entry("tun0", coalescing=Coalescing(rx_max_frames=100))) == [line]
    for _ in range(4):
        assert keeping.look() == []
    set_frames(bed.server.namespace, 7)
    (line,) = keeping.look()
    assert line.startswith("tun0: rx-max-frames 7 → 100 (the driver made 64 of it), ")
    assert keeping.let_go() == []
    assert frames_of(bed.server.namespace) == 0


def test_deferral_of_attached_instances_is_the_attachments(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = settings_of(lab)
    keeping = Keeping(lab.server.namespace, napctl.state)
    napctl.attach_quickly(server.pid)
    keeping.held = {each.napi_id for each in lab.server.napis()}
    attached = settings_of(lab)
    assert keeping.look(SERVER) == []
    assert settings_of(lab) == attached
    assert napctl("detach", server.pid).status == 0
    keeping.held = set()
    assert len(keeping.look()) == 1
    assert is_set(lab)
    napctl.attach_quickly(server.pid)
    keeping.held = {each.napi_id for each in lab.server.napis()}
    assert keeping.look(entry("nothing", deferral=DEFERRAL)) == []
    assert settings_of(lab) == attached
    assert napctl("detach", server.pid).status == 0
    keeping.held = set()
    (line,) = keeping.look()[:1]
    assert "put back to 0, as the policy no longer names it" in line
    assert settings_of(lab) == before
    keeping.let_go()


def test_a_plan_that_waits_for_a_confirmation_is_left_alone(
    bed: Lab, keeping: Keeping, napctl: Napctl, tmp_path: Path
) -> None:
    keeping.look(SERVER, TUN)
    plan = write_plan(tmp_path / "plan.toml", frames=32, defer=10, flush="70us")
    where = ("--netns", f"/proc/{os.getpid()}/fd/{bed.server.namespace.fd}")
    assert napctl("apply", plan, "--confirm-within", "60s", *where).status == 0
    lines = keeping.look()
    assert all("left as it is for now: " in line and "waits for a confirmation" in line for line in lines)
    assert len(lines) == 2
    assert frames_of(bed.server.namespace) == 32
    assert napctl("rollback").status == 0
    assert keeping.look() == []
    assert is_set(bed)


@pytest.mark.parametrize("made", [0, 1, 2])
def test_killed_while_it_overrules_another_hand_nothing_of_its_own_stays(
    made: int, bed: Lab, napctl: Napctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many of its two changes: what it has not come to may still be as that hand has left it."""
    pid = os.fork()
    if pid == 0:  # no clean-up of any kind, as after SIGKILL
        with suppress(BaseException):
            keeping = Keeping(bed.server.namespace, napctl.state)
            keeping.look(SERVER, TUN)
            flush_by_hand(bed, 703)
            set_frames(bed.server.namespace, 20)
            calls: list[Change] = []

            def dying(change: Change, *rest: Any) -> Change:
                if len(calls) == made:
                    os._exit(9)
                calls.append(change)
                found = make(change, *rest)
                if len(calls) == made == 2:
                    os._exit(9)
                return found

            monkeypatch.setattr(transaction, "make", dying)
            keeping.look()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert [each.state for each in napctl.live()] == ["changing"]
    assert napctl("recover").status in (0, 5)
    assert napctl.live() == []
    (first, second) = settings_of(bed)
    assert first.gro_flush_timeout_ns == (0 if made else 703_000)
    assert frames_of(bed.server.namespace) == 0
    assert (first.defer_hard_irqs, second.defer_hard_irqs, second.gro_flush_timeout_ns) == (0, 0, 0)


@pytest.mark.alone
def test_a_look_among_200_other_devices_costs_less_than_20_ms(bed: Lab, keeping: Keeping) -> None:
    lines = "\n".join(f"link add p{number} type veth peer name q{number}" for number in range(100))
    in_namespace(bed.server.namespace, "sh", "-ec", f"echo '{lines}' | ip -batch -")
    keeping.look(SERVER, TUN)

    def attempt() -> None:
        began = time.process_time()
        for _ in range(20):
            assert keeping.look() == []
        seconds = (time.process_time() - began) / 20
        print(f"a look costs {seconds * 1e3:.1f} ms of CPU time")
        assert seconds < 0.020

    in_one_of(attempt)
