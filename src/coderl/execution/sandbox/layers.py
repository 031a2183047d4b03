"""The layers that a zygote puts on itself, once, before any program exists. Standard library only.

Each function does one thing to the calling process or raises `OSError` or `LayerError`; nothing can be undone. The
order is `zygote.py`'s: namespaces and mounts need privileges, then these go, then Landlock and seccomp close the door.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import struct
import sys

_libc = ctypes.CDLL(None, use_errno=True)

_CLONE_NEWNS, _CLONE_NEWCGROUP, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
_CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_ALL_NAMESPACES = _CLONE_NEWNS | _CLONE_NEWCGROUP | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWPID | _CLONE_NEWNET

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_ATTR_RDONLY = 1

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 1, 4, 24, 38, 22
_SECCOMP_MODE_FILTER = 2

_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
_SYS_LANDLOCK_CREATE, _SYS_LANDLOCK_ADD, _SYS_LANDLOCK_RESTRICT, _SYS_MOUNT_SETATTR = 444, 445, 446, 442
_CAP_DAC_READ_SEARCH = 2

_LANDLOCK_RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF}
"""Every file access right that an ABI version knows."""
_LANDLOCK_WRITE_FILE, _LANDLOCK_READ = 1 << 1, (1 << 2) | (1 << 3)
_LANDLOCK_SCRATCH = _LANDLOCK_READ | sum(1 << bit for bit in (1, 4, 5, 7, 8, 13, 14))
"""Also write, remove and make folders and plain files, rename across folders, truncate."""

_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_LINKS = {"/dev/fd": "/proc/self/fd"} | {
    f"/dev/{name}": f"/proc/self/fd/{fd}" for fd, name in enumerate(("stdin", "stdout", "stderr"))
}

SCRATCH = "/scratch"
"""A small folder in memory, the only one that can be written to; it is emptied after each program."""


class LayerError(Exception):
    """A layer could not be put on; the text names it and says what would allow it."""


def _syscall(number: int, *arguments: object) -> int:
    result = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def prctl(option: int, argument: int = 0) -> None:
    """Set an attribute of this process, with one argument."""
    _check(_libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0))


def die_with_parent() -> None:
    """Be killed when the parent ends, however it ends. Forgotten by the kernel at every change of user."""
    prctl(_PR_SET_PDEATHSIG, 9)


def enter_namespaces() -> None:
    """New mount, PID, network, IPC, UTS and cgroup namespaces; an ordinary user gets a user namespace for it."""
    flags = _ALL_NAMESPACES
    if os.geteuid() == 0:
        _check(_libc.unshare(flags))
        return
    uid, gid = os.geteuid(), os.getegid()
    _check(_libc.unshare(flags | _CLONE_NEWUSER))
    _map_user(uid, gid)


def own_user_namespace() -> None:
    """A user namespace of one user, so that process limits count this sandbox's processes only."""
    uid, gid = os.geteuid(), os.getegid()
    _check(_libc.unshare(_CLONE_NEWUSER))
    _map_user(uid, gid)


def _map_user(uid: int, gid: int) -> None:
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind, data)]
    _check(_libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]))


def _make_read_only(path: str) -> None:
    attributes = struct.pack("=QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    pointer = ctypes.c_char_p(path.encode())
    _syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, pointer, _AT_RECURSIVE, attributes, ctypes.c_size_t(len(attributes)))


def _bind(source: str, root: str) -> None:
    target = root + source
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "a"):
            pass
    _mount(source, target, None, _MS_BIND | _MS_REC)


