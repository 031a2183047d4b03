"""The filters, run by a small interpreter of the kernel's filter language."""

import errno
import struct

import pytest

from coderl.execution.sandbox import seccomp

ALLOW, KILL = 0x7FFF0000, 0x80000000
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def run_filter(
    program: bytes, machine: str, number: int, arguments: tuple[int, ...] = (), arch: int | None = None
) -> int:
    """What the kernel would answer to one system call."""
    data = struct.pack("=iIQ6Q", number, arch or AUDIT[machine], 0, *arguments, *[0] * (6 - len(arguments)))
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator, position = 0, 0
    while True:
        op, if_true, if_false, value = code[position]
        position += 1
        if op == 0x20:
            accumulator = struct.unpack_from("=I", data, value)[0]
        elif op == 0x06:
            return value
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: accumulator & value != 0}[op]
            position += if_true if holds else if_false


def refused(answer: int, error: int = errno.EPERM) -> bool:
    return answer == 0x00050000 | error


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_allow_list_lets_ordinary_calls_through(machine: str) -> None:
    program, numbers = seccomp.zygote_filter(machine), seccomp.syscall_numbers(machine)
    for name in ("read", "write", "openat", "mmap", "futex", "getrandom", "clock_gettime", "exit_group", "clone"):
        assert run_filter(program, machine, numbers[name]) == ALLOW, name


@pytest.mark.parametrize(
    "number", [165, 40, 101, 117, 310, 270, 321, 425, 426, 59, 221, 41, 198, 161, 51, 272, 97, 9999]
)
def test_what_is_not_named_is_refused(number: int, machine: str) -> None:
    """Mount, ptrace, process_vm_readv, bpf, io_uring, execve, socket, chroot, unshare and calls not invented yet."""
    named = set(seccomp.syscall_numbers(machine).values())
    answer = run_filter(seccomp.zygote_filter(machine), machine, number)
    assert answer == ALLOW if number in named else refused(answer)


def test_dangerous_calls_are_in_no_table() -> None:
    names = seccomp.syscall_numbers("x86_64").keys()
    assert not names & {"execve", "execveat", "socket", "connect", "bind", "ptrace", "mount", "unshare", "setns", "bpf"}
    assert not names & {
        "unlink",
        "unlinkat",
        "rename",
        "renameat2",
        "mkdirat",
        "chmod",
        "process_vm_readv",
        "pidfd_getfd",
    }


@pytest.mark.parametrize(
    ("name", "arguments", "is_allowed"),
    [
        ("fcntl", (0, 3), True),
        ("fcntl", (0, 8), False),  # F_SETOWN: the kernel would send signals to the owner
        ("fcntl", (0, 10), False),  # F_SETSIG
        ("ioctl", (0, 0x5401), True),
        ("ioctl", (0, 0x5412), False),  # TIOCSTI types into a terminal
        ("prlimit64", (0, 7), True),
        ("prlimit64", (1, 7), False),
        ("sched_setaffinity", (0,), True),
        ("sched_setaffinity", (1,), False),
        ("socketpair", (1, 1), True),
        ("socketpair", (16, 3), False),
        ("clone", (0x10000000,), False),  # CLONE_NEWUSER
        ("clone", (0x01200011,), True),
    ],
)
def test_calls_that_may_name_another_process_go_by_argument(
    name: str, arguments: tuple[int, ...], is_allowed: bool, machine: str
) -> None:
    number = seccomp.syscall_numbers(machine)[name]
    answer = run_filter(seccomp.zygote_filter(machine), machine, number, arguments)
    assert answer == ALLOW if is_allowed else refused(answer)


@pytest.mark.parametrize(
    ("name", "arguments", "is_allowed"),
    [
        ("clone", (0x3D0F00,), True),  # what pthread_create asks for
        ("clone", (0x01200011,), False),  # what fork asks for
        ("clone", (0x4111,), False),  # what posix_spawn asks for
        ("kill", (77, 9), True),
        ("kill", (76, 9), False),
        ("kill", (0, 9), False),
        ("kill", (0xFFFFFFFF, 9), False),
        ("tgkill", (77, 78, 9), True),
        ("tgkill", (1, 1, 9), False),
        ("tkill", (77, 9), False),
        ("seccomp", (), False),
        ("prctl", (1,), False),  # PR_SET_PDEATHSIG: it must not outlive the zygote
        ("prctl", (15,), True),
        ("memfd_create", (), False),
        ("wait4", (), False),
        ("read", (), True),
    ],
)
def test_a_child_may_make_threads_and_signal_itself_only(
    name: str, arguments: tuple[int, ...], is_allowed: bool, machine: str
) -> None:
    number = seccomp.syscall_numbers(machine)[name]
    answer = run_filter(seccomp.child_filter(77, machine), machine, number, arguments)
    assert answer == ALLOW if is_allowed else refused(answer)


def test_clone3_looks_absent_so_that_the_c_library_falls_back(machine: str) -> None:
    number = seccomp.syscall_numbers(machine)["clone3"]
    assert refused(run_filter(seccomp.zygote_filter(machine), machine, number), errno.ENOSYS)


def test_calls_by_another_architecture_kill(machine: str) -> None:
    for program in (seccomp.zygote_filter(machine), seccomp.child_filter(1, machine)):
        assert run_filter(program, machine, 0, arch=0x40000003) == KILL


def test_the_x32_door_is_shut() -> None:
    for program in (seccomp.zygote_filter("x86_64"), seccomp.child_filter(1, "x86_64")):
        assert refused(run_filter(program, "x86_64", 0x40000000))


def test_an_architecture_without_a_table_is_named() -> None:
    with pytest.raises(KeyError):
        seccomp.zygote_filter("riscv64")
