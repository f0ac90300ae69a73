"""Storm control as a change like any other: attached, limiting, passing, taken away; and never in the way of others."""

import os
import socket
import subprocess
import time

import pytest
from msgspec.structs import replace

from napctl.change.after_reset import reset_words, set_again
from napctl.change.journal import Journal
from napctl.change.transaction import apply, begun, restore
from napctl.kernel import bpf
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.kernel.xdp import xdp_device
from napctl.lab.bed import Lab
from napctl.model.change import NapiChange, Transaction
from napctl.model.errors import BadInput, ChangedMeanwhile, Unsupported
from napctl.model.settings import NapiSettings
from napctl.model.storm import StormTally, limits_of
from napctl.probe.storm import StormProgram
from napctl.protect.storm_control import StormControl, arm, refuse_impossible
from tests.lab.helpers import Napctl, machine_of, set_napi, until
from tests.lab.protect.conftest import (
    armed,
    attach_somebody_elses,
    frames,
    ifindex_of,
    inside,
    send,
    somebody_elses_program,
    xdp_of,
)
from tests.packets import BROADCAST, arp_request, ethernet

pytestmark = pytest.mark.lab

STORM = ethernet(BROADCAST, 0x0806, arp_request("10.199.0.77"))


def test_it_is_attached_limits_passes_and_goes_and_the_journal_knows_each_step(journal: Journal, lab: Lab) -> None:
    before = machine_of(lab.server)
    here = armed(journal, lab)
    assert here.words == ()
    assert xdp_of(lab.server).programs == (here.control.change.after.xdp_program,)
    assert xdp_of(lab.server).native
    assert [each.changes for each in journal.live()] == [(here.control.change,)]

    limited = here.control.limit(journal, here.transaction, limits_of(100))
    assert (limited.limits, limited.words) == (limits_of(100), ())
    assert len(journal.live()[0].changes) == 2

    tighter = here.control.limit(journal, limited.transaction, limits_of(10, multicast=False))
    assert [each.after for each in journal.live()[0].changes[1:]] == [limits_of(10, multicast=False)]

    passing = here.control.let_pass(journal, tighter.transaction)
    assert journal.live() == [passing]
    assert passing.changes == (here.control.change,)

    assert here.control.disarm(journal, passing) is None
    assert journal.live() == []
    assert xdp_of(lab.server).programs == ()
    assert machine_of(lab.server) == before


def test_a_storm_is_counted_and_stopped_only_while_it_is_limited(journal: Journal, lab: Lab) -> None:
    here = armed(journal, lab)
    with frames(lab.client) as sender, frames(lab.server) as receiver:
        receiver.settimeout(60)

        def receive(count: int) -> None:
            while count:
                count -= receiver.recv(100) == STORM

        def tally() -> StormTally:
            return here.control.counts().by_reason["broadcast"]

        send(sender, STORM, 500)
        receive(500)
        assert here.control.counts().dropped_packets == 0
        began, limits = time.monotonic(), limits_of(1)
        transaction = here.control.limit(journal, here.transaction, limits).transaction
        send(sender, STORM, 500)
        until(lambda: tally().dropped_packets + tally().passed_packets == 500, "all of them")
        counted = tally()
        assert counted.passed_packets <= limits.burst_packets + 2 + time.monotonic() - began
        assert counted.dropped_bytes == counted.dropped_packets * len(STORM)
        receive(counted.passed_packets)
        here.control.let_pass(journal, transaction)
        send(sender, STORM, 500)
        receive(500)
        assert tally() == counted
        receiver.settimeout(0.2)
        with pytest.raises(TimeoutError):  # none came but those that passed
            receive(1)


def test_beside_another_xdp_program_it_refuses(journal: Journal, lab: Lab) -> None:
    with somebody_elses_program() as fd:
        attach_somebody_elses(lab.server, fd)
        number = bpf.program_info(fd).number
        with pytest.raises(Unsupported, match=rf"^server0: another XDP program \(id {number}\) is attached"):
            armed(journal, lab)
        assert xdp_of(lab.server).programs == (number,)
    assert journal.live() == []


def test_it_is_attached_once(journal: Journal, lab: Lab) -> None:
    here = armed(journal, lab)
    with pytest.raises(BadInput, match="storm control is attached there already"):
        armed(journal, lab)
    assert xdp_of(lab.server).programs == (here.control.change.after.xdp_program,)


@pytest.mark.parametrize("way", ["disarm", "restore"])
def test_what_somebody_has_put_in_its_place_is_left_and_named(way: str, journal: Journal, lab: Lab) -> None:
    here = armed(journal, lab)
    transaction = here.control.limit(journal, here.transaction, limits_of(100)).transaction
    with somebody_elses_program() as fd, bpf.program(here.control.change.after.xdp_program) as ours:
        attach_somebody_elses(lab.server, fd, expected_fd=ours)
        number = bpf.program_info(fd).number
        if way == "disarm":
            here.control.disarm(journal, transaction)
        else:
            rows = {row.setting: row for row in restore(journal, transaction)}
            assert rows["xdp_program"].outcome == "left"
            assert rows["xdp_program"].found == number
        assert xdp_of(lab.server).programs == (number,)
    assert journal.live() == []


