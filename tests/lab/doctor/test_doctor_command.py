"""doctor as a command: what it prints, how it ends, and what it refuses."""

import re
import signal
import subprocess
import sys

import pytest

from napctl.kernel.sysfs import DeviceAttributes
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from tests.lab.helpers import Napctl, Ran, at_server, open_files, until

pytestmark = pytest.mark.lab


def test_a_finding_is_told_with_evidence_and_remedy_and_status_1(lab: Lab, server: Server, napctl: Napctl) -> None:
    with DeviceAttributes(lab.server.namespace) as attributes:
        attributes.write("server0", "napi_defer_hard_irqs", "2")
        attributes.write("server0", "gro_flush_timeout", "200000")
    done = napctl("doctor", "--seconds", 0.1, *at_server(lab))

    assert (done.status, done.stderr) == (1, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    for words in (
        r"^1\. all traffic of server0 may wait 200us",
        r"^   cost, certain \(device-wide-deferral\)$",
        r"^   evidence    napi_defer_hard_irqs 2, gro_flush_timeout 200us \[sysfs\]$",
        r"^   means       ",
        r"^   remedy      ",
        r"^ +echo 0 > /sys/class/net/server0/napi_defer_hard_irqs$",
        r"^   basis       Documentation/networking/napi.rst",
        r"^1 finding: \d+ rules over server0",
    ):
        assert re.search(words, done.stdout, re.M), words


def test_a_longer_look_says_so_in_a_pipe_and_ends_on_ctrl_c(lab: Lab, napctl: Napctl) -> None:
    with napctl.start("doctor", "--seconds", 60, *at_server(lab)) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert process.stderr.readline() == "looking for 60 s\n"
        until(lambda: any("bpf" in file for file in open_files(process.pid)), "the probe")
        process.send_signal(signal.SIGINT)
        done = Ran(process.wait(60), process.stdout.read(), process.stderr.read())

    assert done.failed_with(130, "interrupted")


def test_on_a_terminal_it_counts_down_and_leaves_no_trace(lab: Lab, napctl: Napctl) -> None:
    command = f"{sys.executable} -m napctl doctor --seconds 2.1 {' '.join(at_server(lab))}"
    under = ["script", "--quiet", "--return", "--command", command, "/dev/null"]
    done = subprocess.run(under, capture_output=True, timeout=60, check=False, env=napctl.environment)

    assert done.returncode == 0, done
    assert re.search(rb"looking for [12] s more", done.stdout)
    assert done.stdout.rpartition(b"\r\x1b[K")[2].startswith(b"no finding")


@pytest.mark.parametrize(
    ("options", "words"),
    [(("nosuch0",), "nosuch0"), (("--seconds", "0"), "--seconds"), (("--netns", "nosuch"), "nosuch")],
)
def test_a_bad_request_is_one_line_and_status_2(options: tuple[str, ...], words: str, napctl: Napctl) -> None:
    assert napctl("doctor", *options).failed_with(2, words)
