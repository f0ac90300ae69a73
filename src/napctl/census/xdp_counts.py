"""What XDP programs made of packets, by the statistics of the driver. Pure.

Every driver has its own names: "rx_queue_0_xdp_redirect" (veth), "rx0_xdp_drops" (virtio_net), "rx_xdp_drop" (mlx5),
"queue_0_rx_xdp_redirect" (ena), "xdp_tx" (stmmac).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["XdpCounts", "xdp_counts"]


QUEUE = re.compile(r"(?:rx_queue|queue|rxq?|ch|rx_ring)[_-]?(\d+)")
VERDICT = re.compile(r"xdp_?(drop|tx|redirect|abort(?:ed)?)s?$")
"""Of what is counted when the program returns: "xdp_tx_errors", "xdp_xmit" and "xdp_bytes" are others."""


@dataclass(frozen=True)
class XdpCounts:
    """Packets that never came to the stack, as a program took them."""

    dropped: int = 0
    """XDP_DROP and XDP_ABORTED."""
    sent: int = 0
    """XDP_TX: out where they came in."""
    redirected: int = 0
    """XDP_REDIRECT: to a socket of AF_XDP, another device, another CPU."""

    @property
    def taken(self) -> int:
        """All of them."""
        return self.dropped + self.sent + self.redirected


def xdp_counts(before: Mapping[str, int], after: Mapping[str, int]) -> dict[int | None, XdpCounts]:
    """By RX queue, between two readings; under None, where the driver counts for the whole device. Empty: not at all.

    A counter that was set back is a gap: its packets count for nothing.
    """
    found: dict[int | None, dict[str, int]] = {}
    for name, value in after.items():
        verdict = VERDICT.search(name)
        if verdict is None or name.startswith("tx"):
            continue
        queue = QUEUE.search(name[: verdict.start()])
        counts = found.setdefault(int(queue[1]) if queue else None, {})
        what = verdict[1]
        kind = "redirected" if what == "redirect" else "sent" if what == "tx" else "dropped"
        counts[kind] = counts.get(kind, 0) + max(0, value - before.get(name, value))
    if len(found) > 1:
        found.pop(None, None)  # the sum of the others
    return {queue: XdpCounts(**counts) for queue, counts in found.items()}
