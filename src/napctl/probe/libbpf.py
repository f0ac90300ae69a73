"""libbpf.so.1 through ctypes: open an object, set its constants, load, attach, close."""

import ctypes
import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, Self

__all__ = ["BpfObject", "LibbpfError", "LibbpfMissing", "explaining"]


SONAME = "libbpf.so.1"
MADV_REMOVE = 9

_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
"""libbpf_print_fn_t. Its va_list arrives as a pointer: on x86-64 an array, on aarch64 a struct by reference."""
_WARN = 0
"""LIBBPF_WARN of enum libbpf_print_level."""

_POINTER, _TEXT, _INT = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "libbpf_set_print": (_POINTER, [_PRINT]),
    "bpf_object__open_mem": (_POINTER, [_TEXT, ctypes.c_size_t, _POINTER]),
    "bpf_object__load": (_INT, [_POINTER]),
    "bpf_object__close": (None, [_POINTER]),
    "bpf_object__next_program": (_POINTER, [_POINTER, _POINTER]),
    "bpf_object__find_map_by_name": (_POINTER, [_POINTER, _TEXT]),
    "bpf_map__initial_value": (_POINTER, [_POINTER, ctypes.POINTER(ctypes.c_size_t)]),
    "bpf_map__set_initial_value": (_INT, [_POINTER, _POINTER, ctypes.c_size_t]),
    "bpf_map__value_size": (ctypes.c_uint32, [_POINTER]),
    "bpf_map__fd": (_INT, [_POINTER]),
    "bpf_program__name": (_TEXT, [_POINTER]),
    "bpf_program__fd": (_INT, [_POINTER]),
    "bpf_program__attach": (_POINTER, [_POINTER]),
    "bpf_link__destroy": (_INT, [_POINTER]),
}

_libc = ctypes.CDLL(None)
_messages: list[str] = []
"""What libbpf would have printed since the last open."""

_EMPTY_TALK = re.compile(
    r"failed to load object|prog '.*': failed to load: |"
    r"(prog '.*': )?-- (BEGIN|END) PROG|processed \d+ insns|\s*$"
)
"""Lines with which libbpf and the verifier close a report, after the line that says what is wrong."""


class LibbpfMissing(Exception):
    """libbpf.so.1 cannot be loaded."""


class LibbpfError(Exception):
    """A call of libbpf failed. `number` is the errno."""

    def __init__(self, action: str, number: int) -> None:
        self.number = number
        super().__init__(f"{action}: {_last_meaningful_message() or os.strerror(number)}")


class _OpenOptions(ctypes.Structure):
    """The beginning of struct bpf_object_open_opts; its size tells libbpf that the rest is absent."""

    _fields_ = (("size", ctypes.c_size_t), ("object_name", ctypes.c_char_p))


class BpfObject:
    """An opened BPF object, from open() to close(): first set_constants(), then load(), then attach()."""

    def __init__(self, pointer: int) -> None:
        self._pointer: int | None = pointer
        self._links: list[int] = []

    @classmethod
    def open(cls, image: bytes, name: str) -> Self:
        """Read an ELF object from memory; its maps bear `name` in bpftool's lists.

        Raises LibbpfMissing, or LibbpfError if it is not a BPF object.
        """
        library = _library()
        _messages.clear()
        options = _OpenOptions(ctypes.sizeof(_OpenOptions), name.encode())
        return cls(_pointer(library.bpf_object__open_mem(image, len(image), ctypes.byref(options)), "open"))

    def set_constants(self, rodata: bytes) -> None:
        """Set all of the program's `const volatile` variables, before load().

        Raises LibbpfError if the size differs.
        """
        constants = self._map(".rodata")
        _check(_library().bpf_map__set_initial_value(constants, rodata, len(rodata)), "set constants")

    def load(self) -> None:
        """Relocate to the running kernel and pass the verifier. Raises LibbpfError."""
        _check(_library().bpf_object__load(self._pointer), "load")

    def attach(self) -> None:
        """Attach all programs in the order of the source. Raises LibbpfError; close() detaches those attached."""
        for program in self._programs():
            self._links.append(_pointer(_library().bpf_program__attach(program), "attach"))

    def detach(self) -> None:
        """Let no program run any more; attach() may be called again."""
        while self._links:
            _library().bpf_link__destroy(self._links.pop())

    def program_fds(self) -> dict[str, int]:
        """File descriptor by program name; they belong to this object."""
        library = _library()
        return {library.bpf_program__name(p).decode(): library.bpf_program__fd(p) for p in self._programs()}

    def map_fd(self, name: str) -> tuple[int, int]:
        """File descriptor (this object's own) and value size in bytes of a map; ".bss": global variables."""
        found = self._map(name)
        return _library().bpf_map__fd(found), _library().bpf_map__value_size(found)

    def forget_initial_value(self, name: str) -> None:
        """After load(): give back the memory in which libbpf keeps what that map began with, as large as the map, until
        close(). If it has the map itself there, as skeletons do, the kernel refuses: nothing is lost.
        """
        size = ctypes.c_size_t()
        address = _library().bpf_map__initial_value(self._map(name), ctypes.byref(size))
        if address:
            _libc.madvise(ctypes.c_void_p(address), size, MADV_REMOVE)

    def close(self) -> None:
        """Detach and free everything; may be called again."""
        self.detach()
        if self._pointer is not None:
            _library().bpf_object__close(self._pointer)
            self._pointer = None

    def _programs(self) -> Iterator[int]:
        program = None
        while program := _library().bpf_object__next_program(self._pointer, program):
            yield program

    def _map(self, name: str) -> int:
        found = _library().bpf_object__find_map_by_name(self._pointer, name.encode())
        return _pointer(found, f"find map {name}")


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(SONAME, use_errno=True)
    except OSError as error:
        raise LibbpfMissing(str(error)) from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.libbpf_set_print(_SILENT)
    # libbpf takes a refused bpf() for an old kernel and raises RLIMIT_MEMLOCK. Kernels that can run this probe
    # charge the cgroup instead (Linux 5.11), so napctl leaves its limits alone. Exported since libbpf 1.2 only.
    with suppress(AttributeError):
        library.libbpf_set_memlock_rlim(ctypes.c_size_t(0))
    return library


def _collect(level: int, template: int, arguments: int) -> int:
    if level == _WARN:
        buffer = ctypes.create_string_buffer(65536)
        _libc.vsnprintf(buffer, ctypes.c_size_t(len(buffer)), ctypes.c_void_p(template), ctypes.c_void_p(arguments))
        _messages.extend(buffer.value.decode(errors="replace").splitlines())
    return 0


_COLLECT = _PRINT(_collect)
"""Kept for good: libbpf may call it at any time."""
_SILENT = _PRINT()


@contextmanager
def explaining() -> Iterator[None]:
    """Collect libbpf's messages, for the errors raised within.

    Not always on: a Ctrl-C that Python notices within a callback from C is lost, and libbpf calls back all the time.
    """
    _library().libbpf_set_print(_COLLECT)
    try:
        yield
    finally:
        _library().libbpf_set_print(_SILENT)


def _last_meaningful_message() -> str | None:
    lines = (line.removeprefix("libbpf: ") for line in reversed(_messages))
    return next((line.strip() for line in lines if not _EMPTY_TALK.match(line)), None)


def _check(result: int, action: str) -> None:
    if result < 0:
        raise LibbpfError(action, -result)


def _pointer(result: int | None, action: str) -> int:
    if not result:
        raise LibbpfError(action, ctypes.get_errno() or errno.EINVAL)
    return result
