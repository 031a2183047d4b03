"""How many programs compute at a time: a place each, given up by those that only sleep, and all kept free for one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


class Gate:
    """As many programs side by side as there are places, unless one asks to run alone."""

    def __init__(self, num_places: int) -> None:
        self._num_places = num_places
        self._changed = threading.Condition()
        self._num_running = 0
        self._num_waiting_alone = 0

    @contextlib.contextmanager
    def shared(self) -> Iterator[Callable[[], None]]:
        """Context of a program that computes; it yields what gives the place up before the end, for good."""
        with self._changed:
            self._changed.wait_for(lambda: self._num_waiting_alone == 0 and self._num_running < self._num_places)
            self._num_running += 1
        has_place = True

        def leave() -> None:
            nonlocal has_place
            with self._changed:
                self._num_running -= has_place
                has_place = False
                self._changed.notify_all()

        try:
            yield leave
        finally:
            leave()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Context in which nothing else computes; who comes later waits."""
        with self._changed:
            self._num_waiting_alone += 1
            self._changed.wait_for(lambda: self._num_running == 0)
            self._num_running += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_running -= 1
                self._num_waiting_alone -= 1
                self._changed.notify_all()
