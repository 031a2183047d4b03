"""What an audit lays out for hostile programs to touch: files, servers, a secret; and a look at what they touched."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from coderl.execution.audit.cases import Case

SECRET_VARIABLE = "CODERL_BATTERY_SECRET"
_FILES = {"keepme": "keep this file as it is\n", "secret": "a secret\n"}
_GREETING = b"hello"


class Canaries:
    """A folder of files, three servers and a secret in the environment, all made for one audit and gone after it.

    Programs learn where they are from their input: `@CANARY@` is the folder, `@TOKEN@` names this audit, `@PORT@` is a
    TCP and UDP port on the loopback address. A program that leaves a process behind names it `s-<token>`.
    """

    def __init__(self) -> None:
        self.token = os.urandom(4).hex()
        self.folder = Path()
        self.port = 0
        self._outside = [Path("/tmp") / f"crl-{self.token}"]
        self._shared = Path("/dev/shm") / f"crl-{self.token}"
        self._sockets: list[socket.socket] = []
        self._state: dict[str, str] = {}

    def __enter__(self) -> Canaries:
        self.folder = Path(tempfile.mkdtemp(prefix="crl-canary-"))
        self._open_servers()
        self._lay_out()
        with suppress(OSError):
            self._shared.write_text(_FILES["secret"])
            self._shared.chmod(0o666)
        os.environ[SECRET_VARIABLE] = f"secret-{self.token}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.environ.pop(SECRET_VARIABLE, None)
        for server in self._sockets:
            # A shutdown wakes the thread that waits in accept; closing alone would leave it there.
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        for path in [self._shared, *self._outside]:
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def fill(self, case: Case) -> Case:
        """Return the case with the paths and the port of these canaries in its inputs."""
        return dataclasses.replace(case, inputs=tuple(self._filled(value) for value in case.inputs))

    def _filled(self, value: Any) -> Any:
        if isinstance(value, str) and "@" in value:
            marks = {"@CANARY@": str(self.folder), "@TOKEN@": self.token, "@PORT@": str(self.port)}
            for mark, text in marks.items():
                value = value.replace(mark, text)
            return value
        return [self._filled(inner) for inner in value] if isinstance(value, list) else value

    # ------------------------------------------------------------------------------------------------------- files

    def _lay_out(self) -> None:
        """Write the files afresh; everybody may write them, for it is not their permissions that are on trial."""
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != "socket":
                path.unlink()
        for name, text in _FILES.items():
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o666)
        self.folder.chmod(0o777)
        self._state = self._look()

    def _look(self) -> dict[str, str]:
        """Return what is in the folder: for each name its mode and content."""
        state = {}
        for path in sorted(self.folder.iterdir()):
            mode = path.lstat().st_mode
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            state[path.name] = f"{mode:o} {content}"
        return state

    def restore_touched(self) -> list[str]:
        """Return the names of what was made, changed or removed since the last look, and put everything back."""
        now = self._look()
        touched = sorted(name for name in self._state.keys() | now.keys() if self._state.get(name) != now.get(name))
        for path in self._outside:
            if path.exists():
                touched.append(str(path))
                path.unlink()
        if touched:
            self._lay_out()
        return touched

    # --------------------------------------------------------------------------------------------------- processes

    def end_survivors(self, *, wait_s: float = 0.0) -> list[int]:
        """Return the processes that a program left behind, after ending them."""
        time.sleep(wait_s)
        survivors = [pid for pid in _process_ids() if self._is_survivor(pid)]
        for pid in survivors:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        return survivors

    def _is_survivor(self, pid: int) -> bool:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            return False
        name, _, rest = stat.partition("(")[2].rpartition(")")
        return name == f"s-{self.token}" and rest.split()[0] != "Z"

    # ----------------------------------------------------------------------------------------------------- servers

    def _open_servers(self) -> None:
        tcp = self._listen(socket.AF_INET, ("127.0.0.1", 0))
        self.port = tcp.getsockname()[1]
        self._listen(socket.AF_UNIX, f"\0crl-{self.token}")
        self._listen(socket.AF_UNIX, str(self.folder / "socket"))
        (self.folder / "socket").chmod(0o777)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", self.port))
        self._sockets.append(udp)
        threading.Thread(target=_answer_datagrams, args=(udp,), daemon=True).start()

    def _listen(self, family: int, address: Any) -> socket.socket:
        server = socket.socket(family)
        server.bind(address)
        server.listen()
        self._sockets.append(server)
        threading.Thread(target=_greet, args=(server,), daemon=True).start()
        return server


def _greet(server: socket.socket) -> None:
    with suppress(OSError):
        while True:
            link, _ = server.accept()
            with link, suppress(OSError):
                link.sendall(_GREETING)


def _answer_datagrams(server: socket.socket) -> None:
    with suppress(OSError):
        while True:
            data, sender = server.recvfrom(64)
            if not data and sender is None:
                return
            server.sendto(_GREETING, sender)


def _process_ids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]
