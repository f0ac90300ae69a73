"""Loading a BPF program of ours with its counters: what all probes have in common."""

import errno
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from napctl.kernel import capabilities
from napctl.probe import btf
from napctl.probe.libbpf import BpfObject, LibbpfError, LibbpfMissing, explaining

__all__ = ["LoadedProgram", "ProbeUnavailable", "attached", "explained", "kernel_btf", "loaded", "net_rx_softirq"]


T = TypeVar("T")


class ProbeUnavailable(Exception):
    """This kernel or this user may not run the probe; `reason` says why, in words for a user."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class LoadedProgram:
    """A program that is loaded and attached, with its global variables as they are in memory; a context manager.

    `VIEWS`: attributes of the class that is made of it which lie in that memory.
    """

    VIEWS: ClassVar[tuple[str, ...]]

    def __init__(self, program: BpfObject, memory: mmap.mmap) -> None:
        self._program, self._memory = program, memory

    def prog_fds(self) -> dict[str, int]:
        """File descriptors of the BPF programs by name, to look up their cost; they belong to the probe."""
        return self._program.program_fds()

    def close(self) -> None:
        """Detach and free; may be called again. Nothing else can be called any more."""
        self._program.close()
        for name in self.VIEWS:
            vars(self).pop(name, None)
        self._memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def refused(error: LibbpfError) -> str:
    """Why the kernel does not take a program."""
    if error.number == errno.EPERM:
        return "bpf() is refused: a seccomp filter, kernel lockdown or a user namespace"
    return str(error)


def loaded(
    name: str,
    constants: bytes,
    size: int,
    *,
    prepare: Callable[[mmap.mmap], None] = lambda _memory: None,
    why: Callable[[LibbpfError], str] = refused,
) -> tuple[BpfObject, mmap.mmap]:
    """The program NAME.bpf.o, loaded and attached, and its global variables (`size` bytes) as they are in memory.

    `prepare` is called with these before anything is counted. Raises ProbeUnavailable; `why` words a refusal.
    """
    image = Path(__file__).with_name(f"{name}.bpf.o").read_bytes()
    return explained(lambda: _loaded(image, constants, size, prepare), why=why)


def explained(load: Callable[[], T], *, why: Callable[[LibbpfError], str] = refused) -> T:
    """What `load` gives. Raises ProbeUnavailable for what it raises of libbpf's; `why` words a refusal."""
    # The kernel would refuse as well, but does not say which capability it missed.
    if missing := capabilities.missing_for_bpf(capabilities.held()):
        raise ProbeUnavailable(missing)
    try:
        try:
            return load()
        except LibbpfError:
            with explaining():  # once more, for the reason
                return load()
    except LibbpfMissing as error:
        raise ProbeUnavailable("libbpf.so.1 is not installed (package libbpf1)") from error
    except LibbpfError as error:
        raise ProbeUnavailable(why(error)) from error


def _loaded(
    image: bytes, constants: bytes, size: int, prepare: Callable[[mmap.mmap], None]
) -> tuple[BpfObject, mmap.mmap]:
    program = BpfObject.open(image, "napctl")
    try:
        if constants:
            program.set_constants(constants)
        program.load()
        fd, found = program.map_fd(".bss")
        assert found == size, f"the program has {found} bytes of counters, not {size}"
        memory = mmap.mmap(fd, size)
        program.forget_initial_value(".bss")
        prepare(memory)
        program.attach()
    except LibbpfError:
        program.close()
        raise
    return program, memory


def attached(program: BpfObject) -> None:
    """One that was detached runs again. Raises ProbeUnavailable, and it is detached still."""
    try:
        program.attach()
    except LibbpfError as error:
        program.detach()
        raise ProbeUnavailable(refused(error)) from error


def kernel_btf() -> bytes:
    """The running kernel's types. Raises ProbeUnavailable."""
    try:
        return btf.VMLINUX.read_bytes()
    except FileNotFoundError as error:
        raise ProbeUnavailable(f"no BTF: {btf.VMLINUX} is missing") from error
    except OSError as error:
        raise ProbeUnavailable(f"no usable BTF: {btf.VMLINUX}: {error}") from error


def net_rx_softirq(image: bytes) -> int:
    """NET_RX_SOFTIRQ of include/linux/interrupt.h as the kernel with these types has it. Raises ProbeUnavailable."""
    try:
        found = btf.enum_value(image, "NET_RX_SOFTIRQ", after="NET_TX_SOFTIRQ")
    except ValueError as error:
        raise ProbeUnavailable(f"no usable BTF: {btf.VMLINUX}: {error}") from error
    if found is None:
        raise ProbeUnavailable(f"no usable BTF: {btf.VMLINUX} does not name NET_RX_SOFTIRQ")
    return found
