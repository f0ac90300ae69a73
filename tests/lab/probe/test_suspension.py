"""What the probe of suspension promises: each suspension, resume and rescue of this kernel, and no other timer's."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from napctl.kernel.open_files import open_files
from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from napctl.lab.servers import Server, memcached
from napctl.model.suspension_counts import WAIT_BOUNDS_US, SuspensionCounts
from napctl.probe.suspension import SuspensionProbe
from tests.lab.conftest import LoadStarter
from tests.lab.helpers import PREFERS, Napctl, bpftrace_command, ending, in_mounts, set_napi, set_params, until
from tests.lab.probe.held_cpu import about_to_hold, held_to
from tests.lab.probe.loading import load_in
from tests.lab.probe.suspending_follower import SUSPEND_MS, Follower, counts, following, suspending, window
from tests.tries import in_one_of

pytestmark = pytest.mark.lab


@pytest.fixture
def probe() -> Iterator[SuspensionProbe]:
    with SuspensionProbe.load() as probe:
        yield probe


@pytest.mark.alone
def test_under_plain_interrupts_nothing_is_counted(lab: Lab, load: LoadStarter, probe: SuspensionProbe) -> None:
    load()

    windows = [found for _ in range(5) for found in window(probe, lab, 0.1)]

    assert sum(found.packets for found in windows) > 1000
    for found in windows:
        assert (found.arms, found.suspensions, found.resumes, found.timeouts, found.suspended_ns) == (0, 0, 0, 0, 0)
    # An interrupt came at once, but where other work kept the poll waiting.
    assert 0 in [found.wait_percentile_us(0.9) for found in windows]


@pytest.mark.alone
def test_an_attached_server_suspends_and_resumes_and_needs_no_rescue(
    lab: Lab, server: Server, load: LoadStarter, napctl: Napctl, probe: SuspensionProbe
) -> None:
    load()
    napctl.attach_quickly(server.pid)

    def attempt() -> None:
        began = time.monotonic_ns()
        (found,) = window(probe, lab, 1)

        assert found.suspensions > 100
        assert abs(found.suspensions - found.resumes) <= 1
        assert found.arms > found.suspensions
        assert 0.01e9 < found.suspended_ns < time.monotonic_ns() - began
        # Unless something else kept the server from its CPU for 20 ms: that is a rescue indeed.
        assert found.timeouts <= 0.01 * found.resumes

    in_one_of(attempt)
    assert probe.lost_polls == 0


def test_no_count_ever_shrinks(
    lab: Lab, server: Server, load: LoadStarter, napctl: Napctl, probe: SuspensionProbe
) -> None:
    load()
    napctl.attach_quickly(server.pid)
    until(lambda: any(each.arms for each in counts(probe, lab)), "the first suspension")

    readings = [counts(probe, lab)[0] for _ in range(5_000)]
    until(lambda: counts(probe, lab)[0].suspensions > readings[0].suspensions, "more suspensions")
    readings.append(counts(probe, lab)[0])

    for earlier, later in pairwise(readings):
        grown = later - earlier
        assert min(grown.arms, grown.suspensions, grown.resumes, grown.timeouts, grown.suspended_ns, *grown.waits) >= 0
    assert all(0 <= each.suspensions - each.resumes <= 1 for each in readings)
    assert readings[-1].suspensions > readings[0].suspensions


def test_one_epoll_instance_that_follows_two_queues_needs_rescue(probe: SuspensionProbe) -> None:
    with Lab.build(queues=2) as lab, ending(memcached(lab)) as server:
        for napi in lab.server.napis():
            set_napi(lab, napi.napi_id, suspending())
        for fd in open_files(server.pid).epolls:
            set_params(server.pid, fd, PREFERS)
        spec = LoadSpec(rate_per_second=20_000, seconds=60, connections=16, warmup_seconds=0.1, sleeps=True)
        with started(lab, server, spec) as load:
            load.wait_for_warmup()

            def trapped() -> list[SuspensionCounts]:
                """Both, if packets have waited for the timer."""
                found = counts(probe, lab)
                tail = max(each.wait_percentile_us(0.999) or 0 for each in found)
                rescues = sum(each.timeouts for each in found)
                return found if rescues >= 10 and tail >= 0.9 * SUSPEND_MS * 1000 else []

            found = until(trapped, "rescues")

    assert len(found) == 2
    assert all(each.packets for each in found)
    assert all(each.timeouts <= each.resumes for each in found)


@pytest.mark.alone
def test_waits_follow_the_deferral_timer(lab: Lab, load: LoadStarter, probe: SuspensionProbe) -> None:
    (napi,) = lab.server.napis()
    load()

    def least_wait(deferral_us: int) -> float:
        """Of the tenth that waits least, in the best of several windows: other work only makes waits longer."""
        set_napi(lab, napi.napi_id, suspending(timeout_ms=0, deferral_us=deferral_us))
        time.sleep(0.05)
        windows = [found for _ in range(5) for found in window(probe, lab, 0.1)]
        assert not any(found.arms for found in windows)  # deferral alone
        return min(found.wait_percentile_us(0.1) or 0 for found in windows)

    def attempt() -> None:
        short, long = least_wait(20), least_wait(200)

        assert 0 < short < long
        assert 200 <= long <= 2**18 / 1000  # 262 µs: the bound of the bucket in which 250 µs lie

    in_one_of(attempt, 10)


def test_an_instance_is_named_by_id_and_namespace(lab: Lab, probe: SuspensionProbe) -> None:
    (napi,) = lab.server.napis()
    with following(lab) as follower:
        (found,) = counts(probe, lab)

    assert found.napi_id == napi.napi_id == follower.napi_id


def test_each_epoll_wait_with_events_is_an_arm_and_the_first_of_a_row_a_suspension(
    lab: Lab, probe: SuspensionProbe
) -> None:
    rows, each = 5, 10
    with following(lab, suspending(timeout_ms=2_000)) as follower:
        for _ in range(rows):
            for _ in range(each):
                follower.receive()
            follower.rest()
        (found,) = counts(probe, lab)

    # Between two packets of a row epoll_wait may come before the packet does: its busy poll finds nothing and resumes.
    assert found.arms == rows * each
    assert rows <= found.suspensions <= found.arms
    assert found.resumes == found.suspensions
    assert found.timeouts == 0


def suspended(probe: SuspensionProbe, lab: Lab, follower: Follower) -> SuspensionCounts:
    """Have it suspended, and stay so for a while: now and then the kernel resumes it at once. The counts then, soon
    enough for what comes next to come before the timer."""

    def lasting() -> SuspensionCounts | None:
        began = time.monotonic()
        follower.receive()
        time.sleep(0.005)
        (found,) = counts(probe, lab)
        return found if found.suspensions > found.resumes and time.monotonic() - began < 0.02 else None

    found = until(lasting, "a suspension")
    assert found is not None
    return found


def test_a_suspension_that_is_still_open_is_told(lab: Lab, probe: SuspensionProbe) -> None:
    with following(lab, suspending(timeout_ms=2_000)) as follower:
        before = suspended(probe, lab, follower)
        time.sleep(0.1)
        (open_,) = counts(probe, lab)
        follower.rest()
        (closed,) = counts(probe, lab)
        time.sleep(0.05)
        (later,) = counts(probe, lab)

    assert (open_.suspensions, open_.resumes) == (before.suspensions, before.resumes)
    assert 0.1e9 <= open_.suspended_ns - before.suspended_ns < 1e9
    assert (closed.suspensions, closed.resumes) == (before.suspensions, before.suspensions)
    assert open_.suspended_ns <= closed.suspended_ns == later.suspended_ns
    assert later.timeouts == 0


def resumed(probe: SuspensionProbe, lab: Lab, more_often: int) -> list[SuspensionCounts]:
    """Of those that were resumed more often than that."""
    return [each for each in counts(probe, lab) if each.resumes > more_often]


def test_the_timer_that_rescues_a_suspended_instance_is_told(lab: Lab, probe: SuspensionProbe) -> None:
    rows, timeout_ms = 8, 50
    with following(lab, suspending(timeout_ms=timeout_ms)) as follower:
        for _ in range(rows):
            before = suspended(probe, lab, follower)
            follower.sender.send(b"napctl")  # it waits for the timer, as nobody polls
            (after,) = until(partial(resumed, probe, lab, before.resumes), "a rescue")
            assert (after.timeouts, after.resumes) == (before.timeouts + 1, before.resumes + 1)
            assert follower.receiver.recv(64)
            follower.rest()
        (found,) = counts(probe, lab)

    assert rows <= found.timeouts <= found.resumes == found.suspensions
    assert found.without_cpu < found.timeouts, "it slept, unless another one had its CPU just then"
    assert found.suspended_ns >= found.timeouts * 0.95 * timeout_ms * 1_000_000
    # One packet of each row waits for the timer.
    assert sum(found.waits[bucket] for bucket, us in enumerate(WAIT_BOUNDS_US) if us >= timeout_ms * 1000) >= rows
    assert (found.wait_percentile_us(0.3) or 0) < 0.9 * timeout_ms * 1000


def test_a_rescue_while_the_program_is_ready_to_run_and_has_no_cpu_is_told_apart(
    lab: Lab, probe: SuspensionProbe
) -> None:
    with following(lab, suspending(timeout_ms=200)) as follower:

        def attempt() -> None:
            with about_to_hold(lab.server.cpu) as other, held_to(lab.server.cpu):
                assert other.stdin
                assert other.stdout
                before = suspended(probe, lab, follower)
                other.stdin.write("\n")
                other.stdin.flush()  # by which the other one takes the CPU
                assert other.stdout.readline()
            (after,) = until(partial(resumed, probe, lab, before.resumes), "a rescue")
            follower.rest()
            assert (after.timeouts, after.without_cpu) == (before.timeouts + 1, before.without_cpu + 1)

        in_one_of(attempt)


def start_other_timers() -> None:
    """Hundreds of starts and expiries of timers that are no NAPI's, some due in as long as the suspend timer."""
    for _ in range(500):
        signal.setitimer(signal.ITIMER_REAL, SUSPEND_MS / 1000)
        signal.setitimer(signal.ITIMER_REAL, 0)
        time.sleep(0.000_05)
    for _ in range(5):
        time.sleep(SUSPEND_MS / 1000)


