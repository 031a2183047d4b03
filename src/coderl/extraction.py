"""The text that a model writes -> the program in it: one extractor for prompts, rewards and samples files."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from coderl.types import Problem

Extract = Literal["auto", "code", "none"]
"""What is done to a text that should be a program: nothing (`none`), what `extract_code` does, or that only where the
text as it is does not compile (`auto`)."""


def extract_code(completion: Any, problem: Problem, *, is_fence_open: bool = False) -> str:
    """Return the program in a chat model's answer, whatever the answer is.

    In this order: the text is what the assistant says last, without its thoughts, up to the end of its turn. Of its
    code blocks those in other languages go. The last one that defines what the problem asks for (a program that reads
    standard input: the last one that reads it) is the program; where none does, the first one marked as Python; without
    blocks, the text. A body alone is put behind the code that the problem wants completed.

    Args:
        completion: a text, a message, a conversation, or their typed parts; anything else is an empty text.
        problem: says what should be defined.
        is_fence_open: the prompt ends in an opening fence, so that the completion begins inside a block.
    """
    text = _first_turn(_without_thoughts(text_of(completion)))
    asked = _Asked(problem)
    blocks = _blocks(text, asked, is_fence_open=is_fence_open)
    code = _chosen(blocks, asked) if blocks else _without_prose(text, asked)
    return complete(code, problem) if _is_code_prompt(problem) else code


def text_of(completion: Any, _depth: int = 0) -> str:
    """Return the text of a completion: itself, what the assistant says last in a conversation, or its text parts."""
    if isinstance(completion, str):
        return completion
    if isinstance(completion, list | tuple) and _depth < 4:
        replies = [item for item in completion if _field(item, "role") == "assistant"]
        if replies or any(_field(item, "role") for item in completion):
            return next((text for item in reversed(replies) if (text := text_of(item, _depth + 1))), "")
        return "".join(text_of(item, _depth + 1) for item in completion)
    if _field(completion, "type") in (None, "text", "output_text", "message") and _depth < 8:
        content = _field(completion, "content")
        return text_of(_field(completion, "text") if content is None else content, _depth + 1)
    return ""


def _field(item: Any, name: str) -> Any:
    """A field of a message or a part, which is a mapping or an object with attributes; None where it has none."""
    if isinstance(item, Mapping):
        return item.get(name)
    return None if isinstance(item, str | bytes | list | tuple | type(None)) else getattr(item, name, None)


def has_fence(text: str) -> bool:
    """Return True for a text with a line that opens or closes a code block."""
    return _FENCE.search(text) is not None


def is_python(text: str) -> bool:
    """Return True for a text that parses as a program."""
    return _parsed(text) is not None


# ----------------------------------------------------------------------------------------------- thoughts and turns

_THOUGHT = re.compile(
    r"<(?P<close>/?)(?:think|thinking|thoughts?|reasoning|reflection|scratchpad|analysis|seed:think)>"
    r"|\[(?P<close2>/?)THINK\]|◁(?P<close3>/?)think▷|<\|(?P<close4>begin|end)_of_thought\|>",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    r"<[|｜][\w▁ /]{1,40}[|｜]>|</?s>|<(?:eos|bos|pad|eot|EOT|end_of_turn|start_of_turn|end_of_utterance)>|\[/?INST\]"
)
_HEADER = re.compile(rf"\s*(?:{_TOKEN.pattern})(?:\s*(?:assistant|model)\b)?(?:[ \t]*\n)*")
_FINAL_CHANNEL = "<|channel|>final<|message|>"
_LINE_CHARS = 200


def _without_thoughts(text: str) -> str:
    """The text without what tags of thinking enclose: all before a closing tag alone, all after an open one."""
    kept: list[str] = []
    start, is_thought, end = 0, False, len(text.rstrip())
    for tag in _THOUGHT.finditer(text):
        is_closing = tag["close"] == "/" or "/" in (tag["close2"], tag["close3"]) or tag["close4"] == "end"
        before_on_line = text[max(0, tag.start() - _LINE_CHARS) : tag.start()].rpartition("\n")[2]
        if _is_quoted(text, tag) or (not is_closing and before_on_line.strip()):
            continue
        if not is_thought:
            if is_closing and tag.end() < end:
                kept.clear()
            else:
                kept.append(text[start : tag.start()])
        start, is_thought = tag.end(), not is_closing
    if not start:
        return text
    return ("".join(kept) + ("" if is_thought else text[start:])).lstrip("\r\n")


def _first_turn(text: str) -> str:
    """The text of the assistant's own turn, without special tokens."""
    text = text.rpartition(_FINAL_CHANNEL)[2]
    start = 0
    while header := _HEADER.match(text, start):
        start = header.end()
    tokens = (token for token in _TOKEN.finditer(text, start) if not _is_quoted(text, token))
    return text[start : next((token.start() for token in tokens), len(text))]


