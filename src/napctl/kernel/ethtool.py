"""The netlink family `ethtool`: coalescing, rings and channels to read and set, and link speed.

Source: Documentation/netlink/specs/ethtool.yaml. What the driver does not support is None, never 0.
"""

from collections.abc import Mapping
from typing import Any, Self

import msgspec

from napctl.kernel.genetlink import Family
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netlink import Attr, Refused, Table, table
from napctl.model.errors import BadInput
from napctl.model.machine import DIM_LEVELS, Channels, Coalescing, DimProfile, Rings
from napctl.model.plan import ChannelCounts, RingSizes, settings

__all__ = ["COALESCE", "HEADER", "Ethtool"]


LINKMODES_GET, RINGS_GET, RINGS_SET, CHANNELS_GET, CHANNELS_SET, COALESCE_GET, COALESCE_SET = 4, 15, 16, 17, 18, 19, 20
EOPNOTSUPP = 95
COMPACT_BITSETS = 1
SPEED_UNKNOWN = 0xFFFFFFFF

HEADER = Attr("header", "nest", nest=table({"dev-index": "u32", "dev-name": "string", "flags": "u32"}))
MODERATION = table({"usecs": "u32", "pkts": "u32", "comps": "u32"})
PROFILE: Table = {1: Attr("irq-moderation", "nest", nest=MODERATION, many=True)}

COALESCE = (
    {1: HEADER}
    | table(
        {
            "rx-usecs": "u32",
            "rx-max-frames": "u32",
            "rx-usecs-irq": "u32",
            "rx-max-frames-irq": "u32",
            "tx-usecs": "u32",
            "tx-max-frames": "u32",
            "tx-usecs-irq": "u32",
            "tx-max-frames-irq": "u32",
            "stats-block-usecs": "u32",
            "use-adaptive-rx": "u8",
            "use-adaptive-tx": "u8",
            "pkt-rate-low": "u32",
            "rx-usecs-low": "u32",
            "rx-max-frames-low": "u32",
            "tx-usecs-low": "u32",
            "tx-max-frames-low": "u32",
            "pkt-rate-high": "u32",
            "rx-usecs-high": "u32",
            "rx-max-frames-high": "u32",
            "tx-usecs-high": "u32",
            "tx-max-frames-high": "u32",
            "rate-sample-interval": "u32",
            "use-cqe-mode-tx": "u8",
            "use-cqe-mode-rx": "u8",
            "tx-aggr-max-bytes": "u32",
            "tx-aggr-max-frames": "u32",
            "tx-aggr-time-usecs": "u32",
        },
        first=2,
    )
    | {29: Attr("rx-profile", "nest", nest=PROFILE), 30: Attr("tx-profile", "nest", nest=PROFILE)}
    | table({"rx-cqe-frames": "u32", "rx-cqe-nsecs": "u32"}, first=31)
)
RINGS = {1: HEADER, 2: Attr("rx-max"), 5: Attr("tx-max"), 6: Attr("rx"), 9: Attr("tx")}
CHANNELS = {
    1: HEADER,
    2: Attr("rx-max"),
    3: Attr("tx-max"),
    5: Attr("combined-max"),
    6: Attr("rx"),
    7: Attr("tx"),
    9: Attr("combined"),
}
LINKMODES = {1: HEADER, 5: Attr("speed")}


