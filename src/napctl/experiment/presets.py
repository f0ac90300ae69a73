"""Treatments that are made for this machine: coalescing off, and as it would be planned."""

from collections.abc import Sequence

from msgspec.structs import replace

from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.errors import Unsupported
from napctl.model.machine import Coalescing, Device
from napctl.model.plan import DevicePlan, Plan, queue_counts
from napctl.observe.machine import take_machine
from napctl.plan.goals import GOALS
from napctl.plan.propose import propose, worth_planning

__all__ = ["coalescing_plans"]


def coalescing_plans(netns: NetworkNamespace, names: Sequence[str]) -> dict[str, Plan]:
    """By name: no coalescing, and what `plan --goal balanced` proposes. Raises Unsupported, BadInput."""
    machine = take_machine(netns, names)
    devices = [each for each in machine.devices if names or each in worth_planning(machine.devices)]
    coalescing = [each for each in devices if each.coalescing is not None]
    if not coalescing:
        raise Unsupported("no device here has coalescing; name one that has")
    advice = propose(replace(machine, devices=tuple(coalescing)), None, GOALS["balanced"], None, {})
    off = Plan(goal="latency", max_added_latency_ns=0, devices=tuple(_off(each) for each in coalescing))
    return {"coalescing-off": off, "coalescing-planned": advice.plan}


def _off(device: Device) -> DevicePlan:
    """Every interrupt at once, as far as the driver can."""
    assert device.coalescing is not None
    have = device.coalescing
    switches = {name: False for name in ("use_adaptive_rx", "use_adaptive_tx") if getattr(have, name) is not None}
    times = {name: 0 for name in ("rx_usecs", "tx_usecs") if getattr(have, name) is not None}
    rx_queues, tx_queues = queue_counts(device)
    return DevicePlan(
        name=device.name,
        driver=device.driver,
        bus=device.bus,
        rx_queues=rx_queues,
        tx_queues=tx_queues,
        coalescing=Coalescing(**switches, **times),  # type: ignore[arg-type] # by name, each of its own kind
    )
