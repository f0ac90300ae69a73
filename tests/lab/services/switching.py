"""Attaches a server with a timer, and then changes that to other ways, in one process that can be killed amid it.

Arguments: pid of the server, a pause in s, then ways: "interrupts", or the timer in µs. It waits for a line before the
first of them, and ends without detaching, as after a kill.
"""

import os
import sys
import time

from napctl.attach.attach_options import AttachOptions
from napctl.attach.attach_target import attach_target
from napctl.attach.inspect_target import examine
from napctl.attach.judge_target import judge
from napctl.attach.switch_way import in_way, switch_way, way_words
from napctl.change.journal import Journal
from napctl.kernel import processes
from napctl.model.change import Keeper, Switch
from napctl.model.suspension import Suspension

OPTIONS = AttachOptions(suspension=Suspension(), timer_ns=200_000)
BEGIN = "/switching-begins"
"""A file that is looked for, and not there, before the first switch: seen in a trace."""


def main(server: int, pause_seconds: float, ways: list[str]) -> None:
    me, found = processes.process(os.getpid()), processes.process(server)
    assert me is not None
    assert found is not None
    keeper = Keeper(pid=me.pid, started_ticks=me.started_ticks)
    with Journal() as journal:
        target = judge(examine(found.name, [found]), OPTIONS)
        attached = attach_target(journal, target, OPTIONS, print, keeper=keeper).transaction
    sys.stdin.readline()
    os.path.exists(BEGIN)  # noqa: PTH110
    for way in ways:
        time.sleep(pause_seconds)
        timer_ns = None if way == "interrupts" else int(way) * 1000
        switch = Switch(unix_ns=time.time_ns(), to=way_words(timer_ns), why="asked for")
        with Journal() as journal:
            done = switch_way(journal, attached, in_way(OPTIONS.suspension, timer_ns), switch)
        attached = done.transaction
        for line in done.left:
            print(line, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
