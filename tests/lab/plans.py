"""What the tests of plans share: a namespace with devices that have something to set, and plans for them."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import cast

import pytest

from napctl.kernel.ethtool import Ethtool
from napctl.kernel.links import links
from napctl.kernel.namespaces import NetworkNamespace
from napctl.lab.bed import Lab
from napctl.model.limits import CEILINGS
from napctl.model.machine import Machine
from tests.lab.helpers import Napctl, Step, at_server, in_namespace, machine_of, open_files

HEAD = '[napctl-plan-file]\nschema = 1\ngoal = "balanced"\nmax-added-latency = "100us"\n'
TUN = '[tun0]\ndriver = "tun"\nrx-queues = 1\ntx-queues = 1\n[tun0.coalescing]\nrx-max-frames = {frames}\n'
VETH = (
    '[server0]\ndriver = "veth"\nrx-queues = 2\ntx-queues = 2\n'
    '[server0.deferral]\ndefer-hard-irqs = {defer}\ngro-flush-timeout = "{flush}"\n'
)


@contextmanager
def two_devices() -> Iterator[Lab]:
    """A lab whose server namespace has a tun as well: `tun0` has coalescing, `server0` has two NAPI instances."""
    with Lab.build(queues=2) as lab:
        in_namespace(lab.server.namespace, "ip", "tuntap", "add", "dev", "tun0", "mode", "tun")
        in_namespace(lab.server.namespace, "ip", "link", "set", "tun0", "up")
        yield lab


def write_plan(path: Path, *, frames: object = 16, defer: object = 10, flush: str = "50us", extra: str = "") -> Path:
    """For both devices of two_devices()."""
    path.write_text(HEAD + TUN.format(frames=frames) + VETH.format(defer=defer, flush=flush) + extra)
    return path


def write_what_the_kernel_refuses(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan whose last setting it does not take: no defer-hard-irqs above 2^31-1 (netdev.yaml). Plans may have it."""
    monkeypatch.setitem(cast("dict[str, int]", CEILINGS), "defer_hard_irqs", 2**31)
    return write_plan(path, defer=2**31)


def frames_of(netns: NetworkNamespace) -> int | None:
    """rx-max-frames of tun0."""
    with Ethtool(netns) as ethtool:
        ifindex = next(link.ifindex for link in links(netns) if link.name == "tun0")
        coalescing = ethtool.coalescing(ifindex)
    return coalescing.rx_max_frames if coalescing else None


def set_frames(netns: NetworkNamespace, frames: int) -> None:
    """As an administrator would, with the usual tool."""
    in_namespace(netns, "ethtool", "-C", "tun0", "rx-frames", str(frames))


def deferrals(lab: Lab) -> set[tuple[int | None, int | None]]:
    """(defer-hard-irqs, gro-flush-timeout) of the server's NAPI instances."""
    return {(napi.settings.defer_hard_irqs, napi.settings.gro_flush_timeout_ns) for napi in lab.server.napis()}


def states(napctl: Napctl) -> list[str]:
    """Of all transactions."""
    return [each["state"] for each in napctl("history", "--json").json["transactions"]]


def assert_way_back(lab: Lab, napctl: Napctl, before: Machine) -> str:
    """After `recover` the devices are as they were, or as planned with a complete record, and then `rollback` brings
    them back. Which of the two."""
    assert napctl("recover").status == 0
    live = napctl.live()
    if live:
        assert [each.state for each in live] == ["applied"]
        assert frames_of(lab.server.namespace) == 16
        assert {each.settings.defer_hard_irqs for each in lab.server.napis()} == {10}
        assert napctl("rollback").status == 0
    assert machine_of(lab.server) == before
    assert napctl.live() == []
    return "applied" if live else "restored"


def killed_at_random(lab: Lab, napctl: Napctl, plan: Path, *, kills: int, chance: Random) -> Counter[str]:
    """Kill -9 `apply` at so many random instants, every other one while it changes something; what came of them."""
    before = machine_of(lab.server)
    start = time.monotonic()
    assert napctl("apply", plan, *at_server(lab)).status == 0
    usual_s = time.monotonic() - start
    assert napctl("rollback").status == 0
    outcomes: Counter[str] = Counter()
    for number in range(kills):
        running = napctl.start("apply", plan, *at_server(lab))
        if number % 2:
            time.sleep(chance.uniform(0.3, 1.05) * usual_s)  # importing takes the first third
        else:
            while running.poll() is None and str(napctl.state / "lock") not in open_files(running.pid):
                time.sleep(0.0005)
            time.sleep(chance.uniform(0, 0.015))
        running.kill()
        running.communicate()
        changed = machine_of(lab.server) != before
        outcome = assert_way_back(lab, napctl, before)
        outcomes[outcome if outcome == "applied" or not changed else "was half done"] += 1
    return outcomes


def steps_of_apply(bed: Lab, napctl: Napctl, plan: Path, trace: Path) -> list[Step]:
    """Of one that was made, and rolled back, for a trial."""
    trial = Napctl(napctl.state / "trial")
    steps = trial.steps(trace, "apply", plan, *at_server(bed))
    assert trial("rollback").status == 0
    return steps
