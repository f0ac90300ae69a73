"""What keeps a plan from being applied: it goes beyond a safety bound, is another machine's, or sets what somebody
else drives."""

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from napctl.model.cpus import cpus_text, parse_cpus
from napctl.model.limits import Bound, frames_bound, rx_usecs_bound, tx_usecs_bound
from napctl.model.machine import (
    Coalescing,
    Device,
    DimProfile,
    Machine,
    UserSpaceDevice,
    attached,
    leases,
    threads_together,
)
from napctl.model.plan import DevicePlan, Plan, queue_counts, settings
from napctl.model.settings import kernel_name
from napctl.plan.applied import software_delay_ns, with_coalescing, with_plan

__all__ = ["beyond", "driven_by_programs", "leased", "mismatch"]


RX_TIMES = ("rx_usecs", "rx_usecs_irq", "rx_usecs_low", "rx_usecs_high")
TX_TIMES = ("tx_usecs", "tx_usecs_irq", "tx_usecs_low", "tx_usecs_high")
RX_FRAMES = ("rx_max_frames", "rx_max_frames_irq", "rx_max_frames_low", "rx_max_frames_high", "rx_cqe_frames")
TX_FRAMES = ("tx_max_frames", "tx_max_frames_irq", "tx_max_frames_low", "tx_max_frames_high")


def beyond(plan: Plan, machine: Machine) -> tuple[str, ...]:
    """One sentence for each setting of a plan that goes beyond a safety bound of model/limits.py."""
    devices = {device.name: device for device in machine.devices}
    return tuple(
        sentence
        for planned in plan.devices
        if planned.name in devices
        for sentence in _Device(plan, planned, devices[planned.name], machine.tcp_limit_output_bytes).beyond()
    )