def test_rollback_says_who_has_taken_its_place(journal: Journal, lab: Lab, napctl: Napctl) -> None:
    here = armed(journal, lab)
    with somebody_elses_program() as fd, bpf.program(here.control.change.after.xdp_program) as ours:
        attach_somebody_elses(lab.server, fd, expected_fd=ours)
        number = bpf.program_info(fd).number
        journal.let_go()
        done = napctl("rollback", here.transaction.number)
        assert done.status == ChangedMeanwhile.exit_status, done
        assert f"storm control of server0: xdp-program is now {number}; somebody else changed it" in done.stderr
        assert xdp_of(lab.server).programs == (number,)


def test_a_program_that_was_attached_by_hand_is_not_taken_away_when_ours_went(journal: Journal, lab: Lab) -> None:
    here = armed(journal, lab)
    inside(lab.server, "ip", "link", "set", "dev", lab.server.device, "xdp", "off")
    with pytest.raises(BadInput, match="gone"):
        here.control.counts()
    rows = restore(journal, here.transaction)
    assert [row.outcome for row in rows] == ["unchanged"]


def test_a_device_that_goes_takes_it_along(journal: Journal, lab: Lab) -> None:
    here = armed(journal, lab)
    transaction = here.control.limit(journal, here.transaction, limits_of(100)).transaction
    inside(lab.server, "ip", "link", "delete", lab.server.device)
    rows = restore(journal, transaction)
    assert {row.outcome for row in rows} == {"gone"}


def test_it_stays_when_napctl_ends_and_the_next_one_goes_on_with_it(journal: Journal, lab: Lab) -> None:
    here = armed(journal, lab)
    limited = here.control.limit(journal, here.transaction, limits_of(100))
    (recorded,) = journal.live()
    another = StormControl(lab.server.namespace, here.control.change)
    assert recorded == limited.transaction

    assert another.counts() == here.control.counts()
    passing = another.let_pass(journal, recorded)
    assert another.disarm(journal, passing) is None
    assert xdp_of(lab.server).programs == ()


def test_it_may_stand_in_a_transaction_with_other_changes(journal: Journal, lab: Lab) -> None:
    (napi,) = lab.server.napis()
    deferral = NapiSettings(defer_hard_irqs=10, gro_flush_timeout_ns=20_000)
    change = NapiChange(
        netns=lab.server.namespace.inode, device=lab.server.device, ifindex=ifindex_of(lab.server),
        napi_id=napi.napi_id, before=NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0), after=deferral,
    )  # fmt: skip
    made = apply(journal, begun("apply", "server0", (change,)), then="applied")
    here = arm(journal, lab.server.namespace, ifindex_of(lab.server), made)
    limited = here.control.limit(journal, here.transaction, limits_of(100))
    left = here.control.disarm(journal, limited.transaction)
    assert left is not None
    assert left.changes == (change,)
    assert xdp_of(lab.server).programs == ()
    assert lab.server.napis()[0].settings.defer_hard_irqs == 10


def test_generic_mode_where_it_is_told(journal: Journal, lab: Lab) -> None:
    here = armed(journal, lab, generic=True)
    assert xdp_of(lab.server).generic
    assert not xdp_of(lab.server).native
    here.control.disarm(journal, here.transaction)
    assert xdp_of(lab.server).programs == ()


def test_a_device_without_ethernet_headers_is_refused(journal: Journal, lab: Lab) -> None:
    with pytest.raises(Unsupported, match=r"^lo: storm control is for Ethernet"):
        arm(journal, lab.server.namespace, 1, begun("apply", "lo", ()))


def test_a_driver_that_cannot_is_refused_in_its_words(journal: Journal, lab: Lab) -> None:
    inside(lab.server, "ip", "link", "add", "br9", "type", "bridge")
    with lab.server.namespace.entered():
        ifindex = socket.if_nametoindex("br9")
    with pytest.raises(Unsupported, match=r"(?i)^storm control of br9: .*native") as refused:
        arm(journal, lab.server.namespace, ifindex, begun("apply", "br9", ()))
    assert "\n" not in str(refused.value)
    assert journal.live() == []


def deferred(journal: Journal, lab: Lab) -> Transaction:
    """One that has set deferral, and that no napctl keeps."""
    (napi,) = lab.server.napis()
    change = NapiChange(
        netns=lab.server.namespace.inode, device=lab.server.device, ifindex=ifindex_of(lab.server),
        napi_id=napi.napi_id, before=NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0),
        after=NapiSettings(defer_hard_irqs=10, gro_flush_timeout_ns=20_000),
    )  # fmt: skip
    return apply(journal, begun("apply", "server0", (change,)), then="applied")


