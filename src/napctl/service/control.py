"""How commands speak to the service: one request and one answer over a socket in the state directory, root's alone."""

import errno
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

from napctl.model.errors import BadInput, NapctlError, NotPermitted
from napctl.model.value import Value, from_json, to_json
from napctl.service.decisions import ServiceDecision

__all__ = ["Answer", "ControlServer", "Request", "ask_service"]


FILE = "control.sock"
MOST_BYTES = 200_000
"""Of a request or an answer."""
ANSWER_SECONDS = 30.0
"""The service may be at work on something else."""
CLIENT_SECONDS = 1.0
"""For a client to ask what it came for: the service does not wait for who says nothing."""


class Request(Value, frozen=True, kw_only=True):
    """`about`: of `why`, a target or device."""

    what: Literal["apply", "pause", "resume", "why", "status"]
    about: str = ""
    seconds: float = 0.0
    """Of `pause`."""


class Answer(Value, frozen=True, kw_only=True):
    """What became of it. With an error the rest is empty."""

    error: str = ""
    lines: tuple[str, ...] = ()
    decisions: tuple[ServiceDecision, ...] = ()


def ask_service(directory: Path, request: Request) -> Answer | None:
    """What the running service answers; None: none runs. Raises NapctlError, NotPermitted."""
    address = _address(directory)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as client:
        client.settimeout(ANSWER_SECONDS)
        try:
            client.connect(address)
            client.send(to_json(request))
            told = client.recv(MOST_BYTES)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except PermissionError:
            raise NotPermitted(f"{directory / FILE}: the service answers root alone") from None
        except OSError as error:
            raise NapctlError(f"the service does not answer: {error.strerror or error}") from None
    if not told:
        raise NapctlError("the service has ended before it answered")
    try:
        return from_json(told, Answer)
    except ValueError:
        raise NapctlError("the service is of another version; `systemctl restart napctl` renews it") from None


class ControlServer:
    """Waited for with fileno(). A context manager."""

    def __init__(self, directory: Path):
        """Raises BadInput where there can be no socket. To be made by who holds the service's lock: a socket that is
        there was left by a dead one."""
        self._path, address = directory / FILE, _address(directory)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        with suppress(FileNotFoundError):
            self._path.unlink()
        before = os.umask(0o177)
        try:
            self._socket.bind(address)
        except OSError as error:
            self._socket.close()
            raise BadInput(f"{self._path}: {error.strerror or error}") from None
        finally:
            os.umask(before)
        self._socket.listen(8)
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        """For who asks when no descriptor is left: one who is not hung up on would wake the service for ever."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(FileNotFoundError):
            self._path.unlink()
        self._socket.close()
        self._let_go_of_spare()

    def fileno(self) -> int:
        """Can be read when somebody asks."""
        return self._socket.fileno()

    def answer(self, answered: Callable[[Request], Answer]) -> None:
        """One who asks, if there is one; what he gets is what `answered` returns."""
        try:
            client, _ = self._socket.accept()
        except OSError as error:  # or he has gone
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._hang_up()
            return
        with client, suppress(OSError):
            client.settimeout(CLIENT_SECONDS)
            if _user_of(client) not in (0, os.geteuid()):
                return
            try:
                request = from_json(client.recv(MOST_BYTES), Request)
            except ValueError:
                answer = Answer(error="this service does not know that request; it may be of another version")
            else:
                answer = _answer(request, answered)
            client.send(to_json(answer))

    def _hang_up(self) -> None:
        self._let_go_of_spare()
        with suppress(OSError):
            self._socket.accept()[0].close()
        with suppress(OSError):  # another thread may have been quicker
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _let_go_of_spare(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1


def _answer(request: Request, answered: Callable[[Request], Answer]) -> Answer:
    try:
        return answered(request)
    except NapctlError as error:
        return Answer(error=str(error))


def _user_of(client: socket.socket) -> int:
    """SO_PEERCRED, struct ucred (unix(7))."""
    _pid, uid, _gid = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


def _address(directory: Path) -> str:
    """A path of a socket has 107 bytes at most (unix(7))."""
    path = str(directory / FILE)
    if len(os.fsencode(path)) <= 107:
        return path
    raise BadInput(
        f"{path}: too long for a socket's path, which has 107 bytes at most; choose a shorter NAPCTL_STATE_DIR"
    )
