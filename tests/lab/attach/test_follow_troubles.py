"""What goes wrong beside a target that is followed: files that cannot be had, devices and namespaces that go."""

import os
import resource
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.lab.bed import Lab
from napctl.lab.servers import Server, accepts, children, serve
from tests.lab.following import (
    attached,
    attached_in_kernel,
    following,
    settings_of,
    tells_later_what_it_has_mended,
    unread,
)
from tests.lab.helpers import UNSET, Napctl, another_memcached, ask, ending, in_mounts, in_namespace, params_of, until
from tests.lab.helpers import open_files as open_files_of

pytestmark = pytest.mark.lab

PROMPTLY = ("--defer-us", 200)


def test_descriptors_that_have_run_out_are_told_and_survived(lab: Lab, server: Server, napctl: Napctl) -> None:
    with ask(lab, server), following(napctl, server.pid, *PROMPTLY) as it:
        it.told("attached memcached")
        time.sleep(1.5)
        before = resource.prlimit(it.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(it.pid, resource.RLIMIT_NOFILE, (8, before[1]))  # poll(2) takes no more than that
        with ask(lab, server):  # a change, at which it looks
            it.told("Too many open files")
        time.sleep(1.2)  # it has tried again
        assert it.process.poll() is None
        assert all(map(attached, settings_of(lab)))

        resource.prlimit(it.pid, resource.RLIMIT_NOFILE, before)
        assert it.end() == 0
        assert not any(map(attached, settings_of(lab)))


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_state_directory_that_cannot_be_written_any_more_is_told_and_all_is_put_back(
    how: str, lab: Lab, napctl: Napctl
) -> None:
    """What is attached stays so; what would be new is not. (The directory is in a mount namespace of napctl's own.)"""
    before = settings_of(lab)
    mount = in_mounts(f"mkdir -p {napctl.state}; mount -t tmpfs -o size=512k,mode=0700 tmpfs {napctl.state}")
    with another_memcached(lab, 11503, options=("-t", "4")) as server, ExitStack() as stack:
        stack.enter_context(ask(lab, server))
        it = stack.enter_context(following(napctl, server.pid, *PROMPTLY, under=mount))
        it.told("attached memcached")
        was = params_of(server.pid)
        inside = ["nsenter", "--mount", f"--target={it.process.pid}", "sh", "-c"]
        spoil = {
            "full": f"cat /dev/zero >{napctl.state}/filler 2>/dev/null || true",
            "read-only": f"mount -o remount,ro {napctl.state}",
        }
        until(lambda: not subprocess.run([*inside, spoil[how]], check=False).returncode, "the journal to be closed")
        stack.enter_context(ask(lab, server))  # the next thread's first connection
        it.told(str(napctl.state))
        assert it.process.poll() is None
        assert params_of(server.pid) == was
        assert all(map(attached, settings_of(lab)))
        it.process.terminate()
        assert it.ended() in (0, 6)

        assert it.errors.count("\n") <= 1
        assert settings_of(lab) == before
        assert set(params_of(server.pid).values()) == {UNSET}


@pytest.mark.parametrize("what", ["renamed", "moved", "removed"])
def test_a_device_that_goes_while_it_is_attached_is_told_and_nothing_is_left_changed(
    what: str, lab: Lab, server: Server, napctl: Napctl
) -> None:
    here, device = lab.server.namespace, lab.server.device
    with ask(lab, server), NetworkNamespace.create() as elsewhere, following(napctl, server.pid, *PROMPTLY) as it:
        it.told("attached memcached")
        match what:
            case "renamed":
                in_namespace(here, "ip", "link", "set", device, "down")
                in_namespace(here, "ip", "link", "set", device, "name", "other", "up")
                it.told("attached NAPI")
            case "moved":
                in_namespace(here, "ip", "link", "set", device, "netns", f"/proc/{os.getpid()}/fd/{elsewhere.fd}")
                in_namespace(elsewhere, "ip", "link", "set", device, "up")
            case "removed":
                in_namespace(here, "ip", "link", "del", device)
        if what != "renamed":
            it.told(f"{device}: device gone")
        assert it.end() == 0
        assert it.errors == ""
        assert napctl.live() == []
        assert set(params_of(server.pid).values()) == {UNSET}
        for netns in (here, elsewhere):
            with Netdev(netns) as netdev:
                assert not any(attached(napi.settings) for napi in netdev.napis())


def test_an_error_that_lasts_is_told_once_costs_little_and_is_made_up_for_when_it_is_over(
    lab: Lab, napctl: Napctl
) -> None:
    with another_memcached(lab, 11505, options=("-t", "4")) as server, ExitStack() as stack:
        stack.enter_context(ask(lab, server))
        it = stack.enter_context(following(napctl, server.pid, *PROMPTLY))
        it.told("attached memcached")
        time.sleep(1.5)
        napctl.state.chmod(0o777)  # which no napctl trusts
        stack.enter_context(ask(lab, server))  # the next thread's first connection
        it.told(str(napctl.state))
        told, used = len(it.since()), cpu_seconds(it.pid)
        time.sleep(2)  # it has tried again, once
        assert cpu_seconds(it.pid) - used < 0.2
        assert len(it.since()) == told

        napctl.state.chmod(0o700)
        it.told("attached epoll")
        assert it.end() == 0
        assert set(params_of(server.pid).values()) == {UNSET}


def test_what_could_not_be_put_back_when_its_server_ended_is_as_soon_as_it_can(
    lab: Lab, unusual: str, napctl: Napctl
) -> None:
    before, name = settings_of(lab), Path(unusual).name
    with ExitStack() as stack:
        with another_memcached(lab, 11506, program=unusual) as server, ask(lab, server):
            it = stack.enter_context(following(napctl, name, *PROMPTLY))
            it.told(f"attached {name}")
            time.sleep(1.5)
            napctl.state.chmod(0o777)
        it.told(str(napctl.state))
        assert settings_of(lab) != before

        napctl.state.chmod(0o700)
        until(lambda: settings_of(lab) == before, "the device to be as before")
        assert it.end() == 0


def cpu_seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def test_a_namespace_that_goes_with_its_server_is_let_go(unusual: str, napctl: Napctl) -> None:
    """Whoever follows by name waits for it to come back, and keeps nothing of the namespace."""
    name = Path(unusual).name
    with ExitStack() as stack:
        with Lab.build() as lab, another_memcached(lab, 11504, program=unusual) as server:
            inode = lab.server.namespace.inode
            with ask(lab, server):
                it = stack.enter_context(following(napctl, name, *PROMPTLY))
                it.told(f"attached {name}")
        it.told(f"waiting for {name}")
        until(lambda: NetworkNamespace.find(inode) is None, "the namespace to go")
        assert napctl.live() == []
        assert it.end() == 0
        assert it.errors == ""


def test_of_several_namespaces_the_one_in_which_no_process_lives_any_more_is_let_go(lab: Lab, napctl: Napctl) -> None:
    """Also if somebody keeps it: nothing of it stays changed, and nobody is kept from removing it."""
    with Lab.build() as other, ExitStack() as stack:
        there = f"--net=/proc/{os.getpid()}/fd/{other.server.namespace.fd}"
        memcached = "memcached -t 1 -u root -l 0.0.0.0 -U 0 -p"
        script = f"nsenter {there} {memcached} 11508 & exec {memcached} 11507"
        server = stack.enter_context(ending(serve(lab, ["sh", "-c", script], 11507)))
        (worker,) = until(lambda: children(server.pid), "the worker")
        before = settings_of(other)
        over_there = Server(server.process, other.server.address, 11508)
        until(lambda: accepts(other, over_there), "it to listen")
        stack.enter_context(ask(lab, server))
        with ask(other, over_there):
            it = stack.enter_context(following(napctl, server.pid, *PROMPTLY))
            it.told("attached memcached")
            until(lambda: all(map(attached, settings_of(lab) + settings_of(other))), "both to be attached")
            os.kill(worker, signal.SIGKILL)
            it.told(f"({worker}) has ended")
        stack.enter_context(ask(lab, server))  # something to look at

        it.told("no process of the target is left in its network namespace")

        until(lambda: settings_of(other) == before, "the device to be as before")
        assert all(map(attached, settings_of(lab)))
        until(lambda: not _holds(it.pid, other.server.namespace.inode), "the namespace to be let go")
        assert it.end() == 0


def _holds(pid: int, netns: int) -> bool:
    return f"net:[{netns}]" in open_files_of(pid)


def test_output_that_nobody_reads_does_not_hold_it_up_and_comes_later(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = settings_of(lab)
    with unread(napctl, "attach", server.pid, *PROMPTLY, "--stay", "--json") as process:
        tells_later_what_it_has_mended(lab, server, process)
    assert settings_of(lab) == before


def test_output_that_nobody_reads_does_not_keep_it_from_ending(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = settings_of(lab)
    with unread(napctl, "attach", server.pid, *PROMPTLY, "--stay", "--json") as process:
        until(lambda: attached_in_kernel(lab, server), "the attachment")
        process.terminate()
        assert process.wait(60) == 0
        assert settings_of(lab) == before


def test_output_whose_reader_has_gone_ends_it_and_all_is_put_back(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = settings_of(lab)
    with unread(napctl, "attach", server.pid, *PROMPTLY, "--stay", "--json") as process:
        until(lambda: attached_in_kernel(lab, server), "the attachment")
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 128 + signal.SIGPIPE
        assert settings_of(lab) == before
