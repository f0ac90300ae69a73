"""Ports for what a test starts."""

from secrets import randbelow

from napctl.kernel.listeners import listeners


def free_port() -> int:
    """One on which nothing listens, in no network namespace; by chance, as tests beside this one look for one, too.

    Below those that the kernel gives to clients, which another test may get before it is used.
    """
    taken = {each.port for each in listeners()}
    free = [port for port in range(20_000, 32_000) if port not in taken]
    return free[randbelow(len(free))]
