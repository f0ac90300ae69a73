"""doctor: a healthy lab has no finding; each fault that is planted for real has exactly its own."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from napctl.doctor.rules import diagnose
from napctl.kernel.sysfs import DeviceAttributes
from napctl.lab.bed import End, Lab
from napctl.lab.load import LoadSpec, started
from napctl.lab.servers import Server, memcached, serve
from napctl.model.finding import Diagnosis, Finding
from napctl.model.settings import EpollParams, NapiSettings
from napctl.model.suspension import Suspension
from napctl.model.value import from_json
from tests.lab.conftest import LoadStarter
from tests.lab.following import following
from tests.lab.helpers import (
    PREFERS,
    Napctl,
    ask,
    at_server,
    ending,
    params_of,
    set_napi,
    set_params,
    until,
)

pytestmark = pytest.mark.lab

WINDOW_S = 0.6
SPIN_US = 1_000_000
"""A spinning memcached cannot be killed for so long."""


def doctor(napctl: Napctl, lab: Lab, *options: object) -> Diagnosis:
    done = napctl("doctor", "--seconds", WINDOW_S, "--json", *options, *at_server(lab))
    found = from_json(done.stdout, Diagnosis)
    assert done.status == (1 if found.findings else 0), done
    assert done.stderr == ""
    return found


def rules(found: Diagnosis) -> list[str]:
    return [finding.rule for finding in found.findings]


def doctor_finds(napctl: Napctl, lab: Lab, *wanted: str) -> Diagnosis:
    """What it says once it finds just that: a busy machine lets a load wait now and then for as long as it looks."""
    seen: list[list[str]] = []

    def looked() -> Diagnosis | None:
        found = doctor(napctl, lab)
        seen.append(rules(found))
        return found if seen[-1] == [*wanted] else None

    try:
        found = until(looked, f"{wanted}", 30)
    except AssertionError as error:
        raise AssertionError(f"{error}; it found {seen}") from None
    assert found is not None
    return found


def beside_an_idle_cpu(napctl: Napctl, lab: Lab) -> Finding:
    """The one finding, had the lab's second CPU been idle: other work of the machine may have it.

    Of some looks: that work may leave its first CPU waiting for the second in one of them.
    """
    for _ in range(20):
        checkup = doctor(napctl, lab).checkup
        first, second, *others = checkup.cpus
        found = diagnose(replace(checkup, cpus=(first, replace(second, busy_share=0.1), *others)))
        if found:
            break
    (finding,) = found
    return finding


@contextmanager
def machine_sysctl(name: str, value: int) -> Iterator[None]:
    """A setting that all network namespaces share, for as long as the measurement only."""
    path = Path("/proc/sys/net/core") / name
    was = path.read_text()
    path.write_text(str(value))
    try:
        yield
    finally:
        path.write_text(was)


@contextmanager
def loaded(lab: Lab, server: Server, connections: int, rate: float = 1000, depth: int = 0) -> Iterator[None]:
    """`depth`: instead of that rate as many requests as the server can answer, that many of each connection waiting."""
    spec = LoadSpec(
        rate_per_second=rate,
        seconds=100,
        warmup_seconds=0.1,
        connections=connections,
        closed_depth=depth,
        sleeps=not depth,
    )
    with started(lab, server, spec) as load:
        load.wait_for_warmup()
        yield


@contextmanager
def running(end: End, command: list[str]) -> Iterator[None]:
    """A command that does not end by itself."""
    process = end.start(command)
    try:
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def full_cpu(lab: Lab) -> AbstractContextManager[None]:
    """The server's CPU has nothing left, and yet nobody has to wait for it."""
    return running(lab.server, ["chrt", "--idle", "0", "sh", "-c", "while :; do :; done"])


SENDER = """
import socket, sys, time
flows = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(64)]
while True:
    for flow in flows:
        flow.sendto(bytes(32), (sys.argv[1], 9))
    time.sleep(0.01)
"""
"""6,400 datagrams per second of so many flows that each queue has its share, from a CPU that is left with room."""


def datagrams(lab: Lab) -> AbstractContextManager[None]:
    return running(lab.client, [sys.executable, "-c", SENDER, lab.server.address])


# Healthy.


def test_a_quiet_lab_has_no_finding(lab: Lab, server: Server, napctl: Napctl) -> None:
    found = doctor(napctl, lab)

    assert found.findings == ()
    assert len(found.rules) >= 16
    assert "fewer than 100 packets came" in [each.why for each in found.unjudged]


