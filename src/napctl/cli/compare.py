"""napctl compare: an experiment with treatments, loads and rounds, and a verdict."""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click
from msgspec.structs import replace

from napctl import __version__
from napctl.attach.attachment import refuse_second
from napctl.attach.target import complete, parse, resolve
from napctl.change.guard import watched
from napctl.change.journal import Journal, state_directory
from napctl.cli.netns import GIVEN_NETNS, Netns, netns_option
from napctl.cli.options import Duration, Seconds, device_names, json_option, offered, verbose_option
from napctl.cli.plan_reading import read_plan
from napctl.cli.report import present
from napctl.cli.terminal import note
from napctl.cli.text.progress import progress_line
from napctl.cli.text.restored import recover_leavings
from napctl.experiment.environment import (
    Environment,
    device_environment,
    lab_environment,
    lab_rates,
    live_environment,
    server_environment,
)
from napctl.experiment.idle_baseline import idle_baseline
from napctl.experiment.presets import coalescing_plans
from napctl.experiment.run_directory import RunDirectory
from napctl.experiment.schedule import rates_of, run
from napctl.experiment.treatments import PRESETS, Treatment, is_known, numbered, parse_treatment
from napctl.kernel.namespaces import NetworkNamespace
from napctl.load.command import CommandLoad
from napctl.load.process import parse_rates
from napctl.model.change import Guard
from napctl.model.errors import BadInput
from napctl.model.experiment import RunConfig
from napctl.report.labels import naming

__all__ = ["compare"]


ADAPTING_WARMUP = 5.0
"""s: after up to a second connections are seen, a second later attached, and what they need is known a second later."""
COALESCING = ("base", "coalescing-off", "coalescing-planned")

NOT_LIVE = ("lab", "load")
SENSELESS = {
    "target": ("lab",), "devices": ("lab",), "adapter": ("lab", "live"), "max_load": ("lab", "live"),
    "rates": ("live",), "max_wait_p99": NOT_LIVE, "max_drops": NOT_LIVE, "max_retransmits": NOT_LIVE,
}  # fmt: skip
"""Options, and with which sources of the load they mean nothing."""


@click.command(
    epilog="\b\nExamples:\n  napctl compare --lab --preset irq-suspension\n"
    "  napctl compare base suspend:200us --target nginx --rates 5k,20k \\\n"
    "    --load 'wrk2 -c64 -d{seconds}s -R{rate} --latency http://10.0.0.1/'\n"
    "  napctl compare base suspend:50us --target nginx --live --max-wait-p99 2ms\n"
    "  napctl compare base base --lab\n"
    "  napctl compare base suspend:20us adapt:150us --lab --rates 5k,60k,max\n"
    "  napctl compare base plan:nic.toml --device eth0 \\\n"
    "    --load 'iperf3 -J -c 10.0.0.2 -t{seconds}'\n"
    "  napctl compare --resume runs/2026-01-31-1200",
)
@click.argument("treatments", nargs=-1, metavar="[TREATMENT]...")
@click.option("--preset", type=click.Choice([*PRESETS, "coalescing"]), help="Treatments that belong together.")
@click.option("--target", shell_complete=lambda _context, _parameter, word: complete(word),
              help="The server, as `attach` takes it; for all treatments but plans and hooks.")  # fmt: skip
@click.option("--lab", is_flag=True, help="memcached in a lab of its own, under the lab's load.")
@click.option("--live", is_flag=True, help="Switch treatments under the traffic that is there.")
@click.option("--load", help="Command of the load, run for each cell; {rate}, {seconds} and {seed} are filled in.")
@click.option("--max-load", help="Its form for as much load as possible, if that needs another one.")
@click.option("--rates", default=None, help="Requests/s to ask for: 5k,20k,max (default: max; in the lab three).")
@click.option("--adapter", multiple=True, help="How to read the load's output: a tool, or regex:… and json:… lines "
              "(docs/loads.md; default: by the command).")  # fmt: skip
@click.option("--rounds", type=click.IntRange(1, 1000), default=8, show_default=True, help="How often each cell.")
@click.option("--seconds", type=Seconds(0.2, 3600), default=3.0, show_default=True, help="Measured part of a cell.")
@click.option("--warmup", type=Seconds(0, 3600), default=None,
              help="Load before it, which is not measured.  [default: 1; 5 where a treatment adapts]")  # fmt: skip
@click.option("--learn", type=Seconds(0, 3600), default=30.0, show_default=True,
              help="How long a treatment that adapts is under each load beforehand, which is not counted.")  # fmt: skip