def _is_quoted(text: str, found: re.Match[str]) -> bool:
    """Whether a mark stands in a string of a program rather than being one: its line has a quote before and after."""
    before = text[max(0, found.start() - _LINE_CHARS) : found.start()].rpartition("\n")[2]
    after = text[found.end() : found.end() + _LINE_CHARS].partition("\n")[0]
    return any(quote in before and quote in after for quote in "'\"")


# ------------------------------------------------------------------------------------------------------------ blocks

_FENCE = re.compile(
    r"^(?P<indent>[ \t]*+(?P<quote>(?:>[ \t]?+)*+)(?:(?:[-*+]|\d{1,3}[.)])[ \t]++)?+)(?P<fence>`{3,}+|~{3,}+)"
    r"(?P<label>[^\n`]*+)$",
    re.MULTILINE,
)
_PYTHON = re.compile(r"[{.\s]*(?:i?python|py|pypy|sage)[\d.]*(?![\w+#-])|[\w/-]+\.py\b", re.IGNORECASE)
_NEUTRAL = re.compile(r"(?:text|txt|plain|plaintext|code|solution|answer|none|tool_code)?\s*", re.IGNORECASE)
_TAGGED = re.compile(
    r"(?:<(?P<tag>answer|code|solution|python)>|\[PYTHON\])(.*?)(?:</(?P=tag)>|\[/PYTHON\]|\Z)", re.DOTALL
)
_BEHIND_PROSE = re.compile(r"(?<=\S)[ \t]++(`{3,}+(?:python|py)[\w.]*)[ \t]*$", re.MULTILINE | re.IGNORECASE)
_MAX_CLOSINGS = 8


class _Asked:
    """What a problem asks a program to define or to do."""

    def __init__(self, problem: Problem) -> None:
        opened = re.findall(r"^(?:async )?(?:def|class)[ \t]+(\w+)", problem.starter_code, flags=re.MULTILINE)
        self.names = frozenset([problem.fn_name] if problem.fn_name else opened)
        name = "|".join(map(re.escape, sorted(self.names)))
        self._opening = re.compile(
            rf"^[ \t]*(?:async )?(?:def|class)[ \t]+(?:{name})\b|^(?:{name})[ \t]*=", re.MULTILINE
        )

    def is_met(self, code: str) -> bool:
        """Whether a block is an answer: it defines the names, or where there are none it reads standard input."""
        if not self.names:
            return bool(_READS.search(code))
        tree = _parsed(code)
        if tree is None:
            return bool(self._opening.search(code))
        return any(_defines(node, self.names) for node in ast.walk(tree))


_READS = re.compile(r"\binput\s*\(|\bstdin\b|\bopen\(\s*0|\bfileinput\b|\bos\.read\(\s*0")


