"""What --stay tells: each line when nobody waits for it, and what has not changed once."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Protocol

from napctl.attach.switch_way import way_words
from napctl.change.one_change import value_words
from napctl.kernel.monitor import Notice
from napctl.model.activity import Attached
from napctl.model.change import (
    Change,
    EpollChange,
    IoUringChange,
    NapiChange,
    SocketChange,
    SteeringChange,
    ThreadChange,
    Transaction,
)
from napctl.model.errors import NapctlError
from napctl.model.modes import mode_of
from napctl.model.plan import settings
from napctl.model.settings import kernel_name
from napctl.model.snapshot import Decision

__all__ = ["Tell", "TellOf", "Words", "counted", "found_before", "in_words"]


RENUMBERED = "NAPI instances have new ids"
REMEMBERED = 64
"""Lines that are not told again."""
KINDS: dict[type[Change], str] = {
    NapiChange: "NAPI instance", ThreadChange: "NAPI thread", EpollChange: "epoll instance", SocketChange: "socket",
    IoUringChange: "io_uring instance",
    SteeringChange: "steered group",
}  # fmt: skip


class Tell(Protocol):
    """Who reads: a line, and what was decided; None: it only tells what has happened. May keep us waiting."""

    def __call__(self, line: str, kind: Decision | None = None, /) -> None: ...  # noqa: D102


class TellOf(Protocol):
    """Receives a device, or "", and a line about it, and what was decided; as of Tell."""

    def __call__(self, device: str, line: str, kind: Decision | None = None, /) -> None: ...  # noqa: D102


class Words:
    """Lines on their way to who reads them."""

    def __init__(self, write: Tell):
        self._write = write
        self._lines: list[tuple[str, Decision | None]] = []
        """What is still to be told: the journal's lock is not to wait for who reads."""
        self._said: OrderedDict[str, None] = OrderedDict()

    def tell(self, line: str, kind: Decision | None = None) -> None:
        """A line, at the next tell_all()."""
        self._lines.append((line, kind))

    def tell_attached(self, attached: Attached, whom: str, *, chosen: bool) -> None:
        """`chosen`: its timer was, and not asked for."""
        what, attach_ms = counted(attached.transaction), attached.attach_seconds * 1000
        self.tell(f"attached {whom}: {what}, in {attach_ms:.0f} ms", "attach")
        if chosen and attached.mode != "thread":
            timer = f"chose {way_words(attached.timer.gro_flush_timeout_ns)}"
            self.tell(f"{timer}: {attached.timer.why}" if attached.timer.why else timer, "adapt")
        for line in (*found_before(attached.transaction), *attached.warnings):
            self.tell(line)

    def tell_adopted(self, taken: Transaction, gro_flush_timeout_ns: int | None) -> None:
        """What somebody else had left is followed, as it is."""
        way = "" if mode_of(taken.changes) == "thread" else f", with {way_words(gro_flush_timeout_ns)}"
        self.tell(f"took over {taken.title}: {counted(taken)}{way}", "adopt")

    def tell_notices(self, notices: Iterable[Notice]) -> None:
        """What has happened to devices, each once."""
        told = (each for each in notices if each.device)
        words = (f"{each.device}: {RENUMBERED if each.what == 'napi ids' else each.what}" for each in told)
        self._lines += ((line, None) for line in dict.fromkeys(words))

    def say(self, line: str, kind: Decision | None = None) -> None:
        """Once, until say_anew()."""
        if line not in self._said:
            self.tell(line, kind)
        self._said[line] = None
        self._said.move_to_end(line)
        while len(self._said) > REMEMBERED:
            self._said.popitem(last=False)

    def say_anew(self) -> None:
        """Something else is attached. What is still to be told stays said."""
        waiting = {line for line, _ in self._lines}
        self._said = OrderedDict.fromkeys(line for line in self._said if line in waiting)

    def tell_all(self) -> None:
        """Everything that is still to be told."""
        while self._lines:
            self._write(*self._lines.pop(0))


def counted(transaction: Transaction) -> str:
    """What was attached, by kind: "4 NAPI instances, 1 epoll instance"."""
    found = []
    for kind, name in KINDS.items():
        count = sum(isinstance(each, kind) for each in transaction.changes)
        found += [f"{count} {name}{'s' if count > 1 else ''}"] if count else []
    return ", ".join(found)


def found_before(transaction: Transaction) -> Iterator[str]:
    """A line for what somebody had set of what is attached, NAPI or epoll instances alike in one."""
    alike: dict[str, list[str]] = {}
    for change in transaction.changes:
        if isinstance(change, NapiChange | EpollChange):
            before = (
                (name, was) for name, was in settings(change.before) if was and was != getattr(change.after, name)
            )
            if words := ", ".join(f"{kernel_name(name)} {value_words(name, was)}" for name, was in before):
                alike.setdefault(words, []).append(change.where)
    for words, places in alike.items():
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        yield f"{places[0]}{more} had {words}, which comes back in the end"


def in_words(error: NapctlError | OSError) -> str:
    """For a line."""
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
    return str(error)
