"""Critic sampling: programs that pass the example tests are refined, and where none passes the best are repaired.

Algorithm 1 of the paper, over many problems at once, so that each round is one call to a model. The models, the critic
and the sandbox come in through four small protocols; nothing here can see a hidden test, because a `Problem` has none.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from coderl.critic_sampling.candidates import (
    PrefixRequest,
    Repairer,
    RepairRequest,
    SearchResult,
    Tools,
)
from coderl.critic_sampling.near_greedy import search_near_greedy
from coderl.critic_sampling.refine import split_budget
from coderl.critic_sampling.settings import CriticSamplingConfig
from coderl.critic_sampling.state import SearchState, judge_latest
from coderl.types import (
    Problem,
    Program,
    ProgramKind,
)


def critic_sample_many(
    problems: Sequence[Problem],
    programs: Sequence[Sequence[Program]],
    tools: Tools,
    *,
    config: CriticSamplingConfig,
    seed: int,
) -> list[SearchResult]:
    """Return one search a problem, begun from the programs drawn for it before.

    Each round gathers what all problems need into one call of the model. The example tests run once for each distinct
    text. A program on which the sandbox fails is neither passing nor failing.

    Source: CodeRL section 3.3.4, Algorithm 1.
    Deviation: what the paper leaves open is in the config (`keep`, `fallback`, rounds). Where nothing passes after the
        repair rounds either, the repaired programs are the last round.
    """
    searches = [SearchState(p, given, config, seed) for p, given in zip(problems, programs, strict=True)]
    if config.start == "near_greedy":
        search_near_greedy(searches, tools)
    else:
        _algorithm_1(searches, tools, config, seed)
    if config.fallback == "sample_more":
        _sample_more([s for s in searches if s.no_round() is not None], tools, config, seed)
    results = [s.result() for s in searches]
    if tools.critic is None:
        return results
    _score(((s, c.program.index) for s, r in zip(searches, results, strict=True) for c in r.returned), tools)
    return [s.result() for s in searches]


def _algorithm_1(searches: Sequence[SearchState], tools: Tools, config: CriticSamplingConfig, seed: int) -> None:
    """Judge the first round of each search, repair where none passes, refine where some does."""
    judge_latest(searches, tools)
    if tools.repairer is not None:
        for number in range(config.num_repair_rounds):
            failed = [s for s in searches if s.has_budget() and not s.passing() and s.failing()]
            _repair_round(failed, tools.repairer, tools, (seed, number))
    for number in range(config.num_refine_rounds):
        _refine_round([s for s in searches if s.has_budget() and s.passing()], tools, (seed, number))


def critic_sample(
    problem: Problem,
    programs: Sequence[Program],
    tools: Tools,
    *,
    config: CriticSamplingConfig,
    seed: int,
) -> SearchResult:
    """Return the search of one problem: see `critic_sample_many`."""
    (result,) = critic_sample_many([problem], [programs], tools, config=config, seed=seed)
    return result


def _score(items: Iterable[tuple[SearchState, int]], tools: Tools) -> None:
    """Ask the critic about candidates it has not scored yet; a text without tokens has no value."""
    todo = [(s, index) for s, index in items if index not in s.token_probs and s.candidates[index].program.tokens]
    if tools.critic is None or not todo:
        return
    scores = tools.critic.score([(s.problem, s.candidates[index].program) for s, index in todo])
    for (search, index), score in zip(todo, scores, strict=True):
        search.note_score(index, score)


def _repair_round(searches: Sequence[SearchState], repairer: Repairer, tools: Tools, name: tuple[int, int]) -> None:
    """Draw N repairs for each search, shared by its M most promising failing programs, and judge them."""
    if not searches:
        return
    _score(((s, index) for s in searches for index in s.failing()), tools)
    requests: list[RepairRequest] = []
    origins: list[tuple[SearchState, int | None, int]] = []
    for search in searches:
        chosen = search.to_repair()
        for index, number in zip(chosen, split_budget(search.budget, len(chosen)), strict=True):
            result = search.results[search.candidates[index].program.code]
            assert result.outcome is not None
            if number:
                program = search.candidates[index].program
                requests.append(RepairRequest(search.problem, program, result, number))
                origins.append((search, index, 0))
    _take_in(origins, repairer.repair(requests, seed=_seed("repair", *name)), ProgramKind.REPAIRED)
    judge_latest(searches, tools)


def _refine_round(searches: Sequence[SearchState], tools: Tools, name: tuple[int, int]) -> None:
    """Draw N programs for each search from the best prefixes of those that pass the example tests, and judge them."""
    if not searches:
        return
    if any(s.config.prefix == "critic" for s in searches):
        _score(((s, index) for s in searches for index in s.passing()), tools)
    requests: list[PrefixRequest] = []
    origins: list[tuple[SearchState, int | None, int]] = []
    for search in searches:
        passing = search.passing()
        for index, number in zip(passing, split_budget(search.budget, len(passing)), strict=True):
            if number:
                prefix = search.prefix_of(index)
                requests.append(PrefixRequest(search.problem, prefix, number))
                origins.append((search, index, len(prefix)))
    _take_in(origins, tools.generator.continue_prefixes(requests, seed=_seed("refine", *name)), ProgramKind.REFINED)
    judge_latest(searches, tools)


def _sample_more(searches: Sequence[SearchState], tools: Tools, config: CriticSamplingConfig, seed: int) -> None:
    """Draw N programs from the start for each search on which no round was possible, or as many as the tokens allow."""
    number, going = 0, [s for s in searches if s.has_budget() and s.budget]
    while going:
        requests = [PrefixRequest(s.problem, (), s.budget) for s in going]
        drawn = tools.generator.continue_prefixes(requests, seed=_seed("more", seed, number))
        _take_in([(s, None, 0) for s in going], drawn, ProgramKind.SAMPLE)
        judge_latest(going, tools)
        number += 1
        going = [s for s in going if s.has_budget()] if config.max_sampled_tokens is not None else []


def _take_in(
    origins: Sequence[tuple[SearchState, int | None, int]], drawn: Sequence[Sequence[Program]], kind: ProgramKind
) -> None:
    """Make what was drawn for each origin (search, parent, tokens kept) the latest round of its search.

    A round of which the budget holds no program is none: the one before it stays the latest.
    """
    latest = {id(s): (s, s.latest) for s, _, _ in origins}
    for search, _ in latest.values():
        search.round += 1
        search.latest = []
    for (search, parent, kept), programs in zip(origins, drawn, strict=True):
        if search.has_budget():
            search.latest += search.add(programs, kind, parent, kept)
    for search, before in latest.values():
        if not search.latest:
            search.round -= 1
            search.latest = before


def _seed(*parts: object) -> int:
    return random.Random(" ".join(map(str, parts))).getrandbits(32)
