"""What goes on beside a test, in a thread of its own."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def again_and_again(do: Callable[[], object], pause_seconds: float = 0.001) -> Iterator[None]:
    """Until the block is left; a pause comes before each time."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(pause_seconds):
            do()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
