"""What storm control has dropped, by reason: of each storm, and in all. Pure."""

from collections.abc import Iterable, Mapping

from napctl.model.counters import grown
from napctl.model.storm import BY_REASON, Reason, StormCounts

__all__ = ["StormTotals"]


WORDS: Mapping[Reason, str] = {
    "broadcast": "of broadcast",
    "multicast": "of multicast",
    "no listener": "to ports where nobody listens",
    "neighbours": "that ask for this host's addresses",
    "DHCP": "of DHCP",
    "control": "of switches and routers",
}


class StormTotals:
    """Of all devices, from look to look at the counters of each program, which begin when it is attached."""

    def __init__(self) -> None:
        self._seen: dict[int, StormCounts] = {}
        self._storm: dict[int, dict[Reason, int]] = {}
        """By interface index: since limits were set there."""
        self.by_reason: dict[Reason, int] = dict.fromkeys(BY_REASON, 0)
        self.by_device: dict[int, int] = {}
        """By interface index."""

    def add(self, counts: Mapping[int, StormCounts]) -> None:
        """What the programs have counted by now that limit, by interface index."""
        for ifindex, now in counts.items():
            storm = self._storm.setdefault(ifindex, dict.fromkeys(BY_REASON, 0))
            before = self._seen.get(ifindex)
            for reason, tally in now.by_reason.items():
                last = before.by_reason[reason].dropped_packets if before is not None else 0
                more = grown(last, tally.dropped_packets)
                more = tally.dropped_packets if more is None else more  # another program, attached anew
                storm[reason] += more
                self.by_reason[reason] += more
                self.by_device[ifindex] = self.by_device.get(ifindex, 0) + more
            self._seen[ifindex] = now

    @property
    def limiting(self) -> Iterable[int]:
        """Interface indexes of devices whose storm has not been told."""
        return tuple(self._storm)

    def told(self, ifindex: int) -> str:
        """In words, what was dropped there since limits were set, which are no more; most first."""
        storm = self._storm.pop(ifindex, {})
        most = sorted(((count, reason) for reason, count in storm.items() if count), reverse=True)
        if not most:
            return "storm control dropped nothing"
        parts = ", ".join(f"{count:,} {WORDS.get(reason, reason)}" for count, reason in most)
        return f"storm control dropped {sum(count for count, _ in most):,} packets: {parts}"
