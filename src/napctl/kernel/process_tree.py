"""The tree of processes: who descends from whom. Pure functions over {pid: parent's pid}, and one that reads /proc."""

from collections.abc import Collection, Iterator, Mapping

from napctl.kernel.processes import Process, Seen, look_at_all

__all__ = ["ancestors", "children_map", "descendants", "in_order", "parents", "tops", "with_descendants"]


def parents(seen: Mapping[int, Seen]) -> dict[int, int]:
    """{pid: parent's pid}, as the functions below take it."""
    return {pid: each.parent for pid, each in seen.items()}


def children_map(parent_of: Mapping[int, int]) -> dict[int, list[int]]:
    """{pid: its children, by pid}. Without an entry: no children."""
    children: dict[int, list[int]] = {}
    for pid in sorted(parent_of):
        children.setdefault(parent_of[pid], []).append(pid)
    return children


def ancestors(pid: int, parent_of: Mapping[int, int]) -> Iterator[int]:
    """Its parent, that one's parent, and so on.

    A pass over /proc takes time, in which pids may come to mean others: a circle ends the walk.
    """
    met = {pid}
    while (pid := parent_of.get(pid, 0)) and pid not in met:
        met.add(pid)
        yield pid


def tops(pids: Collection[int], parent_of: Mapping[int, int]) -> list[int]:
    """Those of them that descend from none of the others, by pid. If it is one, they all belong to its tree."""
    among = set(pids)
    found = sorted(pid for pid in among if among.isdisjoint(ancestors(pid, parent_of)))
    return found or sorted(among)  # nothing but a circle


def with_descendants(pids: Collection[int], parent_of: Mapping[int, int]) -> list[int]:
    """They and all that descend from them, each once, parents before children."""
    children = children_map(parent_of)
    found = dict.fromkeys(tops(pids, parent_of))
    level = list(found)
    while level:
        level = [child for pid in level for child in children.get(pid, ()) if child not in found]
        found.update(dict.fromkeys(level))
    return list(found)


def in_order(pids: Collection[int], seen: Mapping[int, Seen]) -> list[int]:
    """Parents before children, whatever lies between them; else the oldest first. Pids not seen are left out."""
    parent_of = parents(seen)

    def place(pid: int) -> tuple[int, int, int]:
        return sum(1 for _ in ancestors(pid, parent_of)), seen[pid].process.started_ticks, pid

    return sorted((pid for pid in set(pids) if pid in seen), key=place)


def descendants(pids: Collection[int]) -> list[Process]:
    """The live processes that descend from these, without these themselves, parents before children."""
    seen = look_at_all()
    own = set(pids)
    below = (seen[pid] for pid in with_descendants(own, parents(seen)) if pid in seen and pid not in own)
    return [each.process for each in below if not each.ended]
