"""A census as people read it: the answer first, one row for queues alike, 80 columns, and the words of each program."""

import pytest
from msgspec.structs import replace

from napctl.cli.census import show
from napctl.cli.text.census_table import program_lines, summary
from napctl.model.census import BypassShare, Census, CensusDevice, Poller, QueueWay, SpinningThread, TakenWay

QUIET = TakenWay(kind="interrupts", packets=0)


def way(number: int, *polled: TakenWay, packets: int | None = 0, handed: tuple[TakenWay, ...] = ()) -> QueueWay:
    return QueueWay(
        device="eth0", ifindex=2, queues=(f"rx{number}", f"tx{number}"), napi_id=8193 + number, packets=packets,
        polled=polled or (QUIET,), handed=handed,
    )  # fmt: skip


def device(*queues: QueueWay, handed: tuple[TakenWay, ...] = (), up: bool | None = True) -> CensusDevice:
    return CensusDevice(name="eth0", ifindex=2, driver="ice", bus="0000:00:03.0", up=up, rx_packets=500,
                        queues=queues, handed=handed)  # fmt: skip


def census(*devices: CensusDevice, pollers: tuple[Poller, ...] = (), missing: tuple[str, ...] = ()) -> Census:
    return Census(seconds=1.0, netns=1, devices=devices, pollers=pollers, missing=missing)


def poller(kind: str = "DPDK", name: str = "testpmd", **more: object) -> Poller:
    return Poller(pid=9, started_ticks=1, name=name, kind=kind, **more)  # type: ignore[arg-type]


def printed(capsys: pytest.CaptureFixture[str], found: Census) -> list[str]:
    show(found)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    return lines


def test_a_machine_without_any_bypass_is_told_so_first_and_fits_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, census(device(*(way(number) for number in range(128)))))
    assert lines[0] == "no packet goes past the kernel; no process spins (in 1.0 s)"
    assert len(lines) < 24
    (row,) = (line for line in lines if "rx0" in line)
    assert row.split() == ["rx0", "tx0", "…", "rx127", "tx127", "interrupts", "0"]


def test_busy_queues_have_rows_of_their_own_and_of_many_the_rest_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    busy = [
        way(number, TakenWay(kind="interrupts", packets=10, share=1.0), packets=10 + number) for number in range(20)
    ]
    lines = printed(capsys, census(device(*busy)))
    assert sum("interrupts" in line for line in lines) == 12
    assert any("8 more" in line for line in lines)


def test_shares_are_told_with_who_and_what_rounds_to_nothing_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    ways = (
        TakenWay(kind="suspension", by="memcached (7)", packets=9997, share=0.9997),
        TakenWay(kind="deferral", packets=3, share=0.0003),
    )
    text = " ".join(printed(capsys, census(device(way(0, *ways, packets=10_000)))))
    assert "100.0 % polled while interrupts are suspended by" in " ".join(text.split())
    assert "deferral" not in text