def _defines(node: ast.AST, names: frozenset[str]) -> bool:
    """Whether a node defines one of the names; a body of `...`, `pass` or a docstring only defines nothing."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        is_stub = all(
            isinstance(s, ast.Pass) or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
            for s in node.body
        )
        return node.name in names and not is_stub
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id in names for t in node.targets)


@dataclass(frozen=True, slots=True)
class _Block:
    """A code block of an answer, or the text that stands for one."""

    label: str
    code: str

    @property
    def is_python(self) -> bool:
        return _PYTHON.match(self.label) is not None

    @property
    def may_be_python(self) -> bool:
        return self.is_python or _NEUTRAL.fullmatch(self.label) is not None


def _chosen(blocks: list[_Block], asked: _Asked) -> str:
    """The last block that is an answer; else the first that prints (a whole program), is Python, or is there at all."""
    answers = [block for block in blocks if asked.is_met(block.code)]
    if answers:
        return answers[-1].code
    printing = [block for block in blocks if not asked.names and "print(" in block.code]
    marked = [block for block in blocks if block.is_python]
    return (printing[-1:] or marked or blocks)[0].code


def _blocks(text: str, asked: _Asked, *, is_fence_open: bool = False, is_nested: bool = False) -> list[_Block]:
    """The blocks of a text that may be Python, in order."""
    fences = list(_FENCE.finditer(text))
    if not any(_PYTHON.match(fence["label"].strip()) for fence in fences):  # one may stand behind prose on its line
        text = _BEHIND_PROSE.sub(r"\n\1", text)
        fences = list(_FENCE.finditer(text))
    if not fences:
        return [_Block("python", tagged[2].strip("\n")) for tagged in _TAGGED.finditer(text)]
    found, index = [], 0
    before, after = text[: fences[0].start()], text[fences[0].end() :]
    is_inside = is_fence_open and bool(before.strip() or not after.strip())
    if not fences[0]["label"].strip() and (is_inside or (asked.is_met(before) and _parsed(before) is not None)):
        found.append(_Block("python", before.removesuffix("\n")))
        index = 1
    while index < len(fences):
        block, index = _block_at(text, fences, index, asked)
        is_text = block.label.lower() in ("markdown", "md") and not is_nested  # an answer that is one block of Markdown
        found += _blocks(block.code, asked, is_nested=True) if is_text else [block]
    return [block for block in found if block.may_be_python]


def _block_at(text: str, fences: list[re.Match[str]], index: int, asked: _Asked) -> tuple[_Block, int]:
    """The block that a fence opens, and the place of the next fence behind it.

    It closes at the first fence before which the code parses, since a docstring may hold fences; else at the first that
    Markdown takes for its end.
    """
    opening, label = fences[index], fences[index]["label"].strip()
    closings = list(
        islice(
            (
                (place, fences[place])
                for place in range(index + 1, len(fences))
                if fences[place]["fence"].startswith(opening["fence"]) and not fences[place]["label"].strip()
            ),
            _MAX_CLOSINGS,
        )
    )
    for place, fence in closings if _Block(label, "").may_be_python else ():
        code = _dedented(text[opening.end() : fence.start()], opening, asked)
        if code.strip() and _parsed(code) is not None:
            return _Block(label, code), place + 1
    max_indent = len(opening["indent"]) + 3
    for place, fence in closings:
        if len(fence["indent"]) <= max_indent:
            return _Block(label, _dedented(text[opening.end() : fence.start()], opening, asked)), place + 1
    code = _dedented(text[opening.end() :], opening, asked)
    return _Block(label, re.sub(r"(?:`{3,}|~{3,})\s*\Z", "", code)), len(fences)  # the fence ends a line of code


def _dedented(body: str, opening: re.Match[str], asked: _Asked) -> str:
    """The lines of a block without the indentation of its fence, and without a further one that they all share."""
    body = body.removeprefix("\n").removesuffix("\n")
    if opening["quote"]:
        body = re.sub(r"^[ \t]*(?:>[ \t]?)+", "", body, flags=re.MULTILINE)
    elif opening["indent"]:
        shared = min((len(line) - len(line.lstrip(" \t")) for line in body.split("\n") if line.strip()), default=0)
        body = (
            re.sub(rf"^[ \t]{{1,{min(shared, len(opening['indent']))}}}", "", body, flags=re.MULTILINE)
            if shared
            else body
        )
    if body[:1] in (" ", "\t") and asked.names and _parsed(body) is None:
        flat = textwrap.dedent(body)
        return flat if asked.is_met(flat) else body
    return body


def _without_prose(text: str, asked: _Asked) -> str:
    """A text without blocks; where it does not parse, the paragraphs of it that do and are an answer, if any."""
    start = re.search(r"^(?:import|from|def|class|async def|@)\b", text, flags=re.MULTILINE)
    if start is None or _parsed(text) is not None:
        return text
    paragraphs = text[start.start() :].split("\n\n")
    for end in range(len(paragraphs), max(0, len(paragraphs) - 20), -1):
        code = "\n\n".join(paragraphs[:end])
        if _parsed(code) is not None:
            return code if asked.is_met(code) else text
    return text


def _parsed(code: str) -> ast.Module | None:
    """The syntax tree of a program, None for text that does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # escapes in a docstring
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _is_code_prompt(problem: Problem) -> bool:
    """True when the starter code is a whole function but for its body (HumanEval), not a bare signature (APPS)."""
    return bool(problem.starter_code and problem.fn_name) and _parsed(problem.starter_code) is not None


_STOP = re.compile(r"^(?:class|def|#|if|print|assert|@|```)", re.MULTILINE)


def complete(completion: str, problem: Problem) -> str:
    """Return the starter code with its body, or the whole function that the model wrote, behind the starter's imports.

    Source: Chen et al. 2021, section 2.3, for the words that end a body.
    """
    starter = problem.starter_code
    function = rf"^(?:async )?def {re.escape(problem.fn_name or '')}\b"
    if re.search(function, completion, flags=re.MULTILINE):
        start = re.search(function, starter, flags=re.MULTILINE)
        header = starter[: start.start()] if start else ""
        return completion if completion.startswith(header) else header + completion
    stop = _STOP.search(completion)
    return starter + (completion[: stop.start()] if stop else completion)
