"""Problem -> the text a model reads; the text it writes -> program.

Every function takes a `Problem`, which holds no hidden test and no solution. A prompt is built of `PromptParts`, so
that `fit` can shorten what may be shortened: an over-long statement never costs the answer marker at its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from coderl.extraction import complete, extract_code
from coderl.settings import Config
from coderl.types import (
    AssertTest,
    InputError,
    Outcome,
    Problem,
)

PromptStyle = Literal["default", "apps_train", "apps_generate", "chatml", "humaneval"]
"""`default` serves training, sampling and scoring alike; `apps_train` and `apps_generate` are the two templates of the
original, for its checkpoints; `chatml` is for instruction-tuned models; `humaneval` is the code to complete itself."""


class PromptConfig(Config):
    """How a problem becomes tokens, the same in every stage."""

    style: PromptStyle = "default"
    """The template; the original's two are `apps_train` and `apps_generate`."""
    max_prompt_tokens: Annotated[int, Field(ge=8)] = 600
    max_program_tokens: Annotated[int, Field(ge=8)] = 512


_MAX_MESSAGE_CHARS = 300


@dataclass(frozen=True, slots=True)
class PromptParts:
    """A prompt in the order of its text: opening, statement, middle, program, closing."""

    opening: str
    statement: str
    """What gives way, from its end."""
    middle: str = ""
    program: str = ""
    """The program to repair, empty in other prompts; never cut."""
    closing: str = ""
    """The error and the answer marker; never cut."""

    def text(self) -> str:
        """Return the whole prompt."""
        return self.opening + self.statement + self.middle + self.program + self.closing


# --------------------------------------------------------------------------------------------------------- prompts


def actor_prompt(problem: Problem, style: PromptStyle = "default") -> str:
    """Return what the actor reads before it writes a program.

    Source: reference code, `generate.py` and `datasets/apps_dataset.py`.
    Deviation: one template in training, sampling and scoring (the original's two differ by blank lines); asserts that
    the problem shows follow its statement, as the paper says of MBPP.
    """
    return actor_parts(problem, style).text()


def actor_parts(problem: Problem, style: PromptStyle = "default") -> PromptParts:
    """Return the actor's prompt in parts, for `fit`.

    Raises:
        InputError: the style is `humaneval` and the problem has no starter code.
    """
    match style:
        case "humaneval":
            if not problem.starter_code:
                raise InputError(f"problem {problem.problem_id}: the humaneval style needs starter code to complete")
            return PromptParts("", "", closing=problem.starter_code)
        case "chatml":
            return PromptParts(_CHAT_OPENING, problem.description, closing=_chat_request(problem) + _CHAT_MARKER)
        case "apps_train":
            use = _format_line(is_call_based=bool(problem.starter_code))
            closing = f"\n{problem.starter_code}\n\n{use}\n\nANSWER:\n"
        case "apps_generate":
            closing = f"{_starter(problem)}\n{_format_line(problem.fn_name is not None)}\nANSWER:\n"
        case "default":
            use = _format_line(problem.fn_name is not None)
            closing = f"{_starter(problem)}{_shown_asserts(problem)}\n{use}\nANSWER:\n"
    return PromptParts("\nQUESTION:\n", problem.description, closing=closing)


def repair_prompt(
    problem: Problem,
    program_code: str,
    outcome: Outcome,
    error_subtype: str | None,
    message: str,
    style: PromptStyle = "default",
) -> PromptParts:
    """Return what the repair model reads, in parts: statement, wrong program, what became of it, answer marker.

    A message longer than 300 characters is cut.

    Source: CodeRL equation 13, and figure 4 for the message.
    Deviation: the paper leaves the layout open; outcomes are words, not the codes -2, -1, False.
    """
    result = _result(outcome, error_subtype, message)
    if style == "chatml":
        middle = f"{_chat_request(problem)}\n\nThis program is wrong:\n```python\n"
        closing = f"\n```\nResult: {result}\nWrite the correct program.{_CHAT_MARKER}"
        return PromptParts(_CHAT_OPENING, problem.description, middle, program_code, closing)
    middle = f"{_starter(problem)}{_shown_asserts(problem)}\nWRONG PROGRAM:\n"
    closing = f"\nRESULT:\n{result}\n{_format_line(problem.fn_name is not None)}\nANSWER:\n"
    return PromptParts("\nQUESTION:\n", problem.description, middle, program_code, closing)