def test_a_timer_that_is_no_napis_is_never_counted(lab: Lab, probe: SuspensionProbe) -> None:
    with following(lab, suspending(timeout_ms=2_000)) as follower:
        follower.receive()
        follower.rest()
        (before,) = counts(probe, lab)
        start_other_timers()
        (after,) = counts(probe, lab)
        follower.receive()
        (still,) = counts(probe, lab)

    assert after == before
    assert still.arms == before.arms + 1


@pytest.mark.parametrize("apart", [False, True])
def test_arms_and_rescues_are_those_that_bpftrace_sees_of_the_kernels_own_function(
    lab: Lab, probe: SuspensionProbe, apart: bool
) -> None:
    """The kernel leaves out for bpftrace what comes while another BPF program runs on that CPU, such as another test's
    (trace_call_bpf() in kernel/trace/bpf_trace.c): that is looked at again, and nothing that the probe has missed."""
    in_one_of(lambda: arms_and_rescues_agree(lab, probe, apart))


def arms_and_rescues_agree(lab: Lab, probe: SuspensionProbe, apart: bool) -> None:
    """bpftrace knows NAPI's timers another way: by the name of their function. If it has not seen one set anew, it
    knows that by when it fires."""
    watchdog = 'args->function == kaddr("napi_watchdog")'
    script = f"""
        BEGIN {{ printf("ready\\n"); }}
        tracepoint:timer:hrtimer_start /{watchdog} && pid == {os.getpid()} && args->softexpires > nsecs + 10000000/
            {{ @long[args->hrtimer] = args->softexpires; @arms = count(); }}
        tracepoint:timer:hrtimer_start /{watchdog} && args->softexpires < nsecs + 10000000/
            {{ delete(@long[args->hrtimer]); }}
        tracepoint:timer:hrtimer_expire_entry /{watchdog} && @long[args->hrtimer]/
            {{ if (args->now >= @long[args->hrtimer]) {{ @rescues = count(); }} delete(@long[args->hrtimer]); }}
        END {{ clear(@long); }}
    """
    with (
        following(lab, apart=apart) as follower,
        subprocess.Popen(
            bpftrace_command(script), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as bpftrace,
    ):
        assert bpftrace.stdout
        while bpftrace.stdout.readline() != "ready\n":
            assert bpftrace.poll() is None
        before = counts(probe, lab)[0]
        for row in range(60):
            follower.receive()
            if row % 3 == 0:
                time.sleep(2 * SUSPEND_MS / 1000)
        while (counts(probe, lab)[0] - before).timeouts < 5:  # those that the kernel resumed at once need no rescue
            follower.receive()
            time.sleep(2 * SUSPEND_MS / 1000)
            row += 1
        follower.rest()
        found = counts(probe, lab)[0] - before
        bpftrace.send_signal(signal.SIGINT)
        output = bpftrace.stdout.read()

    seen = {name: int(number) for name, number in re.findall(r"^@(\w+): (\d+)$", output, re.MULTILINE)}
    for name, ours in (("arms", found.arms), ("rescues", found.timeouts)):
        if ours < seen.get(name, 0):
            pytest.fail(f"of {seen[name]} {name} the probe has counted {ours}")
        assert seen.get(name) == ours
    assert found.arms == row + 1


def test_instances_that_vanish_keep_their_counts_and_new_ones_at_their_address_start_anew(
    probe: SuspensionProbe,
) -> None:
    seen = {}
    for receptions in range(1, 13):  # more often than the probe looks for a place
        with Lab.build() as lab, following(lab, suspending(timeout_ms=200)) as follower:
            for _ in range(receptions):
                follower.receive()
            seen[lab.server.namespace.inode, follower.napi_id] = receptions
    time.sleep(0.3)  # the last one was suspended when it went
    found = {(each.netns, each.napi_id): each for each in probe.read()}
    time.sleep(0.1)
    later = {(each.netns, each.napi_id): each for each in probe.read()}

    assert {key: found[key].arms for key in seen} == seen
    assert all(later[key] == found[key] for key in seen)
    assert all(found[key].suspended_ns < 1_000_000_000 for key in seen)


def test_two_probes_do_not_disturb_each_other(lab: Lab, probe: SuspensionProbe) -> None:
    with following(lab) as follower:
        follower.receive()
        with SuspensionProbe.load() as second:
            for _ in range(4):
                follower.receive()
            assert counts(second, lab)[0].arms >= 3  # an instance is known from its first poll on
        follower.receive()

        assert counts(probe, lab)[0].arms == 6


def test_reading_takes_milliseconds_and_closing_twice_is_harmless(lab: Lab) -> None:
    probe = SuspensionProbe.load()
    with following(lab):
        began = time.process_time()
        for _ in range(20):
            probe.read()
        taken = (time.process_time() - began) / 20
    assert set(probe.prog_fds()) >= {"on_napi_poll", "on_timer_start", "on_timer_expiry"}
    probe.close()
    probe.close()

    assert taken < 0.01


def test_it_loads_with_the_two_capabilities_alone() -> None:
    others = "-all,+bpf,+perfmon"
    assert load_in("SuspensionProbe", "setpriv", f"--bounding-set={others}", f"--inh-caps={others}") == ""


def test_a_missing_capability_is_named() -> None:
    dropped = "-perfmon,-sys_admin"
    assert (
        load_in("SuspensionProbe", "setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}")
        == "CAP_PERFMON is missing"
    )


def test_a_kernel_without_suspension_is_named(tmp_path: Path) -> None:
    btf = Path("/sys/kernel/btf/vmlinux").read_bytes()
    (tmp_path / "vmlinux").write_bytes(btf.replace(b"\0irq_suspend_timeout\0", b"\0irq_another_timeout\0"))
    reason = load_in("SuspensionProbe", *in_mounts(f"mount --bind {tmp_path} /sys/kernel/btf"))

    assert reason == "this kernel has no irq_suspend_timeout (Linux 6.13)"
