"""napctl run: a command as if napctl were not there, attached from its first connection on."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from napctl.kernel import processes
from napctl.lab.bed import Lab
from napctl.lab.servers import MEMCACHED_PORT, Server, accepts, children
from napctl.lab.webservers import NGINX, NGINX_PORT, REPLY, have_epoll
from tests.lab.following import all_unset, attached, connections, queues_of, settings_of, steered
from tests.lab.helpers import PREFERS, PROGRAM, Napctl, ask, params_of, until

pytestmark = pytest.mark.lab

OBEDIENT = """
trap 'exit 7' TERM
trap 'exit 8' HUP
trap 'exit 9' INT
echo ready
while :; do sleep 0.05; done
"""


@contextmanager
def running(lab: Lab, napctl: Napctl, *command: object, options: tuple[str, ...] = (), port: int) -> Iterator[Server]:
    """`napctl run` in the server's namespace. `process` is napctl; its command ends with it."""
    state = f"NAPCTL_STATE_DIR={napctl.state}"
    words = ["env", state, str(PROGRAM), "run", *options, "--", *map(str, command)]
    with lab.server.start(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        it = Server(process, lab.server.address, port)
        child = 0
        try:
            until(lambda: children(it.pid) and accepts(lab, it), "the command to accept connections")
            child = children(it.pid)[0]  # the guard is one for a moment
            yield it
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)


def test_it_attaches_when_connections_come_and_restores_when_the_command_ends(lab: Lab, napctl: Napctl) -> None:
    before = settings_of(lab)
    command = ["memcached", "-t", "1", "-u", "root", "-l", lab.server.address, "-U", "0"]
    with running(lab, napctl, *command, port=MEMCACHED_PORT) as it:
        memcached = children(it.pid)[0]
        assert settings_of(lab) == before
        with ask(lab, it):
            until(lambda: [each.state for each in napctl.live()] == ["attached"], "the first connection to be seen")
            assert all(map(attached, settings_of(lab)))
            it.process.terminate()
            output, words = it.process.communicate(timeout=60)

    assert it.process.returncode == 0, "memcached's own status"
    assert output == b""
    assert b"attached memcached" in words
    assert b"detached: 1 NAPI instance put back" in words  # the epoll instance has gone with its server
    assert settings_of(lab) == before
    assert napctl.live() == []
    assert processes.process(memcached) is None


def test_it_steers_the_workers_that_its_command_forks(napctl: Napctl) -> None:
    with Lab.build(queues=4) as lab, tempfile.TemporaryDirectory(prefix="napctl-test-") as directory:
        before = settings_of(lab)
        place = Path(directory)
        place.chmod(0o755)
        text = NGINX.format(workers=4, directory=place, address=lab.server.address, port=NGINX_PORT,
                            reuseport=" reuseport", reply=REPLY)  # fmt: skip
        (place / "configuration").write_text(text)
        command = ["nginx", "-c", place / "configuration", "-p", place, "-e", "stderr"]
        with running(lab, napctl, *command, options=("--steer",), port=NGINX_PORT) as it:
            master = children(it.pid)[0]
            until(lambda: len(children(master)) == 4 and have_epoll(children(master)), "the workers")
            workers = children(master)
            until(lambda: all(PREFERS in params_of(pid).values() for pid in workers), "the workers to be attached")
            with connections(lab, it, 60):
                assert steered(queues_of(*workers), 4)
            assert all(map(attached, settings_of(lab)))

        assert it.process.returncode == 0
        assert settings_of(lab) == before
        assert napctl.live() == []
        assert [pid for pid in workers if processes.process(pid)] == []


def test_napctl_killed_leaves_the_command_running_and_the_guard_restores(lab: Lab, napctl: Napctl) -> None:
    before = settings_of(lab)
    command = ["memcached", "-t", "1", "-u", "root", "-l", lab.server.address, "-U", "0"]
    with running(lab, napctl, *command, port=MEMCACHED_PORT) as it, ask(lab, it) as client:
        memcached = children(it.pid)[0]
        try:
            until(lambda: [each.state for each in napctl.live()] == ["attached"], "the first connection to be seen")
            it.process.kill()
            it.process.wait()
            until(lambda: not napctl.live(), "the guard")

            client.sendall(b"version\r\n")
            assert client.recv(100).startswith(b"VERSION")
            assert settings_of(lab) == before
            assert all_unset(memcached)
        finally:
            os.kill(memcached, signal.SIGKILL)


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 128 + 9)])
def test_its_exit_status_is_that_of_the_command(script: str, status: int, napctl: Napctl) -> None:
    done = napctl("run", "--", "sh", "-c", f"echo out; {script}")

    assert done.status == status
    assert done.stdout == "out\n"
    assert napctl.live() == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 7), (signal.SIGHUP, 8)])
def test_signals_reach_the_command_which_decides(number: signal.Signals, status: int, napctl: Napctl) -> None:
    with napctl.start("run", "--", "sh", "-c", OBEDIENT) as it:
        assert it.stdout is not None
        assert it.stdout.readline() == "ready\n"
        it.send_signal(number)
        assert it.wait(60) == status


def test_ctrl_c_reaches_the_command_from_the_terminal_and_napctl_waits_for_its_end(napctl: Napctl) -> None:
    command = [str(PROGRAM), "run", "--", "sh", "-c", OBEDIENT]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=napctl.environment, start_new_session=True, **options) as it:  # type: ignore[call-overload] # a dictionary of options
        assert it.stdout.readline() == "ready\n"
        os.killpg(it.pid, signal.SIGINT)
        assert it.wait(60) == 9
        assert "Traceback" not in it.stderr.read()


def test_a_command_that_is_not_there_is_one_line(napctl: Napctl) -> None:
    assert napctl("run", "--", "/nowhere/server").failed_with(2, "/nowhere/server", "No such file")
    assert napctl("run", "--", "/etc").failed_with(2, "/etc", "ermission denied")
