"""What napctl protect says before there is any flood, and what it refuses."""

import os
import re
import signal

import pytest

from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from tests.lab.following import Following, ended_by
from tests.lab.helpers import Napctl, ask, at_server, in_namespace, machine_of, without

pytestmark = pytest.mark.lab


def test_a_dry_run_says_what_is_watched_and_changes_nothing(lab: Lab, napctl: Napctl) -> None:
    before = machine_of(lab.server)
    first, last = napctl("protect", "server0", *at_server(lab), "--dry-run").stdout.splitlines()
    assert re.fullmatch(
        r"[0-9:.]+ server0: watched: 1 NAPI instance, on CPU 0; when packets take 90 % of a CPU and harm: nice 19",
        first,
    )
    assert last.endswith(" nothing was changed")
    told = napctl("protect", "server0", *at_server(lab), "--dry-run", "--threshold", 80, "--storm-control", 9).stdout
    assert "when packets take 80 % of a CPU and harm: nice 19, then storm control" in told
    assert machine_of(lab.server) == before
    assert napctl.live() == []


def test_a_target_means_the_devices_that_feed_it(lab: Lab, server: Server, napctl: Napctl) -> None:
    assert napctl("protect", server.pid, "--dry-run").failed_with(
        2, "no connection came to it over a device", "name the device"
    )
    with ask(lab, server):
        assert "server0: watched: 1 NAPI instance" in napctl("protect", server.pid, "--dry-run").stdout


def test_what_is_attached_is_watched_too_and_attached_says_how_far_that_protects_it(
    lab: Lab, server: Server, napctl: Napctl
) -> None:
    (napi,) = lab.server.napis()
    assert napi.thread_pid is not None
    with ask(lab, server):
        napctl.attach_quickly(server.pid)
        for what in ([server.pid], ["server0", *at_server(lab)]):
            assert "server0: watched: 1 NAPI instance" in napctl("protect", *what, "--dry-run").stdout
        for nice, words in (
            (-19, "protected against overload while suspended; threads at nice -19 can end that"),
            (19, "protected against overload: its NAPI threads come last (nice 19)"),
        ):
            os.setpriority(os.PRIO_PROCESS, napi.thread_pid, nice)
            assert f"  {words}\n" in napctl("attached").stdout
            (told,) = napctl("attached", "--json").json["attachments"]
            assert (told["protects"], told["thread_nice"]) == (True, nice)


def test_a_device_without_napi_is_refused_in_one_line(lab: Lab, napctl: Napctl) -> None:
    assert napctl("protect", "lo", *at_server(lab)).failed_with(3, "lo: its driver has no NAPI instances")
    in_namespace(lab.server.namespace, "ethtool", "-K", "server0", "gro", "off")
    assert napctl("protect", "server0", *at_server(lab)).failed_with(3, "bypass NAPI", "ethtool -K server0 gro on")


def test_a_veth_whose_other_end_has_tso_is_said_to_bypass_napi(lab: Lab, napctl: Napctl) -> None:
    """The other end is to be seen where a process lives."""
    holder = lab.client.start(["sleep", "60"])
    try:
        assert "bypasses NAPI" not in napctl("protect", "server0", *at_server(lab), "--dry-run").stdout
        in_namespace(lab.client.namespace, "ethtool", "-K", "client0", "tso", "on")
        assert "its other end sends bypasses NAPI" in napctl("protect", "server0", *at_server(lab), "--dry-run").stdout
    finally:
        holder.kill()
        holder.wait()


def test_where_packets_come_to_each_cpu_it_runs_before_ordinary_processes(napctl: Napctl) -> None:
    with Lab.build(queues=2) as lab:
        pids = [each.thread_pid for each in lab.server.napis()]
        for cpu, pid in enumerate(pids):
            assert pid is not None
            os.sched_setaffinity(pid, {cpu})
        started = napctl.start("protect", "server0", *at_server(lab), "--json")
        with ended_by(signal.SIGINT, Following(started)) as it:
            it.told("watched: 2 NAPI instances, on CPU 0-1")
            it.told("napctl runs before all ordinary processes (SCHED_RR), as packets come to each CPU")
            assert os.sched_getscheduler(it.pid) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR
            assert it.end(signal.SIGINT) == 0


def test_whom_it_does_not_know_and_who_may_not_are_one_line(lab: Lab, napctl: Napctl) -> None:
    nobody = napctl("protect", "nothing-of-that-name", *at_server(lab))
    assert nobody.failed_with(2, "no process has that name, nor is there such a network device here")
    assert napctl("protect", "server0", "--threshold", 49, *at_server(lab)).failed_with(2, "49 is not in the range")
    refused = napctl("protect", "server0", *at_server(lab), under=without("sys_nice"))
    assert refused.failed_with(4, "server0: protecting it needs CAP_SYS_NICE")
