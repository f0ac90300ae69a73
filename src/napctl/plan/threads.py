"""Proposals for a machine that is to outlive a flood: what is busy is polled by threads that come after all other work.

A softirq goes before every process of its CPU; since 2023 (commit d15121be7485) ksoftirqd holds it back no more. A
thread at nice 19 gets little but what the others leave, and what it does not take, the NIC's ring drops for nothing.
"""

from napctl.model.limits import MOST_NICE
from napctl.model.machine import Device, Napi, threads_together
from napctl.model.plan import InstanceThread, Proposal, thread_setting
from napctl.model.settings import DISABLED, ENABLED, ThreadSettings
from napctl.model.text import each as listed
from napctl.plan.proposal import Draft, Known

__all__ = ["have_threads"]


BUSY_SHARE = 0.01
"""Of the packets that a device takes: a queue with less is not one that a flood goes to."""
WHY = (
    "when more packets come than its CPU can take, whoever runs there goes before them, and the ring drops the rest "
    "before any work has gone into it"
)
PRICE = "its price at the load of now, in latency and CPU time, is measured by napctl apply --verify"
BOUND = f"nice {MOST_NICE} is the last that there is"


def have_threads(known: Known, draft: Draft) -> None:
    """One thread for each busy NAPI instance, where its interrupt was. Without a window all count as busy."""
    device = known.device
    together = threads_together(device)
    if not device.napis or any(napi.thread is None for napi in device.napis):
        draft.leave("this kernel or driver has no NAPI threads that can be switched")
    elif known.held and together:
        draft.leave(f"NAPI {listed(known.held)} belongs to an application that polls it, and this kernel has threads "
                    "for all NAPI instances of a device or for none (Linux 6.17 has them for one)")  # fmt: skip
    elif not (busy := _busy(known)):
        draft.missing.append(f"{device.name}: no packet came in the window, so which of its NAPI instances are busy is "
                             "not known; --window 0 takes all of them for busy")  # fmt: skip
    else:
        for place, napi in enumerate(device.napis):
            if napi.napi_id in known.held:
                draft.leave(f"NAPI {napi.napi_id}: the task that reads its packets polls for them itself, which "
                            "protects it while that holds; `napctl protect` sees to the rest")  # fmt: skip
            elif napi.napi_id in busy or together:
                _have_thread(draft, place, napi)


def _busy(known: Known) -> set[int]:
    """NAPI instances of it."""
    if known.window is None:
        return {napi.napi_id for napi in known.device.napis}
    taken = {row.napi_id: row.polls.packets for row in known.window.napis if row.ifindex == known.device.ifindex}
    least = BUSY_SHARE * sum(taken.values())
    return {napi_id for napi_id, packets in taken.items() if packets and packets >= least}


def _have_thread(draft: Draft, place: int, napi: Napi) -> None:
    assert napi.thread is not None
    wanted = ThreadSettings(threaded=ENABLED, nice=MOST_NICE, cpus=napi.cpus)
    now = napi.thread
    if (now.threaded, now.nice) == (ENABLED, MOST_NICE) and napi.cpus in (None, now.cpus):
        return
    draft.threads.append(InstanceThread(instance=place, thread=wanted))
    draft.proposals.append(
        Proposal(
            device=draft.device.name,
            setting=thread_setting(place),
            now=thread_words(now),
            proposed=thread_words(wanted),
            why=f"{_served(draft.device, napi)}{WHY}; {PRICE}",
            bound=BOUND,
            sources=("thread: netdev netlink", _cpus_source(napi)),
        )
    )


def thread_words(thread: ThreadSettings) -> str:
    """Who polls, in words."""
    if thread.threaded == DISABLED:
        return "softirq"
    nice = "" if thread.nice is None else f", nice {thread.nice}"
    cpus = "" if thread.cpus is None else f", CPU {thread.cpus}"
    return f"{'thread' if thread.threaded == ENABLED else 'spinning thread'}{nice}{cpus}"


def _cpus_source(napi: Napi) -> str:
    if napi.cpus is None:
        return "its CPUs: left to the scheduler, as the driver does not tell its interrupt"
    return f"its CPUs: {'/proc/irq' if napi.thread_pid is None else 'the scheduler'}"


def _served(device: Device, napi: Napi) -> str:
    queues = [f"{queue.kind}{queue.index}" for queue in device.queues if queue.napi_id == napi.napi_id]
    return f"it serves {listed(queues)}: " if queues else ""
