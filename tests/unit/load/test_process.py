"""Running a load command once: what is filled in, what is kept, how it ends."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.experiment import treatments
from napctl.experiment.treatments import Place, Treatment, applied
from napctl.load.process import LoadCommand, load_name, parse_rates, run_load
from napctl.load.tools import Reading
from napctl.model.errors import BadInput, NapctlError
from tests.tries import in_one_of

pytestmark = pytest.mark.heavy

RATE = r"regex:requests_per_second=^rps=(\S+)$"


def run(
    tmp_path: Path, template: str, *, rate: float = 1000, limit_seconds: float = 60, max_template: str = ""
) -> Reading:
    command = LoadCommand.of(template, adapter=RATE, max_template=max_template)
    raw = tmp_path / "0001.out"
    return run_load(command, rate=rate, seconds=2, seed=7, limit_seconds=limit_seconds, raw_path=raw)


def running(mark: str) -> int:
    """How many `sleep MARK` there are."""
    found = 0
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            found += entry.name.isdigit() and (entry / "cmdline").read_bytes() == f"sleep\0{mark}\0".encode()
    return found


def began(mark: str, patience_s: float = 20) -> None:
    deadline = time.monotonic() + patience_s
    while not running(mark):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def gone(mark: str, patience_s: float = 20) -> bool:
    deadline = time.monotonic() + patience_s
    while running(mark) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not running(mark)


@pytest.mark.parametrize(
    ("text", "rates"),
    [("5k,20k,max", (5000.0, 20000.0, 0.0)), ("max", (0.0,)), ("0.5, 1.5M", (0.5, 1_500_000.0)), ("100", (100.0,))],
)
def test_rates_are_read_as_people_write_them(text: str, rates: tuple[float, ...]) -> None:
    assert parse_rates(text) == rates


@pytest.mark.parametrize("text", ["", "5k,", "0", "-1", "5x", "fast", "5k,5000", "max,max", "nan", "1e999"])
def test_what_is_no_list_of_rates_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_rates(text)


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=5, unique=True))
def test_rates_come_back_from_their_names(rates: list[int]) -> None:
    names = [load_name(rate).removesuffix("/s").replace(",", "") for rate in rates]
    assert parse_rates(",".join(names)) == tuple(map(float, rates))


def test_the_highest_load_is_called_max() -> None:
    assert [load_name(rate) for rate in parse_rates("20k,0.5,max")] == ["20,000/s", "0.5/s", "max"]


def test_rate_seconds_and_seed_are_filled_in_and_the_shells_braces_stay(tmp_path: Path) -> None:
    template = "x=5; echo rps={rate} | awk '{{print}}'; echo {seconds} {seed} ${x} $(( {rate} / 4 )) {other}"
    assert run(tmp_path, template, rate=20_000.0).requests_per_second == 20_000
    assert (tmp_path / "0001.out").read_text() == "rps=20000\n2 7 5 5000 {other}\n"


def test_max_is_a_rate_of_0_or_another_command(tmp_path: Path) -> None:
    assert run(tmp_path, "echo rps=1{rate}", rate=0).requests_per_second == 10
    assert run(tmp_path, "exit 1 {rate}", rate=0, max_template="echo rps=9{seconds}").requests_per_second == 92
    assert run(tmp_path, "echo rps={rate}", rate=5, max_template="exit 1").requests_per_second == 5


def test_standard_output_and_error_are_kept_and_do_not_run_into_each_other(tmp_path: Path) -> None:
    assert run(tmp_path, "echo 5 >&2; printf rps=2; printf 0 >&2").requests_per_second == 2
    assert (tmp_path / "0001.out").read_text() == "rps=2\n--- standard error ---\n5\n0"
    assert [path.name for path in tmp_path.iterdir()] == ["0001.out"]


def test_numbers_have_a_point_whatever_the_users_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    run(tmp_path, "env; echo rps=1")
    assert "\nLC_ALL=C\n" in (tmp_path / "0001.out").read_text()


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("echo rps=1; echo first >&2; echo '\033[31mthe end\033[0m' >&2; exit 3", "with status 3; .*words: the end$"),
        ("echo rps=1; exit 3", "with status 3; its last words: rps=1$"),
        ("exit 3", "with status 3; it said nothing$"),
        ("kill -SEGV $$", "by SIGSEGV"),
        ("no-such-load-tool", "with status 127; its last words: .*not found"),
        ("echo hello", r"custom: .* found nothing in the output; its last words: hello$"),
    ],
)
def test_a_load_that_fails_is_an_error_with_its_last_words(tmp_path: Path, template: str, words: str) -> None:
    with pytest.raises(NapctlError, match=words) as caught:
        run(tmp_path, template)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "0001.out").exists()


def test_a_load_that_takes_too_long_is_ended_with_all_its_processes(tmp_path: Path) -> None:
    mark = f"31.{os.getpid()}1"
    started = time.monotonic()
    with pytest.raises(NapctlError, match=r"did not end within 1 s and was ended; its last words: begun"):
        run(tmp_path, f"echo begun; sleep {mark} & sleep {mark}; echo rps=1", limit_seconds=1)
    assert time.monotonic() - started < 25
    assert gone(mark)


def test_one_that_ignores_being_asked_to_end_is_killed(tmp_path: Path) -> None:
    mark = f"31.{os.getpid()}2"
    with pytest.raises(NapctlError, match="did not end"):
        run(tmp_path, f"trap '' TERM; sleep {mark}; sleep {mark}", limit_seconds=0.3)
    assert gone(mark)


def test_what_a_load_left_in_the_background_is_ended_too(tmp_path: Path) -> None:
    mark = f"31.{os.getpid()}3"
    assert run(tmp_path, f"sleep {mark} & echo rps=1").requests_per_second == 1
    assert gone(mark)


AWAY = "(setsid sh -c 'trap \"\" TERM HUP; sleep {mark}; sleep {mark}' &); (setsid setsid sleep {mark} &)"
"""In sessions of their own, the parents gone, one of them deaf to being asked."""


def test_a_load_that_takes_too_long_takes_what_made_a_session_of_its_own_with_it(tmp_path: Path) -> None:
    mark = f"31.{os.getpid()}7"
    with pytest.raises(NapctlError, match="did not end"):
        run(tmp_path, f"{AWAY.format(mark=mark)}; sleep {mark}", limit_seconds=0.5)
    assert not running(mark)


def test_so_does_one_that_ends_by_itself(tmp_path: Path) -> None:
    mark = f"31.{os.getpid()}8"
    assert run(tmp_path, f"{AWAY.format(mark=mark)}; sleep 0.2; echo rps=1").requests_per_second == 1
    assert not running(mark)


def nowhere(tmp_path: Path) -> Place:
    return Place(directory=tmp_path, netns=cast("Any", None), guard=cast("Any", None))


def test_a_hook_that_runs_out_of_time_is_killed_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = f"31.{os.getpid()}9"
    monkeypatch.setattr(treatments, "HOOK_SECONDS", 0.5)
    slow = Treatment(name="slow", hooks=(f"{AWAY.format(mark=mark)}; sleep {mark}", "true"))
    with (
        pytest.raises(NapctlError, match=r"^slow: its hook `.*` did not end within 0.5 s; it was killed$"),
        applied(slow, nowhere(tmp_path)),
    ):
        raise AssertionError("it did not begin")
    assert not running(mark)


def test_what_a_hook_leaves_in_the_background_goes_on_until_its_end_ends_it(tmp_path: Path) -> None:
    mark = f"31.{os.getpid()}10"
    with applied(Treatment(name="mine", hooks=(f"sleep {mark} &", f"pkill -x -f 'sleep {mark}'")), nowhere(tmp_path)):
        began(mark)
        time.sleep(0.2)
        assert running(mark) == 1
    assert gone(mark)


BUSY = f"timeout 2.5 {sys.executable} -c 'while True: pass'"


@pytest.mark.parametrize(
    ("command", "saturated"),
    [(BUSY, True), (f'sh -c "{BUSY}; true"', True), ("sleep 1.2", False), ("sleep 0.1", None)],
)
def test_a_load_generator_with_no_time_left_is_told(tmp_path: Path, command: str, saturated: bool | None) -> None:
    """Wherever below the shell it runs. A wait for a CPU counts only once it has ended: the last one may be long."""

    def attempt() -> None:
        assert run(tmp_path, f"{command}; echo rps=1").saturated is saturated

    in_one_of(attempt)


def test_the_cpu_time_that_the_generator_took_on_this_machine_is_told(tmp_path: Path) -> None:
    busy = f"{sys.executable} -c 'import time\nwhile time.process_time() < 1: pass'"
    assert 0.5 < run(tmp_path, f"{busy}; true; echo rps=1").generator_seconds < 1.5
    assert run(tmp_path, "sleep 0.6; echo rps=1").generator_seconds < 0.2


PROGRAM = """
import sys
from pathlib import Path
from napctl.load.process import LoadCommand, run_load
load = LoadCommand.of(f"echo begun; sleep {sys.argv[1]} & sleep {sys.argv[1]}", adapter="regex:errors=(x)")
try:
    run_load(load, rate=1, seconds=1, seed=1, limit_seconds=60, raw_path=Path(sys.argv[2]))
