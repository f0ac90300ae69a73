"""Storm control of one device: attached before it is needed, limiting in the storm, passing again after it, taken away.

The way of use; each step is part of a transaction, so that what ends napctl at whatever moment leaves a way back:

    armed = arm(journal, netns, ifindex, begun("apply", name, ()))      # attached, everything passes
    armed.words                                                        # a reset of the device that came of it
    limited = armed.control.limit(journal, armed.transaction, limits_of(1000))
    limited.words                                                      # what stays off, and why
    armed.control.counts()                                             # by reason, since it was attached
    armed.control.refresh(journal, limited.transaction)                # now and then: addresses and rules change
    passing = armed.control.let_pass(journal, limited.transaction)
    armed.control.disarm(journal, passing)

`StormControl(netns, change)` finds it again, for a napctl that goes on with the transaction of another one. All raise
NapctlError.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from msgspec.structs import replace

from napctl.change.after_reset import instances, reset_words, set_again, set_again_after
from napctl.change.journal import Journal
from napctl.change.transaction import amend, apply, restore
from napctl.kernel import bpf
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.kernel.xdp import XdpDevice, xdp_device
from napctl.model.change import Change, Transaction
from napctl.model.errors import BadInput, NapctlError, NotPermitted, Unsupported
from napctl.model.storm import PASSING, StormCounts, StormLimits
from napctl.model.storm_change import StormControlChange, StormLimitsChange, XdpProgram
from napctl.probe.loading import ProbeUnavailable
from napctl.probe.storm import PROGRAM, StormMaps, StormProgram
from napctl.protect.storm_facts import PortFactsReader, own_addresses
from napctl.protect.storm_rules import port_doubts

__all__ = ["Armed", "Limited", "StormControl", "arm", "refuse_impossible"]


@dataclass(frozen=True)
class Armed:
    """Storm control is attached, and everything passes."""

    control: "StormControl"
    transaction: Transaction
    """In force, with the program's change."""
    words: tuple[str, ...]
    """What came of attaching it, as many NICs reset for a native program; empty: nothing."""


@dataclass(frozen=True)
class Limited:
    """Storm control limits."""

    transaction: Transaction
    limits: StormLimits
    """In force: what was asked for, without what cannot be judged."""
    words: tuple[str, ...]
    """What was left out, and why."""


def arm(
    journal: Journal, netns: NetworkNamespace, ifindex: int, transaction: Transaction, *, generic: bool = False
) -> Armed:
    """Attach it to a device, letting everything pass, as a change of a transaction that is in force, or of a new one
    (without a number), which then is "applied". `generic`: behind the driver, where any driver will do.

    Raises BadInput if there is no such device or napctl's is attached already; Unsupported beside another XDP program,
    or where driver or kernel cannot; NotPermitted; what apply() raises.
    """
    device = _free_device(netns, ifindex)
    before = instances(netns, ifindex)
    with _loaded(device) as program:
        change = StormControlChange(
            netns=netns.inode,
            device=device.name,
            ifindex=ifindex,
            generic=generic,
            before=XdpProgram(xdp_program=0),
            after=XdpProgram(xdp_program=program.number),
        )
        control = StormControl(netns, change)
        control.take_addresses()
        if transaction.number:
            made = amend(journal, transaction, more=(change,))
        else:
            made = apply(journal, replace(transaction, changes=(change,)), then="applied")
    after = instances(netns, ifindex)
    words = (*reset_words(device.name, before, after), *set_again(journal, netns, ifindex, before, after))
    return Armed(control, made, words)


def refuse_impossible(netns: NetworkNamespace, ifindex: int) -> None:
    """Raises what arm() would, as far as that can be told without attaching anything."""
    device = _free_device(netns, ifindex)
    with _loaded(device):
        pass
    if _has_native_xdp(netns, ifindex) is False:
        raise Unsupported(f"storm control of {device.name}: its driver has no native XDP")


