"""Rules about overload: CPUs that packets take from the threads that want them, and those that a flood would take."""

from collections.abc import Iterator
from shlex import quote

from napctl.doctor.facts import (
    NAPI_DOC,
    PROBE,
    PROC_STAT,
    SCHEDSTAT,
    SOFTNET,
    Lack,
    Rule,
    application_on,
    busy,
    cpu_names,
    napi_name,
    no_napis,
    no_probe,
    single_cpu,
)
from napctl.model.finding import Checkup, Evidence, Finding
from napctl.model.machine import Device, Napi, attached
from napctl.model.overload import PACKETS_TAKE, CpuLoad, OverloadedCpu, late_words, overloaded, overloaded_words
from napctl.model.units import percent
from napctl.model.window import NapiWindow

__all__ = ["RULES"]


LIVELOCK = "J. Mogul and K. Ramakrishnan, Eliminating receive livelock in an interrupt-driven kernel (1997)"
NO_YIELD = "commit d15121be7485 (softirqs no longer wait for ksoftirqd's turn)"
SNMP, RUN_DELAY, MISSED = "/proc/net/snmp, netstat", "/proc/schedstat", "rx_missed_errors"
HALF_WAY = PACKETS_TAKE / 2
"""Share of a CPU in packet work from which twice the packets take it: their work grows with their number."""
LEAST_THREAD = 0.02
"""Of a CPU: a thread that uses less is not what a flood would take it from."""
SOFTIRQ_POLLS = 0.5
"""Share of an instance's polls in softirq from which a flood would be taken there, too."""
NICE_LAST = 19


def overload(seen: Checkup) -> Iterator[Finding]:
    """Packets take a CPU from the threads that want it, and most often are dropped after the work on them."""
    load = seen.window.packet_load
    for found in overloaded(load) if load else ():
        assert load is not None
        late = found.level == "overloaded"
        yield Finding(
            rule="overload",
            severity="danger",
            where=f"CPU {found.cpu}",
            title=overloaded_words(found),
            evidence=tuple(_evidence(found, _told_by(seen), late_words(load), load.lacks)),
            consequence="The more packets come, the less is left for those that are served: at four times its peak a "
            "server may answer a few percent of it."
            if late
            else "Everything else on that CPU comes to a halt: servers, and also the shell of who would look.",
            remedy="Let packets that nobody has time for be dropped in the ring, where that costs nothing: IRQ "
            "suspension for the server (`attach`), or NAPI threads that come after all others (nice 19). A flood that "
            "is for nobody has to be dropped before the stack (XDP), or at the switch.",
            commands=(*_attach(seen, found.cpu), *_as_threads(seen, found.cpu)),
            certainty="certain" if found.waited_share is not None else "likely",
            basis=f"{LIVELOCK}; {NO_YIELD}",
        )


def _told_by(seen: Checkup) -> str:
    """What the share of packet work is from."""
    return f"{PROC_STAT}, {SCHEDSTAT}" + (f", {PROBE}" if seen.window.source == "bpf" else "")


def _evidence(found: OverloadedCpu, source: str, late: list[str], lacks: tuple[str, ...]) -> Iterator[Evidence]:
    taken = f"softirqs and NAPI threads took {percent(found.packet_share)} of CPU {found.cpu}"
    yield Evidence(text=taken, source=source)
    if found.waited_share is not None:
        yield Evidence(text=f"other threads stood in its run queue {percent(found.waited_share)} of the time",
                       source=RUN_DELAY)  # fmt: skip
    else:
        yield Evidence(text="it was never idle: what packets left was taken", source=PROC_STAT)
        yield from (Evidence(text=f"not known: {lack}", source=RUN_DELAY) for lack in lacks)
    if late:
        yield Evidence(text=f"dropped late: {', '.join(late)}", source=f"{SNMP}, {SOFTNET}")
    if found.ring_drops_per_second:
        yield Evidence(text=f"{found.ring_drops_per_second:,.0f}/s dropped in the ring", source=MISSED)


def packets_beside_their_server(seen: Checkup) -> Iterator[Finding]:
    """A CPU takes packets in softirq for a server that runs on it, and twice as many would leave that nothing."""
    for device, napi, row in _in_softirq(seen):
        cpu = single_cpu(napi)
        load = None if cpu is None else _load_of(seen, cpu)
        if cpu is None or load is None or load.packet_share is None or not HALF_WAY <= load.packet_share < PACKETS_TAKE:
            continue
        for process, _ in application_on(seen, napi, cpu, LEAST_THREAD):
            yield Finding(
                rule="packets-beside-their-server",
                severity="risk",
                where=napi_name(device, napi.napi_id),
                title=f"packets take {percent(load.packet_share)} of CPU {cpu}, on which {process.name} "
                f"({process.pid}) runs: twice as many would take it all",
                evidence=(
                    Evidence(text=f"softirqs and NAPI threads took {percent(load.packet_share)} of CPU {cpu}",
                             source=_told_by(seen)),
                    _taken(device, row, seen),
                ),
                consequence="A softirq comes before every thread, whatever its nice value: in a flood packets are "
                "taken that the server has no time to read, and dropped after all that work.",
                remedy="IRQ suspension (`attach`): the server takes its packets itself, when it has time for them. Or "
                "NAPI threads at nice 19: the ring drops what nobody has time for.",
                commands=(f"napctl attach {process.pid}", *_thread_commands(device)),
                certainty="likely",
                basis=f"{LIVELOCK}; {NO_YIELD}; {NAPI_DOC}, Threaded NAPI",
            )  # fmt: skip


