"""Pickles read without running them: real ones come back, hostile ones are refused with one line."""

import contextlib
import os
import pickle
import random
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from coderl.interop import pickles
from coderl.problems.plain_pickle import Raised
from coderl.types import InputError


def refused(tmp_path: Path, content: bytes) -> str:
    """Return the one line with which a pickle is refused."""
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(InputError) as error:
        pickles.load(tmp_path / "a.pkl")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("protocol", range(6))
def test_builtins_and_arrays_come_back(protocol: int):
    value = {
        3: [[True, -1], "é", b"\xff\x00", None, 1.5, (1, 2), {"a"}, frozenset({1}), 10**30],
        "f": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "i": np.array([1, -2, 3]),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big": np.array([1, 2], dtype=">i4"),
        "empty": np.zeros((0, 4)),
        "b": np.bool_(True),
        "n": np.float64(2.5),
    }
    found = pickles.loads(pickle.dumps(value, protocol))
    assert found[3] == value[3]
    for name in ("f", "i", "fortran", "big", "empty"):
        np.testing.assert_array_equal(found[name], value[name])
        assert found[name].shape == value[name].shape
    assert found["b"] is True
    assert found["n"] == 2.5


def test_arrays_by_the_module_names_of_numpy_1():
    content = pickle.dumps(np.array([1.0, 2.0]), 3)
    assert b"numpy._core" in content
    assert pickles.loads(content.replace(b"numpy._core", b"numpy.core")).tolist() == [1.0, 2.0]


def test_a_tensor_becomes_an_array(recwarn):
    tensor = torch.arange(12, dtype=torch.float32).reshape(3, 4)[:, 1:]
    assert pickles.loads(pickle.dumps(tensor)).tolist() == [[1, 2, 3], [5, 6, 7], [9, 10, 11]]


def test_exceptions_are_records():
    import json

    try:
        json.loads("{")
    except json.JSONDecodeError as error:
        raised = error
    value = [
        (NameError("name 'x' is not defined"), ["line"]),
        SyntaxError("bad", ("f", 1, 2, "x")),
        raised,
    ]
    found = pickles.loads(pickle.dumps(value))
    assert found[0] == (Raised("NameError", ("name 'x' is not defined",)), ["line"])
    assert found[1].name == "SyntaxError"
    assert found[2].name == "JSONDecodeError"
    assert found[0][0].message == "name 'x' is not defined"


class Runs:
    """A pickle that would write a file."""

    def __init__(self, function, *args):
        self.made = (function, args)

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("where", [lambda x: x, lambda x: {1: [x]}, lambda x: NameError(x)])
def test_nothing_is_run(tmp_path, protocol, where):
    canary = tmp_path / "canary"
    for attack in (
        Runs(os.system, f"touch {canary}"),
        Runs(eval, f"open({str(canary)!r}, 'w')"),
        Runs(open, canary, "w"),
    ):
        line = refused(tmp_path, pickle.dumps(where(attack), protocol))
        assert "refused, it names" in line
    assert not canary.exists()


def test_a_tensor_cannot_carry_code(tmp_path):
    canary = tmp_path / "canary"
    inner = pickle.dumps(Runs(os.system, f"touch {canary}"))
    tensor = pickle.dumps(torch.zeros(2))
    outer = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(ctorch.storage\n_load_from_bytes\n(B"
    outer += struct.pack("<I", len(inner)) + inner + b"tRK\x00K\x02\x85K\x01\x85\x89NtR."
    assert tensor  # the real one is read above
    assert "refused" in refused(tmp_path, outer)
    assert not canary.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        pickle.dumps([1, 2, 3])[:-2],
        pickle.dumps(np.arange(100))[:-50],
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a frame of 2^63 bytes
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fx.",  # bytes of that length
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # a memo of 2^31 places, then nothing wrong: reads as None
        b"\x80\x02ccoderl.problems.plain_pickle\n_BUILDERS\n.",
        b"\x80\x04\x8c\x08builtins\x8c\x11Exception.__new__\x93.",
        b"\x80\x02cbuiltins\nset\n}X\x01\x00\x00\x00ab.",  # attributes set on a function
        b"\x80\x02cbuiltins\nset\n.",  # a function as a value
        b"\x80\x02cbuiltins\nset\n)\x81.",  # NEWOBJ
        b"\x80\x02cnumpy\nndarray\n(I5\ntR.",
        b"\x80\x02\x82\x05.",  # an extension code
        b"\x80\x02Pabc\n.",  # a persistent id
        b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".",  # nested too deeply
        b"\x80\x02]q\x00h\x00a.",  # a list that holds itself
        pickle.dumps(np.array([{}, []], dtype=object)),
        pickle.dumps(np.array(["text"])),
        pickle.dumps(np.arange(4)).replace(b"K\x04\x85", b"K\x09\x85"),
    ],
)
def test_what_is_no_plain_pickle_is_refused(tmp_path, content):
    if content == b"\x80\x02Nr\xff\xff\xff\x7f.":
        assert pickles.loads(content) is None
    else:
        refused(tmp_path, content)


@pytest.mark.parametrize("opcode", [b"\x8e", b"\x8d", b"\x96"])
def test_a_length_alone_takes_no_memory(tmp_path, opcode):
    content = b"\x80\x05" + opcode + (1 << 28).to_bytes(8, "little") + b"x."
    tracemalloc.start()
    refused(tmp_path, content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_broken_bytes_are_one_line_whatever_breaks(tmp_path):
    """Bytes changed at random, of every protocol: a value or an `InputError`, nothing else."""
    wholes = [pickle.dumps({7: [np.zeros(3), NameError("x"), {1}, b"b", "text", 1.5]}, p) for p in range(6)]
    wholes.append(pickle.dumps(torch.zeros(2)))
    choices = random.Random(0)
    for _ in range(1500):
        content = bytearray(choices.choice(wholes))
        for _ in range(choices.choice((1, 2, 5))):
            content[choices.randrange(len(content))] = choices.randrange(256)
        (tmp_path / "a.pkl").write_bytes(content)
        with contextlib.suppress(InputError):
            pickles.load(tmp_path / "a.pkl")


def test_what_stands_in_many_places_is_made_once():
    value: list = ["x"]
    for _ in range(60):  # 2^60 places
        value = [value, value]
    found = pickles.loads(pickle.dumps(value))
    assert found[0] is found[1]


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        pickles.load(tmp_path / "none.pkl")
