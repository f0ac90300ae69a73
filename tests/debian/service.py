"""What the service has set and says in the guest, and who writes settings to the kernel there."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.debian.guest import Guest

DAEMON, GUARD = UNITS = ("napctl.service", "napctl-guard.service")
SETTINGS_OF_POLICY = ("rx_usecs", 10), ("gro_flush_timeout_ns", 20_000)
SECONDS = 60.0
"""Emulated, starting napctl alone takes 5 s."""
POLICY = """
version = 1
[[attach]]
target = "nginx.service"
defer-us = 20
[[device]]
name = "e1000e0"
[device.coalescing]
rx-usecs = 10
[service]
metrics = "127.0.0.1:9811"
"""
READ_EPOLLS = """
import contextlib, ctypes, fcntl, os, struct, subprocess

gone = contextlib.suppress(FileNotFoundError, ProcessLookupError)  # a connection, or the worker, meanwhile
for pid in subprocess.run(["pgrep", "--full", "nginx: worker process$"], capture_output=True, text=True).stdout.split():
    with gone:
        held = os.pidfd_open(int(pid))
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with gone:
                if os.readlink(f"/proc/{pid}/fd/{fd}") == "anon_inode:[eventpoll]":
                    copy = ctypes.CDLL(None).syscall(438, held, int(fd), 0)
                    print(*struct.unpack("IHBx", fcntl.ioctl(copy, 0x80088A02, bytes(8))))
"""
"""Without napctl: EPIOCGPARAMS of each epoll instance of nginx's worker that takes connections, by pidfd_getfd(2)."""
TRACE_WRITES = """
cd /sys/kernel/tracing
echo 'cmd == 0x40088a01' >events/syscalls/sys_enter_ioctl/filter
echo 'level == 1 && (optname == 51 || optname == 52 || optname == 68)' >events/syscalls/sys_enter_setsockopt/filter
echo 1 >events/syscalls/sys_enter_ioctl/enable
echo 1 >events/syscalls/sys_enter_setsockopt/enable
echo netdev_nl_napi_set_doit >set_ftrace_filter
echo 'ethnl_default_set_doit*' >>set_ftrace_filter
echo 'dev_attr_store*' >>set_ftrace_filter
echo function >current_tracer
"""
"""EPIOCSPARAMS, SO_ATTACH_REUSEPORT_*BPF and SO_DETACH_REUSEPORT_BPF, napi-set, what ethtool sets, files of devices."""


def write_policy(guest: Guest, service: str = "") -> None:
    """`service`: more keys of the service."""
    guest.run(f"mkdir -p /etc/napctl; cat >/etc/napctl/policy.toml <<'END'\n{POLICY}{service}\nEND\n")


def pid_of(guest: Guest, unit: str = DAEMON) -> int:
    return int(guest.run(f"systemctl show --value --property MainPID {unit}"))


def is_active(guest: Guest, unit: str) -> str:
    return guest.try_to(f"systemctl is-active {unit}").stdout.strip()


# What it has set.


def settings(guest: Guest, napctl: str = "napctl") -> dict[str, Any]:
    """Of the device that nginx is reached by, and of its NAPI instance."""
    (device,) = json.loads(guest.run(f"{napctl} status --json e1000e0"))["devices"]
    (napi,) = device["napis"]
    of_both: dict[str, Any] = device["coalescing"] | napi["settings"]
    return of_both


def epolls(guest: Guest) -> list[str]:
    """busy_poll_usecs, busy_poll_budget and prefer_busy_poll of each epoll instance of nginx."""
    return guest.run(f"python3 - <<'END'\n{READ_EPOLLS}\nEND\n").splitlines()


def all_settings(guest: Guest) -> tuple[Any, list[str]]:
    """Of the device, and of nginx."""
    return settings(guest), epolls(guest)


def is_policy_true(guest: Guest) -> bool:
    """Whether the device has what it asks for, and nginx is attached."""
    now = settings(guest)
    return all(now[name] == value for name, value in SETTINGS_OF_POLICY) and is_attached(guest)


def is_attached(guest: Guest) -> bool:
    """Whether nginx, which has one worker that takes connections, prefers busy polling."""
    return [each.split()[-1] for each in epolls(guest)] == ["1"]


def in_force(guest: Guest) -> list[str]:
    """States of the journal's transactions that are not over."""
    said = json.loads(guest.run("napctl history --json"))
    return sorted(each["state"] for each in said["transactions"] if each["state"] != "restored")


# What it says.


def until(condition: Callable[[], bool], what: Callable[[], object] = str, seconds: float = SECONDS) -> None:
    """Wait for it; `what` is told if it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.5)


class Log:
    """What units say from now on."""

    def __init__(self, guest: Guest, *units: str):
        self._guest = guest
        self._command = "journalctl --boot --no-pager --output=cat " + " ".join(f"--unit={each}" for each in units)
        self._before = len(guest.run(self._command).splitlines())

    def lines(self) -> list[str]:
        return self._guest.run(self._command).splitlines()[self._before :]

    def await_lines(self, *words: str) -> int:
        """Where the first of the lines stands that these words are in."""
        return min(self.await_line(each) for each in words)

    def await_line(self, words: str, seconds: float = SECONDS) -> int:
        """The same of one line."""
        until(lambda: any(words in each for each in self.lines()), lambda: (words, self.lines()), seconds)
        return next(number for number, each in enumerate(self.lines()) if words in each)


# Who writes settings, and whether nginx answers.


def trace_writes(guest: Guest) -> None:
    """Trace all that anybody writes, from now on."""
    guest.run(f"{TRACE_WRITES}\necho >trace\necho 1 >tracing_on")


def written(guest: Guest) -> list[str]:
    """Since that was last called for; it goes on."""
    lines = guest.run("cd /sys/kernel/tracing; cat trace; echo >trace").splitlines()
    return [each for each in lines if each and not each.startswith("#")]


@contextmanager
def every_request_succeeds(guest: Guest) -> Iterator[None]:
    """And there are some."""
    before, failed = _replies(guest)
    yield
    assert _replies(guest)[1] == failed
    until(lambda: _replies(guest)[0] > before + 20)
    assert _replies(guest)[1] == failed


def _replies(guest: Guest) -> tuple[int, list[str]]:
    replies, *failed = guest.run("cat /run/load/replies; cat /run/load/failed").splitlines()
    return int(replies), failed