def test_an_ordinary_load_is_no_finding(lab: Lab, server: Server, load: LoadStarter, napctl: Napctl) -> None:
    load(5_000)

    def looked() -> Diagnosis | None:
        """A busy machine may let the load wait for that long."""
        found = doctor(napctl, lab)
        (counts,) = found.checkup.window.devices
        return found if (counts.rx_packets or 0) > 1000 else None

    found = until(looked, "a look at traffic")
    assert found is not None
    assert found.findings == ()
    # NAPI threads of other labs come and go beside this one: then nobody can tell what packets take of a CPU.
    why = {each.why for each in found.unjudged} - {"what packets take of each CPU could not be read"}
    assert why == {"a software device has no interrupts"}


def test_what_was_looked_at_is_said(lab: Lab, server: Server, load: LoadStarter, napctl: Napctl) -> None:
    load(5_000)

    def said() -> str:
        done = napctl("doctor", "--seconds", WINDOW_S, *at_server(lab))
        assert done.status == 0, done
        assert max(map(len, done.stdout.splitlines())) <= 80
        return "" if "fewer than 100 packets came" in (words := " ".join(done.stdout.split())) else words

    words = until(said, "a look at traffic")
    assert re.match(r"no finding: \d+ rules over server0; \d\.\d s, [\d,]+ packets received ", words)
    assert re.search(r"not judged server0: a software device has no interrupts \(\d rules\)", words)


# Planted faults.


def test_device_wide_deferral(lab: Lab, server: Server, napctl: Napctl) -> None:
    with DeviceAttributes(lab.server.namespace) as attributes:
        attributes.write("server0", "napi_defer_hard_irqs", "2")
        attributes.write("server0", "gro_flush_timeout", "200000")
        found = doctor(napctl, lab)

    assert rules(found) == ["device-wide-deferral"]
    assert "may wait 200us" in found.findings[0].title


def test_settings_lost_at_reset(lab: Lab, server: Server, napctl: Napctl) -> None:
    """And veth really loses them."""
    (napi,) = lab.server.napis()
    set_napi(lab, napi.napi_id, NapiSettings(defer_hard_irqs=7, gro_flush_timeout_ns=9000))
    found = doctor(napctl, lab)
    with lab.server.namespace.entered():
        for state in ("down", "up"):
            subprocess.run(["ip", "link", "set", "server0", state], check=True)
    (after,) = lab.server.napis()

    assert rules(found) == ["settings-lost-at-reset"]
    assert "defer-hard-irqs 7, gro-flush-timeout 9us" in found.findings[0].evidence[0].text
    assert after.napi_id != napi.napi_id
    assert after.settings.defer_hard_irqs == 0


def test_settings_that_a_follower_sets_again_are_no_finding(lab: Lab, server: Server, napctl: Napctl) -> None:
    with following(napctl, server.pid, "--defer-us", 200) as it, ask(lab, server):
        it.told("attached memcached")
        followed = doctor(napctl, lab)
        shown = napctl("doctor", "--seconds", WINDOW_S, *at_server(lab))
        assert it.end() == 0
    with ask(lab, server):
        assert napctl("attach", server.pid, "--defer-us", 200, "--window", 0).status == 0
        left_alone = doctor(napctl, lab)

    assert rules(followed) == []
    assert [(each.rule, each.mended_by) for each in followed.mended] == [("settings-lost-at-reset", (it.pid,))]
    assert shown.status == 0
    assert f"which follows memcached ({server.pid}), sets them again" in " ".join(shown.stdout.split())
    assert rules(left_alone) == ["settings-lost-at-reset"]
    assert left_alone.mended == ()


def test_busy_polling_while_idle(lab: Lab, server: Server, load: LoadStarter, napctl: Napctl) -> None:
    """And the command that is offered takes it away."""
    load(200, connections=1)
    for fd in params_of(server.pid):
        set_params(server.pid, fd, EpollParams(busy_poll_usecs=SPIN_US, busy_poll_budget=8, prefer_busy_poll=False))
    found = doctor_finds(napctl, lab, "busy-polling-while-idle")

    (finding,) = found.findings
    assert re.fullmatch(
        rf"memcached \({server.pid}\) burns [\d.]+ % of a CPU: .* of its polls find nothing", finding.title
    )
    assert napctl(*finding.commands[0].split()[1:], "--window", "0s").status == 0
    doctor_finds(napctl, lab, "settings-lost-at-reset")  # once the epoll_wait that spins has ended


