"""BPF programs and maps that the kernel has already, by their ids (bpf(2)). To load one is libbpf's part, in probe/."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from napctl.kernel.namespaces import NetworkNamespace

__all__ = [
    "ProgramInfo",
    "delete",
    "keys",
    "look_up",
    "map_called",
    "program",
    "program_info",
    "tcx_ingress",
    "tried",
    "update",
]


SYS_BPF = {"x86_64": 321, "aarch64": 280}
MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, MAP_DELETE_ELEM, MAP_GET_NEXT_KEY = 1, 2, 3, 4
PROG_TEST_RUN, PROG_GET_FD_BY_ID, MAP_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD, PROG_QUERY = 10, 13, 14, 15, 16
TCX_INGRESS = 46
"""enum bpf_attach_type; since Linux 6.6 (commit e420bed02507)."""

ELEMENT = struct.Struct("=I4xQQQ")
"""union bpf_attr for elements of maps: descriptor, key, value (or next key), flags."""
INFO = struct.Struct("=IIQ")
QUERY = struct.Struct("=IIIIQI4x24x8x")
"""Device, kind; flags; where ids go, and how many there are; others; and the revision, which the kernel writes in any
case."""
TEST = struct.Struct("=IIIIQQII40x")
"""Descriptor, result; bytes in and out; where they are; times, ns for each."""
PROGRAM = struct.Struct("=II8s8x16x8xIIQ16s")
"""The beginning of struct bpf_prog_info: type, id, tag; number of maps and where to write their ids; name."""
MAP = struct.Struct("=IIIIII16s")
"""The beginning of struct bpf_map_info: type, id, sizes of key and value, entries, flags; name."""
MOST_MAPS = 64
ENOENT, EINVAL = 2, 22

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class ProgramInfo:
    """What the kernel tells of a loaded program."""

    number: int
    """Its id, which no other gets until the counter of 31 bits runs over."""
    name: str
    tag: str
    """A hash of its instructions."""
    map_numbers: tuple[int, ...]


@contextmanager
def program(number: int) -> Iterator[int | None]:
    """A descriptor of the program with that id; None if there is none. Needs CAP_SYS_ADMIN; raises OSError."""
    with _by_id(PROG_GET_FD_BY_ID, number) as fd:
        yield fd


def program_info(fd: int) -> ProgramInfo:
    """What a descriptor leads to. Raises OSError."""
    numbers = (ctypes.c_uint32 * MOST_MAPS)()
    info = ctypes.create_string_buffer(
        PROGRAM.pack(0, 0, b"", 0, MOST_MAPS, ctypes.addressof(numbers), b""), PROGRAM.size
    )
    _call(OBJ_GET_INFO_BY_FD, INFO.pack(fd, PROGRAM.size, ctypes.addressof(info)))
    _, number, tag, _, maps, _, name = PROGRAM.unpack(info.raw)
    return ProgramInfo(number, _text(name), tag.hex(), tuple(numbers[: min(maps, MOST_MAPS)]))


@contextmanager
def map_called(name: str, info: ProgramInfo) -> Iterator[int | None]:
    """A descriptor of the map of that name among those that a program uses; None if it uses none. Raises OSError."""
    for number in info.map_numbers:
        with _by_id(MAP_GET_FD_BY_ID, number) as fd:
            if fd is not None and _map_name(fd) == name:
                yield fd
                return
    yield None


def look_up(map_fd: int, key: bytes, size: int) -> bytes | None:
    """The value of a key, `size` bytes; None if there is none. Raises OSError."""
    value = ctypes.create_string_buffer(size)
    try:
        _element(MAP_LOOKUP_ELEM, map_fd, key, value)
    except FileNotFoundError:
        return None
    return value.raw


def update(map_fd: int, key: bytes, value: bytes) -> None:
    """Give a key a value. Raises OSError."""
    _element(MAP_UPDATE_ELEM, map_fd, key, ctypes.create_string_buffer(value, len(value)))


def delete(map_fd: int, key: bytes) -> None:
    """Take a key out, if it is there. Raises OSError."""
    try:
        _element(MAP_DELETE_ELEM, map_fd, key, None)
    except FileNotFoundError:
        return


def keys(map_fd: int, size: int) -> Iterator[bytes]:
    """All keys of a map to which nobody else writes meanwhile. Raises OSError."""
    key: bytes | None = None
    found = ctypes.create_string_buffer(size)
    while True:
        try:
            _element(MAP_GET_NEXT_KEY, map_fd, key, found)
        except FileNotFoundError:
            return
        key = found.raw
        yield key


def tcx_ingress(netns: NetworkNamespace, ifindex: int) -> int:
    """How many BPF programs see a device's packets by tcx; 0 also where the kernel has no tcx. Raises OSError."""
    attribute = ctypes.create_string_buffer(QUERY.pack(ifindex, TCX_INGRESS, 0, 0, 0, 0), QUERY.size)
    try:
        with netns.entered():
            _system_call(PROG_QUERY, attribute)
    except OSError as error:
        if error.errno in (ENOENT, EINVAL):
            return 0
        raise
    count: int = QUERY.unpack_from(attribute.raw)[5]
    return count


def tried(fd: int, packet: bytes, times: int = 1) -> tuple[int, int]:
    """What an XDP program returns for a packet that came in by loopback of the thread's network namespace, and how many
    ns that took, on average. Nothing is sent or received by it. Raises OSError."""
    held = ctypes.create_string_buffer(packet, len(packet))
    attribute = ctypes.create_string_buffer(
        TEST.pack(fd, 0, len(packet), 0, ctypes.addressof(held), 0, times, 0), TEST.size
    )
    _system_call(PROG_TEST_RUN, attribute)
    _, result, _, _, _, _, _, ns = TEST.unpack(attribute.raw)
    return result, ns


@contextmanager
def _by_id(command: int, number: int) -> Iterator[int | None]:
    try:
        fd = _call(command, struct.pack("=III", number, 0, 0))
    except FileNotFoundError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _map_name(fd: int) -> str:
    info = ctypes.create_string_buffer(MAP.size)
    _call(OBJ_GET_INFO_BY_FD, INFO.pack(fd, MAP.size, ctypes.addressof(info)))
    return _text(MAP.unpack(info.raw)[6])


def _text(name: bytes) -> str:
    return name.partition(b"\0")[0].decode(errors="replace")


def _element(command: int, map_fd: int, key: bytes | None, value: "ctypes.Array[ctypes.c_char] | None") -> None:
    held = None if key is None else ctypes.create_string_buffer(key, len(key))
    _call(command, ELEMENT.pack(map_fd, _address(held), _address(value), 0))


def _address(buffer: "ctypes.Array[ctypes.c_char] | None") -> int:
    return 0 if buffer is None else ctypes.addressof(buffer)


def _call(command: int, attribute: bytes) -> int:
    return _system_call(command, ctypes.create_string_buffer(attribute, len(attribute)))


def _system_call(command: int, attribute: "ctypes.Array[ctypes.c_char]") -> int:
    number = SYS_BPF.get(os.uname().machine)
    if number is None:
        raise OSError(38, os.strerror(38))  # ENOSYS: an architecture that nobody has tried
    done: int = _libc.syscall(number, command, ctypes.byref(attribute), len(attribute))
    if done < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return done
