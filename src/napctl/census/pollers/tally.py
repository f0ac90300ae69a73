"""From what a poller showed at the beginning and at the end of a window to the value that tells of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from msgspec.structs import replace

from napctl.census.pollers import busy_alone
from napctl.census.pollers.busiest_file import BusiestFiles, identity
from napctl.census.pollers.busy_alone import Calls
from napctl.census.pollers.detection import MOST_COUNT, Detected, Statement
from napctl.census.pollers.spinning import Spin, ThreadTimes, spins
from napctl.census.pollers.suspects import Suspect
from napctl.census.pollers.thread_estimates import estimates
from napctl.census.pollers.work_estimate import Counts
from napctl.census.pollers.work_share import MostWork, bound, busier, busy_window, run_seconds, told_share
from napctl.kernel.links import Link
from napctl.kernel.xdp_rings import RingLosses
from napctl.model.census import BypassShare, Poller, SpinningThread
from napctl.model.text import printable
from napctl.model.units import figure

__all__ = ["Moment", "PollerTally"]


NOT_COUNTED = "no bound: nobody counts its packets"
NOT_YET = "no bound yet: it was never seen busier than now while it kept up"
LOSES = "no bound yet: packets find no place with it, and it was never seen to keep up"
BY_NATURE = "no packet costs more"
BY_WINDOW = "its busiest window"


@dataclass(frozen=True)
class Moment:
    """All that was read of one process at one time."""

    at: float
    """When its threads, and before them its account, were read."""
    threads: dict[int, ThreadTimes]
    told: Statement
    links: tuple[Link, ...] = ()
    """Devices of its network namespace."""
    links_at: float | None = None
    """When they were read: others that hang may have been asked in between; None: at the same time."""
    losses: RingLosses | None = None
    """Of its AF_XDP sockets; None: it has none, or they cannot be read."""
    calls: Calls | None = None
    """Of what is no bypass."""
    behind: bool = False
    """A ring of copies is so full that it gets less than the device counts."""


@dataclass(frozen=True)
class _Packets:
    """Within the window; None: not counted."""

    port: int | None = None
    """Brought by its ports, by its own count."""
    sent: int | None = None
    kernel: int | None = None
    """Taken by the kernel on the same devices."""
    devices: int | None = None
    """In and out of the devices, by the kernel's count; None also where it counts some of them alone."""


