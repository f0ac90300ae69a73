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


def test_they_are_counted_by_what_they_are() -> None:
    decisions = Decisions(lambda _: None)
    for text in (
        "attached memcached (7): 1 NAPI instance, 1 epoll instance, in 4 ms",
        "took over memcached (7): 1 NAPI instance, 1 epoll instance, with gro-flush-timeout 200us",
        "changed to interrupts: the load is now 4,886 packets/s",
        "eth0: rx-usecs 3 → 50",
        "eth0: rx-usecs 3 → 50",
        "eth0 rx-usecs: somebody else keeps changing it; left to him until the policy is changed",
        "devices: no such device; tried again in 1s",
        "waiting: memcached is not running",
        "overload: nice 19 for the thread of NAPI 7: CPU 1 overloaded: packets take 97 %; 9,000 packets/s offered",
        "overload is over: nice put back: 900 packets/s offered, for 10s under 70 % of the 9,000 that caused it",
    ):
        decisions.made_now(1, "x", text)
    assert decisions.made == {"attach": 1, "adopt": 1, "adapt": 1, "set": 2, "yield": 1, "retry": 1, "protect": 2}
