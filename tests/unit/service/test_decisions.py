"""What the service tells of what it decides."""

from napctl.model.snapshot import Decision
from napctl.service.decisions import KEPT, MOST_OBJECTS, Decisions, ServiceDecision


def decided(about: str, text: str, kind: Decision | None = None) -> ServiceDecision:
    return ServiceDecision(unix_ns=1, about=about, text=text, kind=kind)


def test_each_is_told_once_and_never_twice_in_a_row() -> None:
    told: list[ServiceDecision] = []
    decisions = Decisions(told.append)
    for text in ("attached", "attached", "detached", "attached"):
        decisions.made_now(decided("memcached", text))
    decisions.made_now(decided("eth0", "attached"))
    assert [(each.about, each.text) for each in told] == [
        ("memcached", "attached"), ("memcached", "detached"), ("memcached", "attached"), ("eth0", "attached"),
    ]  # fmt: skip
    assert [each.text for each in decisions.about("memcached")] == ["attached", "detached", "attached"]
    assert decisions.about("nobody") == ()


def test_it_keeps_the_last_ones_of_the_last_objects() -> None:
    decisions = Decisions(lambda _: None)
    for number in range(3 * KEPT):
        decisions.made_now(decided("eth0", str(number)))
    assert [each.text for each in decisions.about("eth0")] == [str(number) for number in range(2 * KEPT, 3 * KEPT)]
    for number in range(MOST_OBJECTS):
        decisions.made_now(decided(f"v{number}", "x"))
    assert decisions.about("eth0") == ()
    assert len(decisions.objects) == MOST_OBJECTS


def test_they_are_counted_by_what_they_are_also_those_that_are_not_told_again() -> None:
    decisions = Decisions(lambda _: None)
    for text, kind in (("a", "attach"), ("b", "set"), ("b", "set"), ("attached c: tried again in 1s", None)):
        decisions.made_now(decided("x", text, kind))  # type: ignore[arg-type]
    assert decisions.made == {"attach": 1, "set": 2}
