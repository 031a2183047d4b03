"""What metadata and headers say of a licence, by hand."""

import pytest

from coderl.corpus import licences


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", True),
        ("mit", True),
        ("GPL-3.0-or-later", False),
        ("MPL-2.0 AND MIT", False),
        ("GPL-2.0-only OR MIT", True),
        ("(GPL-2.0-only OR MIT) AND BSD-3-Clause", True),
        ("GPL-2.0-only OR (MIT AND LGPL-3.0-only)", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("MIT OR GPL-2.0-only AND GPL-3.0-only", True),  # AND binds tighter
        ("Apache-2.0 AND (BSD-2-Clause", False),
        ("MIT MIT", False),
        ("MIT AND", False),
        ("", False),
        ("MIT; do as you like", False),
        ("LicenseRef-MIT", False),
    ],
)
def test_expressions(expression, expected):
    assert licences.is_permissive(expression) is expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (("MIT", ["License :: OSI Approved :: GNU General Public License v3 (GPLv3)"], None), "MIT"),
        ((None, ["License :: OSI Approved :: MIT License"], "GPL"), "MIT"),
        ((None, ["License :: OSI Approved", "License :: OSI Approved :: BSD License"], None), "BSD"),
        ((None, ["License :: OSI Approved :: MIT License", "License :: OSI Approved :: Apache Software License"], None),
         "MIT AND Apache-2.0"),
        ((None, ["Programming Language :: Python"], "BSD 3-Clause License"), "BSD-3-Clause"),
        ((None, [], "Apache License, Version 2.0"), "Apache-2.0"),
        ((None, [], "Apache 2.0 License"), "Apache-2.0"),
        ((None, [], "3-Clause BSD License"), "BSD-3-Clause"),
        ((None, [], "ISC"), "ISC"),
        ((None, [], "MPL-2.0 AND MIT"), "MPL-2.0 AND MIT"),
        ((None, [], "Copyright (c) 2015, a project. All rights reserved. Redistribution and use"), None),
        ((None, [], "UNKNOWN"), "UNKNOWN"),
        ((None, [], None), None),
    ],
)  # fmt: skip
def test_metadata(fields, expected):
    assert licences.of_metadata(*fields) == expected


def test_licences_of_other_names_are_not_permissive():
    found = licences.of_metadata(None, ["License :: OSI Approved :: GNU Affero General Public License v3"], "MIT")
    assert found is not None
    assert not licences.is_permissive(found)
    assert not licences.is_permissive(licences.of_metadata(None, [], "UNKNOWN") or "")


def test_headers():
    assert licences.of_header("# SPDX-License-Identifier: MIT OR Apache-2.0\nx = 1\n") == "MIT OR Apache-2.0"
    assert licences.of_header("/* SPDX-License-Identifier: BSD-3-Clause */") == "BSD-3-Clause"
    assert licences.of_header("x = 1\n") is None
    assert licences.of_header("#\n" * 4096 + "# SPDX-License-Identifier: MIT\n") is None
