"""Promises about naming a program by what it has mapped and open: from trees made of documentation (trees.py)."""

import shutil

import pytest

from napctl.census.pollers import busy_alone, f_stack, seastar, user_driver, verbs
from napctl.census.pollers.detection import Detected
from napctl.census.pollers.namespace_links import Namespaces
from napctl.census.pollers.suspects import Suspect, mapped_signs, suspect
from napctl.census.pollers.watch import DETECTORS
from napctl.kernel.processes import Process
from tests.unit.census.pollers.trees import Trees, trees_fixture  # noqa: F401

EAL = "/usr/lib/x86_64-linux-gnu/librte_eal.so.23.0"
NIC, DISK = "0000:3b:00.0", "0000:5e:00.0"


def named(one: Suspect) -> Detected | None:
    """By the first detector that knows it."""
    return next((found for detect in DETECTORS if (found := detect(one)) is not None), None)


def test_a_server_with_nothing_of_it_is_none(trees: Trees) -> None:
    trees.process(7, maps=("[heap]", "/usr/lib/libibverbs.so.1"), fds=("socket:[12]", "/dev/null"))
    assert named(trees.seen(7, "server")) is None


def test_what_spins_without_a_nic_is_no_bypass(trees: Trees) -> None:
    trees.process(7)
    found = busy_alone.detect(trees.seen(7, "server", spins=True))
    assert found is not None
    assert (found.kind, found.bypass, found.devices) == ("busy, no NIC", False, ())


def test_dpdk_is_known_by_its_library_its_memory_or_its_thread_beside_them(trees: Trees) -> None:
    trees.process(7, maps=(EAL, "/dev/hugepages/rtemap_0"), fds=("/dev/vfio/12", "/dev/vfio/vfio"))
    trees.vfio(12, NIC)
    trees.pci(NIC, "0x020000")
    found = named(trees.seen(7, "l3fwd", "rte-worker-1"))
    assert found is not None
    assert (found.kind, found.devices, found.of_kernel) == ("DPDK", (NIC,), False)
    assert found.evidence == (
        "librte_eal.so.23.0 in its maps",
        "DPDK's memory in its maps (/dev/hugepages/rtemap_0)",
        "a thread named rte-worker-1",
    )


def test_dpdk_that_is_linked_statically_is_known_by_its_memory(trees: Trees) -> None:
    trees.process(7, maps=("/memfd:nohuge (deleted)",))
    found = named(trees.seen(7, "server"))
    assert found is not None
    assert (found.kind, found.evidence) == ("DPDK", ("DPDK's memory in its maps (/memfd:nohuge (deleted))",))


def test_a_program_that_is_linked_with_dpdk_and_does_not_start_it_is_idle(trees: Trees) -> None:
    trees.process(7, maps=(EAL,))
    trees.process(8, maps=(EAL, "/anon_hugepage (deleted)"))
    idle, started = named(trees.seen(7, "ovs-vswitchd")), named(trees.seen(8, "ovs-vswitchd"))
    assert idle is not None
    assert started is not None
    assert (idle.idle, started.idle) == ("it has none of DPDK's memory and no telemetry", "")
    trees.process(9, maps=("/anon_hugepage (deleted)",))
    assert named(trees.seen(9, "java")) is None


def test_a_disk_that_is_driven_from_user_space_is_no_nic(trees: Trees) -> None:
    trees.process(7, fds=("/dev/vfio/12",))
    trees.vfio(12, DISK)
    trees.pci(DISK, "0x010802")
    assert named(trees.seen(7, "server")) is None


def test_a_nic_of_an_unknown_program_is_named_by_its_address(trees: Trees) -> None:
    trees.process(7, fds=("/dev/uio0",))
    trees.uio("uio0", NIC)
    trees.pci(NIC, "0x020000")
    found = user_driver.detect(trees.seen(7, "qemu"))
    assert found is not None
    assert (found.kind, found.devices, found.of_kernel) == ("user-space driver", (NIC,), False)


