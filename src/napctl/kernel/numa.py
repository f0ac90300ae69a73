"""Which NUMA node CPUs belong to (Documentation/ABI/stable/sysfs-devices-node)."""

from pathlib import Path

from napctl.model.cpus import parse_cpus

__all__ = ["cpus_by_node"]


NODES = Path("/sys/devices/system/node")


def cpus_by_node() -> dict[int, frozenset[int]]:
    """CPUs of each node; empty where the kernel knows no nodes."""
    found = {}
    for node in NODES.glob("node[0-9]*"):
        try:
            found[int(node.name.removeprefix("node"))] = parse_cpus((node / "cpulist").read_text())
        except OSError:
            continue
    return found
