"""Storm control as the objects that a transaction changes: which program a device has, and what that limits."""

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from msgspec.structs import replace

from napctl.kernel import bpf
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netlink import Refused
from napctl.kernel.xdp import XdpDevice, exchange_program, xdp_device, xdp_devices
from napctl.model.errors import NapctlError
from napctl.model.storm_change import StormControlChange, StormLimitsChange, XdpProgram
from napctl.model.value import Value
from napctl.probe.storm import StormMaps

__all__ = ["opened_storm_control", "opened_storm_limits"]


class _ProgramTarget:
    """Exchanges only the program that was read: one that somebody else attached meanwhile is never taken away."""

    def __init__(self, change: StormControlChange, netns: NetworkNamespace, device: XdpDevice):
        self._change, self._netns, self._device = change, netns, device

    def read(self) -> Value | None:
        now = xdp_device(self._netns, self._device.ifindex)
        if now is None:
            return None
        self._device = now
        return XdpProgram(xdp_program=self._attached)

    def write(self, values: Mapping[str, Any]) -> None:
        with ExitStack() as stack:
            wanted = _program(stack, values["xdp_program"])
            expected = _program(stack, self._attached)
            exchange_program(self._netns, self._device.ifindex, wanted, expected, generic=self._change.generic)

    @property
    def _attached(self) -> int:
        """As it was read; in another mode than ours, if there is one: that is in its place, and not to be touched."""
        own = self._device.generic if self._change.generic else self._device.native
        return own or next(iter(self._device.programs), 0)


def _program(stack: ExitStack, number: int) -> int | None:
    """A descriptor. Raises FileNotFoundError."""
    if not number:
        return None
    fd = stack.enter_context(bpf.program(number))
    if fd is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return fd


@contextmanager
def opened_storm_control(
    change: StormControlChange, candidates: Iterable[NetworkNamespace]
) -> Iterator[_ProgramTarget | None]:
    """The device that has the program by now, wherever it was moved; or the one that had it. None if that is gone."""
    home = None
    for netns in candidates:
        for device in xdp_devices(netns):
            if change.after.xdp_program in device.programs:
                yield _ProgramTarget(change, netns, device)
                return
            if netns.inode == change.netns and device.ifindex == change.ifindex:
                home = _ProgramTarget(change, netns, device)
    for netns in NetworkNamespace.each() if home is None and _is_loaded(change.after.xdp_program) else ():
        if (moved := _having(netns, change.after.xdp_program)) is not None:
            yield _ProgramTarget(change, netns, moved)
            return
    yield home


def _is_loaded(number: int) -> bool:
    """A program goes when nothing has it any more. Raises OSError."""
    with bpf.program(number) as fd:
        return fd is not None


def _having(netns: NetworkNamespace, number: int) -> XdpDevice | None:
    with suppress(OSError, Refused, NapctlError):  # gone, or not ours to enter
        return next((each for each in xdp_devices(netns) if number in each.programs), None)
    return None


class _LimitsTarget:
    def __init__(self, maps: StormMaps):
        self._maps = maps

    def read(self) -> Value | None:
        return self._maps.limits()

    def write(self, values: Mapping[str, Any]) -> None:
        self._maps.set_limits(replace(self._maps.limits(), **values))


@contextmanager
def opened_storm_limits(change: StormLimitsChange) -> Iterator[_LimitsTarget | None]:
    """The limits of that very program; None if it is gone."""
    with StormMaps.of(change.program) as maps:
        yield None if maps is None else _LimitsTarget(maps)
