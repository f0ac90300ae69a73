"""What a process has mapped and open, by name: libraries, devices, sockets (proc_pid_maps(5), proc_pid_fd(5)).

A mapping names the file behind it also when the descriptor is closed: a socket whose rings are mapped is
"socket:[1234]", a device of vfio "anon_inode:[vfio-device]".
"""

import os
import re
from collections.abc import Collection

from napctl.kernel.processes import PROC, SOCKET_LINK

__all__ = ["file_mappings", "listening_paths", "mapped_files", "open_links", "packet_devices", "socket_inodes"]


MAPPED = re.compile(rb"^[0-9a-f-]+ \S+ \S+ \S+ [0-9]+ +([^\n]+)$", re.M)
PLACED = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ ([0-9]+) +(socket:\[[0-9]+\])$", re.M)
LISTENS = 0x10000
"""__SO_ACCEPTCON of include/uapi/linux/net.h."""
MOST_LINKS = 4096
"""Of one process: a proxy has 100,000 sockets, and what is looked for was opened at its start."""


def mapped_files(pid: int) -> frozenset[str]:
    """Names of what it has mapped, "[heap]" and the like too.

    Raises PermissionError without ptrace-read rights, FileNotFoundError or ProcessLookupError if it is gone.
    """
    text = (PROC / str(pid) / "maps").read_bytes()
    return frozenset(name.decode(errors="backslashreplace") for name in set(MAPPED.findall(text)))


def file_mappings(pid: int, inode: int) -> dict[int, tuple[int, int]]:
    """Where it has a socket mapped: {offset in the file: (address, bytes)}. Raises as mapped_files()."""
    text = (PROC / str(pid) / "maps").read_bytes()
    wanted = f"{SOCKET_LINK}{inode}]".encode()
    return {
        int(offset, 16): (int(start, 16), int(end, 16) - int(start, 16))
        for start, end, offset, _, name in PLACED.findall(text)
        if name == wanted
    }


def open_links(pid: int) -> dict[int, str]:
    """What its first descriptors are, by number: "/dev/vfio/12", "socket:[1234]". Raises as mapped_files()."""
    directory = PROC / str(pid) / "fd"
    found: dict[int, str] = {}
    for name in sorted(os.listdir(directory), key=int)[:MOST_LINKS]:  # noqa: PTH208 - thousands
        try:
            found[int(name)] = os.readlink(directory / name)  # noqa: PTH115 - as above
        except FileNotFoundError:
            continue  # closed meanwhile
    return found


def socket_inodes(names: Collection[str]) -> frozenset[int]:
    """Inode numbers of the sockets among them."""
    return frozenset(int(name[len(SOCKET_LINK) : -1]) for name in names if name.startswith(SOCKET_LINK))


def listening_paths(pid: int, inodes: Collection[int]) -> tuple[str, ...]:
    """Where the process listens on Unix sockets, of those that it holds (proc_net_unix(5)): paths as it sees them.

    Of its network namespace. Raises as mapped_files().
    """
    wanted = {str(inode).encode() for inode in inodes}
    found = []
    for line in (PROC / str(pid) / "net" / "unix").read_bytes().splitlines()[1:]:
        columns = line.split(maxsplit=7)
        if len(columns) == 8 and columns[6] in wanted and _listens(columns[3]) and columns[7][:1] == b"/":
            found.append(os.fsdecode(columns[7]))
    return tuple(found)


def _listens(flags: bytes) -> bool:
    """Of a line that anybody may have written: the kernel shows newlines in the path of a socket as they are."""
    try:
        return bool(int(flags, 16) & LISTENS)
    except ValueError:
        return False


def packet_devices(pid: int, inodes: Collection[int]) -> dict[int, int]:
    """Interface index by inode number of those of these sockets that are packet sockets and bound to a device.

    /proc/PID/net/packet: packet_seq_show() in net/packet/af_packet.c. Raises as mapped_files().
    """
    found = {}
    for line in (PROC / str(pid) / "net" / "packet").read_bytes().splitlines()[1:]:
        columns = line.split()
        if len(columns) >= 9 and int(columns[8]) in inodes and int(columns[4]):
            found[int(columns[8])] = int(columns[4])
    return found
