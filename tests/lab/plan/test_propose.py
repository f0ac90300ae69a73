"""Plans and exports on real devices, a tun (whose driver has rx-max-frames) and a lab's veth, with the real tools."""

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from shutil import which

import pytest
import yaml

from napctl.cli.plan_reading import read_plan
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.model.machine import Coalescing
from napctl.model.plan import Advice, DevicePlan, Plan
from napctl.model.value import from_json
from napctl.plan.export import NO_ETHTOOL_NAME, ethtool_name, export
from napctl.plan.file import plan_of, plan_text
from tests.lab.conftest import LoadStarter
from tests.lab.helpers import PROGRAM, Napctl, Ran, until

pytestmark = pytest.mark.lab
LIMIT = "/proc/sys/net/ipv4/tcp_limit_output_bytes"


@dataclass(frozen=True)
class Tun:
    """A network namespace of its own with a tun device in it, t0, which is up."""

    netns: str

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """In the namespace, with its own /sys."""
        inside = ("ip", "netns", "exec", self.netns, *command)
        return subprocess.run(inside, capture_output=True, text=True, check=False, timeout=60)

    def rx_frames(self) -> str:
        """As the real ethtool tells them."""
        shown = self.run("ethtool", "-c", "t0").stdout
        return next(line.split()[1] for line in shown.splitlines() if line.startswith("rx-frames:"))


@pytest.fixture
def tun() -> Iterator[Tun]:
    tun = Tun(f"napctl-test-{token_hex(4)}")
    subprocess.run(["ip", "netns", "add", tun.netns], check=True)
    try:
        for words in ("tuntap add t0 mode tun", "link set t0 up"):
            subprocess.run(["ip", "-n", tun.netns, *words.split()], check=True)
        assert tun.run("ethtool", "-C", "t0", "rx-frames", "32").returncode == 0
        yield tun
    finally:
        subprocess.run(["ip", "netns", "del", tun.netns], check=True)


def planned(rx_frames: int, name: str = "t0") -> Plan:
    device = DevicePlan(
        name=name, driver="tun", rx_queues=1, tx_queues=1, coalescing=Coalescing(rx_max_frames=rx_frames)
    )  # fmt: skip
    return Plan(goal="balanced", max_added_latency_ns=50_000, devices=(device,))


def fits(done: Ran) -> bool:
    """Every line fits a terminal of 80 columns; but a command with a long path is not broken."""
    return all(len(line.rstrip()) <= 80 or line.startswith("  napctl apply ") for line in done.stdout.splitlines())


# plan


def test_a_plan_is_shown_with_its_reasons_written_applied_and_then_there_is_nothing_left(
    tun: Tun, napctl: Napctl, tmp_path: Path
) -> None:
    file = tmp_path / "t0.toml"
    arguments = ("plan", "t0", "--goal", "latency", "--window", "100ms", "--netns", tun.netns, "--output", file)
    done = napctl(*arguments)
    assert (done.status, fits(done)) == (0, True), done
    assert [line.split() for line in done.stdout.splitlines() if line.startswith("  rx-max-frames ")] == [
        ["rx-max-frames", "32", "1"]
    ]
    assert "no delay after which frames stop waiting" in " ".join(done.stdout.split())
    assert f"napctl apply {file} --confirm-within 60s" in " ".join(done.stdout.split())
    assert tun.rx_frames() == "32", "planning changes nothing"

    assert "# the driver has no delay after which frames stop waiting for each other\n" in file.read_text()
    assert read_plan(file).devices[0].coalescing == Coalescing(rx_max_frames=1)
    assert napctl("apply", file, "--netns", tun.netns).status == 0
    assert tun.rx_frames() == "1"
    again = napctl(*arguments)
    assert (again.status, "nothing to propose" in again.stdout) == (0, True)
    assert read_plan(file).devices == ()
    assert napctl("rollback").status == 0
    assert tun.rx_frames() == "32"


def test_the_limit_of_tcp_is_the_one_of_the_devices_own_network_namespace(tun: Tun, napctl: Napctl) -> None:
    """100 Gb/s send 256 KiB in 21 µs, of which half may pass; 4 MiB would bear what the goal wants."""
    ours = Path(LIMIT).read_text()
    bounds = {}
    for limit in (262_144, 4 << 20):
        assert tun.run("sh", "-c", f"echo {limit} > {LIMIT}").returncode == 0
        done = napctl("plan", "t0", "--netns", tun.netns, "--speed", "t0=100G", "--window", "0", "--json")
        advice = from_json(done.stdout, Advice)
        (tx,) = (each for each in advice.unsupported if each.setting == "tx_usecs")
        assert any(f"tcp_limit_output_bytes {limit:,}" in source for source in tx.sources)
        assert "link speed of 100,000 Mb/s: --speed" in tx.sources
        bounds[limit] = tx.proposed
    assert bounds == {262_144: 10, 4 << 20: 150}
    assert Path(LIMIT).read_text() == ours


