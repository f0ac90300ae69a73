"""napctl lab: the test bed by hand."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click

from napctl.cli.options import Seconds, json_option
from napctl.cli.terminal import echo, echo_json, note
from napctl.lab import standing
from napctl.lab.bed import Lab
from napctl.lab.load import LoadResult, LoadSpec, started
from napctl.lab.servers import memcached
from napctl.model.errors import BadInput

QUEUES = click.option(
    "--queues", type=click.IntRange(1, 1024), default=1, show_default=True, help="RX and TX queues of each device."
)


@click.group(
    epilog="\b\nExamples:\n  napctl lab run --rate 20000 -- napctl watch --seconds 5\n  napctl lab up --queues 4"
)
def lab() -> None:
    """Build a test bed: two network namespaces joined by veth.

    Each device has real NAPI instances, whose threads poll on the CPU of its side: 0 for the server, 1 for the client.
    """


@lab.command(epilog="\b\nExample:\n  napctl lab up --queues 4\n  ip netns exec napctl-server memcached -u nobody &")
@QUEUES
def up(queues: int) -> None:
    """Build a lab that stands until `napctl lab down`."""
    standing.up(queues)
    echo("napctl-server: device server0, 10.199.0.1")
    echo("napctl-client: device client0, 10.199.0.2")
    echo("use them with: ip netns exec napctl-server COMMAND")


@lab.command(epilog="\b\nExample:\n  napctl lab down")
def down() -> None:
    """Take the standing lab down."""
    names = standing.down()
    echo(f"removed {' and '.join(names)}" if names else "no lab stands")


@lab.command(
    context_settings={"ignore_unknown_options": True},
    epilog="\b\nExamples:\n  napctl lab run --rate 20000 --seconds 5\n"
    "  napctl lab run --rate 50000 --seconds 10 -- napctl attach memcached",
)
@QUEUES
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of memcached.")
@click.option(
    "--rate", type=click.FloatRange(0, 10_000_000), default=10_000, show_default=True, help="Requests per second."
)
@click.option("--connections", type=click.IntRange(1), default=16, show_default=True, help="Connections to memcached.")
@click.option("--seconds", type=Seconds(0.1, 3600), default=10.0, show_default=True, help="Length of the load.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the arrivals.")
@json_option("One JSON object")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run(
    queues: int,
    threads: int,
    rate: float,
    connections: int,
    seconds: float,
    seed: int,
    as_json: bool,
    command: tuple[str, ...],
) -> int:
    """Run memcached under an open-loop load in a lab of its own, and COMMAND beside it, in the server's namespace.

    The load starts, then COMMAND (which finds the server's pid in NAPCTL_LAB_SERVER_PID); when both have ended the
    lab goes, also if napctl is killed. Prints what the load measured; the exit status is COMMAND's.
    """
    spec = LoadSpec(rate_per_second=rate, seconds=seconds, connections=connections, seed=seed)
    with Lab.build(queues=queues) as bed, memcached(bed, threads=threads) as server, started(bed, server, spec) as load:
        if not command:
            note(f"{rate:,.0f} requests/s for {seconds:g} s")
        load.wait_for_warmup()
        status = _beside(bed, server.pid, command) if command else 0
        result = load.result() if not command else load.stop()
    if as_json:
        echo_json(result)
    else:
        _show(result)
    return status


def _beside(bed: Lab, server_pid: int, command: tuple[str, ...]) -> int:
    path = f"{Path(sys.argv[0]).resolve().parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = os.environ | {"NAPCTL_LAB_SERVER_PID": str(server_pid), "PATH": path}  # this napctl is `napctl`
    with bed.server.namespace.entered():
        try:
            process = subprocess.Popen(
                [shutil.which(command[0], path=path) or command[0], *command[1:]], env=environment
            )
        except OSError as error:
            raise BadInput(f"{command[0]}: {error.strerror}") from None
    try:
        return _status(process.wait())
    except KeyboardInterrupt:
        return _ended(process)  # the terminal has told it too
    finally:
        if process.poll() is None:
            process.terminate()


def _ended(process: "subprocess.Popen[bytes]") -> int:
    deadline = time.monotonic() + 5
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return _status(process.returncode) if process.returncode is not None else 130


def _status(returncode: int) -> int:
    """As a shell tells it: 128 + N for an end by signal N."""
    return 128 - returncode if returncode < 0 else returncode


def _show(result: LoadResult) -> None:
    echo(
        f"load: {result.achieved_per_second:,.0f} of {result.asked_per_second:,.0f} requests/s for "
        f"{result.seconds:.1f} s, {result.unanswered:,} unanswered"
    )
    figures = {"p50": result.p50_us, "p99": result.p99_us, "p99.9": result.p999_us}
    if result.answered:
        echo("latency: " + ", ".join(f"{name} {value:,.0f} µs" for name, value in figures.items() if value))
    if result.busy_share > 0.9:
        echo("the load generator was saturated: these latencies are partly its own")
