"""Adapters: from the output of load tools to throughput and latency percentiles, one small module per tool."""

import shlex
from fnmatch import fnmatchcase
from pathlib import PurePath

from napctl.load.tools import h2load, iperf3, memtier, mutilate, openloop, redis, sockperf, wrk
from napctl.load.tools.custom import custom
from napctl.load.tools.reading import Adapter, Reading
from napctl.model.errors import BadInput

ADAPTERS: dict[str, Adapter] = {
    adapter.name: adapter
    for adapter in (
        sockperf.ADAPTER,
        wrk.WRK,
        wrk.WRK2,
        h2load.ADAPTER,
        redis.ADAPTER,
        memtier.ADAPTER,
        mutilate.ADAPTER,
        iperf3.ADAPTER,
        openloop.ADAPTER,
    )
}
"""By name, which is the tool's."""

__all__ = ["ADAPTERS", "Adapter", "Reading", "adapter_for", "adapter_named", "custom"]


def adapter_for(command: str) -> Adapter | None:
    """The adapter of the first program in a shell command that has one; None if there is none.

    `taskset -c 1 wrk …` and `ssh client /opt/wrk2/wrk -R …` are understood. wrk with a rate is wrk2.
    """
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError:  # a quotation without its end: the shell will say so
        return None
    for position, word in enumerate(words):
        name = PurePath(word).name
        for adapter in ADAPTERS.values():
            if any(fnmatchcase(name, program) for program in adapter.programs):
                is_wrk2 = adapter is wrk.WRK and wrk.has_a_rate(words[position + 1 :])
                return wrk.WRK2 if is_wrk2 else adapter
    return None


def adapter_named(text: str) -> Adapter:
    """An adapter by its name, or made of lines `regex:NAME=PATTERN` and `json:NAME=PATH`. Raises BadInput."""
    if text in ADAPTERS:
        return ADAPTERS[text]
    if text.startswith(("regex:", "json:")):
        return custom([line for line in text.splitlines() if line.strip()])
    names = ", ".join(ADAPTERS)
    raise BadInput(f"'{text}' is no load tool that napctl can read: {names}, or regex:NAME=PATTERN, json:NAME=PATH")
