"""What happens to real machines: devices that go or are down, odd names, full disks, containers. One promise each."""

import json
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from napctl.change.journal import Journal
from napctl.lab.bed import Lab
from napctl.lab.servers import Server, memcached
from napctl.model.settings import NapiSettings
from tests.lab.conftest import LoadStarter
from tests.lab.helpers import (
    PROGRAM,
    Napctl,
    another_memcached,
    ask,
    at_server,
    ending,
    machine_of,
    open_files,
    set_napi,
    until,
)

pytestmark = pytest.mark.lab


def ip(lab: Lab, *words: str) -> None:
    with lab.server.namespace.entered():
        subprocess.run(["ip", *words], check=True, capture_output=True)


def test_detach_while_the_device_is_down_is_refused_and_can_be_repeated(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    assert napctl("attach", server.pid, "--window", 0).status == 0
    ip(lab, "link", "set", lab.server.device, "down")

    done = napctl("detach", server.pid)

    assert done.failed_with(3, f"{lab.server.device} is down", "napctl recover")
    ip(lab, "link", "set", lab.server.device, "up")
    assert napctl("recover").status == 0
    assert napctl.live() == []
    assert not any(napi.settings.defers for napi in lab.server.napis())


def test_watch_goes_on_when_a_device_goes(lab: Lab, napctl: Napctl) -> None:
    ip(lab, "link", "add", "short", "type", "veth", "peer", "name", "lived")
    running = napctl.start("watch", "--interval", "0.2", *at_server(lab))
    until(lambda: any("bpf" in file for file in open_files(running.pid)), "the probe")
    time.sleep(0.3)
    ip(lab, "link", "del", "short")
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    output, errors = running.communicate(timeout=60)

    assert running.returncode == 0, errors
    assert lab.server.device in output


def test_a_process_may_call_itself_what_it_likes(lab: Lab, unusual: str, napctl: Napctl) -> None:
    program = Path(unusual).with_name("[b][red]x")  # what rich would take for its markup
    Path(unusual).rename(program)
    with another_memcached(lab, 11301, program=str(program)) as server, ask(lab, server):
        attached = napctl("attach", server.pid, "--window", 0)
        detached = napctl("detach", server.pid)

    assert (attached.status, detached.status) == (0, 0), (attached, detached)
    assert f"epoll 7 of [b][red]x ({server.pid})" in attached.stdout


def test_a_full_disk_does_not_stand_in_the_way_of_detaching(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    before = machine_of(lab.server)
    script = (
        'mount -t tmpfs -o size=64k,mode=700 none "$1" && "$2" attach "$3" --window 0 >/dev/null && '
        '{ cat /dev/zero > "$1/fill" 2>/dev/null; "$2" detach "$3"; }'
    )
    napctl.state.mkdir()
    words = ["unshare", "-m", "sh", "-c", script, "sh", str(napctl.state), str(PROGRAM), str(server.pid)]
    done = subprocess.run(words, env=napctl.environment, capture_output=True, text=True, check=False, timeout=60)

    assert machine_of(lab.server) == before
    assert done.returncode == 6, done
    assert "the settings were put back" in done.stderr


def test_what_a_dead_server_left_is_put_back_and_named_before_the_next_attach(lab: Lab, napctl: Napctl) -> None:
    with ending(memcached(lab)) as first, ask(lab, first):
        assert napctl("attach", first.pid, "--window", 0).status == 0
        (napi,) = lab.server.napis()
        set_napi(lab, napi.napi_id, NapiSettings(gro_flush_timeout_ns=777_000))
    with ending(memcached(lab)) as second, ask(lab, second):
        done = napctl("attach", second.pid, "--window", 0)

        assert done.status == 0
        assert f"({first.pid}): its server has ended" in done.stderr
        assert "gro-flush-timeout is now 777us; somebody else changed it" in done.stderr
        assert napctl("detach", second.pid).status == 0


def test_a_device_with_more_queues_than_the_server_has_is_warned_of(napctl: Napctl) -> None:
    with Lab.build(queues=2) as lab, ending(memcached(lab)) as server, ask(lab, server):
        done = napctl("attach", server.pid, "--window", 0, "--json")

        assert done.status == 0
        assert "server0: 1 of 2 NAPI instances attached" in done.json["warnings"][0]
        assert napctl("detach", server.pid).status == 0


def test_a_suspend_timer_that_cannot_outlast_the_deferral_is_refused(
    server: Server, client: socket.socket, napctl: Napctl
) -> None:
    assert napctl("attach", server.pid, "--irq-suspend-timeout", "200us").failed_with(2, "longer than")


def test_in_a_pid_namespace_of_its_own_nothing_is_claimed_of_who_polls(napctl: Napctl) -> None:
    run = ["lab", "run", "--rate", "20000", "--seconds", "4", "--", str(PROGRAM), "attach", "memcached"]
    done = napctl(*run, under=["unshare", "--pid", "--fork", "--mount-proc"])

    assert done.status == 0, done
    assert "not measured whether it is active" in done.stdout


def test_the_measurement_failing_does_not_look_like_attach_failing(
    lab: Lab, server: Server, client: socket.socket, load: LoadStarter, napctl: Napctl
) -> None:
    running = napctl.start("attach", server.pid, "--window", "3s", "--json", "--defer-us", 200)
    until(lambda: any(each.state == "attached" for each in Journal.read(napctl.state)), "the attachment")
    ip(lab, "link", "del", lab.server.device)
    output, errors = running.communicate(timeout=60)

    assert (running.returncode, errors) == (1, "measuring for 3s\n")
    told = json.loads(output)
    assert told["transaction"]["state"] == "attached"
    assert (told["verdict"], "disappeared" in told["why"]) == ("not active", True)


def test_a_full_disk_behind_standard_output_is_one_line(napctl: Napctl) -> None:
    done = napctl(str(PROGRAM), "status", under=["sh", "-c", '"$2" "$3" > /dev/full', "sh"])

    assert done.status == 6
    assert done.stderr.startswith("napctl: ")
    assert done.stderr.count("\n") == 1


def test_the_status_of_a_command_in_the_lab_is_told_as_a_shell_tells_it(napctl: Napctl) -> None:
    done = napctl("lab", "run", "--rate", "100", "--seconds", "1", "--", "sh", "-c", "kill -9 $$")

    assert done.status == 128 + signal.SIGKILL


def test_in_the_lab_a_command_may_call_napctl_by_its_name(napctl: Napctl) -> None:
    done = napctl("lab", "run", "--rate", "100", "--seconds", "1", "--", "napctl", "status")

    assert done.status == 0, done
    assert "server0: veth" in done.stdout


def test_a_thread_is_not_taken_for_a_process(lab: Lab, server: Server, client: socket.socket, napctl: Napctl) -> None:
    (thread, *_) = (
        int(task.name) for task in Path(f"/proc/{server.pid}/task").iterdir() if task.name != str(server.pid)
    )

    assert napctl("attach", thread).failed_with(2, f"a thread of process {server.pid}")