@click.option("--settle", type=Seconds(0, 600), default=0.1, show_default=True, help="Pause after each switch.")
@click.option("--limit", type=Seconds(1, 86400), help="Longest time of a load, s (default: thrice its own and 10 s).")
@click.option("--seed", type=int, help="Of the order (default: a new one, printed).")
@click.option("--hook", "hooks", type=(str, str, str), multiple=True, metavar="NAME BEGIN END",
              help="A treatment of your own: shell commands that begin and end it.")  # fmt: skip
@click.option("--device", "devices", multiple=True, shell_complete=offered(device_names),
              help="Devices to look at, where no target is named.")  # fmt: skip
@click.option("--max-wait-p99", type=Duration(), help="--live: longest p99 of the latency that the server's machine "
              "sees; where it sees none, of packets' wait for their poll.")  # fmt: skip
@click.option("--max-drops", type=click.FloatRange(0), help="--live: most drops a second.")
@click.option("--max-retransmits", type=click.FloatRange(0), help="--live: most retransmits a second.")
@click.option("--idle-watts", type=click.FloatRange(0), help="For an estimate of energy where nothing measures it.")
@click.option("--busy-watts", type=click.FloatRange(0), help="The same, with all CPUs busy.")
@click.option("--output", type=click.Path(file_okay=False), help="Directory of the run (default: runs/TIME).")
@click.option("--resume", type=click.Path(exists=True, file_okay=False),
              help="Go on with a run that was interrupted; the other options are its own.")  # fmt: skip
@netns_option
@verbose_option
@json_option("One JSON object, the summary")
def compare(**values: Any) -> int:
    """Compare ways of taking packets: TREATMENTs × loads × rounds, in random order, with a verdict for each figure.

    Treatments: base (as it is), defer:TIME, napibusy, fullbusy, suspend:TIME, adapt:BUDGET[:latency] (as `attach --stay
    --latency-budget BUDGET`), plan:FILE, and those of --hook. The first is what the others are compared with; named
    again (base base) it shows what this machine calls a difference where there is none. The server is neither restarted
    nor changed; every setting is journalled and put back after each cell, by a guard if napctl is killed. What a hook
    begins only its own end takes back, which nobody runs then. Exit status 1: a treatment was worse in something.
    """
    with ExitStack() as stack:
        if values["resume"]:
            directory = RunDirectory(values["resume"])
            stack.enter_context(directory.locked())
            config = directory.config()
            _same_machine(directory)
            note(f"going on with {directory.path}: {len(directory.cells())} cells are there")
        else:
            directory = RunDirectory(values["output"] or time.strftime("runs/%Y-%m-%d-%H%M%S"))
            config = _config(values)
        treatments = _treatments(config)
        guard = stack.enter_context(watched(None, state_directory()))
        with Journal() as journal:
            recover_leavings(journal, as_json=values["as_json"])
        environment = stack.enter_context(_environment(config, guard))
        if environment.place.server is not None and any(each.needs_target for each in treatments):
            with Journal() as journal:
                refuse_second(environment.place.server.found.processes, journal.live())
        if not values["resume"]:
            config = _with_rates(config, environment)
            directory.create(config, environment.machine)
            stack.enter_context(directory.locked())
            directory.write_baseline(idle_baseline(config, environment.meter, note))
        cells = len(treatments) * len(rates_of(config)) * config.rounds
        note(f"{cells} cells, order from seed {config.seed}; {directory.path}")
        each = config.seconds + config.warmup_seconds + config.settle_seconds
        tell = stack.enter_context(progress_line(each, naming(config)))
        run(config, treatments, directory, environment.place, environment.load, environment.meter, tell)
    return present(directory, verbose=values["verbose"], as_json=values["as_json"])


