"""status and watch: what they show is what is there."""

import json
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from napctl.kernel.netdev import Netdev
from napctl.kernel.open_files import open_files as descriptors_of
from napctl.lab.bed import Lab
from napctl.lab.servers import Server, memcached
from napctl.model.histogram import total
from napctl.model.machine import Machine
from napctl.model.settings import NapiSettings
from napctl.model.value import from_json
from napctl.model.window import NapiWindow, Window
from tests.lab.conftest import LoadStarter
from tests.lab.helpers import Napctl, Ran, answers, ask, at_server, bpftrace, ending, open_files, silence, until
from tests.tries import in_one_of

pytestmark = pytest.mark.lab


def windows(text: str) -> list[Window]:
    """One JSON object a line, nothing else."""
    return [from_json(line, Window) for line in text.splitlines()]


def the_napi(window: Window) -> NapiWindow:
    (napi,) = (napi for napi in window.napis if napi.device == "server0")
    return napi


@dataclass(frozen=True)
class Watch:
    """A watch that runs."""

    process: subprocess.Popen[str]

    def next_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def interrupt(self) -> Ran:
        """Ctrl-C; what it said since the last line read."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.send_signal(signal.SIGINT)
        output, errors = self.process.stdout.read(), self.process.stderr.read()
        return Ran(self.process.wait(), output, errors)


@contextmanager
def watching(napctl: Napctl, *arguments: object) -> Iterator[Watch]:
    """watch, from a moment on at which it counts."""
    with napctl.start("watch", *arguments) as process:
        try:
            watch = Watch(process)
            first = process.stdout if "--json" in arguments else process.stderr
            assert first is not None
            said = first.readline()
            assert said.startswith(("{", "watching until Ctrl-C")), said
            yield watch
        finally:
            process.kill()


def test_status_shows_every_queue_and_every_napi_instance_with_its_settings(napctl: Napctl) -> None:
    with Lab.build(queues=3) as lab:
        _, second, third = lab.server.napis()
        with Netdev(lab.server.namespace) as netdev:
            netdev.set_napi(second.napi_id, NapiSettings(defer_hard_irqs=4, gro_flush_timeout_ns=5000))
            netdev.set_napi(third.napi_id, NapiSettings(irq_suspend_timeout_ns=6_000_000))

        machine = from_json(napctl("status", "--json", *at_server(lab)).stdout, Machine)
        text = napctl("status", *at_server(lab)).stdout

    (device,) = machine.devices
    assert [napi.settings for napi in device.napis] == [
        NapiSettings(
            defer_hard_irqs=defer, gro_flush_timeout_ns=flush_ns, irq_suspend_timeout_ns=suspend_ns, threaded="enabled"
        )
        for defer, flush_ns, suspend_ns in ((0, 0, 0), (4, 5000, 0), (0, 0, 6_000_000))
    ]
    assert [(queue.kind, queue.index) for queue in device.queues] == [
        (kind, index) for kind in ("rx", "tx") for index in range(3)
    ]
    assert {napi.cpus for napi in device.napis} == {"0"}
    for napi in device.napis:
        row = next(line for line in text.splitlines() if f" {napi.napi_id} " in line)
        assert str(napi.thread_pid) in row
    assert re.search(rf" {second.napi_id} .* 4 +5us +0", text)
    assert re.search(rf" {third.napi_id} .* 0 +0 +6ms", text)


def test_what_veth_does_not_have_is_none_and_never_0(lab: Lab, napctl: Napctl) -> None:
    machine = from_json(napctl("status", "--json", *at_server(lab)).stdout, Machine)
    text = napctl("status", *at_server(lab)).stdout

    (device,) = machine.devices
    assert (device.coalescing, device.rings, device.bus) == (None, None, None)
    assert {napi.irq for napi in device.napis} == {None}
    assert {queue.napi_id for queue in device.queues} == {None}, "veth tells no queue's NAPI instance"
    assert "coalescing  not supported by this driver" in text
    assert "rings       not reported by this driver" in text


def test_status_names_the_process_that_polls(server: Server, client: socket.socket, napctl: Napctl) -> None:
    netns = ("--netns", f"pid:{server.pid}")
    assert "memcached" not in napctl("status", *netns).stdout
    napctl.attach_quickly(server.pid)

    (poller,) = napctl.machine(server.pid)["pollers"]
    row = next(line for line in napctl("status", *netns).stdout.splitlines() if line.startswith("memcached"))

    assert (poller["pid"], poller["name"]) == (server.pid, "memcached")
    assert poller["epoll_fd"] in descriptors_of(server.pid).epolls
    words = ["memcached", server.pid, poller["epoll_fd"], poller["napi_ids"][0], 0, 64, "yes"]
    assert row.split() == [str(word) for word in words]


def test_status_shows_the_named_devices_in_the_order_asked(lab: Lab, napctl: Napctl) -> None:
    machine = napctl("status", "lo", "server0", "--json", *at_server(lab)).json

    assert [device["name"] for device in machine["devices"]] == ["lo", "server0"]


def test_devices_come_from_the_namespace_and_not_from_sys(lab: Lab, napctl: Napctl) -> None:
    names = {device["name"] for device in napctl.machine(lab.server)["devices"]}

    assert names == {"server0"}
    assert not names & {path.name for path in Path("/sys/class/net").iterdir()}


@pytest.mark.alone
def test_watch_prints_one_strict_window_per_interval(
    lab: Lab, server: Server, load: LoadStarter, napctl: Napctl
) -> None:
    load()

    def attempt() -> None:
        done = napctl("watch", "--seconds", 1, "--interval", 0.2, "--json", *at_server(lab))
        found = windows(done.stdout)

        assert (done.status, done.stderr) == (0, "")
        assert len(found) == 5
        for window, following in pairwise(found):
            assert window.seconds == pytest.approx(0.2, abs=0.1)
            gap_ns = following.started_unix_ns - window.started_unix_ns - window.seconds * 1e9
            assert abs(gap_ns) < 5e6, "windows are contiguous"
        assert sum(window.seconds for window in found) == pytest.approx(1, abs=0.1)
        for window in found:
            assert (window.source, window.lacks) == ("bpf", ())
            polls = the_napi(window).polls
            assert polls.packets > 1000
            assert the_napi(window).thread == polls, "detached, the lab's NAPI thread makes every poll"

    in_one_of(attempt)


def test_contiguous_windows_sum_to_the_total_of_the_load(
    lab: Lab, server: Server, load: LoadStarter, napctl: Napctl
) -> None:
    silence(server)  # the connection over which it was filled
    before = packets_of(lab)
    with watching(napctl, "--interval", 0.1, "--json", *at_server(lab)) as watch:
        load(10_000, seconds=0.7).result()
        silence(server)
        done = watch.interrupt()
    found = windows(done.stdout)
    packets = sum(device.rx_packets or 0 for window in found for device in window.devices if device.device == "server0")

    assert (done.status, done.stderr) == (0, "")
    assert len(found) > 2, "seven, where it gets a CPU at once"
    assert packets == packets_of(lab) - before
    assert total(the_napi(window).polls for window in found).packets == packets


def packets_of(lab: Lab) -> int:
    """Packets that the server's device has received, as iproute2 tells them."""
    with lab.server.namespace.entered():
        done = subprocess.run(["ip", "-j", "-s", "link", "show", "server0"], capture_output=True, check=True)
    packets: int = json.loads(done.stdout)[0]["stats64"]["rx"]["packets"]
    return packets


