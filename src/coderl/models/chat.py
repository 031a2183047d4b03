"""What a tokenizer's chat template puts around a question."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from coderl.models.lm import token_id
from coderl.types import InputError

_QUESTION = "<<the question of coderl>>"


def chat_frame(tokenizer: PreTrainedTokenizerBase, system: str | None, *, thinking: bool) -> tuple[str, str]:
    """Return the text before the user's question, and that behind it up to where the assistant's answer begins.

    Args:
        tokenizer: with a chat template.
        system: the system message; None leaves it to the template.
        thinking: whether the assistant thinks first, for templates that know the option `enable_thinking`.

    Raises:
        InputError: the tokenizer has no template, or one that takes no such conversation.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError("prompt.style = 'chat' needs a tokenizer with a chat template; 'chatml' needs none")
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": _QUESTION})
    try:
        text: Any = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
        )
    except Exception as error:  # templates are programs, and raise what they like
        raise InputError(f"the chat template takes no such conversation ({' '.join(str(error).split())})") from error
    before, found, behind = str(text).partition(_QUESTION)
    if not found or _QUESTION in behind:
        raise InputError("the chat template changes what the user says")
    bos = tokenizer.bos_token if token_id(tokenizer, "bos") is not None else None
    adds_bos = bool(bos) and tokenizer.encode("x")[:1] == [token_id(tokenizer, "bos")]
    return before.removeprefix(bos) if adds_bos and isinstance(bos, str) else before, behind
