"""Bad input, missing rights and missing kernel features: one clear line, the documented status, nothing changed."""

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from napctl.kernel.genetlink import Family
from napctl.kernel.netlink import Refused
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.model.errors import Unsupported
from napctl.model.value import from_json
from napctl.model.window import Window
from napctl.observe.machine import WHO_POLLS
from tests.lab.conftest import LoadStarter
from tests.lab.held import is_held, let_go_on
from tests.lab.helpers import Napctl, Ran, at, at_server, free_pid, in_mounts, machine_of, until, without

pytestmark = pytest.mark.lab

NOBODY = ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups"]


@pytest.mark.parametrize("command", [("status",), ("watch", "--seconds", "1"), ("watch", "--seconds", "1", "--json")])
def test_an_unknown_device_is_named_with_those_that_are_there(
    command: tuple[str, ...], lab: Lab, napctl: Napctl
) -> None:
    done = napctl(*command, "eth99", *at_server(lab))

    assert done.failed_with(2, "eth99", "server0")


@pytest.mark.parametrize("netns", ["nosuchname", "/nonexistent/net", "/dev/null", "/etc/passwd", "pid:{free}"])
def test_an_unknown_network_namespace_is_named(netns: str, napctl: Napctl) -> None:
    netns = netns.format(free=free_pid())

    assert napctl("status", "--netns", netns).failed_with(2, netns.removeprefix("pid:"))


@pytest.mark.parametrize("command", ["attach", "detach"])
def test_a_pid_that_does_not_exist_is_named(command: str, napctl: Napctl) -> None:
    pid = free_pid()

    assert napctl(command, pid).failed_with(2, str(pid))


@pytest.mark.parametrize("command", ["attach", "detach"])
def test_a_name_that_no_process_has_is_named(command: str, napctl: Napctl) -> None:
    assert napctl(command, "no-such-process").failed_with(2, "no-such-process")


def test_a_zombie_is_no_process(napctl: Napctl) -> None:
    ended = subprocess.Popen(["true"])
    until(lambda: state_of(ended.pid) == "Z", "a zombie")

    assert napctl("attach", ended.pid).failed_with(2, str(ended.pid))
    ended.wait()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--defer-us", "-200"),
        ("--defer-us", "soon"),
        ("--irq-suspend-timeout", "-1ms"),
        ("--defer-hard-irqs", "0"),
        ("--busy-poll-budget", "70000"),
        ("--defer-us", "99999999999s"),
        ("--defer-hard-irqs", "4294967296"),
        ("--busy-poll-usecs", "4294967296"),
        ("--defer-us", "0"),
        ("--irq-suspend-timeout", "0"),
    ],
    ids=" ".join,
)
def test_a_value_that_makes_no_sense_is_refused(
    arguments: tuple[str, str], unchanged: None, server: Server, napctl: Napctl
) -> None:
    done = napctl("attach", server.pid, "--window", 0, *arguments)

    assert done.failed_with(2, *arguments[:1])