def _result(outcome: Outcome, error_subtype: str | None, message: str) -> str:
    """`runtime error (indexerror): list index out of range`."""
    words = outcome.name.lower().replace("_", " ")
    words += f" ({error_subtype})" if error_subtype else ""
    return words + (f": {message.strip()[:_MAX_MESSAGE_CHARS]}" if message.strip() else "")


def _format_line(is_call_based: bool) -> str:
    return "Use Call-Based format" if is_call_based else "Use Standard Input format"


def _starter(problem: Problem) -> str:
    return f"\n{problem.starter_code}" if problem.starter_code else ""


def _shown_asserts(problem: Problem) -> str:
    """The asserts among the example tests, their imports left out as in MBPP's own prompt."""
    codes = [test.code for test in problem.example_tests if isinstance(test, AssertTest)]
    if not codes:
        return ""
    lines = [line for code in codes for line in code.split("\n") if not line.startswith(("import ", "from "))]
    return "\nYour code should satisfy these tests:\n" + "\n".join(lines)


# ------------------------------------------------------------------------------------------------------------ chat

_CHAT_OPENING = "<|im_start|>user\n"
_CHAT_MARKER = "<|im_end|>\n<|im_start|>assistant\n```python\n"


def _chat_request(problem: Problem) -> str:
    """What follows the statement: the code to start from, the asserts, and which kind of program is wanted."""
    starter = f"\nStart from this code:\n```python\n{problem.starter_code}\n```" if problem.starter_code else ""
    if problem.fn_name is None:
        wanted = "Write a Python program that reads standard input and prints the answer to standard output."
    else:
        wanted = f"Write the Python function `{problem.fn_name}`."
    return f"{starter}{_shown_asserts(problem)}\n{wanted} Answer with code only."


# ------------------------------------------------------------------------------------------------------ completions


def actor_target(problem: Problem, solution: str, style: PromptStyle = "default") -> str:
    """Return the text that a model is trained to write for a solution; `extract_program` gives the solution back.

    Two kinds do not come back as they were: in `chatml`, a solution with a line that begins with a code fence; in
    `humaneval`, one that does not begin with the code to complete, or whose body ends before it does.
    """
    if style == "chatml":
        return f"{solution}\n```"
    if style == "humaneval":
        return solution.removeprefix(problem.starter_code)
    return solution


def stop_texts(style: PromptStyle) -> tuple[str, ...]:
    """Return the texts with which a program in this style has ended: what follows them is never part of it.

    `chatml`: a line that begins with the closing fence. The others leave the end to the model.
    """
    return ("\n```",) if style == "chatml" else ()


def extract_program(completion: str, problem: Problem, style: PromptStyle = "default") -> str:
    """Return the program in what a model wrote; nothing in it is re-indented.

    `chatml`: see `extract_code`, the prompt having opened a fence. `humaneval`: the body behind the code it completes,
    up to the first new top-level statement. Otherwise the text as it is.
    """
    if style == "chatml":
        return extract_code(completion, problem, is_fence_open=True)
    if style == "humaneval":
        return complete(completion, problem)
    return completion


# ---------------------------------------------------------------------------------------------------------- budget


def fit(parts: PromptParts, encode: Callable[[str], list[int]], max_tokens: int, *, extra_tokens: int = 0) -> list[int]:
    """Return the tokens of a prompt, at most `max_tokens` of them.

    What does not fit is cut from the end of the statement. The program to repair, its error and the answer marker are
    never cut: when none of the statement is left, they may take `extra_tokens` more.

    Raises:
        InputError: not even what is never cut fits.
    """
    tokens = encode(parts.text())
    if len(tokens) <= max_tokens:
        return tokens
    best = encode(replace(parts, statement="").text())
    if len(best) > max_tokens + extra_tokens:
        room = f"max_tokens={max_tokens}" + (f" and {extra_tokens} for the program" if extra_tokens else "")
        raise InputError(f"{room} cannot hold the fixed parts of a prompt, which take {len(best)}")
    low, high = 0, len(parts.statement)
    while low < high:
        middle = (low + high + 1) // 2
        tokens = encode(replace(parts, statement=parts.statement[:middle]).text())
        if len(tokens) <= max_tokens:
            low, best = middle, tokens
        else:
            high = middle - 1
    return best
