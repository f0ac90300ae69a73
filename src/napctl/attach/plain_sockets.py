"""Does busy polling help sockets that are read without epoll? Pure functions, and the verdict on each.

They cannot be suspended: that is epoll's alone. But reads that may block poll their NAPI instance themselves, and with
SO_PREFER_BUSY_POLL the softirq keeps out (Documentation/networking/napi.rst, "Busy polling").
"""

from collections.abc import Mapping

from napctl.attach.inspect_process import PlainSocket
from napctl.attach.inspect_target import Examination, LocatedNapi
from napctl.attach.napi_trouble import why_not_ours
from napctl.model.fitness import Judgement, SocketFitness

__all__ = ["socket_fitness", "why_unpollable"]


NO_READS = "every socket of it that has received anything is waited for in epoll"


def socket_fitness(found: Examination, *, poll_sysctl: int | None) -> tuple[tuple[PlainSocket, SocketFitness], ...]:
    """Sockets that are read without epoll. `poll_sysctl`: net.core.busy_poll, µs; None: not known.

    Sources: sk_busy_loop() is called by recvmsg of a socket that may block (net/core/datagram.c, net/ipv4/tcp.c), by
    AF_XDP's recvmsg, sendmsg and poll (net/xdp/xsk.c), and by poll and select only if net.core.busy_poll is set
    (net_busy_loop_on() in include/net/busy_poll.h).
    """
    return tuple((each, _plain_sockets(each, found.napis, poll_sysctl)) for each in found.plain_sockets)


def why_unpollable(found: Examination) -> str:
    """Why nothing of it that is read without epoll can busy poll, in one clause."""
    told = next((each for _, each in socket_fitness(found, poll_sysctl=None)), None)
    return NO_READS if told is None else f"socket {told.fd}: {told.why}"


def _plain_sockets(socket: PlainSocket, napis: Mapping[int, LocatedNapi], poll_sysctl: int | None) -> SocketFitness:
    judgement, why = _judge(socket, napis, poll_sysctl)
    return SocketFitness(
        pid=socket.process.pid,
        name=socket.process.name,
        fd=socket.fd,
        kind=socket.kind,
        napi_id=socket.napi_id,
        judgement=judgement,
        why=why,
    )


def _judge(socket: PlainSocket, napis: Mapping[int, LocatedNapi], poll_sysctl: int | None) -> tuple[Judgement, str]:
    if socket.napi_id is None:
        return "nothing to poll", "the kernel does not report yet which NAPI instance feeds it"
    if bad := why_not_ours(socket.napi_id, napis):
        return "does not fit", bad
    return _judge_reading(socket, poll_sysctl)


def _judge_reading(socket: PlainSocket, poll_sysctl: int | None) -> tuple[Judgement, str]:
    if socket.kind == "xdp":
        return "fits", "AF_XDP reads and writes busy poll by themselves"
    calls = {each.call for each in socket.threads or () if each.calls or each.blocked_now}
    if "recv" in calls and not socket.nonblocking:
        return "fits", "it is read by recv, which may block and busy poll"
    if calls & {"poll", "select"}:
        if poll_sysctl:
            return "fits", f"poll and select busy poll here: net.core.busy_poll is {poll_sysctl}"
        return "does not fit", (
            "it is waited for in poll or select, which busy poll only if net.core.busy_poll is set, machine-wide"
        )
    return "does not fit", "no thread was seen to wait in a blocking read of it"
