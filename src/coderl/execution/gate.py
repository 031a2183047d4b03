"""When a program looks too slow it may be the machine: so it is run once more with nothing beside it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Gate:
    """Programs run side by side, unless one asks to run alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_running = 0
        self._num_waiting_alone = 0

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Context in which others may run too."""
        with self._changed:
            self._changed.wait_for(lambda: self._num_waiting_alone == 0)
            self._num_running += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_running -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Context in which nothing else runs; who comes later waits."""
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
