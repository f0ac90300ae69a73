"""What is protected: NAPI instances by device and CPUs, and why a device is not."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from napctl.attach.inspect_target import receiving
from napctl.kernel.links import Link
from napctl.model.cpus import parse_cpus
from napctl.model.machine import Device, Napi, threads_together
from napctl.protect.ladder import KINDS, Ladder, StepKind
from napctl.protect.protect_options import ProtectOptions
from napctl.protect.steps import has_thread

__all__ = ["Protected", "groups_of", "matching", "obstacle"]


@dataclass
class Protected:
    """NAPI instances of one device that share their CPUs, or the switch that gives them threads."""

    device: str
    ifindex: int
    napis: tuple[Napi, ...]
    cpus: frozenset[int] | None
    """That take their packets; None: nothing tells."""
    steps: tuple[StepKind, ...] = KINDS
    """Those that are possible and allowed."""
    ladder: Ladder = field(default_factory=Ladder)

    @property
    def napi_ids(self) -> frozenset[int]:
        """Of all of them."""
        return frozenset(each.napi_id for each in self.napis)

    @property
    def key(self) -> tuple[int, frozenset[int]]:
        """By which it is known again."""
        return self.ifindex, self.napi_ids

    @property
    def thread_pids(self) -> tuple[int, ...]:
        """Of the threads that poll them."""
        return tuple(each.thread_pid for each in self.napis if each.thread_pid is not None)


def matching(found: Iterable[Link], options: ProtectOptions) -> list[Link]:
    """Devices that are to be protected, of those that there are."""
    if options.devices is None:
        return [each for each in found if each.up and not (each.virtual or each.loopback)]
    names = set(options.devices)
    return [each for each in found if not names.isdisjoint((each.name, *each.alternative_names))]


def groups_of(devices: Iterable[Device], options: ProtectOptions, before: Sequence[Protected] = ()) -> list[Protected]:
    """Their instances, also those that are attached: what packets take the CPU from a task, it cannot poll for itself,
    and interrupts are suspended no more. Those that were there before keep their place on the ladder. Where the kernel
    has threads for all instances of a device or for none, they stand on one ladder."""
    found = []
    for device in devices:
        theirs = set(receiving(device.napis, device.queues))
        together = threads_together(device)
        napis = [each for each in device.napis if each.napi_id in theirs]
        former = [each for each in before if each.ifindex == device.ifindex]
        if former and frozenset().union(*(each.napi_ids for each in former)) == {each.napi_id for each in napis}:
            by_id = {each.napi_id: each for each in napis}
            parts = [(each.ladder, [by_id[napi.napi_id] for napi in each.napis]) for each in former]
        else:
            parts = [(Ladder(), some) for some in ([napis] if together and napis else _by_cpus(napis).values())]
        for ladder, some in parts:
            found.append(
                Protected(
                    device=device.name,
                    ifindex=device.ifindex,
                    napis=tuple(some),
                    cpus=_cpus_of(some),
                    steps=tuple(_steps(some, options)),
                    ladder=ladder,
                )
            )
    return found


def _by_cpus(napis: Iterable[Napi]) -> Mapping[str | None, list[Napi]]:
    found: dict[str | None, list[Napi]] = {}
    for each in napis:
        found.setdefault(each.cpus, []).append(each)
    return found


def _cpus_of(napis: Iterable[Napi]) -> frozenset[int] | None:
    told = [each.cpus for each in napis]
    return None if None in told else frozenset(cpu for cpus in told if cpus is not None for cpu in parse_cpus(cpus))


def _steps(napis: Iterable[Napi], options: ProtectOptions) -> Iterator[StepKind]:
    if not all(has_thread(each) for each in napis):
        yield "threads"
    yield "nice"
    if options.storm_control_per_second is not None:
        yield "storm control"


def obstacle(name: str, found: Link | None, groups: Collection[Protected], *, has_napis: bool) -> str:
    """Why a device is not protected now; empty if it is."""
    if found is None:
        return "there is no such device"
    if not found.up:
        return "it is down"
    if not has_napis:
        if found.kind == "veth":
            return f"its packets bypass NAPI; `ethtool -K {name} gro on` here, and `tso off` at its other end"
        return f"its driver{f' ({found.kind})' if found.kind else ''} has no NAPI instances, so it has no NAPI threads"
    if not any(each.ifindex == found.ifindex for each in groups):
        return "none of its NAPI instances receives anything"
    return ""
