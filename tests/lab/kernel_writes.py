"""What a napctl under strace has written to the kernel."""

import re
from pathlib import Path

TRACED = ["strace", "-f", "-qq", "-xx", "-e", "trace=sendto,sendmsg,ioctl,setsockopt", "-o"]
"""To run it under; the trace's path follows."""
NAPI_SET = r'sendto\(.*"\\x0e\\x01\\x00\\x00'
"""NETDEV_CMD_NAPI_SET of include/uapi/linux/netdev.h, as the genetlink header begins."""
WRITES = {
    "napi-set": NAPI_SET,
    "EPIOCSPARAMS": r"ioctl\(.*(EPIOCSPARAMS|_IOC\(_IOC_WRITE, 0x8a, 0x1)",
    "setsockopt": r"setsockopt\(\d+, SOL_SOCKET, (SO_BUSY_POLL|SO_PREFER_BUSY_POLL|SO_ATTACH_REUSEPORT|SO_DETACH)",
    "ethtool set": r'sendto\(.*"\\x(14|10|12)\\x01\\x00\\x00',
}


def writes_in(trace: Path, since: int = 0) -> set[str]:
    """What was written to the kernel, by kind; `since`: from that byte of the trace on."""
    text = trace.read_bytes()[since:].decode()
    return {kind for kind, pattern in WRITES.items() if re.search(pattern, text)}
