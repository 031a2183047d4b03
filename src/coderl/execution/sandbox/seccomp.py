"""Seccomp filters as bytes: which system calls a sandboxed program may make. Standard library only.

Two filters stack. The zygote's is an *allow-list* (`zygote_filter`): whatever is not named is refused, so a new kernel
interface is refused too. The child's (`child_filter`) takes away what only the zygote needs: making processes,
signalling others, changing filters. Calls that may name another process or a dangerous command are allowed by argument.
"""

from __future__ import annotations

import errno
import os
import struct

_TABLE = """
read 0 63; write 1 64; openat 257 56; close 3 57; close_range 436 436; fstat 5 80; newfstatat 262 79; statx 332 291
lseek 8 62; mmap 9 222; mprotect 10 226; munmap 11 215; mremap 25 216; madvise 28 233; mincore 27 232; msync 26 227
brk 12 214; rt_sigaction 13 134; rt_sigprocmask 14 135; rt_sigreturn 15 139; rt_sigpending 127 136
rt_sigtimedwait 128 137; rt_sigsuspend 130 133; sigaltstack 131 132; restart_syscall 219 128; pread64 17 67
pwrite64 18 68; readv 19 65; writev 20 66; preadv 295 69; pwritev 296 70; faccessat 269 48; faccessat2 439 439
readlinkat 267 78; getdents64 217 61; getcwd 79 17; chdir 80 49; fchdir 81 50; pipe2 293 59; dup 32 23; dup3 292 24
nanosleep 35 101; clock_nanosleep 230 115; clock_gettime 228 113; clock_getres 229 114; gettimeofday 96 169
times 100 153; getitimer 36 102; setitimer 38 103; timerfd_create 283 85; timerfd_settime 286 86; timerfd_gettime 287 87
eventfd2 290 19; epoll_create1 291 20; epoll_ctl 233 21; epoll_pwait 281 22; ppoll 271 73; pselect6 270 72
getpid 39 172; getppid 110 173; gettid 186 178; getuid 102 174; geteuid 107 175; getgid 104 176; getegid 108 177
getresuid 118 148; getresgid 120 150; getgroups 115 158; getpgid 121 155; getsid 124 156; sendto 44 206
recvfrom 45 207; sendmsg 46 211; recvmsg 47 212; getsockname 51 204; getpeername 52 205
getsockopt 55 209; exit 60 93; exit_group 231 94; uname 63 160; fsync 74 82; fdatasync 75 83
ftruncate 77 46; truncate 76 45; fallocate 285 47; umask 95 166; getrusage 98 165; sysinfo 99 179; getrlimit 97 163
setrlimit 160 164; sched_yield 24 124; sched_getparam 143 121; sched_getscheduler 145 120
sched_get_priority_max 146 125; sched_get_priority_min 147 126; getcpu 309 168; futex 202 98; set_tid_address 218 96
set_robust_list 273 99; rseq 334 293; membarrier 324 283; getrandom 318 278; memfd_create 319 279; statfs 137 43
fstatfs 138 44; capget 125 90; wait4 61 260; waitid 247 95; pidfd_open 434 434; seccomp 317 277
ioctl 16 29; fcntl 72 25; socketpair 53 199; clone 56 220; clone3 435 435; kill 62 129; tkill 200 130; tgkill 234 131
prctl 157 167; prlimit64 302 261; sched_setaffinity 203 122; sched_getaffinity 204 123; getpriority 140 141
open 2 -; stat 4 -; lstat 6 -; access 21 -; readlink 89 -; poll 7 -; select 23 -; pipe 22 -; dup2 33 -
epoll_create 213 -; epoll_wait 232 -; eventfd 284 -; fork 57 -; vfork 58 -; getpgrp 111 -; pause 34 -; alarm 37 -
time 201 -; arch_prctl 158 -; getdents 78 -
"""
"""Every call that either filter names: name, number on x86_64, number on aarch64 (`-` where it has none)."""

_CHANGES_OF_FILES = """
mkdirat 258 34; unlinkat 263 35; renameat 264 38; renameat2 316 276; mkdir 83 -; rmdir 84 -; unlink 87 -; rename 82 -
"""
"""What a program may also do where it has a folder of its own to do it in, and sees no other."""

_ARCHITECTURES = {"x86_64": (0xC000003E, 1), "aarch64": (0xC00000B7, 2), "arm64": (0xC00000B7, 2)}

_LD_W_ABS, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_X32_BIT = 0x40000000

