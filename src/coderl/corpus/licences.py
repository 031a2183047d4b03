"""From what a project or a file says of its licence to an SPDX expression, and whether it is permissive."""

from __future__ import annotations

import re
from collections.abc import Sequence

PERMISSIVE = frozenset(
    [
        "0BSD",
        "AFL-3.0",
        "Apache-1.1",
        "Apache-2.0",
        "BSD",
        "BSD-1-Clause",
        "BSD-2-Clause",
        "BSD-2-Clause-Patent",
        "BSD-3-Clause",
        "BSD-3-Clause-LBNL",
        "BSL-1.0",
        "BlueOak-1.0.0",
        "CC0-1.0",
        "CNRI-Python",
        "HPND",
        "ISC",
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "NCSA",
        "PSF-2.0",
        "PostgreSQL",
        "Python-2.0",
        "Python-2.0.1",
        "UPL-1.0",
        "Unlicense",
        "WTFPL",
        "X11",
        "Zlib",
    ]
)
"""SPDX identifiers that ask for no more than a notice; `BSD` where the number of clauses is not told."""
_PERMISSIVE_LOWER = frozenset(name.lower() for name in PERMISSIVE)

CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "Blue Oak Model License (BlueOak-1.0.0)": "BlueOak-1.0.0",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "BSD License": "BSD",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "PostgreSQL License": "PostgreSQL",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Universal Permissive License (UPL)": "UPL-1.0",
    "University of Illinois/NCSA Open Source License": "NCSA",
    "zlib/libpng License": "Zlib",
    "Zero-Clause BSD (0BSD)": "0BSD",
}
"""The last part of a `License ::` classifier, and the identifier it stands for."""

PHRASES = (
    (r"(the )?mit( license)?", "MIT"),
    (r"(the )?(apache( software)?( license)?|apache license)[, ]*(version |v)?(2(\.0)?)?( license)?", "Apache-2.0"),
    (r"(the )?(new |modified |revised )?bsd( license)?", "BSD"),
    (r"(the )?bsd[- ]3[- ]clause( license)?|3[- ]clause bsd( license)?", "BSD-3-Clause"),
    (r"(the )?bsd[- ]2[- ]clause( license)?|2[- ]clause bsd( license)?|simplified bsd( license)?", "BSD-2-Clause"),
    (r"(the )?isc( license)?", "ISC"),
    (r"psf( license)?|python software foundation license", "PSF-2.0"),
    (r"(the )?unlicense", "Unlicense"),
    (r"(the )?zlib( license)?", "Zlib"),
)
"""What people write in the field `License`, as a whole, in lower case."""

SPDX_HEADER = re.compile(r"SPDX-License-Identifier:[ \t]*([\w.+() \t-]+)")
HEADER_CHARS = 4096
_TOKEN = re.compile(r"\s*([()]|[\w.+-]+)")


def is_permissive(expression: str) -> bool:
    """Return whether an SPDX expression allows use under permissive licences alone: AND needs both sides, OR one.

    What cannot be read as an expression is not permissive.
    """
    tokens = _TOKEN.findall(expression)
    if "".join(tokens) != "".join(expression.split()):
        return False
    try:
        value, rest = _either(tokens)
    except IndexError:
        return False
    return value and not rest


def _either(tokens: Sequence[str]) -> tuple[bool, Sequence[str]]:
    value, rest = _both(tokens)
    while rest and rest[0].upper() == "OR":
        other, rest = _both(rest[1:])
        value = value or other
    return value, rest


def _both(tokens: Sequence[str]) -> tuple[bool, Sequence[str]]:
    value, rest = _single(tokens)
    while rest and rest[0].upper() == "AND":
        other, rest = _single(rest[1:])
        value = value and other
    return value, rest


def _single(tokens: Sequence[str]) -> tuple[bool, Sequence[str]]:
    if tokens[0] == "(":
        value, rest = _either(tokens[1:])
        return value and rest[0] == ")", rest[1:]
    value, rest = tokens[0].lower() in _PERMISSIVE_LOWER, tokens[1:]
    if rest and rest[0].upper() == "WITH":  # an exception only ever adds a permission
        rest = rest[2:]
    return value, rest


def of_metadata(expression: str | None, classifiers: Sequence[str], text: str | None) -> str | None:
    """Return the SPDX expression of a project from its metadata, the most exact field first; None if it says nothing.

    Args:
        expression: the field `License-Expression`.
        classifiers: all of its classifiers; several licences count as all being asked for.
        text: the field `License`: an expression, a name, or the whole text of a licence, which is not read.
    """
    if expression:
        return " ".join(expression.split())
    names = [c.split(" :: ")[-1] for c in classifiers if c.startswith("License :: ")]
    found = [CLASSIFIERS.get(name, _as_identifier(name)) for name in names if name != "OSI Approved"]
    if found:
        return " AND ".join(dict.fromkeys(found))
    name = " ".join((text or "").split())
    for pattern, identifier in PHRASES:
        if re.fullmatch(pattern, name.lower()):
            return identifier
    return name if is_permissive(name) or re.fullmatch(r"[\w.+-]+( (AND|OR|WITH) [\w.+-]+)*", name) else None


def _as_identifier(name: str) -> str:
    return "LicenseRef-" + re.sub(r"\W+", "-", name).strip("-")


def of_header(text: str) -> str | None:
    """Return the SPDX expression that a file's head states, None without one."""
    found = SPDX_HEADER.search(text, 0, HEADER_CHARS)
    return " ".join(found[1].split()) if found else None