@pytest.mark.parametrize(
    ("library", "device", "kind"),
    [
        ("/usr/lib64/libonload.so", "/dev/onload", "Onload"),
        ("/usr/lib/libvma.so.9.7.2", "/dev/infiniband/uverbs0", "VMA"),
        ("/usr/lib/libxlio.so.3", "/dev/infiniband/uverbs0", "XLIO"),
    ],
)
def test_a_preloaded_stack_is_active_with_its_device_and_idle_without(
    trees: Trees, library: str, device: str, kind: str
) -> None:
    trees.process(7, maps=(library,), fds=(device,))
    trees.process(8, maps=(library,), fds=("socket:[33]",))
    trees.verbs("uverbs0", "eth4")
    active, idle = named(trees.seen(7, "server")), named(trees.seen(8, "server"))
    assert active is not None
    assert idle is not None
    assert (active.kind, active.idle, active.bypass) == (kind, "", True)
    assert (idle.kind, bool(idle.idle), idle.bypass) == (kind, True, True)
    assert f"{device} is open" in active.evidence
    assert active.devices == (() if kind == "Onload" else ("eth4",))


def test_rdma_is_known_by_its_verbs_and_named_by_its_network_device(trees: Trees) -> None:
    trees.process(7, fds=("/dev/infiniband/uverbs1", "/dev/infiniband/uverbs2"))
    trees.verbs("uverbs1", "eth4")
    trees.verbs("uverbs2")
    found = verbs.detect(trees.seen(7, "ib_read_lat"))
    assert found is not None
    assert (found.kind, found.devices) == ("RDMA", ("eth4", "uverbs2"))


def test_f_stack_is_dpdk_with_its_arguments_or_its_adapter(trees: Trees) -> None:
    given = ("--conf", "config.ini", "--proc-type=primary", "--proc-id=0")
    trees.process(7, maps=(EAL,), arguments=given)
    trees.process(8, maps=(EAL, "/usr/lib/libff_syscall.so"))
    trees.process(9, arguments=given)
    for pid in (7, 8):
        found = named(trees.seen(pid, "nginx"))
        assert found is not None
        assert found.kind == "F-Stack"
    assert f_stack.detect(trees.seen(9, "nginx")) is None


def test_seastar_is_a_bypass_with_dpdk_and_none_with_the_kernels_sockets(trees: Trees) -> None:
    trees.process(7, maps=(EAL,))
    trees.process(8)
    past, through = (seastar.detect(trees.seen(pid, "scylla", "reactor-1", spins=True)) for pid in (7, 8))
    assert past is not None
    assert through is not None
    assert (past.kind, past.bypass, through.kind, through.bypass) == ("Seastar", True, "busy, no NIC", False)
    assert seastar.detect(trees.seen(8, "scylla", "reactor-1")) is None


def test_a_process_that_has_ended_is_what_was_seen_of_it(trees: Trees) -> None:
    trees.process(7, maps=(EAL,))
    mapped = mapped_signs(7)
    shutil.rmtree(trees.root / "proc" / "7")
    with Namespaces() as there:
        gone = suspect(Process(7, "l3fwd", 1), mapped, (), spins=False, there=there)
    assert gone.trouble == "it ended meanwhile"
    found = named(gone)
    assert found is not None
    assert found.evidence == ("librte_eal.so.23.0 in its maps",)


def test_foreign_names_are_made_printable(trees: Trees) -> None:
    trees.process(7, maps=("/tmp/librte_eal.so.\x1b[2J",))
    found = named(trees.seen(7, "server"))
    assert found is not None
    assert all(text.isprintable() for text in found.evidence)


def test_a_path_with_a_newline_forges_no_more_than_a_line(trees: Trees) -> None:
    """The kernel shows it as it is."""
    trees.process(7, fds=("socket:[12]",), unix=((99, "/tmp/x\na b c nothex e f 12 /forged"), (12, "/run/dpdk/rte/a")))
    assert trees.seen(7).listens == ("/run/dpdk/rte/a",)
