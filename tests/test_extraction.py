"""Programs out of chat answers: every door uses the one extractor, and it never raises."""

import json
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coderl.extraction import extract_code, has_fence, text_of
from coderl.types import Problem

CALL = Problem("a", "d", fn_name="f")
STDIN = Problem("b", "d")
PROGRAM = "def f(x):\n    return x"
READER = "n = int(input())\nprint(n + 1)"


def fenced(code: str, label: str = "python", fence: str = "```") -> str:
    return f"{fence}{label}\n{code}\n{fence}\n"


def test_the_cases_of_the_audit(shared_data):
    """A model's completion a line, and the program in it."""
    for line in (shared_data / "cases" / "extraction.jsonl").read_text().splitlines():
        case = json.loads(line)
        assert extract_code(case["completion"], CALL).strip() == case["program"].strip(), case["name"]


@pytest.mark.parametrize(
    "label", ["python", "Python", "py", "python3", "Python 3.11", "{.python .numberLines}", "ipython", ""]
)
@pytest.mark.parametrize("fence", ["```", "````", "~~~"])
def test_labels_and_fences(label, fence):
    for problem, code in ((CALL, PROGRAM), (STDIN, READER)):
        assert extract_code("So:\n\n" + fenced(code, label, fence) + "Done.", problem) == code
        assert extract_code(fenced(code, label, fence).rstrip("\n" + fence[0]), problem) == code  # cut before its end


@pytest.mark.parametrize(
    "other",
    [
        fenced("pip install numpy", "bash"),
        fenced("int f(int x) { return x; }", "cpp"),
        fenced('{"input": 1}', "json"),
        fenced("f = lambda x: 0", "javascript"),
        fenced("3", ""),
        fenced("print(f(1))"),
        fenced("assert f(1) == 1\nprint('ok')"),
        fenced(">>> f(1)\n1", "pycon"),
        fenced("def f(x):\n    ..."),
        fenced('def f(x):\n    """Return x."""'),
        fenced("def helper(y):\n    return y"),
    ],
)
def test_what_is_not_the_answer_does_not_count_before_it_or_behind_it(other):
    assert extract_code(other + "text\n" + fenced(PROGRAM), CALL) == PROGRAM
    assert extract_code(fenced(PROGRAM) + "text\n" + other, CALL) == PROGRAM


def test_the_last_answer_counts():
    assert extract_code(fenced("def f(x):\n    return 0") + "No:\n" + fenced(PROGRAM), CALL) == PROGRAM
    assert extract_code(fenced("print(input())") + "No:\n" + fenced(READER) + fenced("7 8\n9", ""), STDIN) == READER
    broken = "def f(x):\n    return x +"
    assert (
        extract_code(fenced(PROGRAM) + "Better:\n" + fenced(broken), CALL) == broken
    )  # what it said last, wrong as it is


@pytest.mark.parametrize(
    "name",
    ["f = lambda x: x", "class Solution:\n    def f(self, x):\n        return x", "async def f(x):\n    return x"],
)
def test_ways_to_define(name):
    assert extract_code(fenced(name) + fenced("print(f(1))"), CALL) == name


def test_starter_code_names_what_is_asked_where_no_function_does():
    problem = Problem("c", "d", starter_code="class Stack:\n    ")
    wanted = "class Stack:\n    def push(self, x):\n        input()"
    assert extract_code(fenced(wanted) + fenced("print(input())"), problem) == wanted


@pytest.mark.parametrize(
    "thought",
    [
        "<think>\n{}</think>\n",
        "<Thinking>{}</Thinking>",
        "{}</think>\n",  # the prompt opened it
        "<think>\na </think> b\n<think>{}</think>\n",
        "<think>\nI write <think> here\n{}</think>\n",
        "[THINK]{}[/THINK]",
        "<|begin_of_thought|>\n{}<|end_of_thought|>\n<|begin_of_solution|>\n",
        "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>",
    ],
)
def test_thoughts_do_not_count(thought):
    draft = "\n" + fenced("def f(x):\n    return 0")
    assert extract_code(thought.replace("{}", draft) + fenced(PROGRAM), CALL) == PROGRAM
    assert extract_code(thought.replace("{}", draft) + PROGRAM, CALL) == PROGRAM


def test_a_thought_without_an_end_holds_no_answer():
    assert extract_code("<think>\n" + fenced(PROGRAM), CALL) == ""


@pytest.mark.parametrize(
    "code", ["def f(x):\n    return x.replace('<think>', '')", 'def f(x):\n    return x + "</s>" + "<|im_end|>"']
)
def test_marks_in_strings_of_a_program_are_not_marks(code):
    assert extract_code(code, CALL) == code
    assert extract_code(fenced(code), CALL) == code


@pytest.mark.parametrize(
    "token",
    ["<|im_end|>", "<|eot_id|>", "<|endoftext|>", "</s>", "<|end|>", "<end_of_turn>", "<｜end▁of▁sentence｜>", "<eos>"],
)
def test_what_follows_the_end_of_the_turn_is_not_the_answer(token):
    run_on = f"{token}\n<|im_start|>user\nAnother?\n" + fenced("def f(x):\n    return 0")
    assert extract_code(PROGRAM + token, CALL) == PROGRAM
    assert extract_code(fenced(PROGRAM).rstrip() + run_on, CALL) == PROGRAM
    assert extract_code("<|im_start|>assistant\n" + fenced(PROGRAM) + run_on, CALL) == PROGRAM


