"""Best-first search over the programs near the greedy one: which tokens of it, exchanged for others, make it pass.

Of all beginnings that leave a program with one other token, the likeliest is written on greedily, run on the example
tests, and gives new beginnings; the search stops when a program passes. Many problems share each call of the model.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from coderl.critic_sampling.branch import ROOT, Branch, branches
from coderl.critic_sampling.candidates import Fork, Tools, Writer, WriteRequest, Written
from coderl.critic_sampling.likeness import idle_positions, normal_form
from coderl.critic_sampling.state import SearchState, judge_latest
from coderl.types import ProgramKind


class _Beginning(NamedTuple):
    """What a search may write on; of two the smaller is the better, and of equal ones the earlier."""

    cost: float
    number: int
    branch: Branch
    parent: int | None
    """The candidate that it leaves, or that it repairs."""
    failed: int | None
    """The candidate under repair: which prompt is read."""


class _Frontier:
    """What is open in one problem's search."""

    def __init__(self, state: SearchState, tools: Tools):
        self.state, self.tools = state, tools
        self.config = state.config.branch
        self.heap: list[_Beginning] = []
        self.num_pushed = self.num_popped = self.num_repair_rounds = 0
        self.size = float(self.config.num_branches)
        self.forms: set[str] = set()
        self.tried_repairs: set[str] = set()
        self.push(ROOT, None, None)

    def push(self, branch: Branch, parent: int | None, failed: int | None) -> None:
        """Open a beginning."""
        heapq.heappush(self.heap, _Beginning(-branch.score, self.num_pushed, branch, parent, failed))
        self.num_pushed += 1

    def next_round(self) -> list[_Beginning]:
        """Take the best beginnings for a round; none where the search is over."""
        if not self.is_going():
            return []
        if not self.heap:
            self._push_repairs()
        number = min(int(self.size), self._num_affordable()) if self.num_popped else 1
        chosen = [heapq.heappop(self.heap) for _ in range(min(number, len(self.heap)))]
        if self.num_popped:
            self.size *= self.config.growth
        self.num_popped += len(chosen)
        return chosen

    def _num_affordable(self) -> int:
        """Return how many more branches the limits allow, at the tokens that a program has cost so far."""
        state, most = self.state, self.config.max_branches
        allowed = [len(self.heap)]
        if most is not None:
            allowed.append(1 + most - self.num_popped)
        if state.config.max_sampled_tokens is not None:
            left = state.config.max_sampled_tokens - state.num_tokens
            allowed.append(max(1, left * len(state.candidates) // max(state.num_tokens, 1)))
        return min(allowed)

    def is_going(self) -> bool:
        """Return whether the search may write more."""
        state, most = self.state, self.config.max_branches
        if not state.has_budget() or (most is not None and self.num_popped > most):
            return False
        if self.num_popped and not state.problem.example_tests:
            return False
        return not (self.config.stops_at_pass and any(map(state.passes, range(len(state.candidates)))))

    def _push_repairs(self) -> None:
        """Open the greedy repairs of the most promising failing programs, each text once."""
        state = self.state
        if self.tools.repair_writer is None or self.num_repair_rounds >= state.config.num_repair_rounds:
            return
        self.num_repair_rounds += 1
        state.latest = [i for i, c in enumerate(state.candidates) if c.program.code not in self.tried_repairs]
        for index in state.to_repair():
            self.push_repair(index, 0.0)

    def push_repair(self, index: int, score: float) -> None:
        """Open the greedy repair of a failing program."""
        code = self.state.candidates[index].program.code
        if code not in self.tried_repairs:
            self.tried_repairs.add(code)
            self.push(Branch(score, (), 0), index, index)

    # ----------------------------------------------------------------------------------------------- what is written

    def request(self, beginning: _Beginning) -> WriteRequest:
        """Return what the model is asked for."""
        failed = None
        if beginning.failed is not None:
            program = self.state.candidates[beginning.failed].program
            failed = (program, self.state.results[program.code])
        return WriteRequest(self.state.problem, beginning.branch.prefix, failed)

    def take_in(self, beginning: _Beginning, written: Written, writer: Writer) -> list[int]:
        """Make what was written a candidate, unless the budget has ended; return its position."""
        state, prefix = self.state, beginning.branch.prefix
        if not state.has_budget():
            return []
        kept, fork = max(len(prefix) - 1, 0), None
        kind = ProgramKind.SAMPLE if beginning.parent is None else ProgramKind.REPAIRED
        if prefix:
            assert beginning.parent is not None
            kind = ProgramKind.BRANCHED
            left = state.candidates[beginning.parent].program.tokens
            line = 1 + writer.decode(prefix[:-1]).count("\n")
            texts = (writer.decode(prefix[-1:]), writer.decode(left[kept : kept + 1]))
            fork = Fork(beginning.branch.score, beginning.branch.rank, line, *texts)
        return state.add([written.program], kind, beginning.parent, kept, fork)

    def open_branches(self, beginning: _Beginning, index: int, written: Written, writer: Writer) -> None:
        """Open the branches of a candidate that was judged, and its repair."""
        program, state = self.state.candidates[index].program, self.state
        if state.passes(index) and self.config.stops_at_pass:
            return
        idle: set[int] = set()
        if self.config.merge == "names":
            form = normal_form(program.code, keep=state.problem.fn_name)
            if form in self.forms:
                return
            self.forms.add(form)
            idle = idle_positions(program, writer, keep=state.problem.fn_name)
        num_forced = len(beginning.branch.prefix)
        for branch in branches(
            program.tokens,
            written.likeliest,
            written.log_probs,
            num_forced=num_forced,
            score=beginning.branch.score,
            num_alternatives=self.config.num_alternatives,
            min_prob=self.config.min_prob,
        ):
            if len(branch.prefix) - 1 not in idle:
                self.push(branch, index, beginning.failed)
        score = self.config.repair_score
        is_failing = index in state.failing()
        if score is not None and self.tools.repair_writer is not None and beginning.failed is None and is_failing:
            self.push_repair(index, beginning.branch.score + score)


def search_near_greedy(states: Sequence[SearchState], tools: Tools) -> None:
    """Search every problem, a round of all of them at a time.

    Raises:
        ValueError: the tools have nothing that writes greedy programs.
    """
    if tools.writer is None:
        raise ValueError("a search near the greedy program needs Tools.writer")
    frontiers = [_Frontier(state, tools) for state in states]
    while True:
        chosen = [(frontier, beginning) for frontier in frontiers for beginning in frontier.next_round()]
        if not chosen:
            return
        for state in dict.fromkeys(frontier.state for frontier, _ in chosen):
            state.round += bool(state.candidates)
            state.latest = []
        added = []
        for frontier, beginning, written, writer in _written(chosen, tools):
            for index in frontier.take_in(beginning, written, writer):
                frontier.state.latest.append(index)
                added.append((frontier, beginning, index, written, writer))
        judge_latest(states, tools)
        if tools.watch is not None:
            tools.watch([state.result() for state in states])
        for frontier, *what in added:
            frontier.open_branches(*what)


def _written(
    chosen: Sequence[tuple[_Frontier, _Beginning]], tools: Tools
) -> Iterator[tuple[_Frontier, _Beginning, Written, Writer]]:
    """Yield what actor and repair model write of some beginnings, in their order."""
    found: dict[int, tuple[Written | None, Writer]] = {}
    for writer, is_repair in ((tools.writer, False), (tools.repair_writer, True)):
        places = [i for i, (_, beginning) in enumerate(chosen) if (beginning.failed is not None) == is_repair]
        if places:
            assert writer is not None
            requests = [chosen[i][0].request(chosen[i][1]) for i in places]
            found.update(zip(places, ((w, writer) for w in writer.write(requests)), strict=True))
    for i, (frontier, beginning) in enumerate(chosen):
        written, writer = found[i]
        if written is not None:
            yield frontier, beginning, written, writer
