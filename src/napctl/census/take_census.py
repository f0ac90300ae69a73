"""Take a Census: one window, and what is looked at meanwhile. Nothing is changed."""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping

from napctl.census.handed import Facts
from napctl.census.pollers.watch import PollerWatch
from napctl.census.queues import census_devices
from napctl.census.xdp_counts import XdpCounts, xdp_counts
from napctl.change.journal import state_directory
from napctl.kernel import bpf
from napctl.kernel.ethtool_ioctl import EthtoolIoctl
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.pci_nics import user_space_nics
from napctl.kernel.tc_filters import filters_in_hardware
from napctl.model.census import Census
from napctl.model.errors import ChangedMeanwhile
from napctl.model.machine import Device, EpollPoller
from napctl.observe.machine import DISAPPEARED, who_polls
from napctl.observe.stacked_devices import with_lower
from napctl.observe.window import Observer
from napctl.observe.xdp_programs import with_xdp
from napctl.observe.xdp_sockets import xdp_sockets

__all__ = ["take_census"]


Statistics = Mapping[str, Mapping[str, int]]
"""Of each device, as its driver counts."""


def take_census(netns: NetworkNamespace, names: Collection[str], seconds: float) -> Census:
    """The named devices (all but loopback by default) for that long, and all processes; NICs that are driven from user
    space are named by their addresses. Raises BadInput for a device that is not there, ChangedMeanwhile for one that
    goes meanwhile."""
    nics = user_space_nics()
    handed_out = [nic for nic in nics if not names or nic.bus in names]
    ours = [name for name in names if name not in {nic.bus for nic in nics}]
    missing: list[str] = []
    with PollerWatch(state_directory()) as watch, Observer(netns, ours) as observer:
        having = with_xdp(netns, observer.devices)
        watch.begin()
        before = _statistics(netns, having)  # right beside the window: packets are compared with what the probe counts
        observer.restart()
        end = time.monotonic() + seconds
        epolls = tuple(each for each in who_polls(having, missing) if isinstance(each, EpollPoller))
        time.sleep(max(0.0, end - time.monotonic()))
        window = observer.window()
        after = _statistics(netns, having)
        pollers = watch.end()
        if observer.gone:
            raise ChangedMeanwhile(f"{', '.join(observer.gone)}: {DISAPPEARED}")
        devices = with_lower(netns, with_xdp(netns, observer.devices)) if ours or not names else ()
    sockets = xdp_sockets(netns, devices)
    if sockets is None:
        missing.append("AF_XDP sockets: this kernel tells neither queues (before Linux 6.15) nor sockets (no xsk_diag)")
    facts = Facts(
        program_names=dict(_program_names(devices, missing)),
        xdp_counts=_xdp_counts(before, after),
        xdp_sockets=sockets or (),
        filters_in_hardware={
            device.name: filters_in_hardware(netns, device.ifindex) for device in devices if device.bus is not None
        },
        pollers=pollers,
        epolls=epolls,
        user_space=handed_out,
    )
    return Census(
        seconds=window.seconds,
        netns=netns.inode,
        devices=census_devices(netns.inode, devices, window, facts),
        pollers=pollers,
        missing=tuple(dict.fromkeys((*window.lacks, *missing, *watch.missing))),
    )


def _statistics(netns: NetworkNamespace, devices: Iterable[Device]) -> Statistics:
    """Of those that have an XDP program in the driver: to ask for them may take a message to the NIC's firmware."""
    with EthtoolIoctl(netns) as ioctl:
        return {
            device.name: ioctl.statistics(device.name)
            for device in devices
            if device.xdp is not None and device.xdp.native is not None
        }


def _xdp_counts(before: Statistics, after: Statistics) -> dict[str, dict[int | None, XdpCounts]]:
    return {name: xdp_counts(before[name], after[name]) for name in before.keys() & after.keys()}


def _program_names(devices: Iterable[Device], missing: list[str]) -> Iterator[tuple[int, str]]:
    """By id. A program that has gone meanwhile has none."""
    programs = [device.xdp for device in devices if device.xdp is not None]
    numbers = {number for each in programs for number in (each.native, each.generic, each.offloaded) if number}
    for number in sorted(numbers):
        try:
            with bpf.program(number) as fd:
                if fd is not None:
                    yield number, bpf.program_info(fd).name
        except PermissionError:
            missing.append("names of XDP programs: CAP_SYS_ADMIN is missing")
            return
        except OSError:
            continue
