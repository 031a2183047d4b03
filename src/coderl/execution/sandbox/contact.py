"""One running child, seen from the trusted side: its messages, its output, its clock."""

from __future__ import annotations

import array
import marshal
import os
import socket
import struct
import time
from typing import Any

from coderl.execution.config import Limits
from coderl.execution.sandbox import values
from coderl.execution.sandbox.process import PROGRAM_SLOT, ZygoteProcess
from coderl.types import SandboxError

_CREDENTIALS = struct.Struct("3i")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(16 * 4)
_PACKET_BYTES = 1 << 18
_INLINE_BYTES = 48 << 10
_MIN_WAIT_S = 0.005
_PATIENCE_S = 0.02


class EndedError(Exception):
    """The child ended before it sent what was waited for."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
        """As wait(2) reports it."""


class OutOfTimeError(Exception):
    """The child used up its processor time, or (`is_wall`) the time on the clock."""

    def __init__(self, is_wall: bool) -> None:
        super().__init__(is_wall)
        self.is_wall = is_wall


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
    ) -> None:
        """Start the child; `is_eager` where its messages must be answered, else they may be left for a moment."""
        self._zygote, self._limits = zygote, limits
        self._slot = zygote.slots[slot]
        self._channel, self.output_fd = self._slot.channel, self._slot.output_fd
        self._is_eager = is_eager
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
        cpu = self._limits.cpu_limit_s - (self._clock() - self._cpu_mark)
        wall = self._limits.wall_limit_s - (time.monotonic() - self._wall_mark)
        if cpu <= 0 or wall <= 0:
            raise OutOfTimeError(is_wall=cpu > 0)
        return max(min(cpu / 2, wall), _MIN_WAIT_S)

    def receive(self) -> dict[str, Any]:
        """The next message of the child.

        Raises:
            EndedError: there is none and the child is gone.
            OutOfTimeError: there is none within the limits.
            values.MalformedError: the program wrote on the channel itself.
            SandboxError: the zygote is gone.
        """
        while True:
            message = self._take() if self._is_eager or self._status is not None else None
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

    def _take(self) -> dict[str, Any] | None:
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
            message = values.loads(raw)
            if self._is_up:
                message = self._read_file(message["file"]) if "file" in message else message
                self._note_time(message.get("cpu"))
                return message
            if "hello" not in message:  # the program has not run yet: only our own code can have said this
                raise SandboxError(f"a child failed to start: {message.get('fault')}")
            self._is_up = True
            self.start_test()

    def _note_time(self, reported_s: object) -> None:
        """Close the account of a test at the time the child says it ended: by now it may be far into the next one.

        A child that lies gains nothing much: while it is silent, the kernel's clock is what counts.

        Raises:
            OutOfTimeError: the test took longer than it may.
        """
        if not isinstance(reported_s, float):
            return
        ended_s = min(max(reported_s, self._cpu_mark), self._clock())
        if ended_s - self._cpu_mark > self._limits.cpu_limit_s:
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

    def _read_file(self, size: object) -> dict[str, Any]:
        if type(size) is not int or size > self._limits.output_limit_bytes or size > os.fstat(self.output_fd).st_size:
            text = "the returned value exceeds the output limit"
            return {"error": {"type": "output_limit", "message": text, "line": None}, "test": -1}
        return values.loads(os.pread(self.output_fd, size, 0))

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

    def output(self, end: object) -> bytes | None:
        """What was printed since the last call, up to byte `end` as the child says; None where it is too much."""
        size = os.fstat(self.output_fd).st_size
        start = min(self._output_end, size)
        stop = min(end, size) if type(end) is int and end >= start else size
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
