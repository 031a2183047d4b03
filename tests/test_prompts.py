"""Prompts to the letter, programs out of completions, and the budget."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coderl import problems
from coderl.prompts import (
    PromptParts,
    actor_parts,
    actor_prompt,
    actor_target,
    extract_program,
    fit,
    repair_prompt,
)
from coderl.types import (
    AssertTest,
    CallTest,
    InputError,
    LabelledProblem,
    Outcome,
    Problem,
    StdinTest,
)

STDIN = Problem("0000", "Add two numbers.", example_tests=(StdinTest("1 2\n", "3\n"),))
CALL = Problem("0001", "Add.", fn_name="add", starter_code="def add(a, b):\n\t", example_tests=(CallTest((1, 2), 3),))
MBPP = Problem(
    "mbpp_1",
    "Write a function to add.",
    fn_name="add",
    example_tests=(
        AssertTest("import math\nassert add(1, 2) == 3"),
        AssertTest("assert add(0, 0) == 0", setup="x = 1"),
    ),
)
CODE = Problem(
    "HumanEval_0",
    "Add.",
    fn_name="add",
    starter_code='import math\n\n\ndef add(a, b):\n    """ Add. """\n',
)


# --------------------------------------------------------------------------------------------------- golden prompts


def test_default_prompts():
    """The original's generation template, which puts one newline between any two parts."""
    assert actor_prompt(STDIN) == "\nQUESTION:\nAdd two numbers.\nUse Standard Input format\nANSWER:\n"
    assert actor_prompt(CALL) == "\nQUESTION:\nAdd.\ndef add(a, b):\n\t\nUse Call-Based format\nANSWER:\n"
    assert actor_prompt(STDIN, "apps_generate") == actor_prompt(STDIN)
    assert actor_prompt(CALL, "apps_generate") == actor_prompt(CALL)


def test_asserts_are_shown_without_their_imports():
    assert actor_prompt(MBPP) == (
        "\nQUESTION:\nWrite a function to add.\nYour code should satisfy these tests:\n"
        "assert add(1, 2) == 3\nassert add(0, 0) == 0\nUse Call-Based format\nANSWER:\n"
    )
    assert "assert" not in actor_prompt(MBPP, "apps_generate")


def test_training_prompts_of_the_original():
    """`Q + starter or nothing + blank lines`, the format told by whether there is starter code."""
    assert actor_prompt(STDIN, "apps_train") == (
        "\nQUESTION:\nAdd two numbers.\n\n\nUse Standard Input format\n\nANSWER:\n"
    )
    assert actor_prompt(CALL, "apps_train") == (
        "\nQUESTION:\nAdd.\ndef add(a, b):\n\t\n\nUse Call-Based format\n\nANSWER:\n"
    )
    assert "Use Standard Input format" in actor_prompt(MBPP, "apps_train")  # no starter code
    assert "Use Call-Based format" in actor_prompt(MBPP, "apps_generate")  # a function name


def test_chat_prompts():
    assert actor_prompt(STDIN, "chatml") == (
        "<|im_start|>user\nAdd two numbers.\nWrite a Python program that reads standard input and prints the answer to "
        "standard output. Answer with code only.<|im_end|>\n<|im_start|>assistant\n```python\n"
    )
    assert actor_prompt(MBPP, "chatml") == (
        "<|im_start|>user\nWrite a function to add.\nYour code should satisfy these tests:\nassert add(1, 2) == 3\n"
        "assert add(0, 0) == 0\nWrite the Python function `add`. Answer with code only.<|im_end|>\n"
        "<|im_start|>assistant\n```python\n"
    )
    assert actor_prompt(CALL, "chatml") == (
        "<|im_start|>user\nAdd.\nStart from this code:\n```python\ndef add(a, b):\n\t\n```\n"
        "Write the Python function `add`. Answer with code only.<|im_end|>\n<|im_start|>assistant\n```python\n"
    )


def test_the_humaneval_prompt_is_the_code_itself():
    assert actor_prompt(CODE, "humaneval") == CODE.starter_code
    with pytest.raises(InputError, match="problem 0000: the humaneval style needs starter code"):
        actor_prompt(STDIN, "humaneval")


def test_repair_prompts():
    parts = repair_prompt(STDIN, "print(x)", Outcome.RUNTIME_ERROR, "nameerror", "name 'x' is not defined\n")
    assert parts.text() == (
        "\nQUESTION:\nAdd two numbers.\nWRONG PROGRAM:\nprint(x)\nRESULT:\nruntime error (nameerror): name 'x' is not "
        "defined\nUse Standard Input format\nANSWER:\n"
    )
    assert parts.statement == "Add two numbers."
    assert parts.program == "print(x)"
    parts = repair_prompt(CALL, "x", Outcome.FAILED_TEST, None, "", style="chatml")
    assert parts.text() == (
        "<|im_start|>user\nAdd.\nStart from this code:\n```python\ndef add(a, b):\n\t\n```\n"
        "Write the Python function `add`. Answer with code only.\n\nThis program is wrong:\n```python\nx\n```\n"
        "Result: failed test\nWrite the correct program.<|im_end|>\n<|im_start|>assistant\n```python\n"
    )


