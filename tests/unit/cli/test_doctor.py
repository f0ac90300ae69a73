"""Promises of findings in print: a machine with 64 queues fills no screen, and what is left out is counted."""

import re

import pytest
from msgspec.structs import replace

from napctl.cli import doctor
from napctl.doctor.rules import diagnosis
from napctl.model.finding import Checkup, Follower
from tests.unit.doctor.checkups import SUSPENDED, checkup, device, idle_cpus, napi, process, row


def text_of(seen: Checkup, netns: str = "") -> str:
    return "\n".join(doctor._lines(diagnosis(seen), elsewhere=bool(netns), netns=netns))


def on_full_cpus(queues: int) -> Checkup:
    """Each queue on the full CPU of its own worker; as many CPUs are idle."""
    own = [napi(number) for number in range(queues)]
    return checkup(
        *(row(each, softirq={2: 500}) for each in own),
        on=device(*own),
        cpus=idle_cpus(2 * queues, **{f"cpu{number}": 1.0 for number in range(queues)}),
        processes=tuple(process(100 + n, "nginx", share=0.9, cpu=n, feeds=each) for n, each in enumerate(own)),
    )


def test_many_findings_alike_are_told_once_with_the_number_of_the_others() -> None:
    text = text_of(on_full_cpus(64))
    assert text.count("(interrupt-on-application-cpu)") == 1
    assert re.search(r"^1-64\. NAPI 8193 of eth0", text, re.MULTILINE)
    words = " ".join(text.split())
    assert "alike 63 more: NAPI 8194 of eth0 (rx1 tx1), NAPI 8195 of eth0 (rx2 tx2)," in words
    assert "and 60 more (all: --json)" in words
    assert "64 findings: " in words
    assert max(map(len, text.splitlines())) <= 80


def test_a_few_findings_alike_are_told_one_by_one() -> None:
    text = text_of(on_full_cpus(3))
    assert text.count("(interrupt-on-application-cpu)") == 3
    assert re.search(r"^3\. NAPI 8195 of eth0", text, re.MULTILINE)
    assert "alike" not in text


def test_of_much_evidence_and_many_commands_the_first_and_the_last_are_shown() -> None:
    own = [napi(number, cpus="0") for number in range(64)]
    seen = checkup(*(row(each, softirq={2: 500}) for each in own), on=device(*own), cpus=idle_cpus(cpu0=0.9))
    text = text_of(seen)
    assert "64 busy queues share CPU 0" in text
    assert "… 61 more (all: --json)" in text, "65 lines of evidence"
    assert "CPU 0 90.0 % busy" in text, "the last one is of another kind"
    assert text.count("smp_affinity_list") == 4


def test_what_is_not_judged_is_a_short_line_for_each_reason() -> None:
    lines = [line for line in text_of(checkup(row(), queues=None)).splitlines() if "not judged" in line]
    assert lines == [
        "   not judged  eth0: the driver counts no drops per queue (ring-drops)",
        "   not judged  eth0: fewer than 100 packets came (7 rules)",
    ]


def test_commands_say_in_which_network_namespace_they_look() -> None:
    """Of napctl; `attach` finds a process wherever it is, and of other programs it is said once."""
    lost = checkup(row(), on=device(napi(settings=SUSPENDED), driver="ixgbe"))
    assert "napctl status eth0 --netns blue" in text_of(lost, " --netns blue")
    assert "--netns" not in text_of(lost)
    assert "nsenter" not in text_of(lost, " --netns blue")

    crowded = text_of(on_full_cpus(3), " --netns blue")
    assert re.search(r"napctl attach \d+$", crowded, re.MULTILINE)
    assert crowded.count("nsenter") == 1


def test_what_a_follower_mends_is_told_apart_from_the_findings() -> None:
    follower = Follower(pid=500, server="memcached (7)", napi_ids=(8193,))
    seen = replace(checkup(row(), on=device(napi(settings=SUSPENDED), driver="ixgbe")), followers=(follower,))
    words = " ".join(text_of(seen).split())
    assert words.startswith("mended settings of 1 NAPI instance of eth0 may not survive a link reset. napctl (500), ")
    assert "sets them again: nothing is to be done. (settings-lost-at-reset)" in words
    assert "no finding: " in words
    assert "napctl attached" not in words


@pytest.mark.parametrize("queues", [1, 64])
def test_the_numbers_of_findings_go_up_to_their_count(queues: int) -> None:
    text = text_of(on_full_cpus(queues))
    assert re.findall(r"^(?:\d+-)?(\d+)\. ", text, re.MULTILINE)[-1] == str(queues)
