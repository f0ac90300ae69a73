"""Rules about programs that take packets past the kernel: those that do not, that do not keep up, or that burn a
CPU at rest."""

from collections.abc import Iterator

from napctl.doctor.facts import LEAST_PACKETS, Lack, Rule, cpu_names
from napctl.model.census import NO_BYPASS, Poller, SpinningThread
from napctl.model.finding import Checkup, Evidence, Finding
from napctl.model.units import percent

__all__ = ["RULES"]


AT_REST = 0.05
"""Of the time that a poller runs: with less work, sleeping costs it nothing that anybody sees."""
LEAST_LOST = 10
MEAN = "mean of"
"""What a program tells of its work may be of another time than now."""
COMMANDS = {"Open vSwitch with DPDK": ("ovs-vsctl set Open_vSwitch . other_config:pmd-sleep-max=50",)}
LOADED_BASIS = "Onload User Guide UG1586; libvma README; https://doc.dpdk.org/guides/howto/telemetry.html"
BEHIND_BASIS = (
    "https://doc.dpdk.org/guides/prog_guide/ethdev/ethdev.html, imissed; "
    "Documentation/networking/af_xdp.rst, XDP_STATISTICS"
)
REST_BASIS = (
    "https://doc.dpdk.org/guides/prog_guide/power_man.html; "
    "https://docs.openvswitch.org/en/latest/topics/dpdk/pmd/, PMD load based sleeping"
)


def bypass_idle(seen: Checkup) -> Iterator[Finding]:
    """A bypass is loaded, and its process's packets come through the kernel all the same."""
    for poller in seen.pollers:
        really = poller.really
        if really is None or really.port_packets != 0 or (really.kernel_packets or 0) < LEAST_PACKETS:
            continue
        yield Finding(
            rule="bypass-idle",
            severity="cost",
            where=_name(poller),
            title=f"{_name(poller)} has {poller.kind} loaded, and no packet comes through it",
            evidence=(
                *(Evidence(text=text, source="/proc") for text in poller.evidence[:2]),
                Evidence(
                    text=f"0 packets through it, {really.kernel_packets:,} through the kernel", source=really.source
                ),
            ),
            consequence="It has the latency and the CPU cost of the kernel's stack; what was installed does nothing.",
            remedy="See why it takes no socket: a device that it does not know, an address of another one, missing "
            "rights, or an option that leaves these sockets out.",
            certainty="likely",
            basis=LOADED_BASIS,
        )


def poller_behind(seen: Checkup) -> Iterator[Finding]:
    """Packets find no place with a program: its 100 % of a CPU suffice no more, which CPU time never tells."""
    for poller in seen.pollers:
        really = poller.really
        if really is None or (really.lost or 0) < LEAST_LOST:
            continue
        taken = "" if really.port_packets is None else f", and {really.port_packets:,} came to it"
        yield Finding(
            rule="poller-behind",
            severity="danger",
            where=_name(poller),
            title=f"{_name(poller)} does not keep up: {really.lost:,} packets found no place with it",
            evidence=(Evidence(text=f"{really.lost:,} packets lost{taken}", source=_who_counts(poller)),),
            consequence="They are lost before it has seen them; whoever sent them sends them again, or does not.",
            remedy="Give it another queue and another CPU, or larger rings; or see what else runs on its CPU.",
            certainty="certain",
            basis=BEHIND_BASIS,
        )


def uncounted_losses(seen: Checkup) -> Iterator[Lack]:
    """Where nobody counts what finds no place, or where that could not be read."""
    for poller in seen.pollers:
        if poller.really is not None and poller.really.port_packets and poller.really.lost is None:
            yield _name(poller), "whether packets find a place with it is not known"


def _who_counts(poller: Poller) -> str:
    return "XDP_STATISTICS" if poller.kind == "AF_XDP" else "its ports"


def poller_at_rest(seen: Checkup) -> Iterator[Finding]:
    """A program polls at 100 % of a CPU, and hardly any of that is work."""
    for poller in seen.pollers:
        resting = [each for each in poller.threads if _rests(each)]
        if poller.kind in NO_BYPASS or not resting:
            continue
        used = sum(each.run_share for each in resting)
        told = all(each.work_share is not None for each in resting)
        most = sum(_work(each) or 0.0 for each in resting) / used
        work = f"{percent(most)} of that is work" if told else f"at most {percent(most)} of that can be work"
        cpus = cpu_names({each.cpu for each in resting if each.cpu is not None})
        yield Finding(
            rule="poller-at-rest",
            severity="cost",
            where=_name(poller),
            title=f"{_name(poller)} polls at {percent(used)} of a CPU; {work}",
            evidence=tuple(
                Evidence(
                    text=f"thread {each.name} ran {percent(each.run_share)} of the time and never slept; work "
                    f"{'' if each.work_share is not None else 'at most '}{percent(_work(each) or 0.0)} of a CPU",
                    source=each.source,
                )
                for each in resting
            ),
            consequence=f"CPU {cpus} never sleeps: energy, and a share of the package's turbo, for next to nothing."
            if cpus
            else "A CPU never sleeps for it.",
            remedy=poller.remedy or "Its documentation may name a way to wait: interrupts, or sleeping between polls.",
            commands=COMMANDS.get(poller.kind, ()),
            certainty="certain" if told and not any(MEAN in each.source for each in resting) else "likely",
            basis=REST_BASIS,
        )


def _rests(thread: SpinningThread) -> bool:
    work = _work(thread)
    return work is not None and thread.run_share > 0 and work <= AT_REST * thread.run_share


def _work(thread: SpinningThread) -> float | None:
    return thread.most_work_share if thread.work_share is None else thread.work_share


def _name(poller: Poller) -> str:
    return f"{poller.name} ({poller.pid})"


RULES = (
    Rule("bypass-idle", bypass_idle),
    Rule("poller-behind", poller_behind, (uncounted_losses,)),
    Rule("poller-at-rest", poller_at_rest),
)