class Ethtool:
    """The family in one network namespace. Raises Unsupported on kernels without it (before Linux 5.6)."""

    def __init__(self, netns: NetworkNamespace | None = None):
        self._family = Family("ethtool", netns)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._family.__exit__()

    def coalescing(self, ifindex: int) -> Coalescing | None:
        """Every coalescing setting that the driver reports; None if it has no coalescing."""
        reply = self._get(COALESCE_GET, COALESCE, ifindex, "coalescing")
        if reply is None:
            return None
        for name in ("rx-profile", "tx-profile"):
            if name in reply:
                reply[name] = [msgspec.convert(level, DimProfile) for level in reply[name].get("irq-moderation", ())]
        return msgspec.convert(_fields(reply), Coalescing, strict=False)

    def set_coalescing(self, ifindex: int, wanted: Coalescing) -> None:
        """Set what is not None, device-wide. Needs CAP_NET_ADMIN.

        Raises Refused with the kernel's words and the attribute at fault, for one that the driver does not have
        ("cannot modify an unsupported parameter", ethnl_set_coalesce() in net/ethtool/coalesce.c) before anything is
        changed. The driver is given all settings anew, and may change more than it was asked: read back.
        Raises BadInput for a profile that has not DIM_LEVELS levels: ethnl_update_profile() there takes fewer for the
        first ones, and wrote a sixth behind the end of its array until commit 7281b096b072.
        """
        values = {name.replace("_", "-"): value for name, value in settings(wanted)}
        for name in ("rx-profile", "tx-profile"):
            if name in values:
                if len(values[name]) != DIM_LEVELS:
                    raise BadInput(f"{name}: it has {len(values[name])} levels, and the kernel takes {DIM_LEVELS}")
                levels = [dict(settings(level)) for level in values[name]]
                values[name] = {"irq-moderation": levels}
        self._set(COALESCE_SET, COALESCE, ifindex, values, "coalescing")

    def set_rings(self, ifindex: int, wanted: RingSizes) -> None:
        """Set what is not None; many drivers take the link down for a moment. Needs CAP_NET_ADMIN. Raises Refused."""
        self._set(RINGS_SET, RINGS, ifindex, dict(settings(wanted)), "rings")

    def rings(self, ifindex: int) -> Rings | None:
        """Ring sizes; None if the driver does not tell them."""
        reply = self._get(RINGS_GET, RINGS, ifindex, "rings")
        return msgspec.convert(_fields(reply), Rings) if reply else None

    def channels(self, ifindex: int) -> Channels | None:
        """Queue counts; None if the driver does not tell them."""
        reply = self._get(CHANNELS_GET, CHANNELS, ifindex, "channels")
        return msgspec.convert(_fields(reply), Channels) if reply else None

    def set_channels(self, ifindex: int, wanted: ChannelCounts) -> None:
        """Set what is not None; drivers start their queues anew for it. Needs CAP_NET_ADMIN.

        Raises Refused with the kernel's words for more than there are at most, and for fewer than somebody uses
        (ethnl_set_channels() in net/ethtool/channels.c).
        """
        self._set(CHANNELS_SET, CHANNELS, ifindex, dict(settings(wanted)), "channels")

    def speed_mbps(self, ifindex: int) -> int | None:
        """Link speed in Mb/s; None if the link is down or the driver does not know it."""
        reply = self._get(LINKMODES_GET, LINKMODES, ifindex, "link speed")
        speed = reply.get("speed") if reply else None
        return None if speed in (None, 0, SPEED_UNKNOWN) else speed

    def _get(self, command: int, table: Table, ifindex: int, what: str) -> dict[str, Any] | None:
        request = {"header": {"dev-index": ifindex, "flags": COMPACT_BITSETS}}
        try:
            (reply,) = self._family.ask(command, table, request, what=f"reading {what} of interface {ifindex}")
        except Refused as refusal:
            if refusal.errno == EOPNOTSUPP:
                return None
            raise
        del reply["header"]
        return reply

    def _set(self, command: int, table: Table, ifindex: int, values: Mapping[str, Any], what: str) -> None:
        request = {"header": {"dev-index": ifindex}, **values}
        for _ in self._family.ask(command, table, request, what=f"setting {what} of interface {ifindex}"):
            pass


def _fields(reply: Mapping[str, Any]) -> dict[str, Any]:
    """Kernel names to field names."""
    return {name.replace("-", "_"): value for name, value in reply.items()}
