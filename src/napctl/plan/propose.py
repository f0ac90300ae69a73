"""From a machine and a goal to a plan with its reasons. A pure function: it reads nothing and invents nothing."""

from collections.abc import Iterable, Mapping
from typing import Any

from napctl.model.machine import Coalescing, Device, Machine, leases
from napctl.model.plan import Advice, Deferral, DevicePlan, Plan, Proposal, queue_counts
from napctl.model.window import Window
from napctl.plan.goals import Goal
from napctl.plan.lower_devices import look_below
from napctl.plan.proposal import Draft, Known, Range
from napctl.plan.rx import receive
from napctl.plan.threads import have_threads
from napctl.plan.tx import send

__all__ = ["ANY_DEVICE", "propose", "worth_planning"]


ANY_DEVICE = ""
"""The key of a speed that is given for all devices whose driver tells none: no device has that name."""


def propose(
    machine: Machine,
    window: Window | None,
    goal: Goal,
    budget_ns: int | None,
    speeds: Mapping[str, int],
    adaptive: Range | None = None,
) -> Advice:
    """Settings for all devices of `machine`, each explained.

    `budget_ns`: latency that may be added; None for the goal's own. `speeds`: link speeds in Mb/s by device, and under
    ANY_DEVICE; of a speed that is told and one that is given the faster counts, as it has the tighter bounds. A window
    gives reasons, and changes no value. `adaptive`: let drivers that take a profile adapt inside this range, instead of
    giving them a fixed RX delay. Raises BadInput for a range that has no room in the budget.
    """
    drafts = []
    for device in machine.devices:
        draft = Draft(device)
        drafts.append(draft)
        if not device.up:
            draft.missing.append(
                f"{device.name}: it is down, so that its link speed, queues and NAPI instances are not known: "
                f"ip link set {device.name} up"
            )
        elif found := leases(device):
            words = "; ".join(words for _, words in found)
            draft.left.append(f"{words}: settings of the device would be that one's as well, so that none is proposed")
        else:
            known = _known(machine, device, window, goal, budget_ns, speeds, adaptive)
            if goal.threads:
                have_threads(known, draft)
            else:
                receive(known, draft)
                send(known, draft)
        if not draft.proposals and (below := look_below(device, "plan")):
            draft.left.append(below)
    plans = [_device_plan(draft, _speed(draft.device, speeds)) for draft in drafts if draft.proposals]
    return Advice(
        plan=Plan(
            goal=goal.name,
            max_added_latency_ns=goal.budget_ns if budget_ns is None else budget_ns,
            devices=tuple(plans),
        ),
        proposals=tuple(proposal for draft in drafts for proposal in draft.proposals),
        unsupported=tuple(proposal for draft in drafts for proposal in draft.unsupported),
        missing=tuple(sentence for draft in drafts for sentence in draft.missing),
        left=tuple(sentence for draft in drafts for sentence in draft.left),
    )


def worth_planning(devices: Iterable[Device]) -> tuple[Device, ...]:
    """Hardware that is up and has something to set: what is planned for if no device is named."""
    return tuple(
        device
        for device in devices
        if device.up and device.bus is not None and (device.coalescing is not None or device.napis)
    )


def _known(
    machine: Machine,
    device: Device,
    window: Window | None,
    goal: Goal,
    budget_ns: int | None,
    speeds: Mapping[str, int],
    adaptive: Range | None,
) -> Known:
    speed = _speed(device, speeds)
    return Known(
        device=device,
        goal=goal,
        budget_ns=goal.budget_ns if budget_ns is None else budget_ns,
        budget_given=budget_ns is not None,
        speed_mbps=speed,
        speed_given=speed != device.speed_mbps,
        tcp_limit_bytes=machine.tcp_limit_output_bytes,
        udp_send_buffer_bytes=machine.udp_send_buffer_bytes,
        held=_held(machine, device),
        window=window,
        adaptive=adaptive,
    )


def _speed(device: Device, speeds: Mapping[str, int]) -> int | None:
    told = device.speed_mbps
    if device.name in speeds:
        return max(speeds[device.name], told or 0)
    return speeds.get(ANY_DEVICE) if told is None else told


def _held(machine: Machine, device: Device) -> tuple[int, ...]:
    """NAPI instances with IRQ suspension, with a thread that spins, or that an application prefers to poll."""
    polled = {napi_id for poller in machine.pollers if poller.params.prefer_busy_poll for napi_id in poller.napi_ids}
    return tuple(
        napi.napi_id
        for napi in device.napis
        if napi.settings.irq_suspend_timeout_ns or napi.settings.threaded == "busy-poll" or napi.napi_id in polled
    )


def _device_plan(draft: Draft, speed_mbps: int | None) -> DevicePlan:
    device = draft.device
    rx_queues, tx_queues = queue_counts(device)
    coalescing = _values(draft.proposals, Coalescing.__struct_fields__)
    deferral = _values(draft.proposals, Deferral.__struct_fields__)
    return DevicePlan(
        name=device.name,
        driver=device.driver,
        bus=device.bus,
        rx_queues=rx_queues,
        tx_queues=tx_queues,
        speed_mbps=speed_mbps,
        coalescing=Coalescing(**coalescing) if coalescing else None,
        deferral=Deferral(**deferral) if deferral else None,
        threads=tuple(draft.threads),
    )


def _values(proposals: Iterable[Proposal], fields: Iterable[str]) -> dict[str, Any]:
    names = set(fields)
    return {proposal.setting: proposal.proposed for proposal in proposals if proposal.setting in names}
