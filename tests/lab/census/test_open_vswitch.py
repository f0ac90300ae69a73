"""A real Open vSwitch with DPDK: named by its PMD thread, and what of its 100 % is work by its own account."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

import pytest

from napctl.lab.bed import Lab
from napctl.lab.flood import FloodSpec, started_flood
from napctl.model.census import SpinningThread
from tests.lab.census.testpmd import RUN, looked, spinning
from tests.lab.helpers import until

pytestmark = [pytest.mark.lab, pytest.mark.long]

SWITCH = Path("/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk")
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


@contextmanager
def open_vswitch(lab: Lab, directory: Path) -> Iterator[int]:
    """One bridge with the server's device as its port, its PMD thread on the server's CPU; the pid of ovs-vswitchd."""
    if not SWITCH.exists():
        pytest.skip("openvswitch-switch-dpdk is not installed")
    prefix, database = f"napctl-{token_hex(4)}", f"unix:{directory}/db.sock"
    environment = ["env", f"OVS_RUNDIR={directory}", f"OVS_LOGDIR={directory}", f"OVS_DBDIR={directory}"]

    def vsctl(*arguments: str) -> None:
        subprocess.run(["ovs-vsctl", f"--db={database}", "--timeout=20", *arguments], check=True, capture_output=True)

    subprocess.run(["ovsdb-tool", "create", directory / "conf.db", SCHEMA], check=True, capture_output=True)
    started = [
        lab.server.start([*environment, "ovsdb-server", f"{directory}/conf.db", f"--remote=punix:{directory}/db.sock"])
    ]
    try:
        until((directory / "db.sock").exists, "ovsdb-server listens")
        vsctl("--no-wait", "init")
        vsctl(
            "--no-wait", "set", "Open_vSwitch", ".", "other_config:dpdk-init=true",
            f"other_config:dpdk-extra=--no-huge --legacy-mem --no-pci -m 1024 --file-prefix={prefix}",
            f"other_config:pmd-cpu-mask={1 << lab.server.cpu:#x}",
        )  # fmt: skip
        started.append(lab.server.start([*environment, str(SWITCH), database]))
        vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
        port = f"options:dpdk-devargs=net_af_packet0,iface={lab.server.device}"
        vsctl("add-port", "br0", "p0", "--", "set", "Interface", "p0", "type=dpdk", port)
        yield started[1].pid
    finally:
        for each in reversed(started):
            each.kill()
            each.communicate()
        shutil.rmtree(Path("/", RUN, prefix), ignore_errors=True)


def test_at_rest_and_under_traffic_its_work_is_what_it_says_itself(lab: Lab, state: Path, tmp_path: Path) -> None:
    with open_vswitch(lab, tmp_path) as pid:
        idle = pmd(state, pid)
        with started_flood(lab, FloodSpec(rate_per_second=30_000, seconds=10)) as flood:
            flood.wait_until_sending()
            time.sleep(0.5)
            busy = pmd(state, pid)
        found = looked(state, pid)
    assert (found.kind, found.trouble) == ("Open vSwitch with DPDK", None)
    assert "pmd-sleep-max" in found.remedy
    assert lab.server.device in found.devices
    assert idle.source == busy.source == "Open vSwitch dpif-netdev/pmd-stats-show"
    assert idle.work_share is not None
    assert busy.work_share is not None
    assert idle.work_share < 0.02 < busy.work_share < 0.9


def pmd(state: Path, pid: int) -> SpinningThread:
    found = spinning(state, pid, 1.0, "pmd-")
    return next(each for each in found.threads if each.name.startswith("pmd-"))
