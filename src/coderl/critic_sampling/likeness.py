"""Programs that differ in names, comments or layout only: their common form, and which tokens cannot change it."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections.abc import Iterator

from coderl.critic.lines import Decoder, token_texts
from coderl.types import Program

Span = tuple[int, int]


def normal_form(code: str, *, keep: str | None = None) -> str:
    """Return a text that is equal for programs of one syntax tree up to comments, docstrings and names of their own.

    Names that a program binds itself are numbered in the order in which they are bound first; `keep`, attributes,
    keywords and what comes from elsewhere stay. A program that does not parse is its own form.
    """
    tree = _parsed(code)
    if tree is None:
        return code
    numbers = {name: f"_{number}" for number, name in enumerate(dict.fromkeys(n for n, _ in _bindings(tree, keep)))}
    for node in ast.walk(tree):
        _drop_docstring(node)
        for field in ("id", "arg", "name", "asname"):
            name = getattr(node, field, None)
            if isinstance(name, str) and name in numbers and not isinstance(node, ast.keyword):
                setattr(node, field, numbers[name])
    return ast.dump(tree)


def idle_positions(program: Program, model: Decoder, *, keep: str | None = None) -> set[int]:
    """Return the positions of tokens that only begin or spell what `normal_form` ignores.

    Those are: all before and after the code in what the model wrote, comments, docstrings, and the first mention of
    each name that the program binds itself.
    """
    texts = token_texts(model, program.tokens)
    written = "".join(texts)
    start = written.find(program.code.strip()) if program.code.strip() else -1
    if start < 0:
        return set()
    spans = [(0, start), (start + len(program.code.strip()), len(written))]
    spans += [(start + first, start + last) for first, last in _idle_spans(program.code.strip(), keep)]
    found, at = set[int](), 0
    for position, text in enumerate(texts):
        blank = len(text) - len(text.lstrip())
        if text.strip() and any(first <= at + blank < last for first, last in spans):
            found.add(position)
        at += len(text)
    return found


def _parsed(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of strange escapes
            return ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _bindings(tree: ast.AST, keep: str | None) -> Iterator[tuple[str, ast.AST]]:
    """Yield the names that a program binds and where, in the order of the text."""
    found: list[tuple[int, int, str, ast.AST]] = []
    for node in ast.walk(tree):
        name: str | None = None
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = node.name
        if name is not None and name != keep and not (name.startswith("__") and name.endswith("__")):
            assert isinstance(node, ast.expr | ast.arg | ast.stmt)
            found.append((node.lineno, node.col_offset, name, node))
    for _, _, name, node in sorted(found, key=lambda each: each[:2]):
        yield name, node


def _drop_docstring(node: ast.AST) -> None:
    if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
        node.body = node.body[1:] or [ast.Pass()]


def _idle_spans(code: str, keep: str | None) -> list[Span]:
    tree = _parsed(code)
    if tree is None:
        return []
    starts = [0]
    for line in code.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    spans, seen = [], set[str]()
    for name, node in _bindings(tree, keep):
        if name not in seen:
            seen.add(name)
            at = code.find(name, _place(code, starts, node))
            spans.append((at, at + len(name)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            text = node.body[0]
            assert text.end_lineno is not None
            spans.append((_place(code, starts, text), starts[text.end_lineno]))
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            first = starts[token.start[0] - 1] + token.start[1]
            spans.append((first, first + len(token.string)))
    return spans


def _place(code: str, starts: list[int], node: ast.AST) -> int:
    """Return where a node begins, in characters: the tree counts bytes."""
    line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
    start = starts[line - 1]
    text = code[start : starts[line]] if line < len(starts) else code[start:]
    return start + len(text.encode()[:column].decode("utf-8", "ignore"))