def test_an_endless_message_is_cut():
    parts = repair_prompt(STDIN, "x", Outcome.RUNTIME_ERROR, "valueerror", "m" * 1000)
    assert parts.text().count("m" * 300) == 1
    assert "m" * 301 not in parts.text()


@pytest.mark.parametrize(
    "call",
    [
        actor_prompt,
        actor_parts,
        lambda p: actor_target(p, "x"),
        lambda p: extract_program("x", p),
        lambda p: repair_prompt(p, "x", Outcome.FAILED_TEST, None, ""),
    ],
)
def test_hidden_tests_cannot_enter_a_prompt(call):
    """A `LabelledProblem` is refused by its type at every door."""
    labelled = LabelledProblem(STDIN, (StdinTest("9\n", "secret\n"),))
    with pytest.raises(TypeError):
        call(labelled)
    assert call(STDIN)


# ------------------------------------------------------------------------------------------------------ completions


def test_plain_completions_are_the_program():
    text = "  x\n```\n\n"
    for style in ("default", "apps_train", "apps_generate"):
        assert extract_program(text, STDIN, style) == text
        assert actor_target(STDIN, text, style) == text


@pytest.mark.parametrize(
    "completion",
    [
        "a = 1\n\tb",
        "a = 1\n\tb\n```",
        "a = 1\n\tb\n```\nThis adds.\n```python\nother\n```",
        "a = 1\n\tb\n```<|im_end|>\nmore",
        "a = 1\n\tb<|im_end|>",
        "a = 1\n\tb<|endoftext|>\n```",
        "```python\na = 1\n\tb\n```\nprose",
        "```\na = 1\n\tb\n```",
        "Here it is:\n```python\na = 1\n\tb\n```\n",
        "Here it is:\n\n```py\na = 1\n\tb",
    ],
)
def test_chat_completions(completion):
    """Fences, prose round them and end marks go; indentation stays."""
    assert extract_program(completion, STDIN, "chatml") == "a = 1\n\tb"


def test_an_empty_chat_answer_is_an_empty_program():
    assert extract_program("", STDIN, "chatml") == ""
    assert extract_program("```python\n```", STDIN, "chatml") == ""


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("    return a + b\n", CODE.starter_code + "    return a + b\n"),
        ("    return a + b\n\ndef other():\n    pass", CODE.starter_code + "    return a + b\n\n"),
        ("    return a + b\n\nprint(add(1, 2))", CODE.starter_code + "    return a + b\n\n"),
        ("    def g():\n        1\n    # c\n    g()", CODE.starter_code + "    def g():\n        1\n    # c\n    g()"),
        ("def add(a, b):\n    return 1\n", "import math\n\n\ndef add(a, b):\n    return 1\n"),
        ("import math\n\n\ndef add(a, b):\n    return 1\n", "import math\n\n\ndef add(a, b):\n    return 1\n"),
    ],
)  # fmt: skip
def test_humaneval_completions(completion, program):
    assert extract_program(completion, CODE, "humaneval") == program


def test_a_chat_answer_to_a_code_prompt_gets_its_imports_and_a_bare_signature_does_not():
    answer = "def add(a, b):\n    return 1\n```"
    assert extract_program(answer, CODE, "chatml") == "import math\n\n\ndef add(a, b):\n    return 1"
    assert extract_program(answer, CALL, "chatml") == "def add(a, b):\n    return 1"


@settings(deadline=None)
@example(solution=" ")
@given(solution=st.text().filter(lambda text: "```" not in text and "<|" not in text))
def test_targets_come_back(solution):
    """What a model is trained to write gives the solution back."""
    for style in ("default", "apps_train", "apps_generate", "chatml"):
        for problem in (STDIN, CALL, MBPP):
            assert extract_program(actor_target(problem, solution, style), problem, style) == solution


def test_targets_of_real_solutions_come_back(shared_data):
    for name in ("mbpp/mbpp.jsonl", "apps/train", "humaneval/HumanEval.jsonl.gz"):
        for labelled in problems.load(shared_data / name):
            styles = ["default", "chatml"] + ["humaneval"] * name.startswith("humaneval")
            for solution in labelled.solutions:
                for style in styles:
                    target = actor_target(labelled.problem, solution, style)
                    assert extract_program(target, labelled.problem, style) == solution


# ----------------------------------------------------------------------------------------------------------- budget


