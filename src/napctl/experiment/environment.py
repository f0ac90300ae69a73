"""Where an experiment takes place: the lab, a server under a load that the user names, or live traffic."""

import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace as but
from pathlib import Path

from napctl.attach.attach_options import AttachOptions
from napctl.attach.attachment import planned
from napctl.attach.inspect_target import Examination, examine
from napctl.attach.judge_target import WATCH_SECONDS, Choice, JudgedTarget, judge, why_not
from napctl.attach.target import Target, resolve
from napctl.experiment.meter import CellMeter
from napctl.experiment.treatments import Place, steer
from napctl.kernel import processes
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.processes import Process
from napctl.lab.bed import Lab
from napctl.lab.servers import memcached
from napctl.lab.webservers import nginx
from napctl.load.base import Load
from napctl.load.lab import KEYS_PER_GET, WARMUP_SECONDS, LabLoad
from napctl.load.live import LiveLoad
from napctl.model.change import Guard, SteeringChange
from napctl.model.errors import BadInput, Unsupported
from napctl.model.experiment import RunConfig
from napctl.model.machine import Machine
from napctl.model.suspension import Suspension
from napctl.observe.machine import take_machine
from napctl.probe import ProbeUnavailable

__all__ = [
    "Environment",
    "device_environment",
    "lab_environment",
    "lab_rates",
    "live_environment",
    "server_environment",
    "web_environment",
]


VALUE_BYTES = 8
LIGHT, HEAVY = 0.25, 0.7
"""The lab's load levels, as shares of the rate that saturates the server with interrupts."""
CALIBRATION_SECONDS = 1.5
CONNECTED_SECONDS = 4.0
"""Patience for the first connections of a load."""


@dataclass(frozen=True)
class Environment:
    """Everything that run() needs."""

    place: Place
    load: Load
    meter: CellMeter
    machine: Machine
    target: str
    """As `attach` takes it; empty: no server is named."""


@contextmanager
def lab_environment(
    directory: Path,
    guard: Guard,
    *,
    warmup_seconds: float = WARMUP_SECONDS,
    keys_per_get: int = KEYS_PER_GET,
) -> Iterator[Environment]:
    """memcached in a lab of its own, under the lab's open-loop load."""
    with Lab.build() as lab, memcached(lab, keys=KEYS_PER_GET, value_bytes=VALUE_BYTES) as server:
        process = processes.process(server.pid)
        assert process is not None
        load = LabLoad(lab, server, warmup_seconds, keys_per_get)
        netns, cpus = lab.server.namespace, {lab.server.cpu}
        yield from _on_server([process], "memcached", load, netns, directory, guard, cpus=cpus)


@contextmanager
def web_environment(
    directory: Path, guard: Guard, *, workers: int, warmup_seconds: float = WARMUP_SECONDS
) -> Iterator[Environment]:
    """nginx in a lab of its own, with a queue for each worker, which is steered to it; under the lab's load."""
    with Lab.build(queues=workers) as lab, nginx(lab, workers=workers, reuseport=True) as server:
        found = [each for pid in (server.pid, *server.workers) if (each := processes.process(pid)) is not None]
        load = LabLoad(lab, server, warmup_seconds, keys_per_get=1, protocol="http")
        netns, cpus = lab.server.namespace, {lab.server.cpu}
        steering = _steered(found, "nginx", load)
        yield from _on_server(found, "nginx", load, netns, directory, guard, cpus=cpus, steering=steering)


def _steered(found: Sequence[Process], name: str, load: Load) -> tuple[SteeringChange, ...]:
    """As by `attach --steer`, but for as long as the server runs: treatments that follow find it so."""
    with load.primed():
        judged = judge(_examined(name, found), AttachOptions(Suspension(), steer=True))
    changes = tuple(each for each in planned(judged, Suspension()) if isinstance(each, SteeringChange))
    if not changes:
        raise Unsupported(
            f"{name}: its workers cannot be steered: {why_not(judged.found, judged.verdicts, judged.rings)}"
        )
    steer(changes)
    return changes


@contextmanager
def server_environment(target: Target, load: Load, directory: Path, guard: Guard) -> Iterator[Environment]:
    """A server of the user's, under a load that is made for each cell."""
    found = resolve(target)
    with NetworkNamespace.of_process(found[0].pid) as netns:
        yield from _on_server(found, target.text, load, netns, directory, guard)


@contextmanager
def live_environment(target: Target, config: RunConfig, directory: Path, guard: Guard) -> Iterator[Environment]:
    """A server of the user's, under the traffic that is there."""
    found = resolve(target)
    with NetworkNamespace.of_process(found[0].pid) as netns:
        examination = examine(target.text, found, WATCH_SECONDS)
        napis = {napi_id for _, napi_id in examination.feeding}
        try:
            with LiveLoad(napis, [process.pid for process in found], config) as load:
                yield from _on_server(found, target.text, load, netns, directory, guard)
        except ProbeUnavailable as error:
            raise Unsupported(f"--live needs the probe: {error.reason}") from None


@contextmanager
def device_environment(
    netns: NetworkNamespace, devices: Sequence[str], load: Load, directory: Path, guard: Guard
) -> Iterator[Environment]:
    """No server: for plans and hooks."""
    machine = take_machine(netns, devices)
    with CellMeter(netns, [device.name for device in machine.devices]) as meter:
        yield Environment(Place(directory, netns, guard), load, meter, machine, "")


def _on_server(
    found: Sequence[Process],
    name: str,
    load: Load,
    netns: NetworkNamespace,
    directory: Path,
    guard: Guard,
    *,
    cpus: Collection[int] = (),
    steering: tuple[SteeringChange, ...] = (),
) -> Iterator[Environment]:
    with load.primed():
        examination = _examined(name, found)
    steered = frozenset(inode for each in steering for inode in each.inodes)
    server = _with_all_napis(judge(examination, AttachOptions(Suspension()), steered=steered))
    devices = sorted({each.device.name for each in server.found.napis.values() if each.netns == netns.inode})
    if not devices:
        raise BadInput(f"{name}: no packet of a device of its network namespace was seen to reach it under that load")
    pids = [process.pid for process in server.found.processes]
    with CellMeter(netns, devices, pids, server.choice.napis, cpus) as meter:
        place = Place(directory, netns, guard, server, steering)
        yield Environment(place, load, meter, take_machine(netns, devices), name)


def _examined(name: str, found: Sequence[Process]) -> Examination:
    """As soon as a NAPI instance feeds it."""
    deadline = time.monotonic() + CONNECTED_SECONDS
    while not examine(name, found).feeding and time.monotonic() < deadline:
        time.sleep(0.02)
    return examine(name, found, WATCH_SECONDS)


def _with_all_napis(server: JudgedTarget) -> JudgedTarget:
    """Epoll instances that fit, for treatments that poll; and all NAPI instances that feed the server, for all."""
    napis = {napi_id for _, napi_id in server.found.feeding} | set(server.choice.napis)
    return but(server, choice=Choice(server.choice.instances, (), (), tuple(sorted(napis))))


def lab_rates(environment: Environment, progress: Callable[[str], None]) -> tuple[float, ...]:
    """A light load, a heavy one, and as much as possible, from what saturates the server with interrupts."""
    progress("finding the load that saturates the server with interrupts")
    told = environment.load.measured(0, CALIBRATION_SECONDS, 1, Path(os.devnull), environment.meter)
    saturating = told.metrics["requests_per_second"]
    return (*(max(1000.0, round(share * saturating, -3)) for share in (LIGHT, HEAVY)), 0.0)
