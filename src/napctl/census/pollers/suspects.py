"""What one process shows from outside: one reading of its mappings, and of its descriptors where these call for it."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from napctl.census.pollers.namespace_links import Namespaces
from napctl.kernel import capabilities, held_files
from napctl.kernel.executable import Program, program
from napctl.kernel.processes import Process
from napctl.kernel.xdp_diag import BoundSocket
from napctl.model.errors import NapctlError

__all__ = ["Suspect", "library", "mapped_signs", "suspect", "why_refused_here"]


SIGNS = re.compile(
    r"librte_|rtemap_|hugepage|libonload|libciul|libvma\.so|libxlio\.so|libvlib\.so|libvppinfra|libseastar|libfstack|libff_"
    r"|^/dev/(vfio/|uio\d|onload|sfc_char|infiniband/uverbs)|^/memfd:nohuge"
    r"|^anon_inode:\[vfio-device|^socket:\["
    r"|^/sys/.*/resource\d"
)
"""Of a mapping's name; what each means stands with the way that looks for it."""


@dataclass(frozen=True)
class Suspect:
    """A process that may take packets past the kernel, or that spins."""

    process: Process
    mapped: frozenset[str]
    """Names of what it has mapped that are a sign."""
    links: dict[int, str] = field(default_factory=dict)
    """What its descriptors are; empty where that may not be read."""
    program: Program = field(default_factory=Program)
    threads: tuple[str, ...] = ()
    """Names of its threads."""
    listens: tuple[str, ...] = ()
    """Unix sockets on which it listens: paths as it sees them."""
    packet_sockets: Mapping[int, int] = field(default_factory=dict)
    """Interface index of the device to which it is bound, by inode number, of its packet sockets."""
    xdp: tuple[BoundSocket, ...] = ()
    """Its AF_XDP sockets."""
    device_names: Mapping[int, str] = field(default_factory=dict)
    """Of its network namespace, by interface index."""
    spins: bool = False
    trouble: str | None = None
    """What of it could not be read, and why."""

    @cached_property
    def sockets(self) -> frozenset[int]:
        """Inode numbers of its sockets, also of those that are mapped alone."""
        return held_files.socket_inodes([*self.links.values(), *self.mapped])

    @cached_property
    def sockets_by_fd(self) -> dict[int, int]:
        """Inode number by descriptor."""
        return {fd: inode for fd, name in self.links.items() for inode in held_files.socket_inodes([name])}

    def device_name(self, ifindex: int) -> str:
        """As its network namespace has it."""
        return self.device_names.get(ifindex, f"device {ifindex}")

    @property
    def devices(self) -> tuple[str, ...]:
        """To which its packet sockets and its AF_XDP sockets are bound."""
        found = {*self.packet_sockets.values(), *(each.ifindex for each in self.xdp)}
        return tuple(sorted(map(self.device_name, found)))

    @cached_property
    def names(self) -> frozenset[str]:
        """Everything that it has open or mapped."""
        return self.mapped.union(self.links.values())


def mapped_signs(pid: int) -> frozenset[str]:
    """Mappings that are a sign. Raises OSError as held_files.mapped_files()."""
    return frozenset(name for name in held_files.mapped_files(pid) if SIGNS.search(name))


def suspect(
    process: Process, mapped: frozenset[str], threads: tuple[str, ...], *, spins: bool, there: Namespaces
) -> Suspect:
    """Everything about one process. Of one that ends meanwhile, what was seen."""
    links: dict[int, str] = {}
    listens: tuple[str, ...] = ()
    packet: dict[int, int] = {}
    bound: tuple[BoundSocket, ...] = ()
    names: Mapping[int, str] = {}
    trouble = None
    pid = process.pid
    try:
        links = held_files.open_links(pid)
        inodes = held_files.socket_inodes([*links.values(), *mapped])
        listens = held_files.listening_paths(pid, inodes)
        packet = held_files.packet_devices(pid, inodes)
        if packet or held_files.socket_inodes(mapped):
            names = {ifindex: link.name for ifindex, link in there.links(pid).items()}
            bound = tuple(each for each in there.xdp_sockets(pid) if each.inode in inodes)
    except PermissionError:
        trouble = f"its descriptors cannot be read: {why_refused_here()}"
    except (FileNotFoundError, ProcessLookupError):
        trouble = "it ended meanwhile"
    except (OSError, NapctlError) as error:
        trouble = f"its sockets cannot be read: {error}"
    return Suspect(
        process=process,
        mapped=mapped,
        links=links,
        program=program(pid),
        threads=threads,
        listens=listens,
        packet_sockets=packet,
        xdp=bound,
        device_names=names,
        spins=spins,
        trouble=trouble,
    )


def library(suspect: Suspect, name: str) -> str | None:
    """The file name of the library that it has mapped whose name begins so: "librte_eal.so" finds librte_eal.so.23."""
    found = sorted(base for path in suspect.mapped if (base := os.path.basename(path)).startswith(name))  # noqa: PTH119
    return found[0].removesuffix(" (deleted)") if found else None


def why_refused_here() -> str:
    """Why a process may not be looked into."""
    return capabilities.why_refused(capabilities.held(), everywhere=capabilities.in_initial_user_namespace())