@pytest.mark.parametrize("prefix", ["   ", "\t", "> ", "  > "])
def test_indented_and_quoted_blocks(prefix):
    assert extract_code("1. Do\n" + textwrap.indent(fenced(PROGRAM), prefix), CALL) == PROGRAM


def test_a_block_behind_a_list_mark_and_code_indented_further_than_its_fence():
    assert extract_code("1. ```python\n   def f(x):\n       return x\n   ```\n", CALL) == PROGRAM
    assert extract_code(fenced(textwrap.indent(PROGRAM, "    ")), CALL) == PROGRAM


def test_fences_in_docstrings_do_not_close_a_block():
    code = '''def f(x):
    """Return x.

    ```python
    f(1)
    ```
    """
    return x'''
    assert extract_code(fenced(code) + "Usage:\n" + fenced("f(2)"), CALL) == code
    unindented = "'''\n```\nf(1)\n```\n'''\n" + PROGRAM
    assert extract_code(fenced(unindented), CALL) == unindented


def test_a_fence_that_is_indented_though_its_code_is_not():
    assert extract_code("[/INST] " + fenced(PROGRAM), CALL) == PROGRAM
    assert extract_code("  " + fenced(PROGRAM), CALL) == PROGRAM


def test_a_fence_behind_prose_on_its_line():
    assert extract_code("Here it is: " + fenced(PROGRAM) + "Done.", CALL) == PROGRAM


def test_blocks_inside_a_block_of_markdown():
    assert extract_code("````markdown\n# Answer\n" + fenced(PROGRAM) + "````\n", CALL) == PROGRAM


def test_a_fence_at_the_end_of_a_line_of_code():
    assert extract_code("```python\ndef f(x):\n    return x```", CALL) == PROGRAM


def test_a_completion_of_an_open_block():
    """The prompt may end in an opening fence: what comes before the first fence is the program."""
    assert extract_code(PROGRAM + "\n```\nUsage:\n" + fenced("print(f(1))"), CALL) == PROGRAM
    assert extract_code("x = = 1\n```\nprose", STDIN, is_fence_open=True) == "x = = 1"
    assert extract_code(READER + "\n```\nprose\n```\n4\n```", STDIN) == READER


def test_prose_round_code_without_fences():
    assert extract_code("Here you are:\n\n" + PROGRAM + "\n\nIt returns x.", CALL) == PROGRAM
    assert extract_code("<answer>\n" + PROGRAM + "\n</answer>", CALL) == PROGRAM
    assert extract_code("[PYTHON]\n" + PROGRAM + "\n[/PYTHON]", CALL) == PROGRAM
    prose = "I cannot solve this."
    assert extract_code(prose, CALL) == prose  # judged as it is: it does not compile


def test_a_program_that_reads_nothing():
    assert extract_code(fenced("pip install x", "sh") + fenced("print(42)") + fenced("42", ""), STDIN) == "print(42)"


def test_bodies_and_whole_functions_for_code_to_complete():
    problem = Problem("h", "d", fn_name="f", starter_code='import math\n\n\ndef f(x):\n    """Return x."""\n')
    assert extract_code(fenced("    return x"), problem) == problem.starter_code + "    return x"
    assert extract_code("Sure.\n" + fenced(PROGRAM), problem) == "import math\n\n\n" + PROGRAM


def test_texts_of_conversations():
    parts = [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": "u"},
        "b",
        {"type": "thinking", "text": "t"},
    ]
    assert text_of([{"role": "user", "content": "q"}, {"role": "assistant", "content": parts}]) == "ab"
    assert text_of({"role": "assistant", "content": "x", "reasoning_content": "t"}) == "x"
    assert text_of([{"content": "x"}]) == "x"
    assert text_of([{"role": "user", "content": "q"}]) == ""


FRAGMENTS = [
    "```",
    "~~~",
    "```python\n",
    "\n",
    "   ",
    "<think>",
    "</think>",
    "</s>",
    "<|x|>",
    "def f(x):",
    "return x",
    "'''",
    "> ",
    "1. ",
]


@settings(deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=25).map("".join))
def test_nothing_is_raised_and_only_text_of_the_answer_comes_back(text):
    for problem in (CALL, STDIN):
        code = extract_code(text, problem)
        assert all(line.strip() in text for line in code.split("\n"))


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.binary(),
        lambda v: st.lists(v) | st.dictionaries(st.sampled_from(["role", "content", "type", "text"]), v),
        max_leaves=8,
    )
)
def test_nothing_is_raised_whatever_a_completion_is(completion):
    assert isinstance(extract_code(completion, CALL), str)


@pytest.mark.parametrize(
    "text",
    [
        "x" + " " * 100_000 + "```python",
        "````md\n" * 20_000,
        "```" + " " * 200_000 + "`x",
        "<think>\n" * 50_000,
        "</think>x" * 50_000,
        "<s>" * 100_000,
        "```a\n" * 50_000,
        "(" * 100_000,
        "[" * 5_000 + "]" * 5_000,
        "> " * 100_000,
    ],
)
def test_hostile_texts_end(text):
    assert isinstance(extract_code(text, CALL), str)


def test_fences_are_seen():
    assert has_fence("a\n  ```python\nb")
    assert not has_fence("a = '```'\n")
