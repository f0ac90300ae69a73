"""attach --stay where its journal cannot be written: what is in force is recorded, and all of it comes back."""

import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest

from napctl.attach.follow import Stay
from napctl.attach.follow_many import follow
from napctl.attach.target import parse
from napctl.change.guard import watched
from napctl.change.journal import Journal
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.model.change import State, Transaction
from napctl.model.snapshot import Decision
from tests.lab.attach.test_follow_cost import FORKS, worker_of
from tests.lab.change.test_bad_journal import fill, small_disk
from tests.lab.following import attached, flap, following, settings_of
from tests.lab.helpers import QUICKLY, UNSET, Napctl, another_memcached, ask, ending, in_mounts, params_of, until
from tests.lab.other_servers import python_server

pytestmark = pytest.mark.lab


def test_a_step_whose_record_a_full_disk_kept_from_being_finished_is_recorded_as_soon_as_there_is_room(
    lab: Lab, napctl: Napctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if there is nothing left to do; and nobody else takes it for one that was interrupted."""
    updates_left, told = [-1], list[str]()

    def tell(line: str, _kind: Decision | None = None, /) -> None:
        print(line, flush=True)
        told.append(line)

    class FillsAmidAStep(Journal):
        def update(self, transaction: Transaction, state: State) -> Transaction:
            if updates_left[0] == 0:
                fill(self.directory)
            updates_left[0] -= 1
            return super().update(transaction, state)

    def recorded() -> list[State]:
        return [each.state for each in Journal.read(napctl.state, live=True)]

    def stopped() -> Iterator[bool]:
        while not any(line.startswith("attached") for line in told):
            yield False
        updates_left[0] = 1
        with worker_of(lab, server) as worker:
            while not any("the journal cannot be written" in line for line in told):
                yield False
            assert set(params_of(worker).values()) == {UNSET}
        assert recorded() == ["changing"]
        (napctl.state / "fill").unlink()
        assert napctl("recover").stdout == "nothing to recover\n"
        while recorded() == ["changing"]:
            yield False
        assert recorded() == ["attached"]
        assert all(map(attached, settings_of(lab)))
        yield True

    monkeypatch.setattr("napctl.attach.follow_transaction.Journal", FillsAmidAStep)
    with small_disk(napctl.state), ending(python_server(lab, FORKS)) as server, ask(lab, server):
        with watched(None, napctl.state) as guard:
            steps = stopped()
            follow([Stay(parse(str(server.pid)), QUICKLY, guard, napctl.state, tell)], lambda: next(steps, True))
        assert not any(map(attached, settings_of(lab)))
        assert napctl.live() == []


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_a_reset_that_a_full_disk_kept_from_being_recorded_leaves_nothing_changed(
    end: signal.Signals, lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    """veth keeps irq-suspend-timeout over a reset, for a NAPI instance of which the journal cannot be told."""
    before = settings_of(lab)
    napctl.state.mkdir()
    disk = in_mounts(f"mount -t tmpfs -o size=64k,mode=700 none {napctl.state}")
    with following(napctl, server.pid, "--defer-us", 200, under=disk) as it:
        it.told("attached memcached")
        inside = ["nsenter", "-m", "-t", str(it.process.pid), "sh", "-c", f"cat /dev/zero > {napctl.state}/fill"]
        until(lambda: subprocess.run(inside, check=False, capture_output=True).returncode, "a full disk")
        flap(lab)
        it.told("the journal cannot be written")
        assert settings_of(lab) != before, "it was kept"
        it.process.send_signal(end)
        it.ended()

        until(lambda: settings_of(lab) == before, "the device to be as before")


def test_what_a_reset_device_has_kept_of_an_attachment_goes_with_it(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = settings_of(lab)
    napctl.attach_quickly(server.pid)
    flap(lab)
    assert settings_of(lab) != before, "it was kept"

    done = napctl("detach", server.pid)

    assert done.status == 0
    assert settings_of(lab) == before


def test_what_is_attached_anew_after_a_reset_is_not_taken_for_what_another_attachment_left(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    napctl.attach_quickly(server.pid)
    flap(lab)
    with another_memcached(lab, 11_601) as other, ask(lab, other):
        napctl.attach_quickly(other.pid)
        assert napctl("detach", server.pid).status == 0
        assert all(map(attached, settings_of(lab)))
        assert napctl("detach", other.pid).status == 0
    assert napctl.live() == []


def test_a_journal_that_was_moved_away_keeps_nothing_from_being_put_back(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = settings_of(lab)
    with following(napctl, server.pid, "--defer-us", 200) as it:
        it.told("attached memcached")
        (napctl.state / "journal.sqlite").unlink()
        assert it.end() == 0
        assert it.since()[-1] == "detached: 1 NAPI instance, 1 epoll instance put back"
    assert settings_of(lab) == before
    assert set(params_of(server.pid).values()) == {UNSET}
