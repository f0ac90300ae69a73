"""What makes servers steerable, in their own configuration: one line for each that has a name."""

__all__ = ["hint", "steers_itself"]


STEERABLE_BY = {
    "nginx": "`reuseport` on each `listen` line, and as many worker_processes as {device} has RX queues ({queues})",
    "memcached": "start it with `-t {queues} -N {queues}`: it then gives each thread the connections of one queue",
    "haproxy": "`shards by-thread` on each `bind` line, and `nbthread {queues}`",
    "envoy": "`enable_reuse_port: true` on each listener, and `--concurrency {queues}`",
    "gunicorn": "`--reuse-port`, and {queues} workers",
    "node": "a listener of its own in each of {queues} workers: server.listen({{port, reusePort: true}}) (Node 23.1)",
}
"""By program. {device} and {queues} stand for the device and its number of RX queues."""

ONE_LOOP = (
    "it has one event loop: let one queue carry all its packets, with `ethtool -N {device} flow-type tcp4 dst-port "
    "PORT action 0` where the driver has filters, or `ethtool -L {device} combined 1`"
)
ANY = "give each of {queues} workers a listening socket of its own (SO_REUSEPORT)"


def hint(program: str, device: str, queues: int, instances: int) -> str:
    """What would let its epoll instances follow one queue each."""
    words = STEERABLE_BY.get(program) or (ONE_LOOP if instances == 1 else ANY)
    return words.format(device=device, queues=queues)


def steers_itself(program: str, arguments: tuple[str, ...]) -> str | None:
    """The option by which a server gives each of its event loops one NAPI id itself; None: it is not known to."""
    if program.startswith("memcached"):
        return next((each for each in arguments if each.startswith(("-N", "--napi-ids", "--napi_ids"))), None)
    return None