def test_a_device_without_coalescing_gets_its_budget_as_deferral_of_its_napi_instances(
    napctl: Napctl, tmp_path: Path
) -> None:
    file = tmp_path / "veth.toml"
    with Lab.build(queues=2) as lab:
        netns = ("--netns", f"/proc/{os.getpid()}/fd/{lab.server.namespace.fd}")
        plan = ("plan", "server0", "--max-added-latency", "30us", "--window", "0", "--output", file, *netns)
        done = napctl(*plan)
        assert (done.status, fits(done)) == (0, True), done
        assert napctl("apply", file, *netns).status == 0
        settings = [napi.settings for napi in lab.server.napis()]
        assert [(each.defer_hard_irqs, each.gro_flush_timeout_ns) for each in settings] == [(2, 30_000)] * 2
        assert "nothing to propose" in napctl(*plan).stdout


def test_an_attached_server_keeps_its_deferral(server: Server, client: socket.socket, lab: Lab, napctl: Napctl) -> None:
    napctl.attach_quickly(server.pid)
    (napi,) = lab.server.napis()
    done = napctl("plan", "server0", "--netns", f"pid:{server.pid}", "--window", "0")
    assert done.status == 0
    assert "nothing to propose" in done.stdout
    assert f"NAPI {napi.napi_id} belongs to an application that polls it" in " ".join(done.stdout.split())


def test_a_window_of_real_traffic_is_in_the_reasons(server: Server, load: LoadStarter, napctl: Napctl) -> None:
    load()
    command = ("plan", "server0", "--goal", "efficiency", "--netns", f"pid:{server.pid}", "--window", "500ms", "--json")

    def reasons() -> str:
        advice = from_json(napctl(*command).stdout, Advice)
        return next((each.why for each in advice.proposals if each.setting == "gro_flush_timeout_ns"), "")

    until(lambda: "packets/s that" in reasons(), "a window with traffic")


def test_the_plan_can_go_through_a_pipe(tun: Tun, napctl: Napctl, tmp_path: Path) -> None:
    done = napctl("plan", "t0", "--goal", "latency", "--window", "0", "--netns", tun.netns, "--output", "-")
    assert (done.status, done.stderr) == (0, "")
    assert plan_of(done.stdout, "-").devices[0].name == "t0"
    file = tmp_path / "plan.toml"
    file.write_text(done.stdout)
    with file.open() as plan:
        command = [str(PROGRAM), "export", "-", "--format", "ethtool"]
        exported = subprocess.run(command, stdin=plan, capture_output=True, text=True, check=True)
    assert "ethtool -C t0 rx-frames 1\n" in exported.stdout


def test_a_device_that_is_down_is_said_to_be_and_the_status_is_1(tun: Tun, napctl: Napctl) -> None:
    assert tun.run("ip", "link", "set", "t0", "down").returncode == 0
    done = napctl("plan", "t0", "--netns", tun.netns)
    assert done.status == 1
    assert "ip link set t0 up" in " ".join(done.stdout.split())


def test_without_names_software_devices_are_left_out(tun: Tun, napctl: Napctl) -> None:
    done = napctl("plan", "--netns", tun.netns)
    assert done.status == 0
    assert "no network hardware here" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("eth9",), ("eth9", "t0")),
        (("t0", "--speed", "fast"), ("--speed", "'fast' is no link speed", "10G")),
        (("t0", "--speed", "t0=0"), ("'0' is no link speed",)),
        (("t0", "--speed", "eth9=10G"), ("no plan is made for eth9",)),
        (("t0", "--max-added-latency", "1s"), ("1s is not between 0 and 10ms",)),
        (("t0", "--output", "/nowhere/x.toml", "--window", "0"), ("/nowhere/x.toml", "No such file")),
        (("t0", "--output", "-", "--json"), ("--json", "--output -")),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_status_2(
    arguments: tuple[str, ...], words: tuple[str, ...], tun: Tun, napctl: Napctl
) -> None:
    assert napctl("plan", *arguments, "--netns", tun.netns).failed_with(2, *words)


