"""Where an experiment takes place: the lab, a server under a load that the user names, or live traffic."""

import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from napctl.attach.attach import Choice, choose
from napctl.attach.examine import Examination, examine
from napctl.attach.fitness import verdicts
from napctl.attach.operate import WATCH_SECONDS
from napctl.attach.target import Target, resolve
from napctl.kernel import processes
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.processes import Process
from napctl.lab.bed import Lab
from napctl.lab.servers import memcached
from napctl.measure.compare import Load
from napctl.measure.gauge import Gauge
from napctl.measure.labload import KEYS_PER_GET, WARMUP_SECONDS, LabLoad
from napctl.measure.live import LiveLoad
from napctl.measure.treatments import Place
from napctl.model.change import Guard
from napctl.model.errors import BadInput, Unsupported
from napctl.model.experiment import RunConfig
from napctl.model.machine import Machine
from napctl.observe.machine import take_machine
from napctl.probe import ProbeUnavailable

VALUE_BYTES = 8
LIGHT, HEAVY = 0.25, 0.7
"""The lab's load levels, as shares of the rate that saturates the server with interrupts."""
CALIBRATION_SECONDS = 1.5
CONNECTED_SECONDS = 4.0
"""Patience for the first connections of a load."""


@dataclass(frozen=True)
class Bench:
    """Everything that run() needs."""

    place: Place
    load: Load
    gauge: Gauge
    machine: Machine
    target: str
    """As `attach` takes it; empty: no server is named."""


@contextmanager
def lab_bench(
    directory: Path, guard: Guard, *, threads: int = 1, queues: int = 1, warmup_seconds: float = WARMUP_SECONDS
) -> Iterator[Bench]:
    """memcached in a lab of its own, under the lab's open-loop load."""
    with Lab.build(queues=queues) as lab:
        server = memcached(lab, threads=threads, keys=KEYS_PER_GET, value_bytes=VALUE_BYTES)
        with server:
            process = processes.process(server.pid)
            assert process is not None
            load = LabLoad(lab, server, warmup_seconds)
            netns, cpus = lab.server.namespace, {lab.server.cpu}
            yield from _on_server([process], "memcached", load, netns, directory, guard, cpus=cpus)


@contextmanager
def server_bench(target: Target, load: Load, directory: Path, guard: Guard) -> Iterator[Bench]:
    """A server of the user's, under a load that is made for each cell."""
    found = resolve(target)
    with NetworkNamespace.of_process(found[0].pid) as netns:
        yield from _on_server(found, target.text, load, netns, directory, guard)


@contextmanager
def live_bench(target: Target, config: RunConfig, directory: Path, guard: Guard) -> Iterator[Bench]:
    """A server of the user's, under the traffic that is there."""
    found = resolve(target)
    with NetworkNamespace.of_process(found[0].pid) as netns:
        examination = examine(target.text, found, WATCH_SECONDS)
        napis = {napi_id for _, napi_id in examination.feeding}
        try:
            with LiveLoad(napis, config) as load:
                yield from _on_server(found, target.text, load, netns, directory, guard)
        except ProbeUnavailable as error:
            raise Unsupported(f"--live needs the probe: {error.reason}") from None


@contextmanager
def device_bench(
    netns: NetworkNamespace, devices: Sequence[str], load: Load, directory: Path, guard: Guard
) -> Iterator[Bench]:
    """No server: for plans and hooks."""
    machine = take_machine(netns, devices)
    with Gauge(netns, [device.name for device in machine.devices]) as gauge:
        yield Bench(Place(directory, netns, guard), load, gauge, machine, "")


def _on_server(
    found: Sequence[Process],
    name: str,
    load: Load,
    netns: NetworkNamespace,
    directory: Path,
    guard: Guard,
    *,
    cpus: Collection[int] = (),
) -> Iterator[Bench]:
    with load.primed():
        examination = _examined(name, found)
    choice = choice_of(examination)
    devices = sorted({each.device.name for each in examination.napis.values() if each.netns == netns.inode})
    if not devices:
        raise BadInput(f"{name}: no packet of a device of its network namespace was seen to reach it under that load")
    pids = [process.pid for process in examination.processes]
    with Gauge(netns, devices, pids, choice.napis, cpus) as gauge:
        place = Place(directory, netns, guard, examination, choice)
        yield Bench(place, load, gauge, take_machine(netns, devices), name)


def _examined(name: str, found: Sequence[Process]) -> Examination:
    """As soon as a NAPI instance feeds it."""
    deadline = time.monotonic() + CONNECTED_SECONDS
    while not examine(name, found).feeding and time.monotonic() < deadline:
        time.sleep(0.02)
    return examine(name, found, WATCH_SECONDS)


def choice_of(found: Examination) -> Choice:
    """Epoll instances that fit, for treatments that poll; and all NAPI instances that feed the server, for all."""
    choice = choose(found, verdicts(found), steer=False, force=False)
    fed = {napi_id for _, napi_id in found.feeding}
    return Choice(choice.instances, (), (), tuple(sorted(fed | set(choice.napis))))


def lab_rates(bench: Bench, progress: Callable[[str], None]) -> tuple[float, ...]:
    """A light load, a heavy one, and as much as possible, from what saturates the server with interrupts."""
    progress("finding the load that saturates the server with interrupts")
    told = bench.load.measured(0, CALIBRATION_SECONDS, 1, Path(os.devnull), bench.gauge)
    saturating = told.metrics["requests_per_second"]
    return (*(max(1000.0, round(share * saturating, -3)) for share in (LIGHT, HEAVY)), 0.0)
