"""Channels of real devices are kept: set before what they renumber, put back after it."""

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from napctl.change.journal import Journal
from napctl.kernel.ethtool import Ethtool
from napctl.kernel.links import links
from napctl.lab.bed import Lab
from napctl.model.machine import Channels
from tests.lab.following import set_channels, settings_of
from tests.lab.helpers import Napctl
from tests.lab.plans import states
from tests.lab.service.device_keeping import DEFERRAL, Keeping, deferral_of, entry, is_set, keeping

__all__ = ["keeping"]

pytestmark = pytest.mark.lab


def channels_of(lab: Lab) -> Channels | None:
    with Ethtool(lab.server.namespace) as ethtool:
        ifindex = next(each.ifindex for each in links(lab.server.namespace) if each.name == "server0")
        return ethtool.channels(ifindex)


def test_channels_are_set_before_what_they_renumber_and_put_back_after_it(
    bed: Lab, keeping: Keeping, napctl: Napctl
) -> None:
    before = settings_of(bed)
    assert keeping.look(entry("server0", channels=1, deferral=DEFERRAL)) == [
        "server0: rx-channels 2 → 1, tx-channels 2 → 1, as the policy wants"
    ]
    assert keeping.left_s < 1
    (line,) = keeping.look()
    assert "gro-flush-timeout 0 → 50us" in line
    assert (len(bed.server.napis()), is_set(bed)) == (1, True)
    assert keeping.look() == []
    set_channels(bed, 2)
    keeping.later(60)
    keeping.look()
    keeping.look()
    assert (len(bed.server.napis()), is_set(bed)) == (1, True)
    assert len(keeping.in_force.changes) == 2
    assert "channels of server0" in napctl("history", keeping.in_force.number).stdout
    assert keeping.let_go() == []
    assert settings_of(bed) == before
    found = channels_of(bed)
    assert found is not None
    assert (found.rx, found.tx) == (2, 2)


def test_killed_amid_it_channels_are_recovered_and_more_than_there_are_is_said(
    bed: Lab, keeping: Keeping, napctl: Napctl
) -> None:
    (line,) = keeping.look(entry("server0", channels=3))
    assert line.startswith("left as it is: server0: rx-channels 3 is above 2, which its driver has at most; ")
    keeping.look(entry("server0", channels=1))
    with Journal(napctl.state) as journal:  # as one that was killed before it had recorded the end leaves it
        ended = {"keeper": None, "guard": None}
        (made,) = journal.live()
        journal.update(replace(made, changes=tuple(replace(c, found=None) for c in made.changes), **ended), "changing")
    assert napctl("recover").status == 0
    assert len(bed.server.napis()) == 2


def test_without_a_service_channels_and_what_they_renumber_are_set_once(
    bed: Lab, napctl: Napctl, tmp_path: Path
) -> None:
    before = settings_of(bed)
    policy = tmp_path / "policy.toml"
    policy.write_text('[[device]]\nname = "server0"\nchannels = 1\ndeferral.gro-flush-timeout = "50us"\n')
    policy.chmod(0o644)
    where = ("--netns", f"/proc/{os.getpid()}/fd/{bed.server.namespace.fd}")
    assert napctl("policy", "drift", policy, *where).stdout.splitlines()[:2] == [
        f"server0: rx-channels is 2, policy wants 1 ({policy}:1)",
        f"server0: tx-channels is 2, policy wants 1 ({policy}:1)",
    ]
    ran = napctl("policy", "apply", policy, *where)
    assert ran.status == 0, ran
    assert ran.stdout.splitlines()[0] == "server0: set: channels of server0"
    assert (len(bed.server.napis()), deferral_of(bed)) == (1, {(0, 50_000)})
    assert napctl("policy", "drift", policy, *where).status == 0
    assert states(napctl) == ["applied"]
    assert napctl("rollback").status == 0
    assert settings_of(bed) == before
