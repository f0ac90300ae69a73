"""What there is to verify: the settings of a plan or of devices, and for each the two values to compare."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from napctl.model.change import Change, CoalescingChange, NapiChange, Transaction
from napctl.model.driver_quirks import is_a_mode
from napctl.model.machine import Coalescing, Device, DimProfile, Machine, Napi, QueueCoalescing, levels_text
from napctl.model.plan import Deferral, DevicePlan, Plan, RingSizes, settings
from napctl.model.settings import NapiSettings, kernel_name
from napctl.model.value import Value
from napctl.model.verdict import Outcome, Verdict
from napctl.verify.trial import DEFERRAL, JUDGED, NEUTRAL, TIMED, Raw, SettingTrial, shown

__all__ = [
    "RING",
    "Wanted",
    "changes_to",
    "chosen",
    "complete",
    "of_machine",
    "of_plan",
    "plan_for",
    "plan_of_devices",
    "present",
    "settled",
    "trial_of",
]


RING = {"rx": "rx_ring", "tx": "tx_ring"}
Asked = int | bool | tuple[DimProfile, ...] | NapiSettings


class Wanted(Value, frozen=True, kw_only=True):
    """One setting that a device shall have."""

    device: str
    queue: int | None = None
    setting: str
    """Field of Coalescing; "rx_ring", "tx_ring"; or "deferral"."""
    value: Asked


def of_plan(plan: Plan) -> Iterator[Wanted]:
    """All settings of a plan. Deferral is one: of its two fields neither means anything without the other."""
    for device in plan.devices:
        for name, value in settings(device.coalescing):
            yield Wanted(device=device.name, setting=name, value=value)
        for queue in device.queues:
            for name, value in settings(queue.coalescing):
                yield Wanted(device=device.name, queue=queue.queue, setting=name, value=value)
        if device.deferral is not None:
            fields = dict(settings(device.deferral))
            yield Wanted(device=device.name, setting=DEFERRAL, value=NapiSettings(**fields))
        for name, value in settings(device.rings):
            yield Wanted(device=device.name, setting=RING[name], value=value)


def of_machine(machine: Machine) -> Iterator[Wanted]:
    """What devices have and would not have if nobody had set anything: all that delays, and that the wire can show."""
    for device in machine.devices:
        wide = _judged(device.coalescing)
        own = {each.queue: _judged(each.coalescing) for each in device.queue_coalescing}
        differing = {name for values in own.values() for name, value in values.items() if wide.get(name) != value}
        for name, value in wide.items():
            if name not in differing:
                yield Wanted(device=device.name, setting=name, value=value)
        for queue, values in own.items():
            for name in sorted(differing & values.keys()):
                yield Wanted(device=device.name, queue=queue, setting=name, value=values[name])
        deferring = [napi for napi in deferrable(device) if napi.settings.defers]
        if deferring:
            yield Wanted(device=device.name, setting=DEFERRAL, value=_deferral(deferring[0].settings))


def _judged(block: Coalescing | None) -> dict[str, Any]:
    """Without what is neutral (0 frames mean no bound), and without what adaptive coalescing moves about."""
    moved = set()
    for direction in ("rx", "tx"):
        if block is not None and getattr(block, f"use_adaptive_{direction}"):
            moved |= {f"{direction}_usecs", f"{direction}_max_frames"}
    return {
        name: value
        for name, value in settings(block)
        if name in JUDGED and name not in moved and value not in (NEUTRAL[name], 0, False)
    }


def deferrable(device: Device) -> list[Napi]:
    """Instances whose deferral is not part of an attachment: that one is measured with the server that it is for."""
    return [napi for napi in device.napis if not napi.settings.irq_suspend_timeout_ns]


def present(wanted: Wanted, device: Device) -> Asked | None:
    """The setting as the device has it; None if it does not have it."""
    if wanted.setting == DEFERRAL:
        napis = deferrable(device)
        assert isinstance(wanted.value, NapiSettings)
        return _deferral(napis[0].settings) if napis else None
    if wanted.setting in RING.values():
        return getattr(device.rings, wanted.setting[:2]) if device.rings else None
    block = coalescing(device, wanted.queue)
    return getattr(block, wanted.setting) if block else None


def coalescing(device: Device, queue: int | None) -> Coalescing | None:
    """Device-wide, or of one queue."""
    if queue is None:
        return device.coalescing
    return next((each.coalescing for each in device.queue_coalescing if each.queue == queue), None)


def complete(wanted: Wanted, device: Device) -> Wanted:
    """Deferral of which a plan sets one half, with the half that the device has."""
    if not isinstance(wanted.value, NapiSettings):
        return wanted
    now = present(wanted, device)
    given = {name: value for name, value in settings(wanted.value) if value is not None}
    return replace(wanted, value=replace(now, **given)) if isinstance(now, NapiSettings) else wanted


def plan_for(wanted: Sequence[Wanted], like: Plan) -> Plan:
    """A plan of these settings alone, without rings: many drivers take the link down for those."""
    devices = []
    for device in like.devices:
        mine = [each for each in wanted if each.device == device.name and each.setting not in RING.values()]
        own = [each for each in mine if each.queue is not None]
        queues = {each.queue: {w.setting: w.value for w in own if w.queue == each.queue} for each in own}
        wide = {each.setting: each.value for each in mine if each.queue is None and each.setting != DEFERRAL}
        deferral = next((each.value for each in mine if isinstance(each.value, NapiSettings)), None)
        devices.append(
            replace(
                device,
                coalescing=Coalescing(**wide) if wide else None,  # type: ignore[arg-type]
                queues=tuple(
                    QueueCoalescing(queue=queue, coalescing=Coalescing(**values))  # type: ignore[arg-type]
                    for queue, values in queues.items()
                    if queue is not None
                ),
                rings=None,
                deferral=deferral
                and Deferral(
                    defer_hard_irqs=deferral.defer_hard_irqs, gro_flush_timeout_ns=deferral.gro_flush_timeout_ns
                ),
            )
        )
    return replace(like, devices=tuple(devices))


def plan_of_devices(machine: Machine) -> Plan:
    """An empty plan for the devices of a machine."""
    devices = tuple(
        DevicePlan(name=device.name, driver=device.driver, rx_queues=0, tx_queues=0, rings=RingSizes())
        for device in machine.devices
    )
    return Plan(goal="throughput", max_added_latency_ns=0, devices=devices)


def trial_of(
    wanted: Wanted, before: Device, now: Device, live: Iterable[Transaction], netns: int
) -> SettingTrial | Verdict:
    """How to try a setting that is in force now; or a verdict, where there is nothing to try.

    The other arm is what the device had before; else what it had before napctl applied it; else the neutral value.
    """
    on = present(wanted, now)
    if on is None:
        return settled(wanted, "refused", "the device does not have this setting")
    if wanted.setting not in JUDGED or isinstance(on, tuple):
        return _read_back(wanted, on)
    first = present(wanted, before)
    off = first if first not in (None, on) else former(wanted, now, on, live, netns)
    if off is None or off == on:
        return settled(wanted, "accepted", "it reads back; there is no other value to compare it with", read_back=on)
    assert not isinstance(off, tuple)
    assert not isinstance(wanted.value, tuple)
    direction = "tx" if wanted.setting in ("tx_usecs", "tx_max_frames", "use_adaptive_tx") else "rx"
    block = coalescing(now, wanted.queue) or Coalescing()
    delays = (on, off) if wanted.setting in TIMED else ()
    return SettingTrial(
        device=wanted.device,
        ifindex=now.ifindex,
        queue=wanted.queue,
        setting=wanted.setting,
        wanted=wanted.value,
        on=on,
        off=off,
        delay_us=getattr(block, f"{direction}_usecs"),
        frames=getattr(block, f"{direction}_max_frames"),
        adaptive=bool(getattr(block, f"use_adaptive_{direction}")),
        tx_delay_us=block.tx_usecs,
        mode=next((each for each in delays if isinstance(each, int) and is_a_mode(now, each)), None),
    )


def former(wanted: Wanted, device: Device, on: Asked, live: Iterable[Transaction], netns: int) -> Raw | None:
    """What the device had before what is in force now was applied, by the journal; else the neutral value."""
    for transaction in reversed(list(live)):
        for change in transaction.changes if transaction.kind == "apply" else ():
            value = _before(wanted, change, device.ifindex, netns)
            if value is not None and value != on:
                return value
    if isinstance(on, NapiSettings):
        return NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0)
    return NEUTRAL.get(wanted.setting)


def _before(wanted: Wanted, change: Change, ifindex: int, netns: int) -> Raw | None:
    if getattr(change, "ifindex", None) != ifindex or getattr(change, "netns", None) != netns:
        return None
    if isinstance(change, NapiChange) and wanted.setting == DEFERRAL:
        given = {name: value for name, value in settings(_deferral(change.before)) if value is not None}
        assert isinstance(wanted.value, NapiSettings)
        return replace(wanted.value, **given)
    if isinstance(change, CoalescingChange) and change.queue == wanted.queue and wanted.setting != DEFERRAL:
        asked = getattr(change.after, wanted.setting)
        return None if asked is None else getattr(change.before, wanted.setting)
    return None


def changes_to(value: Raw, trial: SettingTrial, device: Device, netns: int) -> tuple[Change, ...]:
    """What gives the device, as it is now, the other value of the setting."""
    if isinstance(value, NapiSettings):
        return tuple(
            NapiChange(
                netns=netns,
                device=device.name,
                ifindex=device.ifindex,
                napi_id=napi.napi_id,
                before=_deferral(napi.settings),
                after=value,
            )
            for napi in deferrable(device)
        )
    block = coalescing(device, trial.queue)
    assert block is not None
    after = Coalescing(**{trial.setting: value})  # type: ignore[arg-type]
    return (
        CoalescingChange(
            netns=netns, device=device.name, ifindex=device.ifindex, queue=trial.queue, before=block, after=after
        ),
    )


def settled(wanted: Wanted, outcome: Outcome, reason: str, *, read_back: Asked | None = None) -> Verdict:
    """A verdict without windows."""
    return Verdict(
        device=wanted.device,
        queue=wanted.queue,
        setting=wanted.setting,
        wanted=_text(wanted.value),
        read_back=None if read_back is None else _text(read_back),
        outcome=outcome,
        acts_as=str(_text(read_back)) if outcome == "clamped" and read_back is not None else None,
        reason=reason,
    )


def chosen(wanted: Iterable[Wanted], names: Collection[str]) -> list[Wanted]:
    """Those of the named settings ("rx-usecs", "deferral"); all if none is named."""
    return [each for each in wanted if not names or kernel_name(each.setting) in names]


def _read_back(wanted: Wanted, found: Asked) -> Verdict:
    """Where reading back is all."""
    what = "ring sizes" if wanted.setting in RING.values() else "this setting"
    if isinstance(found, tuple):  # DIM takes a new level only when it moves: which one is in force, nobody tells
        what = "which of the levels adaptive coalescing is at"
    if found == wanted.value:
        reason = f"it reads back; napctl cannot see {what} on the wire"
        return settled(wanted, "accepted", reason, read_back=found)
    reason = f"the driver made {_text(found)} of it; napctl cannot see {what} on the wire"
    return settled(wanted, "clamped", reason, read_back=found)


def _deferral(found: NapiSettings) -> NapiSettings:
    return NapiSettings(defer_hard_irqs=found.defer_hard_irqs, gro_flush_timeout_ns=found.gro_flush_timeout_ns)


def _text(value: Asked) -> int | bool | str:
    return levels_text(value) if isinstance(value, tuple) else shown(value)
