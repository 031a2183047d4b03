"""Reasons to leave a file out, each a function of its path or text; the first that applies is the one given."""

from __future__ import annotations

import ast
import re
import warnings
from pathlib import PurePosixPath

VENDORED = frozenset(
    [
        "_vendor",
        "vendor",
        "vendored",
        "_vendored",
        "extern",
        "externals",
        "third_party",
        "thirdparty",
        "thirdparty_files",
        "3rdparty",
        "site-packages",
        "dist-packages",
    ]
)
"""Folders of other projects' files: their licence is not that of the project they lie in."""

KEYS = re.compile(
    "|".join(
        (
            r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY",
            r"A(?:KIA|SIA)[0-9A-Z]{16}\b",  # Amazon
            r"gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{40}|glpat-[\w-]{20}",
            r"xox[abeoprs]-[0-9A-Za-z-]{10}|hooks\.slack\.com/services/T\w+/B\w+/\w{16}",
            r"AIza[\w-]{35}|ya29\.[\w-]{20}",  # Google
            r"[rs]k_live_[0-9A-Za-z]{20}|sk-(?:proj-|ant-)?[\w-]{32}",  # Stripe, language models
            r"hf_[A-Za-z0-9]{34}\b|npm_[A-Za-z0-9]{36}\b|pypi-AgEI[\w-]{50}",
            r"eyJ[\w-]{15,}\.eyJ[\w-]{15,}\.[\w-]{15}",  # JSON web token
        )
    )
)
"""Keys and tokens by their published shapes. Each begins with a letter of few, without which the search is slow."""
LONG_STRING = re.compile(r"[\"'](?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9+/]{32,}={0,2}[\"']")
SECRET_NAME = re.compile(r"(?i:password|passwd|secret|token|api_?key)\w*[\"']?\s*[:=]\s*$")
NAME_CHARS = 60
"""A random string is a secret if it is assigned to such a name in so many characters before it."""

GENERATED = re.compile(
    r"(?i)\bdo not edit\b(?! this (?:line|section))|@generated\b|\b(?:auto-?|automatically )generated\b"
    r"|^\s*#.*\bgenerated (?:by|from|with)\b|\bthis (?:file|module) (?:is|was|has been) (?:\w+ )?generated\b",
    re.MULTILINE,
)
GENERATED_NAME = re.compile(r".*_pb2(_grpc)?\.py")
MARKER_CHARS = 2048
"""Markers of generated files stand in the head."""
MIN_ALPHA_SHARE = 0.25
MIN_DATA_LINES = 20


def is_vendored(path: str) -> bool:
    """Return whether a file lies in a folder of other projects' files."""
    return not VENDORED.isdisjoint(PurePosixPath(path).parts[:-1])


def decode(content: bytes) -> str | None:
    """Return the text with line feeds as line ends and no byte-order mark; None if it is not UTF-8 or holds NUL."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text.replace("\r\n", "\n").replace("\r", "\n")


def has_secret(text: str) -> bool:
    """Return whether something in the text looks like a key that opens something."""
    return any(not text[found.start() - 1 : found.start()].isalnum() for found in KEYS.finditer(text)) or any(
        SECRET_NAME.search(text, max(0, found.start() - NAME_CHARS), found.start())
        for found in LONG_STRING.finditer(text)
    )


def is_generated(path: str, text: str) -> bool:
    """Return whether a program wrote the file, by its name or by what its head says."""
    return (
        GENERATED_NAME.fullmatch(PurePosixPath(path).name) is not None
        or GENERATED.search(text, 0, MARKER_CHARS) is not None
    )


def has_long_lines(text: str, max_line_chars: int) -> bool:
    """Return whether a line is longer, or so few characters are letters that the text is hardly written by hand."""
    return max(map(len, text.split("\n"))) > max_line_chars or sum(map(str.isalpha, text)) < MIN_ALPHA_SHARE * len(text)


def parse(text: str) -> ast.Module | None:
    """Return the syntax tree; None if this Python cannot read the text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def is_data(tree: ast.Module, num_lines: int) -> bool:
    """Return whether more than half of the lines are lists, dicts and the like of the module itself."""
    covered = sum(_data_lines(getattr(statement, "value", None)) for statement in tree.body)
    return covered >= MIN_DATA_LINES and 2 * covered > num_lines


def _data_lines(value: ast.AST | None) -> int:
    if isinstance(value, ast.Call):
        return sum(map(_data_lines, value.args))
    if not isinstance(value, ast.List | ast.Tuple | ast.Set | ast.Dict):
        return 0
    return (value.end_lineno or value.lineno) - value.lineno + 1