@pytest.mark.parametrize("attached", [False, True], ids=["detached", "attached"])
def test_watch_and_bpftrace_agree_on_the_polls_per_value(
    attached: bool, lab: Lab, server: Server, client: socket.socket, load: LoadStarter, napctl: Napctl
) -> None:
    (napi,) = lab.server.napis()
    if attached:
        napctl.attach_quickly(server.pid)
    with bpftrace(napi.napi_id) as end, watching(napctl, "--interval", 0.2, "--json", *at_server(lab)) as watch:
        load(20_000, seconds=1).result()
        silence(server, but=1)
        time.sleep(0.1)  # of deferral, which ends by as many empty polls
        done, theirs = watch.interrupt(), end()

    ours = total(the_napi(window).polls for window in windows(done.stdout))
    assert ours.polls > 100
    assert ours.polls == pytest.approx(theirs.total(), rel=0.01)
    for work, polls in enumerate(ours.counts[:65]):
        assert polls == pytest.approx(theirs[work], rel=0.01, abs=1), work


def test_watch_ends_cleanly_on_ctrl_c_with_its_summary(
    lab: Lab, server: Server, load: LoadStarter, napctl: Napctl
) -> None:
    load()
    with watching(napctl, *at_server(lab)) as watch:
        packets = packets_of(lab) + 2000
        until(lambda: packets_of(lab) > packets, "traffic")
        done = watch.interrupt()

    assert (done.status, done.stderr) == (0, "")
    assert re.search(r"^server0 NAPI \d+.*polls/s", done.stdout, re.M)
    assert "packets per poll" in done.stdout
    assert re.search(r"^ +\d+ \|@+ *\| +[\d,]+ +[\d.]+ %$", done.stdout, re.M)
    assert "NET_RX softirqs/s" in done.stdout


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_ctrl_c_before_the_first_window_is_over_is_no_error(form: tuple[str, ...], lab: Lab, napctl: Napctl) -> None:
    with napctl.start("watch", *at_server(lab), *form) as process:
        until(lambda: any("bpf" in file for file in open_files(process.pid)), "the probe")
        done = Watch(process).interrupt()

    assert done.status == 0
    assert "Traceback" not in done.stderr


