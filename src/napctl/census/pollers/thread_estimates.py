"""What of their time threads that spin worked, estimated from counters of the CPU; and what that window teaches.

Never in the place of the program's own account, and only where it says more than the bound from packets.
"""

from collections.abc import Mapping, Sequence

from napctl.census.pollers.spinning import Spin
from napctl.census.pollers.work_estimate import AT_REST, Counts, RestAndWork, Signature, estimate, learn, signature
from napctl.census.pollers.work_share import MostWork
from napctl.model.units import percent

__all__ = ["estimates"]


NOT_COUNTED = "it was not seen to spin when the window began, or too many others were"
ALIKE = "no estimate: another thread of that name spins as well"
TOO_SHORT = "no estimate: it ran for too short a time"
NEVER_AT_REST = "no estimate yet: it was never seen at rest"
NEVER_BUSY = "no estimate yet: it was never seen busy while it kept up"
TELLS_NOTHING = "no estimate: its counters are those of its busiest window, or tell no rest from work"
BOUND_SAYS_MORE = "no estimate: the bound says more"


def estimates(
    spinning: Sequence[Spin],
    counted: Mapping[int, Counts | str],
    bounds: Mapping[int, MostWork | None],
    learned: Mapping[str, RestAndWork],
    packets: int | None,
) -> tuple[dict[int, tuple[float | None, str]], dict[str, RestAndWork]]:
    """By thread, what of a CPU was work at most, or None, and where that is from, or why there is none; and what is
    known now of each by its name. `packets`: of the program, within the window; None: not counted, or it lost some,
    and nothing is learned."""
    found: dict[int, tuple[float | None, str]] = {}
    after = dict(learned)
    names = [_lasting_name(each) for each in spinning]
    for spin, name in zip(spinning, names, strict=True):
        counts, most = counted.get(spin.tid, NOT_COUNTED), bounds.get(spin.tid)
        if isinstance(counts, str):
            found[spin.tid] = None, f"no estimate: {counts}"
        elif names.count(name) > 1:
            found[spin.tid] = None, ALIKE
        else:
            known = learned.get(name, RestAndWork())
            if packets is not None:
                rests = most is not None and most.share <= AT_REST
                known = after[name] = learn(known, counts, packets, resting=rests)
            found[spin.tid] = _estimated(counts, known, spin.run_share, most)
    return found, after


def _lasting_name(spin: Spin) -> str:
    """By which a thread is known when its program is started again."""
    return f"{spin.name} on CPU {spin.cpu}" if spin.pinned else spin.name


def _estimated(counts: Counts, known: RestAndWork, run_share: float, most: MostWork | None) -> tuple[float | None, str]:
    now, resting, busiest = signature(counts), known.resting, known.busiest
    if now is None:
        return None, TOO_SHORT
    if resting is None:
        return None, NEVER_AT_REST
    if busiest is None:
        return None, NEVER_BUSY
    share = estimate(now, resting, busiest)
    if share is None:
        return None, TELLS_NOTHING
    if most is not None and most.share <= share * run_share:
        return None, BOUND_SAYS_MORE
    return share * run_share, (
        f"instructions per cycle and branches of them {_told(now)}; {_told(resting.most)} at rest, {_told(busiest)}"
        " at its busiest [perf_event_open]"
    )


def _told(rates: Signature) -> str:
    return f"{rates.instructions_per_cycle:.2f} and {percent(rates.branches_per_instruction)}"
