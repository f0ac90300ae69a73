"""Settings of a device are not varied while another device has a queue of it.

No driver here leases queues: the machine that is verified is made, and stands for what queue-get would tell.
"""

from pathlib import Path

import pytest

from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import Guard, Keeper
from napctl.model.errors import Unsupported
from napctl.model.machine import Coalescing, Device, Machine, Queue, QueueUse
from napctl.model.plan import DevicePlan, Plan
from napctl.verify import verify

LEASE = QueueUse(kind="lease", ifindex=8, queue=1, netns_id=0)


@pytest.fixture
def eth0(monkeypatch: pytest.MonkeyPatch) -> Device:
    """The only device there is; loopback's index stands for it, as that has a carrier anywhere."""
    device = Device(
        name="eth0", ifindex=1, up=True, bus="0000:00:03.0", coalescing=Coalescing(rx_usecs=8),
        queues=(Queue(ifindex=1, kind="rx", index=0, napi_id=8193, uses=(LEASE,)),),
    )  # fmt: skip
    machine = Machine(kernel="7.3", netns=1, devices=(device,), pollers=())
    monkeypatch.setattr(verify, "take_machine", lambda *_: machine)
    monkeypatch.setattr(verify, "_with_carrier", lambda _netns: frozenset({1}))
    return device


def keeping(directory: Path) -> verify.Keeping:
    return verify.Keeping(directory, Guard(pid=1, started_ticks=1, deadline_boot_ns=0), Keeper(pid=1, started_ticks=1))


@pytest.mark.usefixtures("eth0")
def test_a_device_with_a_leased_queue_is_left_alone_and_that_is_said(tmp_path: Path) -> None:
    with NetworkNamespace.current() as here:
        found = verify.verify_devices(here, ["eth0"], keeping(tmp_path), verify.Options(seconds=0.01, pairs=1))
    assert (found.verdicts, found.regressions) == ((), ())
    (note,) = found.notes
    assert note.startswith("left alone: rx0 of eth0 is leased to queue 1 of interface 8")


def test_so_a_plan_for_it_is_refused(tmp_path: Path, eth0: Device) -> None:
    own = DevicePlan(name=eth0.name, driver=None, bus=eth0.bus, rx_queues=1, tx_queues=0, speed_mbps=None,
                     coalescing=Coalescing(rx_usecs=20))  # fmt: skip
    plan = Plan(goal="balanced", max_added_latency_ns=50_000, devices=(own,))
    with NetworkNamespace.current() as here, pytest.raises(Unsupported, match="leased to queue 1 of interface 8"):
        verify.verify_plan(here, plan, keeping(tmp_path), verify.Options())
