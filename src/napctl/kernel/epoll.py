"""Busy-poll parameters of epoll instances: EPIOCGPARAMS and EPIOCSPARAMS (ioctl_eventpoll(2), Linux 6.9)."""

import fcntl
import struct

from napctl.model.settings import EpollParams

__all__ = ["params", "set_params"]


EPIOCSPARAMS, EPIOCGPARAMS = 0x40088A01, 0x80088A02
PARAMS = struct.Struct("=IHBx")  # struct epoll_params: busy_poll_usecs, busy_poll_budget, prefer_busy_poll, padding


def params(epoll_fd: int) -> EpollParams:
    """Parameters of an epoll instance. Raises OSError: ENOTTY on kernels before 6.9."""
    usecs, budget, prefer = PARAMS.unpack(fcntl.ioctl(epoll_fd, EPIOCGPARAMS, bytes(PARAMS.size)))
    return EpollParams(busy_poll_usecs=usecs, busy_poll_budget=budget, prefer_busy_poll=bool(prefer))


def set_params(epoll_fd: int, wanted: EpollParams) -> None:
    """Set them. Raises OSError: EPERM for a budget above 64 without CAP_NET_ADMIN, ENOTTY on kernels before 6.9."""
    packed = PARAMS.pack(wanted.busy_poll_usecs, wanted.busy_poll_budget, wanted.prefer_busy_poll)
    fcntl.ioctl(epoll_fd, EPIOCSPARAMS, packed)
