"""The thread of one NAPI instance, as the block of settings that a change is made on."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from napctl.kernel import capabilities, napi_threads
from napctl.kernel.links import link
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.kernel.sysfs import DeviceAttributes
from napctl.model.change import ThreadChange
from napctl.model.machine import Napi
from napctl.model.settings import DISABLED, NapiSettings, ThreadSettings

__all__ = ["ThreadBlock", "thread_block"]


Switch = tuple[DeviceAttributes, str]
"""Of all instances of a device, and its name by now."""


class ThreadBlock:
    """Without a thread it has what a new one would begin with: putting that back and ending the thread are one."""

    def __init__(self, napi_id: int, netdev: Netdev, switch: Switch | None):
        self._napi_id, self._netdev, self._switch = napi_id, netdev, switch

    def read(self) -> ThreadSettings | None:
        """None if it is gone."""
        napi = self._netdev.napi(self._napi_id)
        threaded = self._threaded(napi)
        if threaded is None:
            return None
        own = napi_threads.scheduled(napi.thread_pid) if napi is not None and napi.thread_pid is not None else None
        nice, cpus = own or napi_threads.new_thread()
        return ThreadSettings(threaded=threaded, nice=nice, cpus=cpus)

    def write(self, values: Mapping[str, Any]) -> None:
        """The switch first: each time that it is enabled, the thread is another one. Before Linux 6.17 (commit
        689883de94dd) it outlives its being disabled, with its nice value and its CPUs.

        Raises ProcessLookupError if there is no thread to have them.
        """
        if "threaded" in values:
            self._set_threaded(values["threaded"])
        napi = self._netdev.napi(self._napi_id)
        pid = napi.thread_pid if napi is not None else None
        if pid is None or napi_threads.scheduled(pid) is None:
            if values.keys() - {"threaded"} and self._threaded(napi) != DISABLED:
                raise ProcessLookupError
            return
        if "nice" in values:
            if "CAP_SYS_NICE" not in capabilities.held():
                raise PermissionError  # a higher value could be set, and never be put back
            napi_threads.set_nice(pid, values["nice"])
        if "cpus" in values:
            napi_threads.set_cpus(pid, values["cpus"])

    def _threaded(self, napi: Napi | None) -> str | None:
        if self._switch is not None:
            return napi_threads.device_threaded(*self._switch)
        return napi.settings.threaded if napi is not None else None

    def _set_threaded(self, threaded: str) -> None:
        if self._switch is not None:
            napi_threads.set_device_threaded(*self._switch, threaded)
        else:
            self._netdev.set_napi(self._napi_id, NapiSettings(threaded=threaded))


@contextmanager
def thread_block(change: ThreadChange, netns: NetworkNamespace) -> Iterator[ThreadBlock | None]:
    """In a namespace that may have it; None if it is not there.

    What is switched for a whole device is there while that is up: its instances may have been made anew, and have
    threads again. Of one that is switched alone a reset leaves nothing: the next begins as its device has it, unless
    the driver keeps the configuration, and then the id, too (napi_get_threaded_config() in net/core/dev.h).
    """
    with Netdev(netns) as netdev:
        napi = netdev.napi(change.napi_id)
        if not change.whole_device:
            yield ThreadBlock(change.napi_id, netdev, None) if napi is not None else None
            return
        ifindex = napi.ifindex if napi is not None else change.ifindex
        device = link(netns, ifindex) if napi is not None or netns.inode == change.netns else None
        if device is None or not device.up:
            yield None
            return
        with DeviceAttributes(netns) as attributes:
            yield ThreadBlock(change.napi_id, netdev, (attributes, device.name))
