"""One running child, seen from the trusted side: its messages, its output, its clock."""

from __future__ import annotations

import array
import marshal
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from coderl.execution.config import Limits
from coderl.execution.sandbox import messages, values
from coderl.execution.sandbox.process import PROGRAM_SLOT, ZygoteProcess
from coderl.types import SandboxError

_CREDENTIALS = struct.Struct("3i")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(16 * 4)
_PACKET_BYTES = 1 << 18
_INLINE_BYTES = 48 << 10
_MIN_WAIT_S = 0.005
_PATIENCE_S = 0.02
_QUIET_SLOWNESS, _BUSY_SLOWNESS = 1.1, 2.0
"""What is no load at all, and what to assume of a load that ended before it was measured."""
_MARGIN = 1.25
"""Programs slow down under load more than the program that measures it, or less."""
_ASLEEP_S = 0.1
"""How long a program that sleeps keeps its place among those that compute."""


class EndedError(Exception):
    """The child ended before it sent what was waited for."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
        """As wait(2) reports it."""


class OutOfTimeError(Exception):
    """The child used up its processor time, or (`is_wall`) the time on the clock."""

    def __init__(self, is_wall: bool, is_sure: bool = True) -> None:
        super().__init__(is_wall)
        self.is_wall = is_wall
        self.is_sure = is_sure
        """False where it may have waited for a processor all that time."""


class Contact:
    """Starts a child with a job and keeps its account. Close it, whatever happens.

    Raises:
        SandboxError: there is no memory for the job, or the zygote is gone.
    """

    def __init__(
        self,
        zygote: ZygoteProcess,
        job: dict[str, Any],
        limits: Limits,
        slot: int = PROGRAM_SLOT,
        *,
        is_eager: bool = False,
        on_idle: Callable[[], None] | None = None,
        slowness: Callable[[], float] | None = None,
    ) -> None:
        """Start the child.

        Args:
            zygote: What forks it.
            job: What it is told.
            limits: What it may use up on a test.
            slot: Which files it gets.
            is_eager: Its messages must be answered, else they may be left for a moment.
            on_idle: Called once if it sleeps, so that another program may use the processor.
            slowness: Measures how many seconds a second of a quiet machine takes now; without it, as many as it says.
        """
        self._zygote, self._limits = zygote, limits
        self._slot = zygote.slots[slot]
        self._channel, self.output_fd = self._slot.channel, self._slot.output_fd
        self._is_eager, self._on_idle, self._slowness = is_eager, on_idle, slowness
        self._cpu_limit_s = limits.cpu_limit_s
        self._status: int | None = None
        self._pid = 0
        self._is_up = False
        self.is_silent = False
        """True once the child has ended and its last message was read."""
        self._output_end = 0
        self.cpu_s = 0.0
        """Processor time at the last look; final once the child has ended."""
        try:
            self._slot.fill(marshal.dumps(job))
        except OSError as error:
            raise SandboxError(f"a child could not be set up: {error}") from error
        self._number = zygote.fork(slot)
        self.start_test()

    def start_test(self) -> None:
        """Give the child a whole limit of time, from now on."""
        self._cpu_mark, self._wall_mark = self._clock(), time.monotonic()

    def _clock(self) -> float:
        """Processor seconds of the child, read from the kernel, for the child may lie."""
        if self._pid and self._status is None:
            try:
                self.cpu_s = time.clock_gettime((~self._pid << 3) | 2)
            except OSError:  # it has just ended; its report is on the way
                return self.cpu_s
        return self.cpu_s

    def _remaining_s(self) -> float:
        """Seconds to wait before the next look at the clocks.

        Raises:
            OutOfTimeError: there is nothing left.
        """
        used, elapsed = self._clock() - self._cpu_mark, time.monotonic() - self._wall_mark
        if self._is_too_long(used):
            raise OutOfTimeError(is_wall=False)
        wall = self._limits.wall_limit_s - elapsed
        if wall <= 0:
            starved = self._starved_s()
            wall += starved or 0.0
            if wall <= 0:
                raise OutOfTimeError(is_wall=True, is_sure=starved is not None)
        wait = max(min((self._cpu_limit_s - used) / 2, wall), _MIN_WAIT_S)
        if self._on_idle is None:
            return wait
        if elapsed > _ASLEEP_S and used + (self._starved_s() or 0.0) < elapsed / 4:
            self._on_idle()
            self._on_idle = None
        return min(wait, _ASLEEP_S)

    def _is_too_long(self, used_s: float) -> bool:
        """Whether a test took too much processor time, in seconds of a quiet machine.

        On a busy one each is worth less. Only a test that exceeds the limit is worth the look at how much.
        """
        if used_s > self._cpu_limit_s and self._slowness is not None:
            elapsed = time.monotonic() - self._wall_mark
            was_busy = (self._starved_s() or 0.0) > elapsed / 4
            slowness = max(self._slowness(), _BUSY_SLOWNESS if was_busy else 1.0)
            self._slowness = None
            if slowness > _QUIET_SLOWNESS:
                self._cpu_limit_s *= slowness * _MARGIN
        return used_s > self._cpu_limit_s

    def _starved_s(self) -> float | None:
        """Seconds in which the child could have run and had no processor, this test's at most; None if unknown."""
        waited_ns = 0
        try:
            for thread in os.listdir(f"/proc/{self._pid}/task"):
                with open(f"/proc/{self._pid}/task/{thread}/schedstat") as file:
                    waited_ns += int(file.read().split()[1])
        except (OSError, ValueError, IndexError):
            return None
        return min(waited_ns / 1e9, time.monotonic() - self._wall_mark)

    def receive(self, max_parts: int = messages.MAX_PARTS) -> dict[str, Any]:
        """The next message of the child, checked; `max_parts` bounds what it takes to read one.

        Raises:
            EndedError: there is none and the child is gone.
            OutOfTimeError: there is none within the limits.
            messages.TooLargeError: it has more parts than `max_parts`.
            values.MalformedError: the program wrote on the channel itself.
            SandboxError: the zygote is gone.
        """
        while True:
            message = self._take(max_parts) if self._is_eager or self._status is not None else None
            if message is not None:
                return message
            if self._status is not None:
                if not self._is_up:
                    raise SandboxError(f"a child died before it started (wait status {self._status})")
                self.is_silent = True
                raise EndedError(self._status)
            self._wait(self._remaining_s())

    def _wait(self, limit_s: float) -> None:
        """Wait until there is something to read.

        Most children end within a moment, and one look at the end costs less than one for each message.
        """
        if self._is_eager:
            self._zygote.wait(limit_s, self._channel)
        else:
            self._is_eager = True
            self._zygote.wait(min(limit_s, _PATIENCE_S))
        self._look_for_end()

    def _look_for_end(self) -> None:
        report = self._zygote.ended(self._number)
        if report is not None:
            self._status, self.cpu_s, _peak = report

    def _take(self, max_parts: int) -> dict[str, Any] | None:
        """A message that is already there; hello is noted, not returned."""
        while True:
            try:
                raw, ancillary, _flags, _address = self._channel.recvmsg(
                    _PACKET_BYTES, _ANCILLARY_BYTES, socket.MSG_DONTWAIT
                )
            except OSError:
                return None
            self._note(ancillary)
            if not raw:
                return None
            message = messages.read(raw, max_parts)
            if self._is_up:
                message = self._read_file(message["file"], max_parts) if "file" in message else message
                self._note_time(message.get("cpu"))
                return message
            if "hello" not in message:  # the program has not run yet: only our own code can have said this
                raise SandboxError(f"a child failed to start: {message.get('fault')}")
            self._is_up = True
            self.start_test()

    def _note_time(self, reported_s: float | None) -> None:
        """Close the account of a test at the time the child says it ended: by now it may be far into the next one.

        A child that lies gains nothing much: while it is silent, the kernel's clock is what counts.

        Raises:
            OutOfTimeError: the test took longer than it may.
        """
        if reported_s is None:
            return
        ended_s = min(max(reported_s, self._cpu_mark), self._clock())
        if self._is_too_long(ended_s - self._cpu_mark):
            raise OutOfTimeError(is_wall=False)
        self._cpu_mark, self._wall_mark = ended_s, time.monotonic()

    def _note(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        for _level, kind, data in ancillary:
            if kind == socket.SCM_CREDENTIALS and not self._pid:
                self._pid = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0]
            elif kind == socket.SCM_RIGHTS:  # no honest child sends files
                fds = array.array("i")
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
                for fd in fds:
                    os.close(fd)

    def _read_file(self, size: int, max_parts: int) -> dict[str, Any]:
        if size > self._limits.output_limit_bytes or size > os.fstat(self.output_fd).st_size:
            text = "the returned value exceeds the output limit"
            return {"error": {"type": "output_limit", "message": text, "line": None}}
        return messages.read(os.pread(self.output_fd, size, 0), max_parts)

    def send(self, message: dict[str, Any]) -> None:
        """Answer the child; if it is gone, the next `receive` tells."""
        raw = values.dumps(message)
        try:
            if len(raw) <= _INLINE_BYTES:
                self._channel.send(raw)
                return
            fd = memory_file("answer", raw)
            try:
                socket.send_fds(self._channel, [b"{}"], [fd])
            finally:
                os.close(fd)
        except OSError:
            return

    def output(self, end: int | None) -> bytes | None:
        """What was printed since the last call, up to byte `end` as the child says; None where it is too much."""
        size = os.fstat(self.output_fd).st_size
        start = min(self._output_end, size)
        stop = min(end, size) if end is not None and end >= start else size
        self._output_end = stop
        if stop - start > self._limits.output_limit_bytes:
            return None
        return os.pread(self.output_fd, stop - start, start)

    def close(self) -> None:
        """Kill the child if it still runs, wait for its end, and leave the slot clean.

        Raises:
            SandboxError: the zygote is gone.
        """
        if self._status is None:
            self._zygote.kill(self._number)
        while self._status is None:
            self._look_for_end()
            if self._status is None:
                self._zygote.read_report()
        self._slot.reset()


def memory_file(name: str, content: bytes) -> int:
    """Descriptor of a file that exists only in memory."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    return fd