def _config(values: dict[str, Any]) -> RunConfig:
    """What was asked for. Raises BadInput where it contradicts itself."""
    names, source = _names(values), _source(values)
    hooks = _hooks(values, names)
    plans = {name: read_plan(name.removeprefix("plan:")) for name in values["treatments"] if name.startswith("plan:")}
    if values["preset"] == "coalescing":
        if source == "lab":
            raise BadInput("--preset coalescing is for real devices; those of the lab have no coalescing")
        target, netns = values["target"], values["netns"]
        netns = NetworkNamespace.of_process(resolve(parse(target))[0].pid) if target else netns
        plans |= coalescing_plans(netns, values["devices"])
    adapts = any(parse_treatment(name, plans, hooks).adapt for name in names)
    warmup = values["warmup"] if values["warmup"] is not None else ADAPTING_WARMUP if adapts else 1.0
    config = RunConfig(
        napctl=__version__,
        name=" ".join(names),
        made_unix_ns=time.time_ns(),
        treatments=names,
        hooks=hooks,
        plans=plans,
        target="memcached of the lab" if values["lab"] else values["target"] or "",
        devices=values["devices"],
        netns=click.get_current_context().meta.get(GIVEN_NETNS, ""),
        source=source,
        load=values["load"] or "",
        max_load=values["max_load"] or "",
        adapter="\n".join(values["adapter"]),
        rates=() if values["live"] else parse_rates(values["rates"]) if values["rates"] else (),
        rounds=values["rounds"],
        seconds=values["seconds"],
        warmup_seconds=0 if values["live"] else warmup,
        settle_seconds=values["settle"],
        learn_seconds=0 if values["live"] or not adapts else values["learn"],
        limit_seconds=values["limit"] or 3 * (max(values["seconds"], values["learn"] if adapts else 0) + warmup) + 10,
        seed=secrets.randbelow(10**6) if values["seed"] is None else values["seed"],
        max_wait_p99_us=values["max_wait_p99"] / 1000 if values["max_wait_p99"] else None,
        max_drops_per_second=values["max_drops"],
        max_retransmits_per_second=values["max_retransmits"],
        idle_watts=values["idle_watts"],
        busy_watts=values["busy_watts"],
    )
    _treatments(config)
    return config


def _names(values: dict[str, Any]) -> tuple[str, ...]:
    preset = COALESCING if values["preset"] == "coalescing" else PRESETS.get(values["preset"] or "", ())
    asked = values["treatments"]
    if not (asked or preset):
        raise BadInput("no treatment is named; give some, such as base suspend:200us, or --preset")
    return numbered((*asked, *(name for name in preset if name not in asked)))


def _source(values: dict[str, Any]) -> str:
    """Of the load."""
    sources = [name for name in ("lab", "live", "load") if values[name]]
    if len(sources) != 1:
        raise BadInput("give the load: exactly one of --load COMMAND, --live and --lab")
    source = sources[0]
    if source == "live" and not values["target"]:
        raise BadInput("--live needs --target: whose traffic is looked at")
    for option, senseless in SENSELESS.items():
        if values[option] not in (None, ()) and source in senseless:
            raise BadInput(f"--{option.replace('devices', 'device').replace('_', '-')} means nothing with --{source}")
    if (values["idle_watts"] is None) != (values["busy_watts"] is None):
        raise BadInput("--idle-watts and --busy-watts go together")
    return source


def _hooks(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    hooks = {name: (begin, end) for name, begin, end in values["hooks"]}
    for name in hooks:
        if name not in names:
            raise BadInput(f"--hook {name}: name it among the treatments, or it is never begun")
        if is_known(name):
            raise BadInput(f"--hook {name}: there is a treatment of that name; call yours otherwise")
    return hooks


def _same_machine(directory: RunDirectory) -> None:
    """Raises BadInput if a run was begun under another kernel: its blocks would have cells of both."""
    then, now = directory.machine().get("kernel"), os.uname().release
    if then != now:
        raise BadInput(f"{directory.path}: it was begun under Linux {then}, and this is {now}; begin a new run")


def _treatments(config: RunConfig) -> list[Treatment]:
    found = [parse_treatment(name, config.plans, config.hooks) for name in config.treatments]
    needing = [each.name for each in found if each.needs_target]
    if needing and not config.target:
        raise BadInput(f"{needing[0]}: it is applied to a server: --target, or --lab")
    return found


@contextmanager
def _environment(config: RunConfig, guard: Guard) -> Iterator[Environment]:
    directory = state_directory()
    with ExitStack() as stack:
        if config.source == "lab":
            note("building the lab")
            yield stack.enter_context(lab_environment(directory, guard, warmup_seconds=config.warmup_seconds))
        elif config.source == "live":
            yield stack.enter_context(live_environment(parse(config.target), config, directory, guard))
        elif config.target:
            yield stack.enter_context(server_environment(parse(config.target), CommandLoad(config), directory, guard))
        else:
            netns = Netns().convert(config.netns, None, None) if config.netns else NetworkNamespace.current()
            stack.enter_context(netns)
            yield stack.enter_context(device_environment(netns, config.devices, CommandLoad(config), directory, guard))


def _with_rates(config: RunConfig, environment: Environment) -> RunConfig:
    if config.rates or config.source == "live":
        return config
    rates = lab_rates(environment, note) if config.source == "lab" else (0.0,)
    return replace(config, rates=rates)
