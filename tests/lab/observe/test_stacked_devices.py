"""Devices on devices, as this kernel has them: the lower ones are named, with the command that looks at them."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.machine import LowerDevice
from napctl.observe.machine import take_machine
from tests.lab.helpers import Napctl, in_namespace

pytestmark = pytest.mark.lab


@pytest.fixture
def host() -> Iterator[NetworkNamespace]:
    """A namespace with a pair, wire0 and wire1, and nothing else."""
    with NetworkNamespace.create() as netns:
        ip(netns, "link add wire0 type veth peer wire1")
        ip(netns, "link set wire0 up")
        ip(netns, "link set wire1 up")
        yield netns


def ip(netns: NetworkNamespace, words: str) -> None:
    in_namespace(netns, "ip", *words.split())


@contextmanager
def inhabited(netns: NetworkNamespace) -> Iterator[int]:
    """By a process, whose pid names it."""
    with netns.entered():
        process = subprocess.Popen(["sleep", "100"])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def lower(netns: NetworkNamespace, device: str) -> tuple[LowerDevice, ...]:
    (found,) = take_machine(netns, [device]).devices
    return found.lower


@pytest.mark.parametrize("command", ["status", "plan", "doctor", "verify"])
def test_each_command_names_the_device_below_and_what_to_type(
    host: NetworkNamespace, napctl: Napctl, command: str
) -> None:
    ip(host, "link add upper0 link wire0 type macvlan")
    ip(host, "link set upper0 up")
    options = {"plan": ("--window", 0), "doctor": ("--seconds", 0.1)}.get(command, ())
    with inhabited(host) as pid:
        done = napctl(command, "upper0", *options, "--netns", f"pid:{pid}")
        offered = f"napctl {command} wire0 --netns pid:{pid}"
        said = " ".join(done.stdout.split())
        assert "upper0 is a macvlan on wire0" in said, done
        assert f"look there: {offered}" in said, done
        assert napctl(*offered.split()[1:], *options).status in (0, 1)
        assert " is a veth on " not in napctl(command, "wire0", *options, "--netns", f"pid:{pid}").stdout, "a peer"


def test_a_plan_for_a_device_that_is_down_names_the_one_below_too(host: NetworkNamespace, napctl: Napctl) -> None:
    ip(host, "link add upper0 link wire0 type macvlan")
    with inhabited(host) as pid:
        done = napctl("plan", "upper0", "--window", 0, "--netns", f"pid:{pid}")
    said = " ".join(done.stdout.split())
    assert "upper0: it is down" in said, done
    assert f"look there: napctl plan wire0 --netns pid:{pid}" in said, done


def test_a_chain_is_followed_to_its_end_and_what_is_between_is_named(host: NetworkNamespace) -> None:
    """A macvlan on a bridge with two ports."""
    ip(host, "link add bridge0 type bridge")
    for port in ("wire0", "wire1"):
        ip(host, f"link set {port} master bridge0")
    ip(host, "link add upper0 link bridge0 type macvlan")

    found = lower(host, "upper0")

    assert sorted(each.name or "" for each in found) == ["wire0", "wire1"]
    assert {each.through for each in found} == {("bridge0",)}
    assert not any(each.elsewhere for each in found)
    assert {each.through for each in lower(host, "bridge0")} == {()}


def test_a_device_below_in_another_namespace_is_said_to_be_there(host: NetworkNamespace, napctl: Napctl) -> None:
    with ExitStack() as stack:
        guest = stack.enter_context(NetworkNamespace.create())
        pid = stack.enter_context(inhabited(guest))
        ip(host, "link add upper0 link wire0 type macvlan")
        ip(host, f"link set upper0 netns {pid}")
        ip(guest, "link set upper0 up")

        (unseen,) = lower(guest, "upper0")
        assert unseen == LowerDevice(name=None, ifindex=3, elsewhere=True, netns=None), "nobody is in that namespace"

        host_pid = stack.enter_context(inhabited(host))
        (seen,) = lower(guest, "upper0")
        assert (seen.name, seen.elsewhere, seen.netns) == ("wire0", True, f"pid:{host_pid}")
        with host.entered():
            (ours,) = lower(guest, "upper0")
            done = napctl("plan", "upper0", "--window", 0, "--netns", f"pid:{pid}")
        assert (ours.name, ours.elsewhere, ours.netns) == ("wire0", True, "")
        said = " ".join(done.stdout.split())
        assert "upper0 is a macvlan on wire0 of another network namespace (ours)" in said
        assert "look there: napctl plan wire0 " in said + " "