@pytest.mark.parametrize(("call", "which"), [("pidfd_getfd", 0), ("pidfd_getfd", -1), ("sendto", -3), ("ioctl", -2)])
def test_a_server_that_vanishes_midway_is_named_and_nothing_stays_changed(
    call: str, which: int, lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    before = machine_of(lab.server)
    for attempt in range(6):  # now and then it takes a call less than in the trial before
        trial = Napctl(tmp_path / f"trial{attempt}")
        every = trial.steps(tmp_path / "trace", "attach", server.pid, "--window", 0)
        last = max(place for place, step in enumerate(every) if step[0] == "ioctl")  # from then on nothing is changed
        steps = [step for step in every[: last + 1] if step[0] == call]
        assert trial("detach", server.pid).status == 0

        log = tmp_path / f"log{attempt}"
        under = at(steps[which], "signal=SIGSTOP", log=log)
        held = napctl.start("attach", server.pid, "--window", 0, under=under)
        if is_held(held, log):
            break
        held.communicate()
        assert napctl("detach", server.pid).status == 0
    with held:
        server.process.kill()
        server.process.wait()
        let_go_on(held)
        output, errors = held.communicate(timeout=60)

    assert Ran(held.returncode, output, errors).failed_with(2 if which == 0 else 6, f"memcached ({server.pid})")
    assert machine_of(lab.server) == before


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


@pytest.mark.parametrize("capability", ["sys_ptrace", "net_admin", "sys_admin"])
def test_attach_without_a_capability_names_it_and_changes_nothing(
    capability: str, unchanged: None, server: Server, napctl: Napctl
) -> None:
    done = napctl("attach", server.pid, under=without(capability))

    assert done.failed_with(4, f"CAP_{capability.upper()}")
    assert napctl.live() == []


@pytest.mark.parametrize("capability", ["sys_ptrace", "net_admin"])
def test_detach_without_a_capability_names_it_and_can_be_repeated(
    capability: str, unchanged: None, server: Server, napctl: Napctl
) -> None:
    napctl.attach_quickly(server.pid)

    done = napctl("detach", server.pid, under=without(capability))

    assert done.failed_with(4, f"CAP_{capability.upper()}")
    assert napctl("recover").status == 0


def test_attach_as_an_ordinary_user_says_what_is_missing(
    unchanged: None, server: Server, napctl: Napctl, tmp_path: Path
) -> None:
    if napctl("--version", under=NOBODY).status != 0:
        pytest.skip("other users cannot reach this virtual environment")
    mine = Napctl(Path("/dev/shm") / f"napctl-test-{os.getpid()}")
    try:
        done = mine("attach", server.pid, under=NOBODY)
    finally:
        shutil.rmtree(mine.state, ignore_errors=True)

    assert done.failed_with(4, "CAP_SYS_PTRACE")


def test_a_state_directory_of_somebody_else_is_named(unchanged: None, server: Server, napctl: Napctl) -> None:
    if napctl("--version", under=NOBODY).status != 0:
        pytest.skip("other users cannot reach this virtual environment")
    napctl.state.mkdir(mode=0o700)

    done = napctl("attach", server.pid, under=NOBODY)

    assert done.failed_with(4, str(napctl.state), "NAPCTL_STATE_DIR")


def test_status_counts_the_processes_that_it_may_not_look_into_and_says_why(
    unchanged: None, lab: Lab, server: Server, napctl: Napctl
) -> None:
    """Other root processes have a capability more than it has then."""
    with lab.server.namespace.entered():
        done = napctl("status", "--json", under=without("sys_ptrace"))
    (lack,) = (each for each in done.json["lacks"] if each.startswith(WHO_POLLS))
    assert re.search(r"by (\d+ processes, such as )?.+ \(\d+\): CAP_SYS_PTRACE is missing$", lack), lack


def test_watch_without_bpf_rights_counts_from_proc_and_says_what_is_missing(
    lab: Lab, server: Server, load: LoadStarter, napctl: Napctl
) -> None:
    load(5_000)
    with lab.server.namespace.entered():
        window = window_of_traffic(napctl, under=without("bpf", "perfmon", "sys_admin"))

    assert_from_proc(window, "CAP_BPF and CAP_PERFMON are missing")


def window_of_traffic(napctl: Napctl, *options: object, under: Sequence[str]) -> Window:
    """That `watch` shows, once packets came in it: a busy machine may let a load wait for longer than that."""

    def watched() -> Window | None:
        done = napctl("watch", "--seconds", 0.4, "--interval", 0.4, "--json", *options, under=under)
        assert (done.status, done.stderr) == (0, "")
        window = from_json(done.stdout, Window)
        packets = {each.device: each.rx_packets or 0 for each in window.devices}
        return window if packets["server0"] > 100 else None

    window = until(watched, "a window with packets")
    assert window is not None
    return window


def assert_from_proc(window: Window, *reasons: str) -> None:
    """A window without the probe: what /proc knows is there, the rest is None, and the reason is given."""
    (lack,) = (lack for lack in window.lacks if "packets per poll" in lack)
    assert all(reason in lack for reason in reasons), lack
    assert window.source == "proc"
    (napi,) = (napi for napi in window.napis if napi.device == "server0")
    assert napi.settings is not None
    assert (napi.softirq, napi.thread, napi.busy_poll, napi.netpoll, napi.empty) == (None,) * 5
    assert all(cpu.net_rx_softirq_ns is None for cpu in window.cpus)
    assert all(cpu.net_rx_softirqs is not None for cpu in window.cpus)
    (device,) = (device for device in window.devices if device.device == "server0")
    assert (device.rx_packets or 0) > 100


def test_without_btf_watch_counts_from_proc_and_attach_works_unmeasured(
    lab: Lab, server: Server, load: LoadStarter, napctl: Napctl, tmp_path: Path
) -> None:
    load(5_000)
    (tmp_path / "empty").mkdir()
    no_btf = in_mounts(f"mount --bind {tmp_path}/empty /sys/kernel/btf")
    before = machine_of(lab.server)

    watched = window_of_traffic(napctl, *at_server(lab), under=no_btf)
    attached = napctl("attach", server.pid, "--window", "0.3s", "--json", under=no_btf)
    detached = napctl("detach", server.pid, under=no_btf)

    assert_from_proc(watched, "BTF", "/sys/kernel/btf/vmlinux")
    assert attached.status == 0
    assert attached.json["verdict"] == "not measured"
    assert attached.json["server_poll_share"] is None
    assert detached.status == 0
    assert machine_of(lab.server) == before


def test_without_tracefs_everything_still_works(lab: Lab, server: Server, load: LoadStarter, napctl: Napctl) -> None:
    load(5_000)
    no_tracefs = in_mounts("for each in $(awk '$3 == \"tracefs\" { print $2 }' /proc/mounts); do umount $each; done")
    before = machine_of(lab.server)

    shown = napctl("status", "--json", *at_server(lab), under=no_tracefs)
    watched = napctl("watch", "--seconds", 0.2, "--interval", 0.2, "--json", *at_server(lab), under=no_tracefs)

    def active() -> bool:
        arguments = ("attach", server.pid, "--window", "0.5s", "--defer-us", 200, "--json")
        attached, detached = napctl(*arguments, under=no_tracefs), napctl("detach", server.pid, under=no_tracefs)
        assert detached.status == 0
        return (attached.status, attached.json["verdict"]) == (0, "active")

    until(active, "a window in which it is active")
    assert shown.status == watched.status == 0
    window = from_json(watched.stdout, Window)
    assert (window.source, window.lacks) == ("bpf", ())
    assert machine_of(lab.server) == before


def test_a_netlink_family_that_this_kernel_does_not_have_is_named() -> None:
    with pytest.raises(Unsupported, match="no netlink family 'napctl-none'"):
        Family("napctl-none")


def test_the_kernels_own_words_and_the_attribute_at_fault_reach_the_user(lab: Lab) -> None:
    from napctl.kernel.netdev import NAPI, NAPI_SET

    (napi,) = lab.server.napis()
    with Family("netdev", lab.server.namespace) as family, pytest.raises(Refused) as refused:
        list(family.ask(NAPI_SET, NAPI, {"id": napi.napi_id, "defer-hard-irqs": 2**31}, what="setting it"))

    assert refused.value.errno in (22, 34)
    assert refused.value.attribute == "defer-hard-irqs"
    assert refused.value.text
    assert "setting it: the kernel refuses: " in str(refused.value)


def test_ctrl_c_during_the_measurement_leaves_nothing_changed(
    unchanged: None, lab: Lab, server: Server, napctl: Napctl
) -> None:
    running = napctl.start("attach", server.pid, "--window", "60s")
    until(lambda: any(napi.settings.defers for napi in lab.server.napis()), "attached")
    until(lambda: [each.state for each in napctl.live()] == ["attached"], "recorded")
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)

    assert running.returncode == 130
    assert errors.splitlines()[-1] == "napctl: interrupted"
    assert "Traceback" not in errors
    assert "detached again" in errors
    assert napctl.live() == []
