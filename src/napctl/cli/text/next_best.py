"""What fits a target instead of suspension, and what it costs, in words and as a table."""

from collections.abc import Iterator, Sequence

from napctl.cli.terminal import echo
from napctl.cli.text.table import ABSENT, number, paragraph, print_table
from napctl.model.next_best import NextBest, Offer, Price

__all__ = ["show_next_best", "show_offers"]


AS_IT_IS = "as it is"
COLUMNS = (
    "mode",
    "CPU µs/\npacket",
    "least",
    "most",
    "CPU\n%",
    "polls/s",
    "packets/\ns",
    "p50 µs until\npolled",
    "read",
)


def show_next_best(found: NextBest, target: str) -> None:
    """The prices, where they were measured; what each mode costs in principle, and how it is asked for."""
    if not any(each.fits for each in found.offers):
        return
    if found.as_it_is is not None:
        echo("what fits instead of suspension, under the traffic that is there:")
        print_table(COLUMNS, list(_rows(found, found.as_it_is)), indent=2)
        windows = len(found.as_it_is.cpu_us_per_packet)
        paragraph(
            f"CPU: the server's processes, NAPI threads and NET_RX softirqs, on all CPUs; per packet: median, least "
            f"and most of {windows} windows of 0.3 s. Until polled: an upper bound; until read: by the server",
            first="  ", rest="  ",
        )  # fmt: skip
    else:
        paragraph(f"what fits instead of suspension, not measured{': ' * bool(found.unmeasured)}{found.unmeasured}:")
    show_offers(found.offers)
    if found.best is not None:
        paragraph(f"the best: {found.best.name}: {found.why}", rest="  ")
    else:
        echo(f"apply one with: napctl attach {target} --mode MODE")


def show_offers(offers: Sequence[Offer]) -> None:
    """Each mode with its price in principle, or why it does not fit."""
    for each in offers:
        paragraph(f"{each.name}: {'' if each.fits else 'does not fit: '}{each.why}", first="  ", rest="    ")


def _rows(found: NextBest, base: Price) -> Iterator[tuple[str, ...]]:
    yield _row(AS_IT_IS, base)
    for each in found.offers:
        if each.fits and each.price is not None:
            yield _row(each.name, each.price)


def _row(name: str, price: Price) -> tuple[str, ...]:
    costs = price.cpu_us_per_packet
    return (
        name,
        *(f"{each:.2f}" for each in (price.cpu_us, min(costs), max(costs))),
        f"{100 * price.cpu_share:.0f}",
        number(price.polls_per_second and round(price.polls_per_second)),
        f"{price.packets_per_second:,.0f}",
        _us(price.wait_p50_us),
        _us(price.read_p50_us),
    )


def _us(us: float | None) -> str:
    return ABSENT if us is None else f"{us:.0f}"