except KeyboardInterrupt:
    sys.exit(42)
"""


def test_an_interrupt_ends_the_load_at_once_and_keeps_what_it_said(tmp_path: Path) -> None:
    mark, raw = f"31.{os.getpid()}4", tmp_path / "raw"
    with subprocess.Popen([sys.executable, "-c", PROGRAM, mark, str(raw)]) as process:
        deadline = time.monotonic() + 20
        while running(mark) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        interrupted = time.monotonic()
        assert process.wait(60) == 42
        assert time.monotonic() - interrupted < 25
    assert gone(mark)
    assert raw.read_text() == "begun\n"


def test_a_load_does_not_outlive_the_napctl_that_is_killed(tmp_path: Path) -> None:
    mark = f"31.{os.getpid()}6"
    with subprocess.Popen([sys.executable, "-c", PROGRAM, mark, str(tmp_path / "raw")]) as process:
        deadline = time.monotonic() + 20
        while running(mark) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
    assert gone(mark)


@pytest.mark.parametrize(("rates", "fits"), [((5000.0, 0.0), False), ((0.0,), True), ((), True)])
def test_a_rate_that_the_command_does_not_take_is_refused(rates: tuple[float, ...], fits: bool) -> None:
    load = LoadCommand.of("wrk -d{seconds}s --latency http://10.0.0.1/")
    try:
        load.check(rates)
    except BadInput as error:
        assert not fits
        assert "no {rate} to fill 5,000/s in" in str(error)  # noqa: PT017 - which rates are refused is the promise
    else:
        assert fits
    LoadCommand.of("wrk2 -R{rate} http://10.0.0.1/").check(rates)


def test_a_request_to_stop_ends_the_load_at_once(tmp_path: Path) -> None:
    mark = f"31.{os.getpid()}5"
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_load(
            LoadCommand.of(f"echo begun; sleep {mark} & sleep {mark}", adapter=RATE),
            rate=1,
            seconds=1,
            seed=1,
            limit_seconds=60,
            raw_path=tmp_path / "raw",
            is_stopped=lambda: running(mark) == 2,
        )
    assert time.monotonic() - started < 25
    assert gone(mark)
    assert (tmp_path / "raw").read_text() == "begun\n"


def test_without_an_adapter_a_command_is_refused() -> None:
    with pytest.raises(BadInput, match=r"no load tool that napctl can read is called in: ./mine"):
        LoadCommand.of("./mine --rate {rate}")
    assert LoadCommand.of("wrk http://server/").adapter.name == "wrk"
