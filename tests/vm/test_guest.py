"""The guest is what the other tests in this directory take it for."""

import os
import platform
import re
from pathlib import Path

from napctl.kernel.namespaces import NetworkNamespace
from napctl.observe.window import Observer
from tests.lab.helpers import Napctl
from tests.vm.wire import Wire, run


def test_the_kernel_is_debians_and_new_enough() -> None:
    release = platform.release()
    assert re.search(r"\+deb\d+-", release), release
    assert tuple(int(part) for part in release.split(".")[:2]) >= (6, 13)
    assert Path("/sys/kernel/btf/vmlinux").exists()


def test_status_tells_the_nic_and_its_coalescing(wire: Wire, state: Path) -> None:
    """Of the program as it is installed; the other tests of the guest fork."""
    (device,) = Napctl(state)("status", "--json", wire.device).json["devices"]
    assert (device["name"], device["driver"], device["up"]) == (wire.device, wire.driver, True)
    assert device["coalescing"]["rx_usecs"] == wire.settings()["rx-usecs"] == 3
    (napi,) = device["napis"]
    assert napi["irq"] is not None


def test_packets_flow_both_ways(wire: Wire) -> None:
    run("ping", "-q", "-c", "3", "-i", "0.01", "-W", "10", "-I", wire.device, wire.peer_address)
    wire.ping(3)


def test_the_probe_counts_the_nics_polls_and_interrupts(wire: Wire) -> None:
    with NetworkNamespace.current() as here, Observer(here, [wire.device]) as observer:
        observer.restart()
        wire.ping(100)
        window = observer.window()
    assert (window.source, window.lacks) == ("bpf", ())
    (napi,) = (napi for napi in window.napis if napi.device == wire.device)
    assert napi.softirq is not None
    assert sum(napi.softirq.counts[1:]) >= 50
    assert napi.interrupts is not None
    assert napi.interrupts >= 50


def test_what_a_test_changes_is_put_back(wire: Wire) -> None:
    before = wire.settings()
    run("ethtool", "-C", wire.device, "rx-usecs", "20")
    Path(f"/sys/class/net/{wire.device}/gro_flush_timeout").write_text("20000")
    assert wire.settings() == {**before, "rx-usecs": 20, "gro_flush_timeout": 20_000}
    wire.put_back(before)
    assert wire.settings() == before


def test_the_hosts_files_are_out_of_reach() -> None:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    assert next(mount[2] for mount in mounts if mount[1] == "/") == "overlay"
    assert not [mount for mount in mounts if mount[2] in ("9p", "virtiofs")]
    assert os.geteuid() == 0
