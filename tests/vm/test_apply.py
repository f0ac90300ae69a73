"""Applying plans to real drivers: read back, refused and undone, rolled back, over a link reset."""

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from napctl.kernel.ethtool import Ethtool
from napctl.kernel.ethtool_ioctl import EthtoolIoctl
from napctl.kernel.links import links
from napctl.kernel.netlink import Refused
from napctl.model.machine import Coalescing, DimProfile, Rings
from napctl.model.plan import RingSizes, settings
from tests.lab.helpers import Napctl, at, until
from tests.lab.plans import HEAD
from tests.vm.wire import Wire, run

E1000E = '[e1000e0]\ndriver = "e1000e"\nrx-queues = 1\ntx-queues = 1\n[e1000e0.coalescing]\nrx-usecs = {usecs}\n'
RINGS = "[e1000e0.rings]\nrx = 512\n"
DEFERRAL = '[e1000e0.deferral]\ndefer-hard-irqs = 7\ngro-flush-timeout = "20us"\n'
VIRTIO = '[virtio1]\ndriver = "virtio_net"\nrx-queues = 0\ntx-queues = 0\n[virtio1.coalescing]\nrx-usecs = 20\n'


def written(directory: Path, text: str) -> Path:
    """A plan's file. Drivers do not all tell their queues: the plan has those that `status` tells."""
    path = directory / "plan.toml"
    path.write_text(HEAD + text)
    return path


def ifindex_of(device: str) -> int:
    return next(link.ifindex for link in links() if link.name == device)


def rings_of(device: str) -> Rings:
    with Ethtool() as ethtool:
        found = ethtool.rings(ifindex_of(device))
    assert found is not None
    return found


def coalescing_of(device: str) -> Coalescing:
    with Ethtool() as ethtool:
        found = ethtool.coalescing(ifindex_of(device))
    assert found is not None
    return found


def test_a_refusal_undoes_what_another_driver_had_accepted(wire: Wire, napctl: Napctl, tmp_path: Path) -> None:
    """virtio_net has no rx-usecs unless its device offers it (VIRTIO_NET_F_NOTF_COAL), which QEMU's does not; it says
    so only when it is asked to set it (virtnet_set_coalesce() in drivers/net/virtio_net.c)."""
    before = wire.settings()
    done = napctl("apply", written(tmp_path, E1000E.format(usecs=60) + VIRTIO), timeout_s=120)

    assert done.failed_with(6, "virtio1", "the driver refuses rx-usecs 20", "put back")
    assert wire.settings() == before
    assert coalescing_of("virtio1").rx_usecs == 0


def test_rings_and_deferral_are_applied_and_rolled_back(wire: Wire, napctl: Napctl, tmp_path: Path) -> None:
    plan = written(tmp_path, E1000E.format(usecs=60) + RINGS + DEFERRAL)
    before = napctl("status", wire.device, "--json", timeout_s=120).json["devices"]

    assert napctl("apply", plan, timeout_s=120).status == 0

    (now,) = napctl("status", wire.device, "--json", timeout_s=120).json["devices"]
    assert (now["coalescing"]["rx_usecs"], now["rings"]["rx"]) == (60, 512)
    assert {napi["settings"]["gro_flush_timeout_ns"] for napi in now["napis"]} == {20_000}
    assert napctl("rollback", timeout_s=120).status == 0
    wire.wait_for_link()
    assert napctl("status", wire.device, "--json", timeout_s=120).json["devices"] == before


def test_over_a_link_reset_a_plan_can_still_be_rolled_back(wire: Wire, napctl: Napctl, tmp_path: Path) -> None:
    before = wire.settings()
    assert napctl("apply", written(tmp_path, E1000E.format(usecs=60)), timeout_s=120).status == 0
    run("ip", "link", "set", wire.device, "down")
    run("ip", "link", "set", wire.device, "up")
    wire.wait_for_link()
    assert wire.settings()["rx-usecs"] == 60
    assert napctl("rollback", timeout_s=120).status == 0
    assert wire.settings() == before


@pytest.mark.trials
@pytest.mark.timeout(1800)
def test_kills_of_apply_leave_the_former_settings_or_the_applied_ones(
    wire: Wire, napctl: Napctl, tmp_path: Path, trials: Callable[[int, int], int]
) -> None:
    plan = written(tmp_path, E1000E.format(usecs=60))
    outcomes = killed_at_random(wire, napctl, plan, kills=trials(1, 20), chance=random.Random(1))
    print(f"{sum(outcomes.values())} kills of apply: {dict(outcomes)}")


