"""The list of transactions: what belongs together is one line."""

from napctl.cli.history import folded
from napctl.model.change import Keeper, Transaction

SECOND = 10**9


def attached(number: int, *, seconds: float, keeper: int | None = 7, pid: int = 42) -> Transaction:
    """An attachment that was undone after so many seconds."""
    return Transaction(
        number=number,
        state="restored",
        since_unix_ns=number * SECOND + int(seconds * SECOND),
        boot_id="b",
        made_unix_ns=number * SECOND,
        name="server",
        pid=pid,
        started_ticks=pid,
        keeper=None if keeper is None else Keeper(pid=keeper, started_ticks=keeper),
        changes=(),
    )


def numbers(recorded: list[Transaction]) -> list[list[int]]:
    return [[each.number for each in alike] for alike in folded(recorded)]


def test_the_timers_that_one_attach_tried_are_one_line() -> None:
    trials = [attached(number, seconds=0.3) for number in range(1, 19)]

    assert numbers([*trials, attached(19, seconds=3600, keeper=None)]) == [[*range(1, 19)], [19]]


def test_trials_of_two_napctls_or_on_two_servers_stay_apart() -> None:
    assert numbers([attached(1, seconds=0.3), attached(2, seconds=0.3, keeper=8)]) == [[1], [2]]
    assert numbers([attached(1, seconds=0.3), attached(2, seconds=0.3, pid=43)]) == [[1], [2]]


def test_what_stayed_for_a_while_or_is_in_force_is_no_trial() -> None:
    stayed, short = attached(2, seconds=60), attached(1, seconds=0.3)

    assert numbers([short, stayed]) == [[1], [2]]
    assert numbers([attached(1, seconds=0.3, keeper=None), attached(2, seconds=0.3, keeper=None)]) == [[1], [2]]
