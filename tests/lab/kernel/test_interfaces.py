"""napctl.kernel against the system's own tools, for every device of this machine (read, never changed) and of a lab."""

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from napctl.kernel import epoll, interrupts, processes, running_kernel, snmp, sockets, softnet
from napctl.kernel.ethtool import Ethtool
from napctl.kernel.ethtool_ioctl import EthtoolIoctl
from napctl.kernel.links import links
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.kernel.netlink import NetlinkSocket, Refused
from napctl.kernel.open_files import open_files
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.model.errors import BadInput
from napctl.model.machine import Coalescing
from napctl.model.settings import EpollParams, NapiSettings
from napctl.observe.machine import take_devices
from tests.lab.helpers import ask, free_pid, in_namespace, until

pytestmark = pytest.mark.lab

OWN_DEVICES = sorted(path.name for path in Path("/sys/class/net").iterdir())


@pytest.fixture(params=[*OWN_DEVICES, "lab"])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[NetworkNamespace, str, int]]:
    """A namespace and the name and index of a device in it."""
    if request.param == "lab":
        lab = request.getfixturevalue("lab")
        yield lab.server.namespace, "server0", 2
        return
    with NetworkNamespace.current() as here:
        yield here, request.param, socket.if_nametoindex(request.param)


def tool(netns: NetworkNamespace, *command: str) -> str:
    """What a tool of the system prints; empty if it refuses."""
    with netns.entered():
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout


def numbers(text: str) -> list[tuple[str, int | None]]:
    """The lines "Name: 12" of ethtool's text, in order; "n/a" is None."""
    found = re.findall(r"^([\w -]+):\s+(\d+|n/a)$", text, re.M)
    return [(name, None if value == "n/a" else int(value)) for name, value in found]


def test_rings_agree_with_ethtool_g(place: tuple[NetworkNamespace, str, int]) -> None:
    netns, device, ifindex = place
    theirs = numbers(tool(netns, "ethtool", "-g", device))
    with Ethtool(netns) as ethtool:
        ours = ethtool.rings(ifindex)

    most = [value for name, value in theirs if name in ("RX", "TX")]
    assert most == ([] if ours is None else [ours.rx_max, ours.tx_max, ours.rx, ours.tx])


def test_channels_agree_with_ethtool_l(place: tuple[NetworkNamespace, str, int]) -> None:
    netns, device, ifindex = place
    theirs = [value for name, value in numbers(tool(netns, "ethtool", "-l", device)) if name != "Other"]
    with Ethtool(netns) as ethtool:
        ours = ethtool.channels(ifindex)

    if ours is None:
        assert theirs == []
    else:
        assert theirs == [ours.rx_max, ours.tx_max, ours.combined_max, ours.rx, ours.tx, ours.combined]


ETHTOOL_C = {
    "rx-frames": "rx_max_frames",
    "tx-frames": "tx_max_frames",
    "rx-frames-irq": "rx_max_frames_irq",
    "tx-frames-irq": "tx_max_frames_irq",
    "rx-frame-low": "rx_max_frames_low",
    "tx-frame-low": "tx_max_frames_low",
    "rx-frame-high": "rx_max_frames_high",
    "tx-frame-high": "tx_max_frames_high",
    "sample-interval": "rate_sample_interval",
}
"""Where ethtool's words are not the kernel's."""


def test_coalescing_agrees_with_ethtool_c(place: tuple[NetworkNamespace, str, int]) -> None:
    netns, device, ifindex = place
    text = tool(netns, "ethtool", "-c", device)
    with Ethtool(netns) as ethtool:
        ours = ethtool.coalescing(ifindex)
    if ours is None:
        assert not numbers(text)
        return
    adaptive = re.search(r"^Adaptive RX: (\S+)\s+TX: (\S+)$", text, re.M)
    assert adaptive is not None
    words = {"on": True, "off": False, "n/a": None}
    assert (words[adaptive[1]], words[adaptive[2]]) == (ours.use_adaptive_rx, ours.use_adaptive_tx)
    compared = 0
    for name, value in numbers(text):
        field = ETHTOOL_C.get(name, name.replace("-", "_"))
        if field in Coalescing.__struct_fields__:
            assert getattr(ours, field) == value, name
            compared += 1
    assert compared >= 20


