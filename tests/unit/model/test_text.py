"""Promises of what is shown of others' names: it cannot speak to a terminal, and what is written as JSON stays true."""

import io
import json
import tomllib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from napctl.cli import terminal
from napctl.cli.text.table import paragraph, print_table
from napctl.model.plan import DevicePlan, Plan
from napctl.model.text import printable, printable_json
from napctl.model.value import to_json
from napctl.plan.file import plan_text

WILD = st.text(
    st.characters() | st.sampled_from("\x1b\n\r\t\x07\x9b\x7f\u202e\u2066\u200b\ue000\U000e0001\\"), max_size=20
)


@given(WILD)
@example("\x1b[2J")
@example("memcached\neth0: no finding")
@example("\u202egnp.exe")
def test_what_is_shown_is_printable_and_nothing_else_is_changed(name: str) -> None:
    shown = printable(name)
    assert shown.isprintable()
    assert printable(shown) == shown
    assert shown == name or not name.isprintable()
    assert printable(f"a{name}b") == f"a{shown}b"


@given(WILD.filter(lambda text: not any("\ud800" <= each <= "\udfff" for each in text)))
def test_json_is_printable_and_reads_back_as_the_true_name(name: str) -> None:
    shown = printable_json(to_json({name: [name]}).decode())
    assert shown.isprintable()
    assert json.loads(shown) == {name: [name]}


@given(WILD)
def test_every_way_to_the_terminal_makes_names_printable(name: str) -> None:
    def all_ways() -> None:
        terminal.echo(name)
        terminal.note(name)
        terminal.echo_text(f"{name}\n")
        terminal.write_over(name)
        paragraph(name, first="- ")
        print_table((name, "b"), [(name, name)])

    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.stdout", out)
        patched.setattr("sys.stderr", err)
        all_ways()
    assert all(each.isprintable() or each in "\n\t" for each in out.getvalue())
    assert all(each.isprintable() or each == "\n" for each in err.getvalue().replace("\r", "", 1))


def test_a_name_is_one_line_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.echo("memcached\neth0: no finding\r\x1b[A")
    assert capsys.readouterr().out == "memcached\\neth0: no finding\\r\\x1b[A\n"


def test_a_plan_on_a_terminal_keeps_the_true_name_of_its_device() -> None:
    name = "e\x9b\u202e\x1b[mX"
    device = DevicePlan(name=name, driver="\U000e0001", rx_queues=1, tx_queues=1)
    text = plan_text(Plan(goal="balanced", max_added_latency_ns=0, devices=(device,)))
    assert all(each.isprintable() or each == "\n" for each in text)
    assert tomllib.loads(text)[name]["driver"] == "\U000e0001"