@dataclass(frozen=True)
class PollerTally:
    """One poller over a window."""

    suspect: Suspect
    detected: Detected
    before: Moment
    after: Moment
    counted: Mapping[int, Counts | str] = field(default_factory=dict)
    """By thread, what it executed by counters of the CPU, or why that is not known; empty: nobody counted, as it
    tells of its work itself."""

    @property
    def seconds(self) -> float:
        """How long the window was."""
        return self.after.at - self.before.at

    @property
    def link_seconds(self) -> float:
        """Between the two readings of the devices."""
        then, now = self.before.links_at, self.after.links_at
        return self.seconds if then is None or now is None or now <= then else now - then

    @cached_property
    def spinning(self) -> tuple[Spin, ...]:
        """Its threads that never slept."""
        return spins(self.suspect.process.pid, self.before.threads, self.after.threads, self.seconds)

    @cached_property
    def devices(self) -> tuple[str, ...]:
        """By its own word, and by what its sockets are bound to."""
        return tuple(dict.fromkeys((*self.detected.devices, *self.suspect.devices)))

    def poller(self, files: BusiestFiles) -> Poller:
        """What it did; `files`: what was seen of it before."""
        ours, detected = self.suspect.process, self.detected
        troubles = (*detected.troubles, *self.after.told.troubles, self.suspect.trouble)
        return Poller(
            pid=ours.pid,
            started_ticks=ours.started_ticks,
            name=ours.name,
            kind=detected.kind,
            evidence=(*detected.evidence, *self._spin_evidence()),
            devices=self.devices,
            threads=tuple(self._threads(files)),
            really=self._really(),
            remedy=detected.remedy,
            trouble="; ".join(dict.fromkeys(each for each in troubles if each)) or None,
        )

    def _spin_evidence(self) -> Iterator[str]:
        for one in self.spinning[:1]:
            where = f", and may run on CPU {one.cpu} alone" if one.pinned else ""
            yield f"thread {printable(one.name)} never sleeps{where} [/proc/{self.suspect.process.pid}/task]"
        then, now = self.before.calls, self.after.calls
        if then is not None and now is not None and (told := busy_alone.words(then, now, self.seconds)):
            yield f"{told} [/proc/{self.suspect.process.pid}/stat, io]"

    @cached_property
    def _packets(self) -> _Packets:
        port, sent = (
            _grown(getattr(self.before.told, count), getattr(self.after.told, count)) for count in ("received", "sent")
        )
        then = {link.ifindex: link for link in self.before.links}
        pairs = [(then[link.ifindex], link) for link in self.after.links if link.ifindex in then]
        if self.detected.idle:
            taken = sum(_received(old, new) for old, new in pairs if not new.loopback)
            return _Packets(port=0, sent=0, kernel=taken if self.detected.preloaded else None)
        own = [(old, new) for old, new in pairs if new.name in self.devices]
        if not own:
            return _Packets(port, sent, kernel=None if self.detected.of_kernel else 0)
        came = sum(_received(old, new) for old, new in own)
        went = sum(max(0, new.tx_packets - old.tx_packets) for old, new in own)
        kernel: int | None = came
        if self.detected.counts_include_port:
            kernel = None if port is None else max(0, round(came * self.seconds / self.link_seconds) - port)
        counts_all = len(own) == len(self.devices)
        return _Packets(port, sent, kernel=kernel, devices=came + went if counts_all else None)

    @property
    def _through(self) -> int | None:
        """Packets in and out of the program within the window; None: not counted. The kernel's count of its devices is
        one where these packets come to the kernel as well: what verbs, or a driver of its own, take it counts in part,
        or not at all."""
        packets = self._packets
        if packets.port is not None:
            return packets.port + (packets.sent or 0)
        if packets.devices is None or not self.detected.copies:
            return None
        return round(packets.devices * self.seconds / self.link_seconds)

    def _really(self) -> BypassShare | None:
        packets, detected = self._packets, self.detected
        if not detected.bypass or (packets.port is None and packets.kernel is None):
            return None
        if detected.idle:
            source = detected.idle
            if detected.preloaded:
                source += "; packets of all devices of its network namespace"
        elif detected.copies:
            source = "its port gets copies of what the kernel takes"
        elif not detected.of_kernel:
            source = "the kernel has no network device of it"
        elif packets.kernel is None:
            source = "its own count; the kernel counts none of its ports"
        else:
            source = "its ports against the kernel's counters of the devices"
        return BypassShare(
            port_packets=packets.port,
            kernel_packets=packets.kernel,
            lost=self._lost,
            copies=detected.copies,
            seconds=self.seconds,
            source=source,
        )

    def _threads(self, files: BusiestFiles) -> Iterator[SpinningThread]:
        takes = self.detected.bypass and not self.detected.idle  # else what it does comes with no packet
        bounds = self._bounds(files) if self.spinning and takes else {}
        estimated = self._estimated(files, bounds) if bounds and self.counted else {}
        for spin in self.spinning:
            found = SpinningThread(tid=spin.tid, name=spin.name, cpu=spin.cpu, run_share=spin.run_share)
            if (told := self._told(spin)) is not None:
                yield replace(found, work_share=told[0], source=told[1])
                continue
            if spin.tid in bounds:
                most, source = bounds[spin.tid]
                found = replace(found, most_work_share=most.share if most is not None else None, source=source)
            if spin.tid in estimated:
                share, source = estimated[spin.tid]
                found = replace(found, estimated_work_share=share, estimate_source=source)
            yield found

    def _told(self, spin: Spin) -> tuple[float, str] | None:
        """Its work by the program's own account, and where that is from."""
        account, before, after = self.detected.account, self.before.told, self.after.told
        key = account.key(spin, self.suspect.process.pid) if account is not None else None
        if account is None or key is None:
            return None
        if key in before.cycles and key in after.cycles:
            share = told_share(before.cycles[key], after.cycles[key])
            if share is not None:
                return share * spin.run_share, account.source
        if key in after.shares:
            share, source = after.shares[key]
            return share * spin.run_share, source
        return None

    @property
    def _lost(self) -> int | None:
        """Packets for which it had no place; None: counts were set back, or cannot be read."""
        by_itself = _grown(self.before.told.lost, self.after.told.lost)
        if not self.suspect.xdp:
            return by_itself
        then, now = self.before.losses, self.after.losses
        by_rings = None if then is None or now is None else _grown(then.lost, now.lost)
        return None if by_itself is None or by_rings is None else max(by_itself, by_rings)  # it may count the same

    @property
    def _loses(self) -> bool:
        """It cannot keep up; or nothing is known of that."""
        then, now = self.before.losses, self.after.losses
        starves = then is not None and now is not None and then.starved != now.starved
        short = _grown(self.before.told.short, self.after.told.short) != 0
        return self.before.behind or self.after.behind or starves or short or self._lost != 0

    def _bounds(self, files: BusiestFiles) -> dict[int, tuple[MostWork | None, str]]:
        """By thread; each with where it is from, or why there is none."""
        packets = self._through
        if packets is None:
            return {each.tid: (None, NOT_COUNTED) for each in self.spinning}
        who = identity(self.suspect.process.pid, self.suspect.process.name, self.devices)
        kept = files.kept(who)
        now = busy_window(packets, self.seconds, run_seconds(self.before.threads, self.after.threads))
        loses = self._loses
        busiest = kept if loses else busier(kept, now)
        if busiest is not None and busiest != kept:
            files.keep(who, busiest)
        found = {each.tid: bound(packets, self.seconds, each.run_share, busiest) for each in self.spinning}
        none = LOSES if loses and busiest is None else NOT_YET
        return {tid: (most, _source(most, packets / self.seconds, none)) for tid, most in found.items()}

    def _estimated(
        self, files: BusiestFiles, bounds: Mapping[int, tuple[MostWork | None, str]]
    ) -> dict[int, tuple[float | None, str]]:
        """As _bounds(), from counters of the CPU."""
        who = identity(self.suspect.process.pid, self.suspect.process.name, self.devices)
        learned = files.learned(who)
        most = {tid: each for tid, (each, _) in bounds.items()}
        found, now = estimates(self.spinning, self.counted, most, learned, None if self._loses else self._through)
        if now != learned:
            files.learn(who, now)
        return found


def _grown(then: int | None, now: int | None) -> int | None:
    """None: not told, or set back meanwhile, or no count of anything."""
    return None if then is None or now is None or not 0 <= now - then <= MOST_COUNT else now - then


def _received(then: Link, now: Link) -> int:
    return max(0, now.rx_packets - then.rx_packets)


def _source(most: MostWork | None, rate: float, none: str) -> str:
    if most is None:
        return none
    why = BY_WINDOW if most.calibrated else BY_NATURE
    return f"{figure(rate)} packets/s at most {figure(most.cost_ns / 1000)} µs each: {why}"