def test_the_statistics_of_the_driver_agree_with_ethtool_s(place: tuple[NetworkNamespace, str, int]) -> None:
    netns, device, _ = place
    theirs = re.findall(r"^     (.+): (\d+)$", tool(netns, "ethtool", "-S", device), re.M)
    with EthtoolIoctl(netns) as ioctl:
        ours = ioctl.statistics(device)

    assert [name.strip() for name in ours] == [name for name, _ in theirs]
    assert all(ours[name] >= int(value) for name, value in theirs if name in ours and "peer" not in name)


def test_the_driver_and_its_place_agree_with_ethtool_i(place: tuple[NetworkNamespace, str, int]) -> None:
    netns, device, _ = place
    theirs = dict(re.findall(r"^([\w-]+): ?(.*)$", tool(netns, "ethtool", "-i", device), re.M))
    with EthtoolIoctl(netns) as ioctl:
        ours = ioctl.driver(device)

    assert ours == ((theirs["driver"], theirs["bus-info"] or None) if theirs else None)


def test_the_link_speed_agrees_with_ethtool(place: tuple[NetworkNamespace, str, int]) -> None:
    netns, device, ifindex = place
    theirs = re.search(r"Speed: (\d+)Mb/s", tool(netns, "ethtool", device))
    with Ethtool(netns) as ethtool:
        assert ethtool.speed_mbps(ifindex) == (int(theirs[1]) if theirs else None)


def test_links_and_their_counters_agree_with_iproute2(lab: Lab) -> None:
    with NetworkNamespace.current() as here:
        for netns in (here, lab.server.namespace):
            before = stats(netns)
            ours = links(netns)
            after = stats(netns)

            assert [link.name for link in ours] == list(before)
            for link in ours:
                low, high = before[link.name], after[link.name]
                assert link.ifindex == low["ifindex"]
                assert link.up == ("UP" in low["flags"])
                assert link.loopback == ("LOOPBACK" in low["flags"])
                for field, (way, key) in {
                    "rx_packets": ("rx", "packets"),
                    "tx_packets": ("tx", "packets"),
                    "rx_dropped": ("rx", "dropped"),
                    "tx_dropped": ("tx", "dropped"),
                }.items():
                    assert low["stats64"][way][key] <= getattr(link, field) <= high["stats64"][way][key], field


def stats(netns: NetworkNamespace) -> dict[str, Any]:
    found = json.loads(tool(netns, "ip", "-j", "-s", "link"))
    return {link["ifname"]: link for link in sorted(found, key=lambda link: link["ifindex"])}


def test_counters_per_queue_are_those_of_the_device_or_none() -> None:
    """Read-only, on this machine's own devices: veth keeps no counters per queue, virtio and most NICs do."""
    with NetworkNamespace.current() as here, Netdev(here) as netdev:
        for link in links(here):
            counts = netdev.queue_counts(link.ifindex)
            if counts is None:
                continue
            received = sum(queue.packets or 0 for queue in counts if queue.kind == "rx")
            assert {queue.kind for queue in counts} <= {"rx", "tx"}
            assert received <= next(each for each in links(here) if each.ifindex == link.ifindex).rx_packets


INTERRUPTED, MOST_CHANGES = 10, 1_000
"""So many lists are to be interrupted; and changes that are made for that, at most: all that a pipe holds."""