def pivot_to_read_only_root(readable: list[str]) -> None:
    """Make the whole file system: `readable` (read-only), four devices, `SCRATCH`, and own processes in /proc.

    Needs new mount and PID namespaces.
    """
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    root = _mount_point(readable)
    _mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,mode=755")
    for path in _outermost(readable):
        if os.path.islink(path):
            os.makedirs(os.path.dirname(root + path), exist_ok=True)
            os.symlink(os.readlink(path), root + path)
        elif os.path.exists(path):
            _bind(path, root)
    for device in _DEVICES:
        _bind(device, root)
    for name, target in _LINKS.items():
        os.symlink(target, root + name)
    os.mkdir(root + "/proc")
    with contextlib.suppress(OSError):  # refused in many containers: /dev/stdin is then missing, nothing else
        options = "hidepid=2,subset=pid"
        _mount("proc", root + "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options)
    os.mkdir(root + SCRATCH)
    _mount("tmpfs", root + SCRATCH, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "size=32m,nr_inodes=1024,mode=777")
    os.chdir(root)
    _syscall(_SYS_PIVOT_ROOT[_machine()], ctypes.c_char_p(b"."), ctypes.c_char_p(b"."))
    _check(_libc.umount2(b".", _MNT_DETACH))
    os.chdir("/")
    for path in _outermost(readable):
        if os.path.isdir(path) and not os.path.islink(path):
            _make_read_only(path)
    _check(_libc.mount(None, b"/", None, ctypes.c_ulong(_MS_BIND | 32 | 1 | _MS_NOSUID | _MS_NODEV), None))


def _mount_point(readable: list[str]) -> str:
    """A folder to build the new root in: what lies beneath is hidden by that, so nothing readable may."""
    for folder in ("/mnt", "/media", "/srv", "/tmp", "/run", "/var/tmp", "/home", "/opt"):
        if os.path.isdir(folder) and not any(path.startswith(folder + "/") for path in readable):
            return folder
    raise LayerError("no folder is free to build the sandbox's root in (tried /mnt, /media, /srv, /tmp, ...)")


def _outermost(paths: list[str]) -> list[str]:
    """The given paths without those inside another of them."""
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not any(path.startswith(other.rstrip("/") + "/") for other in kept):
            kept.append(path)
    return kept


def _machine() -> str:
    return {"arm64": "aarch64"}.get(os.uname().machine, os.uname().machine)


def drop_to(uid: int, keep_reading: bool) -> None:
    """Become an ordinary user without groups; with `keep_reading`, keep the one capability to read private folders.

    It is kept only where the interpreter itself lies in a folder closed to others; Landlock still decides what is read.
    """
    if keep_reading:
        prctl(8, 1)  # PR_SET_KEEPCAPS
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    prctl(_PR_SET_DUMPABLE, 1)  # else the files in /proc/self stay root's, and no user namespace can be mapped
    if keep_reading:
        set_capabilities(1 << _CAP_DAC_READ_SEARCH)


def set_capabilities(mask: int) -> None:
    """Hold exactly the capabilities in `mask` (low 32), and none that a new program could inherit."""
    header = struct.pack("=Ii", 0x20080522, 0)
    sets = struct.pack("=IIIIII", mask, mask, 0, 0, 0, 0)
    _syscall(_SYS_CAPSET[_machine()], header, sets)


def forbid_new_privileges() -> None:
    """Make set-user-id programs and file capabilities powerless; seccomp and Landlock ask for it."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def landlock_abi() -> int:
    """Version of Landlock here; 0 where the kernel has none or it is switched off."""
    with contextlib.suppress(OSError):
        return _syscall(_SYS_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    return 0


def restrict_files(readable: list[str], scratch: str | None) -> None:
    """Landlock: read `readable`, write `scratch` and /dev/null, no more; no TCP, no signals or sockets outside."""
    abi = landlock_abi()
    if abi < 1:
        raise OSError(38, "this kernel has no Landlock, or it is switched off (boot parameter lsm=)")
    attributes = struct.pack("=Q", _LANDLOCK_RIGHTS[min(abi, 5)])
    if abi >= 4:
        attributes += struct.pack("=Q", 3)
    if abi >= 6:
        attributes += struct.pack("=Q", 3)
    ruleset = _syscall(_SYS_LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    try:
        for path in readable:
            _allow(ruleset, path, _LANDLOCK_READ)
        for path in _DEVICES:
            _allow(ruleset, path, _LANDLOCK_READ | (_LANDLOCK_WRITE_FILE if path == "/dev/null" else 0))
        if scratch is not None:
            _allow(ruleset, scratch, _LANDLOCK_SCRATCH & _LANDLOCK_RIGHTS[min(abi, 5)])
        _syscall(_SYS_LANDLOCK_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint(0))
    finally:
        os.close(ruleset)


def empty(folder: int) -> None:
    """Remove all that a folder (a descriptor) holds.

    Raises:
        OSError, RecursionError: a program laid something there that cannot be removed.
    """
    for name in os.listdir(folder):
        try:
            os.unlink(name, dir_fd=folder)
        except (IsADirectoryError, PermissionError):
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=folder)
                continue
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            try:
                empty(inner)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=folder)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):
            rights &= ~(1 << 3)  # READ_DIR is refused for plain files
        rule = struct.pack("=Qi", rights, fd)
        _syscall(_SYS_LANDLOCK_ADD, ctypes.c_int(ruleset), ctypes.c_int(1), rule, ctypes.c_uint(0))
    finally:
        os.close(fd)


class Filter:
    """A seccomp program ready to be loaded: a child that must build it first pays for every page that it touches."""

    def __init__(self, program: bytes, pid_offsets: tuple[int, ...] = ()) -> None:
        self._buffer = ctypes.create_string_buffer(program, len(program))
        self._header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(self._buffer))
        self._pid_offsets = pid_offsets
        self._prctl, self._pack_into = _libc.prctl, struct.Struct("=I").pack_into

    def load(self) -> None:
        """Load it for this thread; threads and children to come inherit it. Needs `forbid_new_privileges`."""
        for offset in self._pid_offsets:
            self._pack_into(self._buffer, offset, os.getpid())
        _check(self._prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, self._header, 0, 0))


def limit(limits: dict[str, int]) -> None:
    """Lower resource limits, soft and hard; a limit that is already lower stays.

    Raises:
        LayerError: the address space that was inherited is too small for any program: never the program's fault.
    """
    for name, value in limits.items():
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        if hard != resource.RLIM_INFINITY and hard < value:
            if name == "RLIMIT_AS":
                raise LayerError(
                    f"memory_limit_bytes asks for {value} bytes of address space, but `ulimit -v` is {hard}"
                )
            value = hard
        resource.setrlimit(number, (value, value))


def hide_from_debuggers() -> None:
    """Make this process's memory and /proc files private even to other processes of the same user."""
    prctl(_PR_SET_DUMPABLE, 0)


def grow_stack(limit_bytes: int) -> None:
    """Start this interpreter again with a larger stack: the kernel lays memory out when a program starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
    if soft != wanted:
        resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))
        os.execve(sys.executable, sys.orig_argv, dict(os.environ))
