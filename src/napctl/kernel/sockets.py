"""What a socket knows about the way its packets came."""

import ctypes
import os

SOL_SOCKET, SO_INCOMING_NAPI_ID = 1, 56
_libc = ctypes.CDLL(None, use_errno=True)


def incoming_napi_id(socket_fd: int) -> int | None:
    """Id of the NAPI instance that received the socket's last packet (Linux 4.12, commit 6d4339028b35).

    None if there is none: nothing received yet, or received without a NAPI instance, as on loopback. Raises OSError
    (ENOTSOCK) if the descriptor is no socket. (socket.socket(fileno=…) would need four system calls more.)
    """
    value = ctypes.c_uint32()
    size = ctypes.c_uint32(4)
    if _libc.getsockopt(socket_fd, SOL_SOCKET, SO_INCOMING_NAPI_ID, ctypes.byref(value), ctypes.byref(size)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return value.value or None