def encode(text: str) -> list[int]:
    """One token a character, and one at the end, as tokenizers add."""
    return [*map(ord, text), 0]


def decode(tokens: list[int]) -> str:
    return "".join(map(chr, tokens[:-1]))


PARTS = PromptParts("Q:", "statement", "|P:", "program", "|E:error|A:")
"""2 + 9 + 3 + 7 + 11 characters, 33 tokens."""


@pytest.mark.parametrize(
    ("max_tokens", "text"),
    [
        (33, "Q:statement|P:program|E:error|A:"),
        (32, "Q:statemen|P:program|E:error|A:"),
        (25, "Q:s|P:program|E:error|A:"),
        (24, "Q:|P:program|E:error|A:"),
    ],
)
def test_only_the_statement_gives_way(max_tokens, text):
    tokens = fit(PARTS, encode, max_tokens)
    assert decode(tokens) == text
    assert len(tokens) <= max_tokens


def test_a_long_program_stays_whole_where_it_may_take_more():
    """2 + 3 + 7 + 11 characters and an end: 24 tokens, of a budget of 10 and 14 for the program."""
    assert decode(fit(PARTS, encode, 10, extra_tokens=14)) == "Q:|P:program|E:error|A:"
    with pytest.raises(InputError, match=r"max_tokens=10 and 13 for the program cannot hold .* which take 24"):
        fit(PARTS, encode, 10, extra_tokens=13)


def test_what_cannot_fit_is_an_error():
    with pytest.raises(InputError, match="max_tokens=23 cannot hold the fixed parts of a prompt, which take 24"):
        fit(PARTS, encode, 23)


@given(st.text(max_size=30), st.text(max_size=30), st.integers(41, 90))
def test_program_and_answer_marker_always_stay(statement, program, max_tokens):
    """At most 2 + 1 + 30 + 8 characters and the end are never cut: 42."""
    parts = PromptParts("Q:", statement, "|", program, "|ANSWER:")
    tokens = fit(parts, encode, max_tokens, extra_tokens=1)
    assert len(tokens) <= max(max_tokens, len(program) + 12)
    assert decode(tokens).endswith(f"|{program}|ANSWER:")


def test_actor_prompts_fit_too():
    """The original cuts an over-long prompt at its end and loses the answer marker."""
    problem = Problem("0", "word " * 1000)
    text = decode(fit(actor_parts(problem), encode, 100))
    assert text.startswith("\nQUESTION:\nword word")
    assert text.endswith("\nUse Standard Input format\nANSWER:\n")


# ----------------------------------------------------------------------------------------------- the tokenizer's chat

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% if enable_thinking is defined and not enable_thinking %}<no-think/>"
    "{% endif %}{% endif %}"
)


@pytest.fixture
def chatting(tiny):
    model = tiny("llama")
    model.tokenizer.chat_template = TEMPLATE
    yield model
    model.tokenizer.chat_template = None


def test_a_chat_is_framed_by_the_tokenizers_template(chatting):
    """System message and thinking by hand; the stop, the target and the program follow."""
    from coderl.engines.actor import Actor
    from coderl.prompts import PromptConfig

    actor = Actor(chatting, PromptConfig(style="chat", system="Be brief."))
    text = chatting.decode(actor.encode_prompt(STDIN))
    asked = actor_prompt(STDIN, "chatml").removeprefix("<|im_start|>user\n").partition("<|im_end|>")[0]
    assert text == f"<system>Be brief.</system><user>{asked}</user><assistant><no-think/>```python\n"
    assert actor.drawing_config.stop == ("\n```",)
    thinking = Actor(chatting, PromptConfig(style="chat", thinking=True))
    assert chatting.decode(thinking.encode_prompt(STDIN)) == f"<user>{asked}</user><assistant>"
    assert thinking.drawing_config.stop == ()
    target = thinking.encode_solution(STDIN, "print(1)")
    assert chatting.decode(target) == "```python\nprint(1)\n```"
    written = chatting.encode_program("<think>x = 1</think>\n```python\nprint(1)\n```")
    assert thinking.programs(STDIN, [written])[0].code == "print(1)"


def test_a_chat_that_cannot_be_is_one_line(tiny, chatting):
    from coderl.engines.actor import Actor
    from coderl.prompts import PromptConfig

    with pytest.raises(InputError, match=r"system and prompt\.thinking need"):
        Actor(chatting, PromptConfig(style="chatml", thinking=True))
    chatting.tokenizer.chat_template = "{{ raise_exception('no system') }}"
    with pytest.raises(InputError, match="no such conversation"):
        Actor(chatting, PromptConfig(style="chat"))
    chatting.tokenizer.chat_template = None
    with pytest.raises(InputError, match="needs a tokenizer with a chat template"):
        Actor(tiny("llama"), PromptConfig(style="chat"))
