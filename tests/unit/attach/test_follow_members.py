"""What is said of a target that cannot be followed by its name."""

from pathlib import Path

from napctl.attach.follow import Stay
from napctl.attach.follow_members import Members
from napctl.attach.target import parse
from napctl.model.change import Guard
from napctl.model.policy import AttachEntry, Origin
from napctl.service.policy_keys import attach_options_of
from tests.unit.attach.test_units_and_containers import Make, group
from tests.unit.kernel.test_container_files import A, B, by_docker

__all__ = ["group"]

TARGET = "container:image=nginx"


def test_why_nothing_is_followed_is_told_unless_it_only_does_not_run(tmp_path: Path, group: Make) -> None:
    told: list[str] = []
    options = attach_options_of(AttachEntry(origin=Origin(file="", line=1), target=TARGET))
    guard = Guard(pid=0, started_ticks=0, deadline_boot_ns=0)
    stay = Stay(parse(TARGET), options, guard, tmp_path / "state", lambda line, *_: told.append(line))
    stay.turn()
    assert told == [f"waiting for {TARGET}: it is not running"]
    for pid, each in ((11, A), (12, B)):
        group(f"docker-{each}.scope", pid)
        by_docker(tmp_path, each, f"web{pid}", "nginx")
    stay.look_anew()
    stay.turn()
    assert told[1].startswith(f"waiting: {TARGET}: 2 containers are of that image (")
    assert len(told) == 2


def test_the_reason_is_that_of_the_last_look(tmp_path: Path, group: Make) -> None:
    members, path = Members(parse(TARGET)), group(f"docker-{A}.scope", 11)
    by_docker(tmp_path, A, "web", "nginx").write_text("{")
    assert members.find() == ()
    assert "it does not read as its runtime writes it" in members.why
    by_docker(tmp_path, A, "web", "redis")
    path.rename(path.with_name("system.slice"))
    assert members.find() == ()
    assert members.why == ""
