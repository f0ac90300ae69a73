"""Promises of compare: every cell measured, on disk before the next, everything put back, and errors in their cells."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from napctl.experiment.run_directory import RunDirectory
from napctl.lab.bed import Lab
from napctl.lab.servers import Server, memcached
from napctl.lab.webservers import nginx
from napctl.model.experiment import Summary
from napctl.model.value import from_json
from tests.lab.experiment.comparing import GREETING, QUICK, cells, from_client, holding
from tests.lab.helpers import Napctl, ask, ending, machine_of

pytestmark = pytest.mark.lab


@pytest.fixture
def web(lab: Lab) -> Iterator[Server]:
    with nginx(lab, workers=1) as server:
        yield server


def test_every_treatment_is_measured_under_every_load_in_every_round_and_all_is_put_back(
    lab: Lab, web: Server, napctl: Napctl, run: Path
) -> None:
    before = machine_of(lab.server)
    load = from_client(lab, f"wrk -t1 -c8 -d{{seconds}}s --latency http://{web.address}:{web.port}/")
    for attempt in range(3):
        directory = run.with_name(f"run-{attempt}")
        done = napctl(
            "compare", "base", "defer:200us", "suspend:200us", "--target", web.pid, "--load", load, "--rounds", 2,
            "--seconds", 1, "--warmup", 0, "--seed", 3, "--idle-watts", 10,
            "--busy-watts", 30, "--verbose", "--output", directory, timeout_s=90,
        )  # fmt: skip
        if all(cell.metrics.get("requests_per_second") for cell in cells(directory)):
            break  # a busy machine has let nobody wait for a second

    assert done.status in (0, 1), done
    found = cells(directory)
    assert sorted((cell.treatment, cell.round) for cell in found) == sorted(
        (treatment, number) for treatment in ("base", "defer:200us", "suspend:200us") for number in (1, 2)
    )
    assert [cell.failed for cell in found] == [""] * 6
    for cell in found:
        assert cell.metrics["requests_per_second"] > 0
        assert cell.metrics["latency_p99_us"] >= cell.metrics["latency_p50_us"] > 0
        assert 0 < cell.metrics["cpu_share"] <= 1
        if "package_watts" in cell.metrics or "platform_watts" in cell.metrics:
            assert "estimated_watts" not in cell.metrics
        else:
            assert cell.metrics["estimated_watts"] == pytest.approx(10 + 20 * cell.metrics["cpu_share"])
            assert cell.sources["estimated_watts"].startswith("an estimate")
        assert (cell.metrics["server_poll_share"] > 0) == (cell.treatment == "suspend:200us")
        assert RunDirectory(directory).raw(cell.position).read_text().count("Requests/sec") == 1
    assert machine_of(lab.server) == before
    assert napctl.live() == []
    assert "suspend:200us against base" in done.stdout
    assert (directory / "report.html").exists()


def test_its_json_is_the_summary(lab: Lab, web: Server, napctl: Napctl, run: Path) -> None:
    load = f"{holding(lab, web)}; echo rate $(( {{rate}} / 10 + 1 ))"
    done = napctl(
        "compare", "base", "defer:50us", "--target", web.pid, "--load", load, "--adapter", GREETING, "--rounds", 3,
        *QUICK, "--output", run, "--json", timeout_s=60,
    )  # fmt: skip

    assert done.status == 0, done
    summary = from_json(done.stdout, Summary)
    assert {each.treatment for each in summary.comparisons} == {"defer:50us"}
    rates = [each for each in summary.comparisons if each.metric == "requests_per_second"]
    assert all(each.judgement == "no difference found" for each in rates), "it always says the same"


def test_a_load_that_fails_hangs_or_prints_garbage_fails_its_cells_and_says_why(
    lab: Lab, web: Server, napctl: Napctl, run: Path
) -> None:
    """A counter in a file lets one command do another thing in each cell."""
    script = (
        f"n=$(cat {run.parent}/n 2>/dev/null || echo 0); echo $((n + 1)) > {run.parent}/n; {holding(lab, web)}; "
        "case $n in 0) echo rate 7;; 1) echo rate 5;; 2) echo broken >&2; exit 3;; 3) sleep 60;; *) echo hello;; esac"
    )
    done = napctl(
        "compare", "base", "--target", web.pid, "--load", script, "--adapter", GREETING, "--rounds", 4, *QUICK,
        "--limit", 3, "--output", run, timeout_s=60,
    )  # fmt: skip

    assert done.status == 0, done
    failed = [cell.failed for cell in cells(run)]
    assert failed[0] == ""
    assert "status 3" in failed[1]
    assert "broken" in failed[1]
    assert "within 3 s" in failed[2]
    assert "hello" in failed[3]
    assert all(why.splitlines()[0] in " ".join(done.stdout.split()) for why in failed[1:2])


def test_a_load_that_reaches_a_tenth_of_the_rate_is_measured_and_warned_of(
    lab: Lab, web: Server, napctl: Napctl, run: Path
) -> None:
    load = f"{holding(lab, web)}; echo rate $(( {{rate}} / 10 + 1 ))"
    done = napctl(
        "compare", "base", "defer:50us", "--target", web.pid, "--load", load, "--rates", "1k", "--adapter", GREETING,
        "--rounds", 2, *QUICK, "--verbose", "--output", run, timeout_s=60,
    )  # fmt: skip

    assert done.status in (0, 1), done
    assert [cell.failed for cell in cells(run)] == [""] * 4
    words = "4 of 4 cells (base 2, defer:50us 2) at 1,000/s achieved less than 95 % of the rate asked for"
    assert f"{words} (the least 10 %)" in " ".join(done.stdout.split())


def test_a_treatment_that_cannot_be_had_fails_its_rows_and_the_rest_runs(
    lab: Lab, web: Server, napctl: Napctl, run: Path
) -> None:
    load = f"{holding(lab, web)}; echo rate 5"
    done = napctl(
        "compare", "base", "broken", "--hook", "broken", "echo cannot do it >&2; exit 1", "true", "--target", web.pid,
        "--load", load, "--adapter", GREETING, "--rounds", 2, *QUICK, "--output", run, timeout_s=60,
    )  # fmt: skip

    assert done.status == 0, done
    assert [bool(cell.failed) for cell in cells(run)].count(True) == 2
    assert all("cannot do it" in cell.failed for cell in cells(run) if cell.treatment == "broken")
    assert "cannot do it" in " ".join(done.stdout.split())


def test_hooks_begin_and_end_their_treatment(lab: Lab, web: Server, napctl: Napctl, run: Path) -> None:
    log = run.parent / "log"
    load = f"{holding(lab, web)}; echo rate 5"
    done = napctl(
        "compare", "base", "mine", "--hook", "mine", f"echo begin >> {log}", f"echo end >> {log}", "--target", web.pid,
        "--load", load, "--adapter", GREETING, "--rounds", 2, *QUICK, "--output", run, timeout_s=60,
    )  # fmt: skip

    assert done.status == 0, done
    assert log.read_text().split() == ["begin", "end"] * 2


def test_a_hook_whose_end_fails_ends_the_run_as_later_cells_would_be_measured_under_it(
    lab: Lab, web: Server, napctl: Napctl, run: Path
) -> None:
    load = f"{holding(lab, web)}; echo rate 5"
    done = napctl(
        "compare", "mine", "--hook", "mine", "true", "echo it sticks >&2; exit 1", "--target", web.pid, "--load", load,
        "--adapter", GREETING, "--rounds", 3, *QUICK, "--output", run, timeout_s=60,
    )  # fmt: skip

    assert done.status == 6, done
    assert "it sticks; what its beginning changed may still be in force" in done.stderr.splitlines()[-1]
    assert cells(run) == ()


def test_a_hook_may_leave_something_in_the_background_and_say_what_is_no_text(
    lab: Lab, web: Server, napctl: Napctl, run: Path
) -> None:
    pid = run.parent / "pid"
    begin = f"printf '\\377\\n'; sleep 100 & echo $! > {pid}"
    load = f"{holding(lab, web)}; echo rate 5"
    began = time.monotonic()
    done = napctl(
        "compare", "mine", "--hook", "mine", begin, f"kill $(cat {pid})", "--target", web.pid, "--load", load,
        "--adapter", GREETING, "--rounds", 1, *QUICK, "--output", run, timeout_s=60,
    )  # fmt: skip

    assert done.status == 0, done
    assert time.monotonic() - began < 90
    assert [cell.failed for cell in cells(run)] == [""]


def test_a_server_that_is_attached_already_is_not_compared_and_the_way_out_is_named(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, run: Path
) -> None:
    napctl.attach_quickly(server.pid)
    load = ("--load", f"sleep 0.7; echo rate 5; kill -0 {server.pid}", "--adapter", GREETING)
    done = napctl("compare", "base", "suspend:200us", "--target", server.pid, *load, "--output", run)

    assert done.status == 2
    assert f"`napctl detach {server.pid}` first" in done.stderr.splitlines()[-1]
    assert not run.exists()


def test_where_every_cell_failed_the_exit_status_says_so(lab: Lab, web: Server, napctl: Napctl, run: Path) -> None:
    load = ("--load", f"{holding(lab, web)}; echo broken; exit 3", "--adapter", GREETING, "--rounds", 1, *QUICK)
    done = napctl("compare", "base", "--device", "lo", *load, "--output", run, timeout_s=60)

    assert done.status == 6, done
    assert "every cell failed; the first: the load ended with status 3" in done.stderr.splitlines()[-1]


def test_a_treatment_that_is_named_again_is_compared_with_itself(
    lab: Lab, web: Server, napctl: Napctl, run: Path
) -> None:
    load = f"{holding(lab, web)}; echo rate 5"
    done = napctl(
        "compare", "base", "base", "--target", web.pid, "--load", load, "--adapter", GREETING, "--rounds", 3, *QUICK,
        "--verbose", "--output", run, timeout_s=60,
    )  # fmt: skip

    assert done.status in (0, 1), done
    assert {cell.treatment for cell in cells(run)} == {"base", "base#2"}
    assert "base#2 against base" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("suspend:200us",), "exactly one of --load"),
        (("wonder", "--lab"), "wonder: no such treatment"),
        (("suspend:soon", "--lab"), "suspend:soon"),
        (("suspend:30ms", "--lab"), "20ms"),
        (("base", "--lab", "--rounds", "0"), "--rounds"),
        (("base", "--lab", "--rates", "often"), "often"),
        (("base", "--load", "true"), "no load tool"),
        (("suspend:50us", "--load", "wrk"), "--target"),
        (("base", "--live"), "--target"),
        (("--lab", "--preset", "coalescing"), "real devices"),
        (("base", "--lab", "--target", "nginx"), "--target means nothing with --lab"),
        (("base", "--lab", "--max-drops", "5"), "--max-drops means nothing with --lab"),
        (("base", "--live", "--target", "1", "--rates", "5k"), "--rates means nothing with --live"),
        (("base", "--load", "wrk http://10.0.0.1/", "--device", "lo", "--rates", "5k"), "no {rate} to fill 5,000/s in"),
        (("base", "--lab", "--hook", "mine", "true", "true"), "name it among the treatments"),
        (("base", "--lab", "--hook", "base", "true", "true"), "there is a treatment of that name"),
        (("plan:/nonexistent.toml", "--lab"), "/nonexistent.toml"),
        ((), "no treatment is named"),
        (("--resume", "/nonexistent"), "/nonexistent"),
        (("base", "--lab", "--idle-watts", "5"), "--busy-watts"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_nothing_is_begun(
    arguments: tuple[str, ...], words: str, napctl: Napctl, run: Path
) -> None:
    assert napctl("compare", *arguments, *(() if "--resume" in arguments else ("--output", run))).failed_with(2, words)
    assert not run.exists()


def test_a_directory_that_is_not_empty_is_left_alone(napctl: Napctl, run: Path, lab: Lab, web: Server) -> None:
    run.mkdir()
    (run / "mine").write_text("precious")
    load = f"{holding(lab, web)}; echo rate 5"
    arguments = ("--target", web.pid, "--load", load, "--adapter", GREETING)

    done = napctl("compare", "base", *arguments, "--output", run)

    assert done.status == 2
    assert "not empty" in done.stderr.splitlines()[-1]
    assert [each.name for each in run.iterdir()] == ["mine"]


@pytest.mark.long
@pytest.mark.alone
def test_memcached_in_the_lab_is_measured_at_rates_found_for_it(napctl: Napctl, run: Path) -> None:
    done = napctl("compare", "base", "suspend:200us", "--lab", "--rounds", 2, *QUICK, "--output", run, timeout_s=100)

    assert done.status in (0, 1), done
    assert len({cell.load for cell in cells(run)}) == 3
    assert sum(cell.load == "max" for cell in cells(run)) == 4
    assert any(cell.latency for cell in cells(run))


def test_a_server_that_does_not_fit_is_compared_without_polling(napctl: Napctl, run: Path) -> None:
    with Lab.build(queues=2) as lab, ending(memcached(lab)) as server, ExitStack() as held:
        for _ in range(24):
            held.enter_context(ask(lab, server))
        done = napctl(
            "compare", "base", "defer:200us", "suspend:200us", "--target", server.pid, "--adapter", GREETING,
            "--load", "sleep 0.7; echo rate 5", "--rounds", 1, *QUICK, "--output", run, timeout_s=60,
        )  # fmt: skip

        assert done.status in (0, 1), done
        failed = {cell.treatment: cell.failed for cell in cells(run)}
        assert failed["defer:200us"] == ""
        assert "epoll instances fits" in failed["suspend:200us"]
