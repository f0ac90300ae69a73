"""A real driver that obeys: the e1000e's rx-usecs leave fewer interrupts per packet, and verify says so."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab.helpers import Napctl
from tests.lab.plans import HEAD
from tests.tries import in_one_of
from tests.vm.wire import Wire, run

SENDER = """
import socket, sys, time
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.connect((sys.argv[1], 9))
while True:
    try:
        udp.send(bytes(32))
    except ConnectionRefusedError:
        pass
    time.sleep(0.0002)
"""
"""Some thousand datagrams per second, as fast as an emulated CPU sleeps and wakes."""
VIRTIO = '[virtio0]\ndriver = "virtio_net"\nrx-queues = 1\ntx-queues = 1\n[virtio0.coalescing]\nrx-usecs = 20\n'


@contextmanager
def datagrams(wire: Wire) -> Iterator[None]:
    """From the far end; nobody answers."""
    inside = ("ip", "netns", "exec", wire.peer_namespace)
    with subprocess.Popen([*inside, sys.executable, "-c", SENDER, wire.address]) as sender:
        try:
            yield
        finally:
            sender.kill()


def verdict(napctl: Napctl, *arguments: object) -> dict[str, Any]:
    (found,) = napctl("verify", *arguments, "--json", timeout_s=300).json["verdicts"]
    return dict(found)


@pytest.mark.trials
@pytest.mark.timeout(3600)
def test_a_nic_that_obeys_is_said_to(wire: Wire, napctl: Napctl, trials: Callable[[int, int], int]) -> None:
    """At least 19 times in 20."""
    run("ethtool", "-C", wire.device, "rx-usecs", "2000")
    tries = trials(1, 20)
    seconds = 1.0 if tries > 1 else 0.2

    def attempt() -> dict[str, Any]:
        found = [verdict(napctl, wire.device, "--seed", seed, "--seconds", seconds) for seed in range(tries)]
        outcomes = [each["outcome"] for each in found]
        ratios = " ".join(f"{each['estimate']['ratio']:.2f}" for each in found if each["estimate"])
        print(f"e1000e, {tries} runs: {outcomes.count('honoured')} honoured; interrupts per packet times {ratios}")
        assert outcomes.count("honoured") >= tries * 19 / 20, found
        return found[0]

    with datagrams(wire):
        found = in_one_of(attempt, 1 if tries > 1 else 3)  # one alone may be the one of 20
    assert found["estimate"]["statistic"] == "interrupts per packet"
    assert found["with_it"]["interrupts_per_packet"] < found["without_it"]["interrupts_per_packet"]
    assert wire.settings()["rx-usecs"] == 2000


@pytest.mark.long
def test_without_traffic_the_rate_that_would_do_is_named(wire: Wire, napctl: Napctl) -> None:
    run("ethtool", "-C", wire.device, "rx-usecs", "100")
    found = verdict(napctl, wire.device, "--seconds", 0.5)

    assert found["outcome"] == "not enough traffic"
    assert found["needs"].startswith("about 5,100 packets/s")


def test_what_a_driver_refuses_is_said_in_its_words(wire: Wire, napctl: Napctl, tmp_path: Path) -> None:
    """virtio_net has no rx-usecs unless its device offers it, and says so only when it is to set it."""
    plan = tmp_path / "plan.toml"
    plan.write_text(HEAD + VIRTIO)
    done = napctl("verify", plan, "--json", "--netns", wire.peer_namespace, timeout_s=120)

    (found,) = done.json["verdicts"]
    assert done.status == 1
    assert (found["device"], found["outcome"]) == (wire.peer, "refused")
    assert "the driver refuses rx-usecs 20" in found["reason"]
