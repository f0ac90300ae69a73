"""What the service tells of what it decides."""

from napctl.service.decisions import KEPT, MOST_OBJECTS, Decisions, ServiceDecision


def test_each_is_told_once_and_never_twice_in_a_row() -> None:
    told: list[ServiceDecision] = []
    decisions = Decisions(told.append)
    for text in ("attached", "attached", "detached", "attached"):
        decisions.made_now(1, "memcached", text)
    decisions.made_now(2, "eth0", "attached")
    assert [(each.about, each.text) for each in told] == [
        ("memcached", "attached"), ("memcached", "detached"), ("memcached", "attached"), ("eth0", "attached"),
    ]  # fmt: skip
    assert decisions.made == 5
    assert [each.text for each in decisions.about("memcached")] == ["attached", "detached", "attached"]
    assert decisions.about("nobody") == ()


def test_it_keeps_the_last_ones_of_the_last_objects() -> None:
    decisions = Decisions(lambda _: None)
    for number in range(3 * KEPT):
        decisions.made_now(number, "eth0", str(number))
    assert [each.text for each in decisions.about("eth0")] == [str(number) for number in range(2 * KEPT, 3 * KEPT)]
    for number in range(MOST_OBJECTS):
        decisions.made_now(number, f"v{number}", "x")
    assert decisions.about("eth0") == ()
    assert len(decisions.objects) == MOST_OBJECTS