_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1031, 1032, 1033, 1034)
"""Duplicating, flags, record locks, pipe sizes, seals. Not F_SETOWN or F_SETSIG: they make the kernel send signals."""
_IOCTL_REQUESTS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS (isatty), TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX. Not TIOCSTI: it types into a terminal."""
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_GET_NAME, _PR_SET_SECCOMP, _PR_SET_VMA = 1, 15, 16, 22, 0x53564D41
_AF_UNIX = 1
_CLONE_THREAD = 0x10000
_CLONE_NEW_NAMESPACE = 0x7E020080
"""Any CLONE_NEW* flag, CLONE_NEWTIME included."""

_BY_ARGUMENT = {
    "ioctl": (1, _IOCTL_REQUESTS),
    "fcntl": (1, _FCNTL_COMMANDS),
    "socketpair": (0, (_AF_UNIX,)),
    "prctl": (0, (_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_GET_NAME, _PR_SET_SECCOMP, _PR_SET_VMA)),
    "prlimit64": (0, (0,)),
    "sched_setaffinity": (0, (0,)),
    "getpriority": (1, (0,)),
}
"""Call -> (which argument, its allowed values). Everywhere a process id is asked for, 0 means oneself."""


def syscall_numbers(machine: str | None = None, table: str = _TABLE) -> dict[str, int]:
    """Number of each call named in `table` on `machine` (default: this one).

    Raises:
        KeyError: no table for this architecture, so the layer cannot be had.
    """
    column = _ARCHITECTURES[machine or os.uname().machine][1]
    rows = (entry.split() for line in table.strip().splitlines() for entry in line.split(";"))
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _ret(action: int) -> bytes:
    return _op(_RET, action)


def _refuse(error: int = errno.EPERM) -> bytes:
    return _ret(_ERRNO | error)


def _load_argument(index: int) -> bytes:
    """Load the low half of an argument: process ids, commands and flags of the checked calls are 32 bits wide."""
    return _op(_LD_W_ABS, 16 + 8 * index)


def _when(number: int, body: bytes) -> bytes:
    """Run `body`, which must return, if the call is `number`."""
    return _op(_JEQ, number, 0, len(body) // 8) + body


def _only_values(index: int, values: tuple[int, ...]) -> bytes:
    tests = b"".join(_op(_JEQ, value, 0, 1) + _ret(_ALLOW) for value in values)
    return _load_argument(index) + tests + _refuse()


def _preamble(machine: str) -> bytes:
    arch = _ARCHITECTURES[machine][0]
    program = _op(_LD_W_ABS, 4) + _op(_JEQ, arch, 1, 0) + _ret(_KILL_PROCESS) + _op(_LD_W_ABS, 0)
    return program + (_op(_JGE, _X32_BIT, 0, 1) + _refuse() if machine == "x86_64" else b"")


def zygote_filter(machine: str | None = None, *, may_change_files: bool = False) -> bytes:
    """Program of the allow-list that the zygote loads and every child inherits."""
    machine = machine or os.uname().machine
    numbers = syscall_numbers(machine)
    if may_change_files:
        numbers |= syscall_numbers(machine, _CHANGES_OF_FILES)
    program = _preamble(machine) + _when(numbers["clone3"], _refuse(errno.ENOSYS))
    for name, number in numbers.items():
        if name in _BY_ARGUMENT:
            program += _when(number, _only_values(*_BY_ARGUMENT[name]))
        elif name == "clone":
            no_namespaces = _op(_JSET, _CLONE_NEW_NAMESPACE, 0, 1) + _refuse() + _ret(_ALLOW)
            program += _when(number, _load_argument(0) + no_namespaces)
        elif name != "clone3":
            program += _when(number, _ret(_ALLOW))
    return program + _refuse()


def pid_offsets(program: bytes, placeholder: int) -> list[int]:
    """Where in a child's filter, built for the process `placeholder`, its id stands."""
    return [at + 4 for at in range(0, len(program), 8) if program[at : at + 8] == _op(_JEQ, placeholder, 0, 1)]


def child_filter(pid: int, machine: str | None = None) -> bytes:
    """Program that a child adds: threads, no processes; signals to itself; no filters; no files that live in memory."""
    machine = machine or os.uname().machine
    numbers = syscall_numbers(machine)
    threads_only = _load_argument(0) + _op(_JSET, _CLONE_THREAD, 0, 1) + _ret(_ALLOW) + _refuse()
    program = _preamble(machine) + _when(numbers["clone"], threads_only)
    program += _when(numbers["prctl"], _only_values(0, (_PR_SET_NAME, _PR_GET_NAME, _PR_SET_VMA)))
    for name in ("kill", "tgkill"):
        program += _when(numbers[name], _only_values(0, (pid,)))
    for name in ("fork", "vfork", "tkill", "wait4", "waitid", "pidfd_open", "seccomp", "memfd_create"):
        if name in numbers:
            program += _when(numbers[name], _refuse())
    return program + _ret(_ALLOW)