class _Device:
    """One device as the plan would have it, and the inputs of its bounds."""

    def __init__(self, plan: Plan, planned: DevicePlan, device: Device, tcp_limit_bytes: int | None):
        self._planned, self._tcp_limit_bytes = planned, tcp_limit_bytes
        self._budget_ns = plan.max_added_latency_ns
        self._after = with_plan(device, planned)
        self._speed_mbps = max(device.speed_mbps or 0, planned.speed_mbps or 0) or None
        rings = self._after.rings
        self._rx_ring, self._tx_ring = (rings.rx, rings.tx) if rings else (None, None)

    def beyond(self) -> Iterator[str]:
        """Device-wide settings, then those of single queues, then deferral."""
        wide = self._after.coalescing or Coalescing()
        yield from self._coalescing(self._planned.name, self._planned.coalescing or Coalescing(), wide)
        for each in self._planned.queues:
            own = with_coalescing(wide, each.coalescing)
            yield from self._coalescing(f"queue {each.queue} of {self._planned.name}", each.coalescing, own)
        yield from self._deferral()

    def _coalescing(self, where: str, planned: Coalescing, after: Coalescing) -> Iterator[str]:
        """`after`: what would be in force. Also what is not planned is judged, where the plan moves its bound."""
        for field, value in _times_and_frames(planned):
            if bound := self._bound(field, value):
                yield f"{where}: {_name(field)} {value} is above {bound.value}: {bound.by}"
            if field.startswith("tx_usecs") and value:
                yield from self._unknown(where, field, value)
        rings = self._planned.rings
        moved = {"rx": rings is not None and rings.rx is not None, "tx": rings is not None and rings.tx is not None}
        for field, value in _times_and_frames(after):
            if moved[field[:2]] and getattr(planned, _field(field)) is None and (bound := self._bound(field, value)):
                yield f"{where}: {_name(field)}, which stays {value}, is then above {bound.value}: {bound.by}"
        for kind in ("rx", "tx"):
            yield from self._never(where, kind, planned, after)

    def _bound(self, field: str, value: int) -> Bound | None:
        """The bound that a value exceeds."""
        bound = self._most(field)
        return bound if bound is not None and value > bound.value else None

    def _most(self, field: str) -> Bound | None:
        kind, ring = ("RX", self._rx_ring) if field.startswith("rx") else ("TX", self._tx_ring)
        if "frames" in field or field.endswith("pkts"):
            return frames_bound(ring, kind) if ring is not None else None
        if kind == "RX":
            bound = rx_usecs_bound(self._budget_ns, self._speed_mbps, ring)
            return replace(bound, value=bound.value * 1000) if field.endswith("_nsecs") else bound
        if self._speed_mbps is None or self._tcp_limit_bytes is None:
            return None
        return tx_usecs_bound(self._tcp_limit_bytes, self._speed_mbps, ring)

    def _unknown(self, where: str, field: str, value: int) -> Iterator[str]:
        """A TX delay whose bound cannot be computed is no safe one."""
        if self._speed_mbps is None:
            yield (
                f"{where}: {_name(field)} {value} has no known bound, as the link speed is not known: "
                f"set speed-mbps of [{self._planned.name}] in the plan"
            )
        elif self._tcp_limit_bytes is None:
            yield (
                f"{where}: {_name(field)} {value} has no known bound, as net.ipv4.tcp_limit_output_bytes "
                "could not be read"
            )

    def _never(self, where: str, kind: str, planned: Coalescing, after: Coalescing) -> Iterator[str]:
        """Frames that wait for each other with no time that ends the wait, or an interrupt that nothing raises.

        Source: struct ethtool_coalesce in include/uapi/linux/ethtool.h: with a time of 0 only the number of frames
        counts, and both must not be 0. Drivers without the time (None) have another end of the wait.
        """
        time, frames = f"{kind}_usecs", f"{kind}_max_frames"
        touched = getattr(planned, time) is not None or getattr(planned, frames) is not None
        if touched and getattr(after, time) == 0 and getattr(after, frames) not in (None, 1):
            number = getattr(after, frames)
            what = "no interrupt would ever come" if number == 0 else "the last frames would wait for ever"
            pair = f"{kernel_name(time)} 0 with {kernel_name(frames)} {number}"
            yield f"{where}: {pair} means that {what}: 1 is the safe number"

    def _deferral(self) -> Iterator[str]:
        """The delay of the hardware and that of the software add up, against one budget."""
        wide = self._after.coalescing or Coalescing()
        blocks = [self._planned.coalescing, *(each.coalescing for each in self._planned.queues)]
        planned = self._planned.coalescing or Coalescing()
        hardware = [
            _longest_us(planned.rx_profile) or wide.rx_usecs or 0,  # which adaptive RX moves about inside of it
            *(each.coalescing.rx_usecs or 0 for each in self._planned.queues),
        ]
        software_ns = software_delay_ns(self._after)
        timer_ns = self._planned.deferral.gro_flush_timeout_ns if self._planned.deferral else None
        delayed = any(block is not None and (block.rx_usecs or block.rx_profile) for block in blocks)  # 0 adds nothing
        touched = bool(timer_ns) or delayed
        sum_ns = software_ns + max(hardware) * 1000
        if touched and software_ns and sum_ns > self._budget_ns:
            yield (
                f"{self._planned.name}: an RX delay of {max(hardware)} µs and gro-flush-timeout "
                f"{software_ns / 1000:g} µs add up to {sum_ns / 1000:g} µs, above the latency budget of "
                f"{self._budget_ns / 1000:g} µs"
            )


def _longest_us(levels: Iterable[DimProfile] | None) -> int:
    return max((level.usecs or 0 for level in levels or ()), default=0)


def _times_and_frames(coalescing: Coalescing) -> Iterator[tuple[str, int]]:
    """(field, value) of all that delays an interrupt; the levels of a profile as "rx_profile.1.usecs"."""
    for field, value in settings(coalescing):
        if field in (*RX_TIMES, *TX_TIMES, *RX_FRAMES, *TX_FRAMES, "rx_cqe_nsecs"):
            yield field, value
        elif field.endswith("_profile"):
            for number, level in enumerate(value):
                yield from ((f"{field}.{number}.{part}", each) for part, each in settings(level) if part != "comps")


def _field(field: str) -> str:
    return field.partition(".")[0]


def _name(field: str) -> str:
    return kernel_name(field).replace(".", " ")


def leased(device: Device) -> tuple[str, ...]:
    """One sentence for each queue that another device has: what is set of the device is set of that as well."""
    return tuple(
        f"{words}, and what is set of {device.name} would be that one's as well" for _, words in leases(device)
    )


def driven_by_programs(plan: Plan, nics: Iterable[UserSpaceDevice]) -> tuple[str, ...]:
    """One sentence for each device of a plan that has no network device any more, as a program drives it."""
    drivers = {nic.bus: nic.driver for nic in nics}
    return tuple(
        f"{planned.name} ({planned.bus}): it is driven from user space ({drivers[planned.bus]}), and the kernel has no "
        "network device of it; napctl census shows by whom"
        for planned in plan.devices
        if planned.bus in drivers
    )


