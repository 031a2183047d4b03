"""What each token adds to a program, and what its lines are worth: against every prefix decoded, and by hand."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coderl.critic.lines import Line, first_line, line_values, steepest_fall, token_texts

PIECES = {
    **{i: bytes([i]) for i in range(256)},
    256: b"",
    257: b"",  # special tokens
    258: "é".encode()[1:] + "日".encode()[:2],
    259: "日".encode()[2:] + b"\n",
    260: "a😀".encode()[:3],
    261: "é".encode(),
    262: "\ufffd".encode(),
}


class ByteDecoder:
    """A token is a byte, nothing, or some bytes that break characters; counts the tokens it was given."""

    def __init__(self):
        self.num_decoded = 0

    def decode(self, tokens):
        self.num_decoded += len(tokens)
        return b"".join(PIECES[t] for t in tokens).decode("utf-8", "replace")


def texts_by_prefixes(model, tokens):
    """The definition: decode every prefix; an unfinished character belongs to the token that ends it."""
    texts, before = [], ""
    for end in range(1, len(tokens) + 1):
        whole = model.decode(tokens[:end])
        stable = whole.rstrip("\ufffd") if end < len(tokens) else whole
        texts.append(stable[len(before) :])
        before = stable if stable.startswith(before) else before
    return texts


pieces = st.one_of(
    st.lists(st.integers(0, 262), max_size=40),
    st.lists(st.sampled_from([0x61, 0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x98, 0x80, 256, 258, 259, 260, 262]), max_size=60),
    st.text(max_size=20).map(lambda text: list(text.encode("utf-8", "ignore"))),
)


@settings(max_examples=400, deadline=None)
@given(pieces)
def test_token_texts_are_those_of_every_prefix_decoded(tokens):
    model = ByteDecoder()
    assert token_texts(model, tokens) == texts_by_prefixes(model, tokens)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_token_texts_of_a_real_tokenizer(tiny, data):
    model = tiny()
    text = data.draw(st.text(alphabet="print(é日😀)\n 1", max_size=30))
    drawn = data.draw(st.lists(st.integers(0, 399), max_size=30))
    for tokens in (model.encode_program(text), drawn):
        found = token_texts(model, tokens)
        assert found == texts_by_prefixes(model, tokens)
        assert "".join(found) == model.decode(tokens)


def test_a_character_of_three_tokens_belongs_to_the_last():
    euro = list("€".encode())
    assert token_texts(ByteDecoder(), [0x61, *euro, 256]) == ["a", "", "", "€", ""]
    assert token_texts(ByteDecoder(), [0x61, *euro[:2], 256]) == ["a", "", "", "\ufffd"]
    assert token_texts(ByteDecoder(), [euro[0], *[256] * 9, *euro[1:]]) == [*[""] * 11, "€"]  # special tokens between


def test_the_work_grows_with_the_program_and_not_with_its_square():
    """Also where no token ends a character: 258 begins what 258 does not end."""
    for token in (0x61, 258, 0xE2):
        work = []
        for count in (200, 2000):
            model = ByteDecoder()
            token_texts(model, [token] * count)
            work.append(model.num_decoded)
        assert work[1] < 11 * work[0]


def test_a_line_has_the_value_of_its_last_token_and_the_end_counts_for_the_last_line():
    lines = line_values("a\nb\n", ["a", "\n", "b", "\n", ""], [0.9, 0.8, 0.3, 0.2, 0.1])
    assert lines == (Line(1, "a", 0.8), Line(2, "b", 0.1))
    assert steepest_fall(lines) == 2
    assert steepest_fall(lines[:1]) is None
    assert [line.text for line in line_values("a\x0cb\n", [], None)] == ["a\x0cb"]  # as Python counts lines


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        ("x = 1\ny\n", "x = 1\ny\n", 1),
        ("Sure:\n```python\nx = 1\n```\n", "x = 1\n", -1),  # the text's third line is the code's first
        ("    return 1", "def f():\n    return 1", 2),  # the starter stands before what was drawn
    ],
)
def test_the_line_of_the_code_on_the_texts_first_line(text, code, expected):
    assert first_line(text, code) == expected