# export, with the tools that it is for


def test_the_exported_script_sets_the_plan_with_the_real_ethtool(tun: Tun, napctl: Napctl, tmp_path: Path) -> None:
    plan, script = tmp_path / "plan.toml", tmp_path / "t0.sh"
    plan.write_text(plan_text(planned(7)))
    assert napctl("export", plan, "--format", "ethtool", "--output", script).status == 0
    done = tun.run("sh", str(script))
    assert (done.returncode, done.stderr) == (0, "")
    assert tun.rx_frames() == "7"


NEWER_THAN_ETHTOOL_6_1 = ("tx_aggr_max_bytes", "tx_aggr_max_frames", "tx_aggr_time_usecs")


@pytest.mark.parametrize(
    "field",
    [name for name in Coalescing.__struct_fields__ if name not in (*NO_ETHTOOL_NAME, *NEWER_THAN_ETHTOOL_6_1)],
)
def test_the_real_ethtool_knows_the_name_of_every_setting(field: str, tun: Tun) -> None:
    """What tun does not have, the kernel refuses; what ethtool does not know, it refuses itself."""
    value = "on" if field.startswith("use_") else "1"
    said = tun.run("ethtool", "-C", "t0", ethtool_name(field), value).stderr
    assert "unknown parameter" not in said
    assert said == "" or "netlink error" in said
    assert "unknown parameter" in tun.run("ethtool", "-C", "t0", f"{ethtool_name(field)}x", value).stderr


def set_up_link(tun: Tun, text: str, directory: Path) -> str:
    """What udev's own builtin says and does with a .link file; it is the only one that this process sees."""
    if which("udevadm") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("udevadm must be there in CI")
        pytest.skip("not installed: udevadm")
    (directory / "10-napctl-t0.link").write_text(text)
    steps = f"""mount -t tmpfs none /run && mkdir -p /run/systemd/network &&
        mount --bind {directory} /run/systemd/network &&
        SYSTEMD_LOG_LEVEL=debug udevadm test-builtin net_setup_link /sys/class/net/t0"""
    done = tun.run("sh", "-c", steps)
    assert done.returncode == 0, done
    return done.stdout + done.stderr


def test_the_exported_link_file_sets_the_plan_with_the_real_udev(tun: Tun, tmp_path: Path) -> None:
    said = set_up_link(tun, export(planned(7), "systemd-link"), tmp_path)
    assert "ID_NET_LINK_FILE=/run/systemd/network/10-napctl-t0.link" in said
    assert "Could not set" not in said
    assert tun.rx_frames() == "7"


def test_udev_knows_every_key_that_an_export_can_have_and_says_so_of_one_that_it_does_not(
    tun: Tun, tmp_path: Path
) -> None:
    every = Coalescing(
        **{
            name: True if name.startswith("use_") else 3
            for name in Coalescing.__struct_fields__
            if not name.endswith("_profile")
        }  # type: ignore[arg-type]
    )
    device = DevicePlan(name="t0", driver="tun", rx_queues=1, tx_queues=1, coalescing=every)
    text = export(Plan(goal="balanced", max_added_latency_ns=50_000, devices=(device,)), "systemd-link")
    said = set_up_link(tun, text, tmp_path)
    assert "Parsed configuration file" in said
    assert not [line for line in said.splitlines() if "10-napctl-t0.link:" in line], said
    wrong = set_up_link(tun, text.replace("RxCoalesceSec=", "RxCoalesceUSec="), tmp_path)
    assert "Unknown key 'RxCoalesceUSec' in section [Link], ignoring" in wrong


@pytest.mark.parametrize("name", ["t0", "t-0.7"])
def test_systemd_itself_finds_no_fault_with_the_unit_for_ansible(name: str, tmp_path: Path) -> None:
    if which("systemd-analyze") is None:
        pytest.skip("not installed: systemd-analyze")
    script, unit = (task["ansible.builtin.copy"] for task in yaml.safe_load(export(planned(7, name), "ansible"))[:2])
    program = tmp_path / Path(script["dest"]).name
    program.write_text(script["content"])
    program.chmod(int(script["mode"], 8))
    file = tmp_path / Path(unit["dest"]).name
    for text, expected in ((unit["content"], True), (unit["content"].replace("BindsTo", "BoundTo"), False)):
        file.write_text(text.replace(script["dest"], str(program)))
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
        mine = [line for line in done.stderr.splitlines() if file.name in line]
        assert (not mine) is expected, done.stderr
