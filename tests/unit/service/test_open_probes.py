"""What a process that runs for months reads of the machine's load, and what it does where it cannot."""

from collections.abc import Collection, Iterable, Iterator

import pytest

from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.errors import NotPermitted
from napctl.observe.packet_load import PacketLoadReader
from napctl.service import open_probes
from napctl.service.open_probes import OpenPacketLoad


class Names(frozenset[str]):
    """A set whose order is another one each time that it is asked, as that of equal sets may be."""

    forwards = True

    def __iter__(self) -> Iterator[str]:
        self.forwards = not self.forwards
        return iter(sorted(super().__iter__(), reverse=self.forwards))


def test_the_same_devices_in_another_order_are_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[PacketLoadReader] = []

    class Counted(PacketLoadReader):
        def __init__(self, watched: Iterable[tuple[NetworkNamespace, Collection[str]]]) -> None:
            opened.append(self)
            super().__init__(watched)

    monkeypatch.setattr(open_probes, "PacketLoadReader", Counted)
    names = Names({"lo", "eth0"})
    with NetworkNamespace.current() as netns, OpenPacketLoad() as load:
        for _ in range(4):
            assert load.read([(netns, names)], None) is not None
    assert len(opened) == 1


def test_what_cannot_be_read_is_missing_and_is_read_as_soon_as_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_: object) -> None:
        raise NotPermitted("needs CAP_SYS_ADMIN")

    with NetworkNamespace.current() as netns, OpenPacketLoad() as load:
        monkeypatch.setattr(open_probes, "PacketLoadReader", forbidden)
        assert load.read([(netns, ("lo",))], None) is None
        monkeypatch.setattr(open_probes, "PacketLoadReader", PacketLoadReader)
        assert load.read([(netns, ("lo",))], None) is not None


class Clock:
    """Of which the test says what it shows."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_a_table_holds_something_unused_if_that_was_of_no_use_for_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(open_probes, "time", clock)
    places, counts, found = open_probes._Places(), [5, 7, 0], list[bool]()
    for _ in range(5):
        places.note(lambda: tuple(counts))
        found.append(places.hold_unused(counts))
        clock.now += open_probes.LEAST_SECONDS / 2
        counts[0] += 1
    assert found == [False, False, True, True, True], "10 minutes after it was noted, and not before"
    counts[1] += 1
    assert not places.hold_unused(counts), "all that is taken is of use"