def test_empty_polls_under_deferral_are_not_called_tx_completions(
    lab: Lab, server: Server, load: LoadStarter, napctl: Napctl
) -> None:
    load()
    napctl.attach_quickly(server.pid)

    def with_empty_polls() -> NapiWindow | None:
        """Where others have the CPU there is always a packet."""
        (window,) = windows(napctl("watch", "--seconds", 0.5, "--interval", 0.5, "--json", *at_server(lab)).stdout)
        return the_napi(window) if the_napi(window).polls.empty else None

    napi = until(with_empty_polls, "empty polls")
    assert napi is not None
    assert napi.empty is not None
    assert (napi.empty.tx_only, napi.empty.unattributed) == (0, 0)
    assert napi.empty.while_polling == napi.polls.empty > 0
    assert napi.busy_poll is not None
    own = sum(poller.polls for poller in napi.pollers if poller.pid == server.pid)
    assert own == pytest.approx(napi.busy_poll.polls, rel=0.01, abs=2)  # the two are not read at one instant


def test_a_change_of_settings_within_a_window_is_told(lab: Lab, napctl: Napctl) -> None:
    (napi,) = lab.server.napis()
    with watching(napctl, "--interval", 0.3, "--json", *at_server(lab)) as watch:
        first = from_json(watch.next_line(), Window)
        with Netdev(lab.server.namespace) as netdev:
            netdev.set_napi(napi.napi_id, NapiSettings(defer_hard_irqs=9))
        while not the_napi(told := from_json(watch.next_line(), Window)).settings_changed:
            pass  # it ended before the change
        last = from_json(watch.next_line(), Window)

    assert not the_napi(first).settings_changed
    assert not the_napi(last).settings_changed, "it is told once"
    settings = the_napi(told).settings
    assert settings is not None
    assert settings.defer_hard_irqs == 9


def test_polls_of_other_namespaces_are_shown_only_when_asked_for(
    lab: Lab, server: Server, load: LoadStarter, napctl: Napctl
) -> None:
    load()
    options = ("--seconds", 0.3, "--interval", 0.3, "--json")
    (own,) = windows(napctl("watch", *options, *at_server(lab)).stdout)
    assert {napi.netns for napi in own.napis} <= {lab.server.namespace.inode, 0}

    def client_is_shown() -> bool:
        (every,) = windows(napctl("watch", *options, *at_server(lab), "--all-namespaces").stdout)
        return lab.client.namespace.inode in {napi.netns for napi in every.napis}

    until(client_is_shown, "polls of the client's namespace")


def test_polls_are_counted_for_the_napi_instance_that_made_them(napctl: Napctl) -> None:
    """One connection uses one of two queues."""
    with (
        Lab.build(queues=2) as lab,
        ending(memcached(lab)) as server,
        watching(napctl, "--interval", 0.2, "--json", *at_server(lab)) as watch,
        ask(lab, server) as connection,
    ):
        for _ in range(500):
            assert answers(connection)
        done = watch.interrupt()
        ids = {napi.napi_id for napi in lab.server.napis()}
    packets: Counter[int] = Counter()
    for window in windows(done.stdout):
        for napi in window.napis:
            packets[napi.napi_id] += napi.polls.packets

    assert len(ids) == 2
    assert max(packets[number] for number in ids) >= 500
    assert min(packets[number] for number in ids) < 10