@pytest.mark.parametrize(
    ("handed", "words"),
    [
        (TakenWay(kind="leased", by="queue 1 of interface 8"), "leased to queue 1 of interface 8"),
        (TakenWay(kind="AF_XDP", by="xdpsock (77)", packets=5, share=0.5), "50.0 % AF_XDP socket of xdpsock (77)"),
        (TakenWay(kind="io_uring zero copy"), "io_uring zero copy"),
    ],
)
def test_what_goes_past_the_stack_is_told_and_named_in_the_answer(
    handed: TakenWay, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = census(device(way(0, handed=(handed,))))
    assert summary(found) == "packets of eth0 go past the kernel's stack; no process spins (in 1.0 s)"
    text = " ".join(" ".join(printed(capsys, found)).split())
    assert all(word in text for word in words.split())


def test_a_busy_cpu_without_a_nic_is_no_bypass_and_no_polling() -> None:
    busy = poller("busy, no NIC", "tail", threads=(SpinningThread(tid=10, name="tail", cpu=1, run_share=1.0),))
    found = census(device(way(0)), pollers=(busy,))
    assert summary(found) == (
        "no packet goes past the kernel; tail (9) keeps a CPU busy without a NIC, which is no bypass (in 1.0 s)"
    )
    both = census(device(way(0)), pollers=(busy, replace(busy, pid=10)))
    assert "tail (9) and tail (10) keep CPUs busy without a NIC" in summary(both)
    text = " ".join(" ".join(program_lines(busy, 1.0)).split())
    assert text == "tail (9): busy, no NIC busy tail (10) has 100.0 % of CPU 1"


def test_programs_that_bypass_are_the_answer() -> None:
    assert summary(census(device(), pollers=(poller(),))) == "testpmd (9) takes packets past the kernel (in 1.0 s)"
    many = tuple(replace(poller(), pid=pid) for pid in range(5))
    assert summary(census(device(), pollers=many)).startswith("5 processes take packets past the kernel")
    really = BypassShare(port_packets=0, kernel_packets=1000)
    assert summary(census(device(), pollers=(poller(really=really),))) == (
        "no packet goes past the kernel; testpmd (9) could take packets past it, and does not (in 1.0 s)"
    )
    unknown = census(device(), pollers=(poller("not known"),))
    assert summary(unknown) == (
        "no packet goes past the kernel as far as can be seen; of testpmd (9) it is not known (in 1.0 s)"
    )


def test_a_program_tells_what_shows_it_what_of_its_100_percent_is_work_and_what_to_do() -> None:
    thread = SpinningThread(tid=10, name="dpdk-worker1", cpu=1, run_share=1.0)
    own = replace(thread, work_share=0.1, source="DPDK telemetry /eal/lcore/usage")
    bound = replace(thread, most_work_share=0.22, source="50,000 packets/s")
    no_bound = replace(thread, source="no bound yet: it was never seen busier than now")
    estimated = replace(bound, estimated_work_share=0.14, estimate_source="2.00 at rest")
    no_estimate = replace(bound, estimate_source="no estimate: this machine has no such counters")
    found = poller(
        devices=("veth0",),
        evidence=("librte_eal.so.23 in its maps",),
        threads=(own, bound, no_bound, estimated, no_estimate),
        really=BypassShare(port_packets=9000, kernel_packets=1000, source="telemetry"),
        remedy="--rx-interrupt",
        trouble="its socket does not answer",
    )
    text = " ".join(" ".join(program_lines(found, 1.0)).split())
    assert "testpmd (9): DPDK, on veth0" in text
    assert "librte_eal.so.23 in its maps" in text
    assert "90.0 % of the packets go past the kernel: 9,000/s by its port, 1,000/s by the kernel (telemetry)" in text
    assert "dpdk-worker1 (10) polls at 100.0 % of CPU 1; 10.0 % of a CPU was work (DPDK telemetry" in text
    told = "at most 22.0 % of a CPU can be work (50,000 packets/s)"
    assert text.count(told) == 3
    assert text.count("estimate") == 1
    assert f"{told}; estimated: at most 14.0 % (2.00 at rest)" in text
    assert "of CPU 1; no bound yet: it was never seen busier than now" in text
    assert "remedy --rx-interrupt" in text
    assert "not known its socket does not answer" in text


def test_one_that_does_not_keep_up_is_told_so() -> None:
    really = BypassShare(port_packets=9000, kernel_packets=1000, lost=500, source="telemetry")
    text = " ".join(" ".join(program_lines(poller(really=really), 1.0)).split())
    assert text.endswith("1,000/s by the kernel (telemetry); it does not keep up: 500/s lost")
    keeps_up = " ".join(program_lines(poller(really=replace(really, lost=0)), 1.0))
    assert "keep up" not in keeps_up


def test_packets_are_told_by_the_window_of_the_program_itself() -> None:
    """Others that hang were asked in between."""
    really = BypassShare(port_packets=9000, kernel_packets=1000, seconds=2.0)
    text = " ".join(" ".join(program_lines(poller(really=really), 1.0)).split())
    assert "4,500/s by its port, 500/s by the kernel" in text


def test_what_is_missing_is_one_line_each_and_a_device_that_is_down_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, census(device(up=False), missing=("who polled: CAP_BPF is missing",)))
    assert any("it is down" in line for line in lines)
    assert lines[-1] == "not known: who polled: CAP_BPF is missing"


def test_names_cannot_speak_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, census(device(way(0)), pollers=(poller(name="\x1b[2J"),)))
    assert "\x1b" not in "".join(lines)


def test_of_hundreds_of_devices_the_busiest_are_shown_and_those_past_the_stack(
    capsys: pytest.CaptureFixture[str],
) -> None:
    many = [replace(device(way(0)), name=f"veth{number}", rx_packets=number) for number in range(300)]
    leased = replace(device(way(0, handed=(TakenWay(kind="leased", by="queue 1 of interface 8"),))), rx_packets=0)
    lines = printed(capsys, census(*many, leased))
    assert len(lines) < 24
    assert any("leased to" in line for line in lines)
    assert any(line.startswith("veth299") for line in lines)
    assert not any(line.startswith("veth100") for line in lines)
    assert any("285 more" in line for line in lines)