def no_cpu_left_by_a_flood(seen: Checkup) -> Iterator[Finding]:
    """All CPUs take packets in softirq, so many that twice as many would leave none to anything else."""
    loads = {use.cpu: _load_of(seen, use.cpu) for use in seen.cpus}
    shares = [load.packet_share for load in loads.values() if load is not None and load.packet_share is not None]
    taking = {cpu for _, napi, _ in _in_softirq(seen) if (cpu := single_cpu(napi)) is not None}
    if len(loads) < 2 or len(shares) < len(loads) or min(shares) < HALF_WAY or not loads.keys() <= taking:
        return
    devices = dict.fromkeys(device.name for device, _, _ in _in_softirq(seen))
    yield Finding(
        rule="no-cpu-left-by-a-flood",
        severity="risk",
        where=f"CPU {cpu_names(loads)}",
        title=f"every CPU takes packets in softirq, {percent(min(shares))} of its time and more: twice as many would "
        "leave none to anything else",
        evidence=tuple(
            Evidence(
                text=f"softirqs and NAPI threads took {percent(load.packet_share)} of CPU {cpu}", source=_told_by(seen)
            )
            for cpu, load in loads.items()
            if load is not None and load.packet_share is not None
        ),
        consequence="In a flood nothing else gets a CPU: not the shell, nor what would report that the machine is "
        "alive.",
        remedy="Leave one CPU without queues (fewer queues, or their interrupts elsewhere); or NAPI threads, which "
        "compete with others where softirqs do not.",
        commands=tuple(f"echo 1 > /sys/class/net/{quote(name)}/threaded" for name in devices),
        certainty="possible",
        basis=f"{LIVELOCK}; {NO_YIELD}; cilium issue 27719: nodes that did not answer until the cable was pulled",
    )


def _in_softirq(seen: Checkup) -> Iterator[tuple[Device, Napi, NapiWindow]]:
    """Busy instances that a flood would find polled by interrupt: no NAPI thread, no suspension."""
    for device in seen.machine.devices:
        for napi, row in busy(seen, device):
            polls = row.softirq.polls if row.softirq else 0
            if napi.thread_pid is None and not attached(napi) and polls >= SOFTIRQ_POLLS * row.polls.polls:
                yield device, napi, row


def _load_of(seen: Checkup, cpu: int) -> CpuLoad | None:
    load = seen.window.packet_load
    return next((each for each in load.cpus if each.cpu == cpu), None) if load else None


def _attach(seen: Checkup, cpu: int) -> Iterator[str]:
    """For each server that the instances of that CPU feed."""
    fed = {
        napi.napi_id
        for device in seen.machine.devices
        for napi in device.napis
        if single_cpu(napi) == cpu and not attached(napi)
    }
    for process in seen.processes:
        threads = {napi.thread_pid for device in seen.machine.devices for napi in device.napis}
        if process.pid not in threads and fed.intersection(process.napi_ids):
            yield f"napctl attach {process.pid}"


def _as_threads(seen: Checkup, cpu: int) -> Iterator[str]:
    """The threads that there are come last; where there are none, they are to be made first."""
    for device in seen.machine.devices:
        there = [napi for napi in device.napis if single_cpu(napi) == cpu]
        if threads := [napi.thread_pid for napi in there if napi.thread_pid is not None]:
            yield f"renice -n {NICE_LAST} -p {' '.join(map(str, threads))}"
        elif there:
            yield from _thread_commands(device)


def _thread_commands(device: Device) -> Iterator[str]:
    name = quote(device.name)
    yield f"echo 1 > /sys/class/net/{name}/threaded"
    yield f"renice -n {NICE_LAST} -p $(pgrep {quote(f'^napi/{device.name}-')})"


def _taken(device: Device, row: NapiWindow, seen: Checkup) -> Evidence:
    rate = row.polls.packets / seen.window.seconds
    return Evidence(text=f"{napi_name(device, row.napi_id)}: {rate:,.0f} packets a second, in softirq", source=PROBE)


def no_packet_load(seen: Checkup) -> Iterator[Lack]:
    """Shares of a CPU want a window of some length, and counters that nobody has set back."""
    load = seen.window.packet_load
    if load is None or all(cpu.packet_share is None for cpu in load.cpus):
        yield "", "what packets take of each CPU could not be read"


RULES = (
    Rule("overload", overload, (no_packet_load,)),
    Rule("packets-beside-their-server", packets_beside_their_server, (no_packet_load, no_probe, no_napis)),
    Rule("no-cpu-left-by-a-flood", no_cpu_left_by_a_flood, (no_packet_load, no_probe, no_napis)),
)
