"""Values of the running kernel's enums, from its BTF (Documentation/bpf/btf.rst)."""

import struct
from pathlib import Path

__all__ = ["VMLINUX", "enum_value", "kernel_names"]


VMLINUX = Path("/sys/kernel/btf/vmlinux")

_HEADER = struct.Struct("=HBBIIIII")
"""struct btf_header: magic, version, flags, header length; offset and length of the types, of the strings."""
_MAGIC = 0xEB9F
_ENUMERATOR = struct.Struct("=Ii")
"""struct btf_enum: offset of its name in the strings, value."""


def kernel_names(name: str) -> bool | None:
    """Whether a type, field or enumerator of the running kernel has that name; None where it has no BTF.

    What an answer of the kernel may contain is told by nothing else: an attribute that is missing may be unknown.
    """
    try:
        return b"\0" + name.encode() + b"\0" in VMLINUX.read_bytes()
    except OSError:
        return None


def enum_value(btf: bytes, name: str, after: str) -> int | None:
    """The value of enumerator `name`, declared directly after `after`; None if there is no such pair.

    For anonymous enums, which libbpf's own relocation cannot find, as it looks for an enum by its name. To walk
    a hundred thousand types takes Python a tenth of a second; this looks for the bytes of the two enumerators.

    Raises ValueError if `btf` is not BTF of this machine's byte order.
    """
    if len(btf) < _HEADER.size:
        raise ValueError("too short for BTF")
    magic, _, _, header, types_at, types_length, strings_at, strings_length = _HEADER.unpack_from(btf)
    if magic != _MAGIC:
        raise ValueError(f"BTF begins with {_MAGIC:#x}, not {magic:#x}")
    types: int = header + types_at
    strings: int = header + strings_at

    def offset_of(text: str) -> int:
        return btf.find(b"\0" + text.encode() + b"\0", strings, strings + strings_length) + 1 - strings

    wanted, neighbour = offset_of(name), offset_of(after)
    if wanted <= 0 or neighbour <= 0:
        return None
    at = types - 1
    while (at := btf.find(struct.pack("=I", wanted), at + 1, types + types_length)) >= 0:
        before = at - _ENUMERATOR.size
        # Everything in the type section is a multiple of 4 bytes.
        if (at - types) % 4 == 0 and before >= types and _ENUMERATOR.unpack_from(btf, before)[0] == neighbour:
            _, value = _ENUMERATOR.unpack_from(btf, at)
            return int(value)
    return None
