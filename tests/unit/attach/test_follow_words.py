"""What a follower tells: each line once, and no line that says nothing to anybody."""

from napctl.attach.follow_words import Words
from napctl.kernel.monitor import Notice
from napctl.model.snapshot import Decision


class Reader:
    """Of the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str, _kind: Decision | None = None, /) -> None:
        self.lines.append(line)


def test_a_notice_without_a_device_is_left_out_and_each_is_told_once() -> None:
    told = Reader()
    words = Words(told)
    words.tell_notices(
        [
            Notice(what="lost"),
            Notice(what="link down", device="eth0", ifindex=2),
            Notice(what="napi ids", ifindex=2),
            Notice(what="link down", device="eth0", ifindex=2),
            Notice(what="napi ids", device="eth0", ifindex=2),
        ]
    )
    assert told.lines == [], "nobody who reads keeps the journal waiting"
    words.tell_all()
    assert told.lines == ["eth0: link down", "eth0: NAPI instances have new ids"]


def test_what_does_not_change_is_said_once_until_something_else_is_attached() -> None:
    told = Reader()
    words = Words(told)
    for _ in range(3):
        words.say("waiting")
    words.tell_all()
    words.say("a worker cannot be attached")
    words.say_anew()
    for _ in range(3):
        words.say("a worker cannot be attached")  # it is part of what is attached
        words.say("waiting")
    words.tell_all()
    assert told.lines == ["waiting", "a worker cannot be attached", "waiting"]


def test_of_what_was_said_only_so_much_is_remembered() -> None:
    words = Words(Reader())
    for number in range(1000):
        words.say(f"waiting for {number}")
        words.tell_all()
    assert len(words._said) < 100
