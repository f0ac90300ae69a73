"""A device that was moved to another network namespace is found by its program; kernel and namespaces are doubles."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from napctl.change import storm_objects
from napctl.change.storm_objects import opened_storm_control
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.xdp import XdpDevice
from napctl.model.storm_change import StormControlChange, XdpProgram

CONTROL = StormControlChange(
    netns=1, device="eth0", ifindex=2, before=XdpProgram(xdp_program=0), after=XdpProgram(xdp_program=7)
)
HOME, POD, LOCKED = (SimpleNamespace(inode=number) for number in (1, 5, 6))


def device(ifindex: int, program: int) -> XdpDevice:
    return XdpDevice("eth0", ifindex, b"", ethernet=True, native=program, generic=0, offloaded=0)


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[XdpDevice]]:
    """Devices by the namespace that they are in; program 7 is loaded while one has it."""
    there: dict[int, list[XdpDevice]] = {1: [], 5: []}

    def devices(netns: SimpleNamespace) -> list[XdpDevice]:
        if netns is LOCKED:
            raise PermissionError
        return there[netns.inode]

    @contextmanager
    def program(number: int) -> Iterator[int | None]:
        yield 3 if any(number in each.programs for some in there.values() for each in some) else None

    monkeypatch.setattr(storm_objects, "xdp_devices", devices)
    monkeypatch.setattr("napctl.kernel.bpf.program", program)
    monkeypatch.setattr(NetworkNamespace, "each", lambda: iter([LOCKED, POD]))
    monkeypatch.setattr(storm_objects, "xdp_device", lambda netns, ifindex: there[netns.inode][0])
    return there


def attached() -> XdpProgram | None:
    with opened_storm_control(CONTROL, [HOME]) as target:  # type: ignore[list-item]
        now = target.read() if target is not None else None
    assert now is None or isinstance(now, XdpProgram)
    return now


def test_it_is_found_where_it_was_moved(there: dict[int, list[XdpDevice]]) -> None:
    there[5] = [device(9, 7)]
    assert attached() == XdpProgram(xdp_program=7)


def test_at_home_it_is_the_device_also_without_the_program(there: dict[int, list[XdpDevice]]) -> None:
    there[1] = [device(2, 0)]
    there[5] = [device(9, 7)]
    assert attached() == XdpProgram(xdp_program=0)


def test_what_has_gone_is_nowhere(there: dict[int, list[XdpDevice]]) -> None:
    there[5] = [device(2, 0)]
    assert attached() is None


def test_each_namespace_is_shown_once_and_ours_is_among_them() -> None:
    with NetworkNamespace.current() as ours:
        inodes = [each.inode for each in NetworkNamespace.each()]
        assert ours.inode in inodes
    assert len(inodes) == len(set(inodes))