class StormControl:
    """One that is attached. It holds no descriptors: the network namespace is its caller's, who keeps it open."""

    def __init__(self, netns: NetworkNamespace, change: StormControlChange):
        self._netns, self.change = netns, change
        self._facts = PortFactsReader(netns, change.ifindex)

    def limit(self, journal: Journal, transaction: Transaction, wanted: StormLimits) -> Limited:
        """Let what is named through up to the rate only, in the place of what was limited before. Ports where nobody
        listens are left out where that cannot be judged."""
        words: tuple[str, ...] = ()
        if wanted.no_listener and (doubts := self._doubts()):
            wanted = replace(wanted, no_listener=False)
            words = tuple(f"packets to ports where nobody listens are not limited: {each}" for each in doubts)
        if wanted.passing:
            return Limited(self.let_pass(journal, transaction), PASSING, words)
        self.take_addresses()
        change = StormLimitsChange(
            netns=self.change.netns,
            device=self.change.device,
            ifindex=self.change.ifindex,
            program=self._number,
            before=PASSING,
            after=wanted,
        )
        made = amend(journal, transaction, more=(change,), without=self._limits_in(transaction))
        return Limited(made, wanted, words)

    def let_pass(self, journal: Journal, transaction: Transaction) -> Transaction:
        """Limit nothing any more; it stays attached."""
        limits = self._limits_in(transaction)
        return amend(journal, transaction, without=limits) if limits else transaction

    def disarm(self, journal: Journal, transaction: Transaction) -> Transaction | None:
        """Take the program away; None if nothing is left of the transaction, which then is over. What somebody else has
        attached in its place is left alone."""
        own = [each for each in transaction.changes if each == self.change] + self._limits_in(transaction)
        with set_again_after(journal, own):
            if len(own) < len(transaction.changes):
                return amend(journal, transaction, without=[each for each in transaction.changes if each in own])
            restore(journal, transaction)
        return None

    def refresh(self, journal: Journal, transaction: Transaction) -> Limited | None:
        """Take over which addresses the host has by now, and judge anew if rules have changed: None, or what is limited
        instead, as ports cannot be judged any more."""
        in_force = self._limits_in(transaction)
        if not in_force:
            return None
        self.take_addresses()
        if not in_force[-1].after.no_listener or not self._doubts():
            return None
        return self.limit(journal, transaction, in_force[-1].after)

    def counts(self) -> StormCounts:
        """By reason, since it was attached; what came while nothing was limited is not counted."""
        with self._maps() as maps:
            return maps.counts()

    def take_addresses(self) -> None:
        """Tell the program which addresses are the host's own."""
        own = own_addresses(self._netns)
        with self._maps() as maps:
            maps.set_addresses(own)

    @property
    def is_attached(self) -> bool:
        """Whether it still is: somebody else may have taken it away, or the device has gone."""
        device = xdp_device(self._netns, self.change.ifindex)
        return device is not None and self._number in device.programs

    @property
    def _number(self) -> int:
        return self.change.after.xdp_program

    def _limits_in(self, transaction: Transaction) -> list[StormLimitsChange]:
        limits = (each for each in transaction.changes if isinstance(each, StormLimitsChange))
        return [each for each in limits if each.program == self._number]

    def _doubts(self) -> tuple[str, ...]:
        return port_doubts(self._facts.read())

    @contextmanager
    def _maps(self) -> Iterator[StormMaps]:
        try:
            with StormMaps.of(self._number) as maps:
                if maps is None:
                    raise BadInput(f"{self.change.where}: gone; somebody else has taken it away, or the device is gone")
                yield maps
        except OSError as error:
            raise _explained(self.change, error) from None


def _explained(change: Change, error: OSError) -> NapctlError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return NotPermitted(f"{change.where}: bpf() is refused; it needs CAP_SYS_ADMIN")
    return Unsupported(f"{change.where}: {error.strerror}")


def _has_native_xdp(netns: NetworkNamespace, ifindex: int) -> bool | None:
    with suppress(Unsupported), Netdev(netns) as netdev:
        return netdev.has_native_xdp(ifindex)
    return None


def _loaded(device: XdpDevice) -> StormProgram:
    try:
        return StormProgram.load(device.mac)
    except ProbeUnavailable as error:
        raise Unsupported(f"storm control of {device.name}: {error.reason}") from None


def _free_device(netns: NetworkNamespace, ifindex: int) -> XdpDevice:
    """One without an XDP program."""
    device = xdp_device(netns, ifindex)
    if device is None:
        raise BadInput(f"there is no network device {ifindex} any more")
    if not device.ethernet:
        raise Unsupported(f"{device.name}: storm control is for Ethernet, and this device has no such headers")
    for number in device.programs:
        with suppress(OSError), bpf.program(number) as fd:  # one that may not be looked at is somebody else's
            if fd is not None and bpf.program_info(fd).name == PROGRAM:
                raise BadInput(f"{device.name}: napctl's storm control is attached there already")
        raise Unsupported(
            f"{device.name}: another XDP program (id {number}) is attached, and storm control does not stand beside it"
        )
    return device