def killed_at_random(wire: Wire, napctl: Napctl, plan: Path, *, kills: int, chance: random.Random) -> Counter[str]:
    before = wire.settings()
    outcomes: Counter[str] = Counter()
    start = time.monotonic()
    assert napctl("apply", plan, timeout_s=120).status == 0
    usual_s = time.monotonic() - start
    assert napctl("rollback", timeout_s=120).status == 0
    for _ in range(kills):
        running = napctl.start("apply", plan)
        time.sleep(chance.uniform(0.5, 1.02) * usual_s)  # importing takes the first half
        running.kill()
        running.communicate()
        changed = wire.settings() != before
        assert napctl("recover", timeout_s=120).status == 0
        live = napctl.live()
        outcomes["applied" if live else "was half done" if changed else "restored"] += 1
        if live:
            assert [each.state for each in live] == ["applied"]
            assert wire.settings()["rx-usecs"] == 60
            assert napctl("rollback", timeout_s=120).status == 0
        assert wire.settings() == before
    return outcomes


# The write side of ethtool's netlink family


A_VALUE: dict[str, object] = {
    "rx_profile": (DimProfile(usecs=1, pkts=2),) * 5,
    "tx_profile": (DimProfile(comps=3),) * 5,
}


@pytest.mark.parametrize("name", [name for name in Coalescing.__struct_fields__ if name != "rx_usecs"])
def test_every_attribute_that_the_driver_does_not_have_is_refused_by_name(name: str, wire: Wire) -> None:
    """The name is the kernel's answer to the number and the place of the attribute: so both are right."""
    before = wire.settings()
    wanted = replace(Coalescing(), **{name: A_VALUE.get(name, name.startswith("use_") or 5)})
    with Ethtool() as ethtool, pytest.raises(Refused) as refusal:
        ethtool.set_coalescing(ifindex_of(wire.device), wanted)
    assert refusal.value.attribute == name.replace("_", "-")
    assert refusal.value.text
    assert wire.settings() == before


def test_coalescing_of_one_queue_is_set_and_read_back() -> None:
    """virtio_net has tx-max-frames 0 or 1 for each queue, while it is down."""
    with EthtoolIoctl() as ioctl:
        wide = coalescing_of("virtio1")
        before = ioctl.queue_coalescing("virtio1", 0, wide)
        assert before is not None
        assert before.tx_max_frames == 1
        ioctl.set_queue_coalescing("virtio1", 0, Coalescing(tx_max_frames=0), before)
        assert ioctl.queue_coalescing("virtio1", 0, wide) == Coalescing(
            **{**dict(settings(before)), "tx_max_frames": 0}
        )
        ioctl.set_queue_coalescing("virtio1", 0, before, before)
        assert ioctl.queue_coalescing("virtio1", 0, wide) == before
        with pytest.raises(OSError, match=r"not supported|Invalid"):
            ioctl.set_queue_coalescing("virtio1", 0, Coalescing(rx_usecs=50), before)


@pytest.mark.long
def test_what_changed_with_it_is_shown_as_a_side_effect_and_undone(wire: Wire, napctl: Napctl, tmp_path: Path) -> None:
    """No driver that QEMU 7.2 emulates changes more than it is asked to: here another hand does, right after it."""
    before = rings_of(wire.device)
    plan = written(tmp_path, E1000E.partition("[e1000e0.coalescing]")[0] + RINGS)
    slowly = at(("sendto", 1), "delay_exit=150000")
    slowly[-1] += "+"  # this and every later message to the kernel
    slowly.insert(1, "--seccomp-bpf")  # an emulated CPU stops at no other call
    applying = napctl.start("apply", plan, under=slowly)
    try:
        until(lambda: rings_of(wire.device).rx == 512, "the new ring", patience_s=90)
        with Ethtool() as ethtool:
            ethtool.set_rings(ifindex_of(wire.device), RingSizes(tx=1024))
    finally:
        output, words = applying.communicate(timeout=120)

    assert applying.returncode == 0, words
    assert "rings of e1000e0: the driver also changed tx" in " ".join(output.split())
    assert napctl("rollback", timeout_s=120).status == 0
    wire.wait_for_link()
    assert rings_of(wire.device) == before