def mismatch(plan: Plan, machine: Machine) -> tuple[str, ...]:
    """One sentence for each thing in which a plan does not fit a machine: it was made for another."""
    devices = {device.name: device for device in machine.devices}
    found: list[str] = []
    for planned in plan.devices:
        if planned.name in devices:
            found += _mismatch(planned, devices[planned.name])
            found += _threads_mismatch(planned, devices[planned.name], machine.cpus_online)
        else:
            found.append(f"{planned.name}: there is no such device here")
    return tuple(found)


def _mismatch(planned: DevicePlan, device: Device) -> Iterator[str]:
    name = planned.name
    if planned.driver != device.driver:
        theirs, ours = planned.driver or "none known", device.driver or "none told"
        yield f"{name}: the plan is for the driver {theirs}, and here it is {ours}"
    counts = (planned.rx_queues, planned.tx_queues)
    if device.up and counts != queue_counts(device):  # one that is down has no queues
        theirs, ours = ("{} RX and {} TX queues".format(*pair) for pair in (counts, queue_counts(device)))
        yield f"{name}: the plan is for {theirs}, and here are {ours}"
    yield from _not_had(planned, device)
    yield from _deferral_mismatch(planned, device)


def _not_had(planned: DevicePlan, device: Device) -> Iterator[str]:
    """Settings that the driver does not have."""
    name = planned.name
    for field, value in settings(planned.coalescing):
        yield from _lacks(name, device, field, value)
    by_queue = {each.queue: each.coalescing for each in device.queue_coalescing}
    for each in planned.queues:
        if each.queue not in by_queue:
            yield f"{name}: the driver {device.driver} has no coalescing of its own for queue {each.queue}"
            continue
        for field, _ in settings(each.coalescing):
            if getattr(by_queue[each.queue], field) is None:
                yield f"queue {each.queue} of {name}: the driver {device.driver} has no {kernel_name(field)}"
    for field, value in settings(planned.rings):
        most = getattr(device.rings, f"{field}_max", None)
        if getattr(device.rings, field, None) is None:
            yield f"{name}: the driver {device.driver} does not report its {field.upper()} ring"
        elif most is not None and value > most:
            yield f"{name}: the {field.upper()} ring of {value} is larger than the {most} that the driver has at most"


def _lacks(name: str, device: Device, field: str, value: object) -> Iterator[str]:
    had = getattr(device.coalescing, field, None)
    if had is None:
        yield f"{name}: the driver {device.driver} has no {kernel_name(field)}"
    elif isinstance(value, tuple) and len(value) != len(had):
        yield f"{name}: {kernel_name(field)} has {len(had)} levels, and the plan {len(value)}"


def _deferral_mismatch(planned: DevicePlan, device: Device) -> Iterator[str]:
    for field, _ in settings(planned.deferral):
        if not device.napis:
            when = "" if device.up else " while it is down"
            yield f"{planned.name}: it has no NAPI instance{when} for {kernel_name(field)}"
        elif any(getattr(napi.settings, field) is None for napi in device.napis):
            yield f"{planned.name}: this kernel has no {kernel_name(field)} per NAPI instance (Linux 6.13 has)"
    if planned.deferral is not None:
        for napi in filter(attached, device.napis):
            yield (
                f"{planned.name}: NAPI {napi.napi_id} has IRQ suspension, which needs the deferral that it has: "
                "detach its server first, or take [deferral] out of the plan"
            )


def _threads_mismatch(planned: DevicePlan, device: Device, online: str | None) -> Iterator[str]:
    for each in planned.threads if device.up else ():
        where = f"{planned.name}: NAPI instance {each.instance}"
        if each.instance >= len(device.napis):
            yield f"{where} is not there: it has {len(device.napis)}, counted from 0"
        elif device.napis[each.instance].thread is None:
            yield f"{where}: this kernel has no NAPI threads that can be switched"
        cpus = parse_cpus(each.thread.cpus) if each.thread.cpus is not None else frozenset()
        if online is not None and (missing := cpus - parse_cpus(online)):
            yield f"{where}: its thread is to run on CPU {cpus_text(missing)}, which is not online here"
    left = set(range(len(device.napis))) - {each.instance for each in planned.threads}
    if planned.threads and left and threads_together(device):
        yield (
            f"{planned.name}: this kernel has threads for all NAPI instances of a device or for none (Linux 6.17 has "
            f"them for one), and the plan has none for {cpus_text(left)}"
        )
