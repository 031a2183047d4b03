"""Processes that share a command: one answers for all, parts are dealt once, and whoever is left alone says why."""

import json
import sys

import pytest

from coderl import processes

SHARING = """
import json, sys, time
from pathlib import Path
from coderl import processes
group = processes.group()
rank = group.rank
folder = Path(sys.argv[1])
held = []
class Lock:
    def __enter__(self): (folder / f"held-by-{rank}").touch()
    def __exit__(self, *error): (folder / f"freed-by-{rank}").touch()
with group.held_by_main(Lock):
    told = group.on_main(lambda: (folder / f"asked-{rank}").touch() or ["rank", rank])
    dealt, shown = [], []
    for item in group.deal("abcdefg", shown.append):
        dealt.append([shown[-1], item])
        time.sleep(0.05)
    dealt_again = list(group.deal("xy", shown.append))
    gathered = group.gather({"rank": rank})
(folder / "late").touch() if rank else group.wait_for_files([folder / "late"])
found = {"told": told, "dealt": dealt, "again": len(dealt_again), "gathered": gathered, "main": group.is_main}
print(json.dumps(found))
processes.leave()
"""

FAILING = """
import os, signal, sys
from coderl import processes
from coderl.types import InputError
group = processes.group()
try:
    if sys.argv[1] == "killed" and group.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[1] == "raised" and group.rank == 1:
        raise InputError("part 7 is no part")
    def bad():
        raise InputError("the folder is stale")
    group.on_main(bad if sys.argv[1] == "main" else lambda: 1)
    group.gather(None)
except (InputError, processes.PeerError) as error:
    processes.report_failure(str(error), error)
    os._exit(2 if isinstance(error, InputError) else 1)
"""


def command(script: str, argument: object) -> list[str]:
    return [sys.executable, "-W", "ignore", "-c", script, str(argument)]


def test_one_answers_for_all_and_each_part_is_dealt_once(tmp_path, launched):
    outputs = [json.loads(output.splitlines()[-1]) for output in launched(command(SHARING, tmp_path), 2)]
    assert [output["main"] for output in outputs] == [True, False]
    assert {json.dumps(output["told"]) for output in outputs} == {'["rank", 0]'}
    assert sorted(pair for output in outputs for pair in output["dealt"]) == [[i, "abcdefg"[i]] for i in range(7)]
    assert all(output["dealt"] for output in outputs)
    assert sum(output["again"] for output in outputs) == 2
    assert [output["gathered"] for output in outputs] == [[{"rank": 0}, {"rank": 1}]] * 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["asked-0", "freed-by-0", "held-by-0", "late"]


@pytest.mark.parametrize(
    ("how", "statuses", "who", "line"),
    [
        pytest.param("main", (2, 1), 0, "coderl: rank 0 of 2 on {host}: the folder is stale", marks=pytest.mark.slow),
        pytest.param("raised", (1, 2), 1, "coderl: rank 1 of 2 on {host}: part 7 is no part", marks=pytest.mark.slow),
        ("killed", (1, -9), 0, "coderl: rank 0 of 2 on {host}: rank 1 (process "),
    ],
)
def test_whoever_ends_first_is_named_once_with_the_reason(how, statuses, who, line, launched):
    """What one process raises it alone says; that one was killed a survivor says."""
    import socket

    outputs = launched(command(FAILING, how), 2, statuses)
    said = [[text for text in output.splitlines() if text.startswith("coderl: ")] for output in outputs]
    assert [len(lines) for lines in said] == [int(rank == who) for rank in range(2)]
    assert said[who][0].startswith(line.format(host=socket.gethostname()))
    if how == "killed":
        assert said[who][0].endswith("was killed; the same command continues")


def test_alone_nothing_is_waited_for(tmp_path, monkeypatch):
    """Without a launcher there is no one else, and torch is not looked for."""
    monkeypatch.setitem(sys.modules, "torch.distributed", None)
    monkeypatch.setattr(processes, "_group", None)
    group, seen = processes.group(), []
    assert (group.rank, group.num_processes, group.is_main) == (0, 1, True)
    assert list(group.deal("ab", seen.append)) == ["a", "b"]
    assert seen == [0, 1]
    assert group.gather(3) == [3]
    group.wait_for_files([tmp_path / "none"])
