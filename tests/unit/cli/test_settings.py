"""Rows of settings: many that are alike are told once."""

import pytest

from napctl.cli.text.settings import counted, grouped


@pytest.mark.parametrize(
    ("where", "count", "told"),
    [
        ("NAPI {} of eth0", 3, None),
        ("NAPI {} of eth0", 4, "4 NAPI instances of eth0"),
        ("epoll 5 of nginx ({})", 8, None),
        ("epoll 5 of nginx ({})", 1000, "1,000 epoll instances of nginx"),
        ("epoll {} of a) (b (7)", 9, "9 epoll instances of a) (b"),
        ("socket {} of dns (7)", 9, "9 sockets of dns"),
        ("queue {} of eth0", 9, None),
    ],
)
def test_rows_that_differ_in_the_instance_alone_are_one_from_some_number_on(
    where: str, count: int, told: str | None
) -> None:
    rows = [(where.format(number), "prefer_busy_poll", "no", "yes") for number in range(count)]
    assert grouped(rows) == (rows if told is None else [(told, "prefer_busy_poll", "no", "yes")])


def test_rows_of_other_values_are_not_lost_in_the_crowd() -> None:
    rows = [(f"epoll 5 of nginx ({number})", "busy_poll_budget", "0", "64") for number in range(20)]
    other = ("epoll 5 of nginx (20)", "busy_poll_budget", "8", "64")
    assert grouped([*rows, other]) == [("20 epoll instances of nginx", *rows[0][1:]), other]


def test_objects_are_counted_once_each_by_kind() -> None:
    napis = [f"NAPI {number} of eth0" for number in (12, 13) for _setting in range(3)]
    others = ["epoll 5 of nginx (7)", "socket 9 of nginx (7)", "2 listeners on tcp 10.0.0.1:8080"]
    assert counted([*napis, *others]) == "2 NAPI instances, 1 epoll instance, 1 socket, 1 steered group"
    assert counted([]) == ""
