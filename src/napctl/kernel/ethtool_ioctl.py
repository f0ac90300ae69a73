"""The old ethtool ioctl (include/uapi/linux/ethtool.h), for what netlink has no message for.

That is the driver's name and its own statistics, whether TSO of any kind is on, and coalescing of single queues
(ETHTOOL_PERQUEUE, Linux 4.6, commit ac2c7ad0e5d6).
"""

import ctypes
import fcntl
import socket
import struct
from typing import Self

from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.machine import Coalescing

__all__ = ["EthtoolIoctl"]


SIOCETHTOOL = 0x8946
GDRVINFO, GCOALESCE, SCOALESCE, GSTRINGS, GSTATS, GTSO, PERQUEUE = 0x03, 0x0E, 0x0F, 0x1B, 0x1D, 0x1E, 0x4B
MAX_QUEUES = 4096
STATISTICS, NAME_BYTES = 1, 32
"""ETH_SS_STATS, ETH_GSTRING_LEN."""
STRINGS = struct.Struct("=III")
"""The beginning of struct ethtool_gstrings: command, set, number; that of struct ethtool_stats has no set."""
ROOM = 4096
"""So many more statistics there may be when they are read than when they were counted: a kernel may write as many as
there are, whatever room it was told of."""
FIELDS = Coalescing.__struct_fields__[: Coalescing.__struct_fields__.index("rate_sample_interval") + 1]
"""struct ethtool_coalesce has these, in this order, after its command."""
COALESCE = struct.Struct(f"={1 + len(FIELDS)}I")
VALUE = struct.Struct("=II")
"""struct ethtool_value."""
PER_QUEUE = struct.Struct(f"=II{MAX_QUEUES // 8}s")
"""struct ethtool_per_queue_op: command, sub-command, one bit for each queue."""


class DriverInfo(ctypes.Structure):
    """struct ethtool_drvinfo."""

    _fields_ = (
        ("cmd", ctypes.c_uint32),
        ("driver", ctypes.c_char * 32),
        ("version", ctypes.c_char * 32),
        ("fw_version", ctypes.c_char * 32),
        ("bus_info", ctypes.c_char * 32),
        ("_rest", ctypes.c_char * 48),
        ("n_stats", ctypes.c_uint32),
        ("_more", ctypes.c_char * 12),
    )


class EthtoolIoctl:
    """The ioctl in one network namespace. Use as a context manager."""

    def __init__(self, netns: NetworkNamespace | None = None):
        if netns is None:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        else:
            with netns.entered():
                self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def driver(self, device: str) -> tuple[str, str | None] | None:
        """Driver name and bus address (None for software devices); None if the device does not tell."""
        info = DriverInfo(cmd=GDRVINFO)
        try:
            self._call(device, ctypes.addressof(info))
        except OSError:
            return None
        return info.driver.decode(), info.bus_info.decode() or None

    def statistics(self, device: str) -> dict[str, int]:
        """What the driver counts, by its own names (ethtool -S); empty if it counts nothing."""
        info = DriverInfo(cmd=GDRVINFO)
        try:
            self._call(device, ctypes.addressof(info))
            room = info.n_stats + ROOM if info.n_stats else 0
            names = ctypes.create_string_buffer(STRINGS.pack(GSTRINGS, STATISTICS, 0), STRINGS.size + NAME_BYTES * room)
            values = ctypes.create_string_buffer(VALUE.pack(GSTATS, info.n_stats), VALUE.size + 8 * room)
            if room:
                self._call(device, ctypes.addressof(names))
                self._call(device, ctypes.addressof(values))
        except OSError:
            return {}
        counted = min(STRINGS.unpack_from(names)[2], VALUE.unpack_from(values)[1]) if room else 0
        starts = (STRINGS.size + NAME_BYTES * number for number in range(counted))
        text = names.raw  # a copy, of some 100 KiB
        texts = (text[start : start + NAME_BYTES].partition(b"\0")[0].decode(errors="replace") for start in starts)
        return dict(zip(texts, struct.unpack_from(f"={counted}Q", values, VALUE.size), strict=True))

    def has_tso(self, device: str) -> bool:
        """Whether it takes segments of TCP to be split (any of NETIF_F_ALL_TSO). Raises OSError."""
        value = ctypes.create_string_buffer(VALUE.pack(GTSO, 0))
        self._call(device, ctypes.addressof(value))
        return bool(VALUE.unpack(value.raw[: VALUE.size])[1])

    def queue_coalescing(self, device: str, queue: int, wide: Coalescing) -> Coalescing | None:
        """Coalescing of one queue; None if the driver has none per queue.

        The ioctl gives 0 for what the driver does not have; `wide`, the device-wide reading, tells which that is.
        """
        try:
            values = self._per_queue(device, queue, GCOALESCE, COALESCE.pack(GCOALESCE, *(0 for _ in FIELDS)))
        except OSError:
            return None
        read = dict(zip(FIELDS, COALESCE.unpack(values)[1:], strict=True))
        switches = {name: bool(read[name]) for name in FIELDS if name.startswith("use_")}
        return Coalescing(
            **{name: value for name, value in (read | switches).items() if getattr(wide, name) is not None}
        )

    def set_queue_coalescing(self, device: str, queue: int, wanted: Coalescing, present: Coalescing) -> None:
        """Set what is not None in `wanted`; the rest stays as in `present`. Raises OSError."""
        both = ((getattr(wanted, name), getattr(present, name)) for name in FIELDS)
        values = (present if wanted is None else wanted for wanted, present in both)
        self._per_queue(device, queue, SCOALESCE, COALESCE.pack(SCOALESCE, *(int(value or 0) for value in values)))

    def _per_queue(self, device: str, queue: int, command: int, values: bytes) -> bytes:
        mask = (1 << queue).to_bytes(MAX_QUEUES // 8, "little")  # u32 words in host order: little-endian machines only
        request = ctypes.create_string_buffer(PER_QUEUE.pack(PERQUEUE, command, mask) + values)
        self._call(device, ctypes.addressof(request))
        return request.raw[PER_QUEUE.size : PER_QUEUE.size + COALESCE.size]

    def _call(self, device: str, address: int) -> None:
        fcntl.ioctl(self._socket, SIOCETHTOOL, struct.pack("16sP16x", device.encode(), address))  # struct ifreq
