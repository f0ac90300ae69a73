"""From a plan to the changes that make it true on this machine."""

from collections.abc import Iterable, Iterator
from typing import Any

from napctl.model.change import Change, CoalescingChange, NapiChange, RingsChange, ThreadChange
from napctl.model.errors import BadInput
from napctl.model.machine import Coalescing, Device, Machine, Napi, threads_together
from napctl.model.plan import DevicePlan, Plan, RingSizes, settings
from napctl.model.settings import NapiSettings, ThreadSettings, kernel_name
from napctl.model.value import Value

__all__ = ["changes", "thread_change"]


def changes(plan: Plan, machine: Machine) -> tuple[Change, ...]:
    """What differs between a plan and a machine, one change for each block of settings. Raises BadInput.

    Rings come first: many drivers start their queues anew for them, and lose coalescing or deferral on the way.
    """
    devices = {device.name: device for device in machine.devices}
    found: list[Change] = []
    for planned in plan.devices:
        if planned.name not in devices:
            raise BadInput(f"{planned.name}: no such network device here")
        found += _device_changes(planned, devices[planned.name], machine.netns)
    order = {RingsChange: 0, CoalescingChange: 1, NapiChange: 2, ThreadChange: 3}
    return tuple(sorted(found, key=lambda change: order[type(change)]))  # type: ignore[index]


def _device_changes(planned: DevicePlan, device: Device, netns: int) -> Iterator[Change]:
    name, ifindex = device.name, device.ifindex
    sizes = RingSizes(rx=device.rings.rx, tx=device.rings.tx) if device.rings else RingSizes()
    if resized := _differing(planned.rings, sizes):
        yield RingsChange(netns=netns, device=name, ifindex=ifindex, before=sizes, after=RingSizes(**resized))
    wide = device.coalescing or Coalescing()
    asked = _differing(planned.coalescing, wide)
    if asked or (resized and device.coalescing is not None):  # not asked: whether the new rings changed it
        _refuse_to_level(device, asked)
        after = Coalescing(**asked)
        yield CoalescingChange(netns=netns, device=name, ifindex=ifindex, before=wide, after=after)
    by_queue = {each.queue: each.coalescing for each in device.queue_coalescing}
    for each in planned.queues:
        if each.queue not in by_queue:
            raise BadInput(f"{name}: the driver has no coalescing of its own for queue {each.queue}")
        before = by_queue[each.queue]
        if asked := _differing(each.coalescing, before):
            after = Coalescing(**asked)
            yield CoalescingChange(
                netns=netns, device=name, ifindex=ifindex, queue=each.queue, before=before, after=after
            )
    for napi in device.napis if planned.deferral is not None else ():
        if asked := _differing(planned.deferral, napi.settings):
            yield NapiChange(
                netns=netns, device=name, ifindex=ifindex, napi_id=napi.napi_id,
                before=NapiSettings(**{field: getattr(napi.settings, field) for field in asked}),
                after=NapiSettings(**asked),
            )  # fmt: skip
    yield from _threads(planned, device, netns)


def thread_change(device: Device, napi: Napi, netns: int, wanted: ThreadSettings) -> ThreadChange | None:
    """What gives an instance its thread; None: it is so already. Raises BadInput where threads cannot be switched."""
    if napi.thread is None:
        raise BadInput(f"{device.name}: this kernel has no switch for the thread of NAPI {napi.napi_id}")
    asked = _differing(wanted, napi.thread)
    if not asked:
        return None
    return ThreadChange(
        netns=netns, device=device.name, ifindex=device.ifindex, napi_id=napi.napi_id,
        whole_device=threads_together(device),
        before=ThreadSettings(**{field: getattr(napi.thread, field) for field in asked}),
        after=ThreadSettings(**asked),
    )  # fmt: skip


def _threads(planned: DevicePlan, device: Device, netns: int) -> Iterator[ThreadChange]:
    for each in planned.threads:
        if each.instance >= len(device.napis):
            raise BadInput(f"{device.name}: it has no NAPI instance {each.instance}")
        if change := thread_change(device, device.napis[each.instance], netns, each.thread):
            yield change


def _refuse_to_level(device: Device, asked: Iterable[str]) -> None:
    """A device-wide setting overwrites what its queues have of their own, and nothing could bring that back at once."""
    for name in asked:
        values = {getattr(each.coalescing, name) for each in device.queue_coalescing}
        if len(values) > 1:
            raise BadInput(
                f"{device.name}: its queues differ in {kernel_name(name)}, which a device-wide change would "
                f"level; plan [{device.name}.queue.N] instead"
            )


def _differing(planned: Value | None, present: Value) -> dict[str, Any]:
    return {name: value for name, value in settings(planned) if getattr(present, name) != value}