def test_what_a_reset_took_is_told_and_set_again(journal: Journal, lab: Lab) -> None:
    """veth makes its instances anew when it comes up, as many NICs do for a native program."""
    transaction = deferred(journal, lab)
    ifindex = ifindex_of(lab.server)
    with Netdev(lab.server.namespace) as netdev:
        before = netdev.napis(ifindex)
        for state in ("down", "up"):
            inside(lab.server, "ip", "link", "set", "dev", lab.server.device, state)
        after = netdev.napis(ifindex)
    (old,), (new,) = before, after
    assert old.napi_id != new.napi_id
    assert list(reset_words("server0", before, after)) == [
        f"server0 was reset for it: NAPI {old.napi_id} disappeared, NAPI {new.napi_id} came in their place"
    ]

    said = list(set_again(journal, lab.server.namespace, ifindex, before, after))

    assert said == [f"{transaction.title} was set again: NAPI {new.napi_id} of server0"]
    (napi,) = lab.server.napis()
    assert (napi.settings.defer_hard_irqs, napi.settings.gro_flush_timeout_ns) == (10, 20_000)
    (recorded,) = journal.live()
    restore(journal, recorded)
    assert lab.server.napis()[0].settings.defer_hard_irqs == 0


def test_arming_tells_a_reset_that_came_of_it_and_sets_again(
    journal: Journal, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """veth is not reset by a program: here it is, at the same moment."""
    transaction = deferred(journal, lab)
    (old,) = lab.server.napis()
    load = StormProgram.load

    def resetting(mac: bytes) -> StormProgram:
        for state in ("down", "up"):
            inside(lab.server, "ip", "link", "set", "dev", lab.server.device, state)
        return load(mac)

    monkeypatch.setattr(StormProgram, "load", resetting)
    here = armed(journal, lab)

    (new,) = lab.server.napis()
    assert here.words == (
        f"server0 was reset for it: NAPI {old.napi_id} disappeared, NAPI {new.napi_id} came in their place",
        f"{transaction.title} was set again: NAPI {new.napi_id} of server0",
    )
    assert new.settings.defer_hard_irqs == 10


def test_lost_settings_are_told_and_set_again(journal: Journal, lab: Lab) -> None:
    """A driver may keep its instances, and not what was set on them."""
    deferred(journal, lab)
    before = lab.server.napis()
    set_napi(lab, before[0].napi_id, NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0))
    after = lab.server.napis()
    assert list(reset_words("server0", before, after)) == [
        f"server0 was reset for it: NAPI {before[0].napi_id} lost settings"
    ]

    list(set_again(journal, lab.server.namespace, ifindex_of(lab.server), before, after))

    assert lab.server.napis()[0].settings == before[0].settings


def test_rules_that_come_later_switch_the_judging_of_ports_off(journal: Journal, lab: Lab) -> None:
    here = armed(journal, lab)
    limited = here.control.limit(journal, here.transaction, limits_of(100))
    assert here.control.refresh(journal, limited.transaction) is None
    with lab.server.namespace.entered():
        rules = "table ip n { chain c { type nat hook prerouting priority dstnat; tcp dport 80 dnat to 10.0.0.1; }; }"
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)

    again = here.control.refresh(journal, limited.transaction)

    assert again is not None
    assert again.limits == replace(limits_of(100), no_listener=False)
    assert any("nat (DNAT or SNAT)" in each for each in again.words)
    assert here.control.refresh(journal, again.transaction) is None


def test_what_attaching_would_be_refused_for_is_told_without_attaching(lab: Lab) -> None:
    inside(lab.server, "ip", "link", "add", "br9", "type", "bridge")
    with lab.server.namespace.entered():
        ifindex = socket.if_nametoindex("br9")
    with pytest.raises(Unsupported, match=r"^storm control of br9: its driver has no native XDP$"):
        refuse_impossible(lab.server.namespace, ifindex)
    refuse_impossible(lab.server.namespace, ifindex_of(lab.server))
    assert xdp_of(lab.server).programs == ()
    with somebody_elses_program() as fd:
        attach_somebody_elses(lab.server, fd)
        with pytest.raises(Unsupported, match="another XDP program"):
            refuse_impossible(lab.server.namespace, ifindex_of(lab.server))


def test_a_device_that_was_moved_to_another_namespace_loses_it_there(journal: Journal, lab: Lab) -> None:
    here = armed(journal, lab)
    limited = here.control.limit(journal, here.transaction, limits_of(100))
    with NetworkNamespace.create() as elsewhere:
        place = f"/proc/{os.getpid()}/fd/{elsewhere.fd}"
        inside(lab.server, "ip", "link", "set", "dev", lab.server.device, "netns", place)
        assert not here.control.is_attached
        rows = restore(journal, limited.transaction)
        assert "restored" in {row.outcome for row in rows}
        with elsewhere.entered():
            ifindex = socket.if_nametoindex(lab.server.device)
        moved = xdp_device(elsewhere, ifindex)
        assert moved is not None
        assert moved.programs == ()
