"""Promises of findings in print: a machine with 64 queues fills no screen, and what is left out is counted."""

import re

import pytest
from tests.unit.checkups import checkup, device, idle_cpus, napi, process, row

from napctl.advise.rules import diagnosis
from napctl.cli import doctor
from napctl.model.finding import Checkup


def text_of(seen: Checkup) -> str:
    return "\n".join(doctor._lines(diagnosis(seen), elsewhere=False))


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


@pytest.mark.parametrize("queues", [1, 64])
def test_the_numbers_of_findings_go_up_to_their_count(queues: int) -> None:
    text = text_of(on_full_cpus(queues))
    assert re.findall(r"^(?:\d+-)?(\d+)\. ", text, re.MULTILINE)[-1] == str(queues)