def test_epoll_over_several_queues(napctl: Napctl) -> None:
    with Lab.build(queues=2) as lab, ending(memcached(lab)) as server, loaded(lab, server, 32):
        for fd in params_of(server.pid):
            set_params(server.pid, fd, PREFERS)
        found = doctor_finds(napctl, lab, "epoll-over-several-queues")
        for napi in lab.server.napis():
            set_napi(lab, napi.napi_id, Suspension().napi)
        suspended = doctor_finds(napctl, lab, "epoll-over-several-queues", "settings-lost-at-reset")

    assert found.findings[0].severity == "cost"
    assert suspended.findings[0].severity == "danger"
    assert "up to 20ms" in suspended.findings[0].consequence


def test_several_queues_on_one_cpu(napctl: Napctl) -> None:
    """The lab's NAPI threads all are on the server's CPU, as a NIC's interrupts are before anybody spreads them."""
    with Lab.build(queues=2) as lab, datagrams(lab), full_cpu(lab):
        time.sleep(0.3)
        finding = beside_an_idle_cpu(napctl, lab)
        threads = [napi.thread_pid for napi in lab.server.napis()]

    assert (finding.rule, finding.where) == ("several-queues-on-one-cpu", "CPU 0")
    assert finding.commands == (f"taskset -cp 1 {threads[1]}",)


def test_more_busy_queues_than_cpus(napctl: Napctl) -> None:
    """Queues on both CPUs, which have nothing left."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) != 2:
        pytest.skip("fills a machine of two CPUs")
    with (
        Lab.build(queues=8) as lab,
        ending(memcached(lab)) as server,
        loaded(lab, server, 200, depth=4),
        full_cpu(lab),
    ):
        for number, napi in enumerate(lab.server.napis()):
            assert napi.thread_pid is not None
            os.sched_setaffinity(napi.thread_pid, {cpus[number % 2]})
        doctor_finds(napctl, lab, "more-busy-queues-than-cpus")


BUSY_SERVER = """
import select, socket, sys
listener = socket.create_server((sys.argv[1], 7000), backlog=64)
listener.setblocking(False)
epoll = select.epoll()
epoll.register(listener, select.EPOLLIN)
connections = {}
while True:
    for fd, _ in epoll.poll():
        if fd == listener.fileno():
            connection, _ = listener.accept()
            connections[connection.fileno()] = connection
            epoll.register(connection, select.EPOLLIN)
        elif request := connections[fd].recv(4096):
            sum(range(10_000))  # what a real one computes
            connections[fd].sendall(request)
        else:
            connections.pop(fd).close()
"""
PATIENT_CLIENT = """
import select, socket, sys
connections = {}
for _ in range(64):
    connection = socket.create_connection((sys.argv[1], 7000))
    connections[connection.fileno()] = connection
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(b"request")
poll = select.poll()
for fd in connections:
    poll.register(fd, select.POLLIN)
while True:
    for fd, _ in poll.poll():
        connections[fd].sendall(connections[fd].recv(4096))
"""


@pytest.mark.alone
def test_interrupt_on_application_cpu(lab: Lab, napctl: Napctl) -> None:
    """A server that needs its whole CPU, packets taken there too, and a client that leaves the other CPU idle."""
    server = serve(lab, [sys.executable, "-c", BUSY_SERVER, lab.server.address], 7000)
    client = [sys.executable, "-c", PATIENT_CLIENT, lab.server.address]
    with ending(server), running(lab.client, client):
        finding = beside_an_idle_cpu(napctl, lab)

    assert finding.rule == "interrupt-on-application-cpu"
    (napi,) = lab.server.napis()
    assert f"({server.pid}) are taken on its own full CPU 0, while CPU 1 is idle" in finding.title
    assert finding.commands == (f"napctl attach {server.pid}", f"taskset -cp 1 {napi.thread_pid}")


@pytest.mark.alone  # the machine's other packets would be taken one by one, too
def test_time_squeezes(lab: Lab, server: Server, load: LoadStarter, napctl: Napctl) -> None:
    """Polls in softirq, which may take one packet each time."""
    with DeviceAttributes(lab.server.namespace) as attributes:
        attributes.write("server0", "threaded", "0")
    load()
    with machine_sysctl("netdev_budget", 1):
        found = doctor_finds(napctl, lab, "time-squeezes")

    assert "CPU 1" in found.findings[0].where, "veth polls on the sender's CPU"


@pytest.mark.alone  # others' packets would be dropped, too
def test_backlog_drops(lab: Lab, server: Server, load: LoadStarter, napctl: Napctl) -> None:
    """RPS sends the packets through the backlog of the CPU on which the load generator spins."""
    with DeviceAttributes(lab.server.namespace) as attributes:
        attributes.write("server0", "queues/rx-0/rps_cpus", "2")
    load(40_000)
    with machine_sysctl("netdev_max_backlog", 1):
        found = doctor_finds(napctl, lab, "backlog-drops")

    assert found.findings[0].severity == "danger"