def test_a_list_of_devices_is_whole_while_others_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel marks such lists (NLM_F_DUMP_INTR); of one that was, nothing is taken."""
    attempts: list[bool] = []
    answer = NetlinkSocket._answer

    def watched(self: NetlinkSocket, *request: Any, **how: Any) -> Iterator[memoryview]:
        attempts.append(False)
        yield from answer(self, *request, **how)
        attempts[-1] = True

    def ip(lines: Iterable[str]) -> subprocess.Popen[str]:
        with netns.entered():
            batch = subprocess.Popen(["ip", "-batch", "-"], stdin=subprocess.PIPE, text=True)
        assert batch.stdin is not None
        batch.stdin.write("\n".join(lines))
        batch.stdin.close()
        return batch

    with NetworkNamespace.create() as netns:
        assert ip(f"link add keep{n} type veth peer name epek{n}" for n in range(100)).wait(60) == 0
        monkeypatch.setattr(NetlinkSocket, "_answer", watched)
        found = list[list[str]]()
        with ip("link add go type veth peer name og\nlink del go" for _ in range(MOST_CHANGES)) as churn:
            while churn.poll() is None and len(attempts) < len(found) + INTERRUPTED:
                found.append([link.name for link in links(netns)])
            churn.kill()
    assert all(sum(name.startswith("keep") for name in names) == 100 for names in found)
    assert all(len(set(names)) == len(names) for names in found)
    assert len(found) == sum(attempts) < len(attempts), "no list was interrupted"


def test_interrupt_counts_agree_with_the_columns_of_proc_interrupts() -> None:
    script = r"""$1 ~ /^[0-9]+:$/ { for (i = 2; i <= n + 1; i++) s += $i } NR == 1 { n = NF } END { printf "%d", s }"""

    def theirs() -> int:
        return int(subprocess.run(["awk", script, "/proc/interrupts"], capture_output=True, check=True).stdout)

    before, ours, after = theirs(), interrupts.counts(), theirs()

    assert before <= sum(sum(by_cpu.values()) for by_cpu in ours.values()) <= after
    cpus = {int(cpu.name[3:]) for cpu in Path("/sys/devices/system/cpu").glob("cpu[0-9]*")}
    assert all(by_cpu.keys() == cpus for by_cpu in ours.values())


def test_every_interrupt_has_the_affinity_that_proc_shows() -> None:
    for number in interrupts.counts():
        directory = Path(f"/proc/irq/{number}")
        shown = {
            (directory / name).read_text().strip()
            for name in ("effective_affinity_list", "smp_affinity_list")
            if (directory / name).exists()
        }
        assert interrupts.affinity(number) in shown | {None}


def test_softirq_and_backlog_counts_agree_with_proc() -> None:
    script = """$1 == "NET_RX:" { for (i = 2; i <= NF; i++) s += $i } END { printf "%d", s }"""

    def theirs() -> int:
        return int(subprocess.run(["awk", script, "/proc/softirqs"], capture_output=True, check=True).stdout)

    before, ours, after = theirs(), softnet.net_rx_softirqs(), theirs()

    assert before <= sum(ours.values()) <= after
    assert set(softnet.softnet()) == os.sched_getaffinity(0) | set(softnet.softnet())
    assert len(softnet.softnet()) == len(Path("/proc/net/softnet_stat").read_text().splitlines())


def test_a_socket_knows_the_napi_instance_that_fed_it(lab: Lab, server: Server) -> None:
    (napi,) = lab.client.napis()
    with ask(lab, server) as connection, socket.socket() as unused, Path("/dev/null").open() as no_socket:
        assert sockets.incoming_napi_id(connection.fileno()) == napi.napi_id
        assert sockets.incoming_napi_id(unused.fileno()) is None
        with pytest.raises(OSError, match="Socket operation on non-socket"):
            sockets.incoming_napi_id(no_socket.fileno())


def test_what_is_set_on_a_napi_instance_is_read_back_and_nothing_else_moves(lab: Lab) -> None:
    (napi,) = lab.server.napis()
    with Netdev(lab.server.namespace) as netdev:
        for wanted in (
            NapiSettings(defer_hard_irqs=2**31 - 1),
            NapiSettings(gro_flush_timeout_ns=2**40 + 1),
            NapiSettings(irq_suspend_timeout_ns=123_456_789),
        ):
            before = netdev.napi(napi.napi_id)
            netdev.set_napi(napi.napi_id, wanted)
            after = netdev.napi(napi.napi_id)
            assert before is not None
            assert after is not None
            for name in NapiSettings.__struct_fields__:
                expected = getattr(wanted, name)
                kept = getattr(before.settings, name)
                assert getattr(after.settings, name) == (kept if expected is None else expected), name


def test_a_napi_instance_of_another_namespace_is_not_seen(lab: Lab) -> None:
    (napi,) = lab.server.napis()
    with Netdev(lab.client.namespace) as netdev:
        assert netdev.napi(napi.napi_id) is None
        with pytest.raises(Refused) as refused:
            netdev.set_napi(napi.napi_id, NapiSettings(defer_hard_irqs=1))
    assert refused.value.exit_status == 3


def test_epoll_parameters_of_another_process_are_read_and_set(lab: Lab, server: Server) -> None:
    fd = max(open_files(server.pid).epolls)
    wanted = EpollParams(busy_poll_usecs=2**31 - 1, busy_poll_budget=65535, prefer_busy_poll=True)
    with processes.Handle(server.pid) as handle, handle.copy_of(fd) as copy:
        assert epoll.params(copy) == EpollParams(busy_poll_usecs=0, busy_poll_budget=0, prefer_busy_poll=False)
        epoll.set_params(copy, wanted)
    with processes.Handle(server.pid) as handle, handle.copy_of(fd) as copy:
        assert epoll.params(copy) == wanted


def test_what_a_namespace_sent_is_counted_by_protocol() -> None:
    with NetworkNamespace.create() as netns:
        in_namespace(netns, "ip", "link", "set", "lo", "up")
        before = snmp.sent(netns)
        with netns.entered(), socket.socket(type=socket.SOCK_DGRAM) as four:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six:
                for _ in range(3):
                    four.sendto(b"x", ("127.0.0.1", 9))
                    six.sendto(b"x", ("::1", 9))
            with socket.create_server(("127.0.0.1", 0)) as listener:
                socket.create_connection(listener.getsockname()).close()
        after = snmp.sent(netns)
    assert before is not None
    assert after is not None
    assert after.udp_datagrams - before.udp_datagrams == 6
    assert after.tcp_segments - before.tcp_segments >= 3, "SYN, SYN-ACK and ACK"


def test_processes_are_as_ps_has_them(server: Server) -> None:
    done = subprocess.run(["ps", "-o", "comm=", "-p", str(server.pid)], capture_output=True, text=True, check=True)
    found = processes.process(server.pid)

    assert found is not None
    assert found.name == done.stdout.strip()
    assert found in processes.named("memcached")
    assert found in list(processes.processes())
    assert processes.threads(server.pid) == sorted(
        int(task.name) for task in Path(f"/proc/{server.pid}/task").iterdir()
    )
    assert processes.process(free_pid()) is None


def test_a_process_name_may_hold_blanks_and_parentheses(tmp_path: Path) -> None:
    odd = tmp_path / "a) R 1 (b"
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([str(odd), "60"]) as sleeper:
        try:
            until(lambda: Path(f"/proc/{sleeper.pid}/comm").read_text() == f"{odd.name}\n", "it to run")
            found = processes.process(sleeper.pid)
            assert found is not None
            assert found.name == odd.name
            assert found in processes.named(odd.name)
        finally:
            sleeper.kill()


def test_a_namespace_is_found_by_its_number_wherever_it_is_held(lab: Lab) -> None:
    inode = lab.server.namespace.inode
    found = NetworkNamespace.find(inode)
    assert found is not None
    with found:
        assert found.inode == inode
        assert [link.name for link in links(found)] == ["lo", "server0"]
    assert NetworkNamespace.find(1) is None


def test_a_namespace_that_is_not_there_is_bad_input() -> None:
    with pytest.raises(BadInput):
        NetworkNamespace.of_process(free_pid())
    with pytest.raises(BadInput):
        NetworkNamespace.named("no-such-name")


def test_the_machine_is_named_as_uname_and_proc_name_it() -> None:
    assert running_kernel.kernel_release() == subprocess.check_output(["uname", "-r"], text=True).strip()
    assert running_kernel.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.mark.parametrize("kind", [["tuntap", "add", "dev", "virtual0", "mode", "tun"],
                                  ["link", "add", "virtual0", "type", "bridge"],
                                  ["link", "add", "virtual0", "type", "veth"]])  # fmt: skip
def test_a_virtual_device_sits_nowhere(kind: list[str]) -> None:
    """Also where the driver names itself for a bus ("tun") or says "N/A" (bridge)."""
    with NetworkNamespace.create() as netns:
        in_namespace(netns, "ip", *kind)
        (device,) = (each for each in take_devices(netns, ["virtual0"], []))
    assert device.bus is None


def test_a_device_that_has_gone_has_neither_napi_instances_nor_queues(lab: Lab) -> None:
    with Netdev(lab.server.namespace) as netdev:
        assert netdev.queues(2**20) == []
        assert netdev.napis(2**20) == []
