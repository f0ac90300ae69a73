"""What a machine will be once a plan is in force: the plan's values where it has one, the machine's elsewhere."""

from msgspec.structs import replace

from napctl.model.machine import Coalescing, Device
from napctl.model.plan import DevicePlan, settings

__all__ = ["software_delay_ns", "with_coalescing", "with_plan"]


def with_plan(device: Device, plan: DevicePlan) -> Device:
    """One device with the device-wide settings of its plan; those of single queues have no place in a Device."""
    deferral = dict(settings(plan.deferral))
    return replace(
        device,
        coalescing=device.coalescing and with_coalescing(device.coalescing, plan.coalescing),
        rings=device.rings and replace(device.rings, **dict(settings(plan.rings))),
        napis=tuple(replace(napi, settings=replace(napi.settings, **deferral)) for napi in device.napis),
    )


def with_coalescing(now: Coalescing, planned: Coalescing | None) -> Coalescing:
    """What the driver has, with what is planned over it."""
    return replace(now, **dict(settings(planned)))


def software_delay_ns(device: Device) -> int:
    """The longest that a packet may wait for the timer of deferral, ns.

    Also without `defer_hard_irqs`: the timer alone keeps packets in GRO (napi_complete_done() in net/core/dev.c).
    """
    timers = [napi.settings.gro_flush_timeout_ns for napi in device.napis]
    own = [timer for timer in timers if timer is not None]
    if own:
        return max(own)
    return device.deferral.gro_flush_timeout_ns if device.deferral else 0
