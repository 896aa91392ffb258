# SPDX-License-Identifier: Apache-2.0
"""Conversations as the tokenizer's chat template writes them, and what is learnt of it.

The template alone says what stands around a message. An assistant turn is what is
written between the prompt for it and the end of the conversation up to it: its end of
turn included, the space behind that not. Where the template marks the assistant's text
itself (``{% generation %}``), its marks are taken instead.
"""

import importlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jft.data.fields.language import next_token_padding
from jft.data.fields.padding import IGNORED
from jft.data.fields.targets import example_name
from jft.data.fields.tokens import Row, TokenizerFields, check_fast, check_max_length
from jft.data.sources.source import Example, digest
from jft.types import InputError

Span = tuple[int, int]  # characters of a rendered conversation

TRAIN_ON = ("assistant", "last", "all")
ON_CUT = ("error", "skip")
MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")


class ChatFields(TokenizerFields):
    """One conversation -> one row; made by `make_chat_fields`."""

    host_fields = ("truncated",)

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_length: int,
        chat_template: str,
        train_on: str,
        on_cut: str,
        template_options: Mapping[str, Any],
    ) -> None:
        super().__init__(
            tokenizer,
            max_length=max_length,
            chat_template=digest([chat_template]),
            train_on=train_on,
            on_cut=on_cut,
            template_options=dict(template_options),
        )
        self.max_length = max_length
        self.chat_template = chat_template
        self.train_on = train_on
        self.on_cut = on_cut
        self.template_options = dict(template_options)
        self.padding = next_token_padding(tokenizer)
        self.padding_side = "right"  # positions count from the first token
        added = tokenizer.added_tokens_decoder.values()
        special = {str(token) for token in added if token.special}
        self._special = tuple(special | {*tokenizer.all_special_tokens})

    def __call__(self, examples: Sequence[Example]) -> list[list[Row]]:
        """Prepare examples, all in one call of the tokenizer."""
        if not examples:
            return []
        texts = [self._render(example, example["messages"]) for example in examples]
        encoded = self.encode(
            texts,
            add_special_tokens=False,  # the template has written them
            return_offsets_mapping=True,
        )
        return [
            [self._row(example, ids, self._asked(example, text, np.asarray(offsets)))]
            for example, text, ids, offsets in zip(
                examples,
                texts,
                encoded["input_ids"],
                encoded["offset_mapping"],
                strict=True,
            )
        ]

    def _row(self, example: Example, ids: list[int], asked: np.ndarray) -> Row:
        tokens = np.asarray(ids, np.int32)
        targets = np.where(asked, tokens, np.int32(IGNORED))[1:]
        kept = targets[: self.max_length]
        if (kept == IGNORED).all():
            if self.on_cut == "error":
                raise InputError(
                    f"conversation {example_name(example)} has {len(tokens):,} tokens, "
                    f"and nothing to learn in the first {self.max_length:,}: every "
                    "turn of the assistant is cut off. Make max_length larger, or "
                    "leave such conversations out with on_cut='skip'."
                )
            kept = kept[:1]  # every example has a row; this one costs next to nothing
        return {
            "input_ids": tokens[: len(kept)],
            "attention_mask": np.ones(len(kept), np.int32),
            "targets": kept,
            "truncated": np.asarray(len(kept) < len(targets), np.int32),
        }

    def _asked(self, example: Example, text: str, offsets: np.ndarray) -> np.ndarray:
        """Which tokens are to be learnt: those with a character of a turn, [L]."""
        if self.train_on == "all":
            return np.ones(len(offsets), bool)
        messages = example["messages"]
        turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
        if not turns:
            raise InputError(
                f"conversation {example_name(example)} has no message of the "
                "assistant, so there is nothing to learn in it. Remove it, or set "
                "train_on to 'all'."
            )
        if MARKS.search(self.chat_template):
            return self._marked(example, turns)
        begin, end = offsets.reshape(-1, 2).T
        asked = np.zeros(len(offsets), bool)
        for turn in turns[-1:] if self.train_on == "last" else turns:
            first, last = self._span(example, turn, text)
            asked |= (end > first) & (begin < last)
        return asked

    def _span(self, example: Example, turn: int, text: str) -> Span:
        """Where the text of an assistant turn lies in the rendered conversation."""
        if turn == 0:
            raise InputError(
                f"conversation {example_name(example)} begins with the assistant, and "
                "the chat template has no prompt for that. Put a message before it, or "
                "give a chat_template with {% generation %} marks."
            )
        messages = example["messages"]
        before = self._render(example, messages[:turn], prompt=True)
        through = self._render(example, messages[: turn + 1])
        if not text.startswith(through):  # some end only the whole with this
            through = through.removesuffix(self.tokenizer.eos_token or "")
        if not (text.startswith(through) and through.startswith(before)):
            raise InputError(
                f"conversation {example_name(example)}: the chat template writes what "
                f"comes before message {turn + 1}, of the assistant, differently once "
                "there is more, so the message cannot be found in the whole. Learn "
                "the last turn alone (train_on='last'), everything ('all'), or give a "
                "chat_template with {% generation %} marks."
            )
        turn_text = through[len(before) :].rstrip()
        if turn_text.endswith(self._special):  # nobody reads on behind an end of turn
            return len(before), len(before) + len(turn_text)
        return len(before), len(through)

    def _marked(self, example: Example, turns: Sequence[int]) -> np.ndarray:
        """Which tokens the template's own marks are around, [L]."""
        messages = example["messages"]
        asked = self._marks(example, messages)
        if self.train_on == "last" and len(turns) > 1:
            earlier = self._marks(example, messages[: turns[-1]])
            asked &= asked.cumsum() > earlier.sum()
        return asked

    def _marks(self, example: Example, messages: Sequence[Any]) -> np.ndarray:
        encoded = self._apply(
            example, messages, return_assistant_tokens_mask=True, return_dict=True
        )
        return np.asarray(encoded["assistant_masks"], bool)

    def _render(
        self, example: Example, messages: Sequence[Any], *, prompt: bool = False
    ) -> str:
        options = {"tokenize": False, "add_generation_prompt": prompt}
        return str(self._apply(example, messages, **options))

    def _apply(self, example: Example, messages: Sequence[Any], **options: Any) -> Any:
        try:
            return self.tokenizer.apply_chat_template(
                list(messages),
                chat_template=self.chat_template,
                **self.template_options,
                **options,
            )
        except Exception as error:  # a template is a program, and raises of all kinds
            raise InputError(
                f"conversation {example_name(example)}: the chat template cannot write "
                f"its first {len(messages)} messages, of the roles "
                f"{[message['role'] for message in messages]}: {error} Correct the "
                "conversation, or give another chat_template."
            ) from error


def make_chat_fields(
    tokenizer: Any,
    *,
    max_length: int,
    chat_template: str | os.PathLike[str] | None = None,
    train_on: str = "assistant",
    on_cut: str = "error",
    template_options: Mapping[str, Any] | None = None,
) -> ChatFields:
    """Make the fields of conversations for a causal language model.

    The tokens are those of ``tokenizer.apply_chat_template``; ``targets[t]`` is the
    token behind ``input_ids[t]`` where that is to be learnt, else IGNORED.

    Args:
      tokenizer: a fast one of transformers; copied.
      max_length: of a row, in tokens. Longer conversations are cut at their end.
      chat_template: in jinja, or the file that has it; None takes the tokenizer's own.
      train_on: what is learnt: every turn of the ``"assistant"``, its ``"last"``, or
        ``"all"``, which is every token but the first.
      on_cut: of a conversation whose cut leaves nothing to learn: ``"error"`` or
        ``"skip"``: its row is one token that asks for nothing.
      template_options: what else the template reads, such as ``tools``,
        ``enable_thinking`` or the ``date_string`` of templates that write the day.

    Returns:
      A picklable ``examples -> rows``, one row an example in a list of its own:
      ``input_ids``, ``attention_mask`` and ``targets``, each int32 [l]; ``truncated``,
      1 where the conversation was cut, else 0. The example's ``messages`` are a list of
      ``{"role": …, "content": …}``. Rows are padded on the right, whichever side the
      tokenizer prefers.

    Raises:
      InputError: if there is no template or no jinja2, for a slow tokenizer, or a
        ``max_length`` as `make_text_fields` refuses it. When called: for a
        conversation that the template refuses, that has nothing to learn, or whose
        turns cannot be found since the template writes a message differently depending
        on what follows.
    """
    check_fast(tokenizer, "chat")
    check_max_length(tokenizer, max_length)
    for name, value, known in (
        ("train_on", train_on, TRAIN_ON),
        ("on_cut", on_cut, ON_CUT),
    ):
        if value not in known:
            raise InputError(f"{name} is {value!r}; expected one of {known}.")
    try:
        importlib.import_module("jinja2")
    except ImportError as error:
        raise InputError(
            "chat templates are written in jinja, and jinja2 is not installed: "
            "pip install 'jft[text]'."
        ) from error
    options = dict(template_options or {})
    return ChatFields(
        tokenizer,
        max_length=max_length,
        chat_template=_read_template(tokenizer, chat_template, options),
        train_on=train_on,
        on_cut=on_cut,
        template_options=options,
    )


def _read_template(
    tokenizer: Any, given: str | os.PathLike[str] | None, options: Mapping[str, Any]
) -> str:
    """The template itself, whichever way it was given."""
    if given is not None and "{" in str(given):
        return str(given)
    if given is not None:
        path = Path(given)
        if not path.is_file():
            raise InputError(
                f"chat_template is {str(given)!r}, which is neither a template (it has "
                "no '{') nor a file. Give the template's text or its file."
            )
        return path.read_text(encoding="utf-8")
    try:
        return str(tokenizer.get_chat_template(None, options.get("tools")))
    except ValueError as error:
        raise InputError(
            "the tokenizer has no chat template (or several, and none is the default), "
            "so nothing says how a conversation is written. Take a model that was "
            "trained for chat, or give chat_template: jinja text or its file, such as "
            "the chat_template.jinja of a model of the same family."
        ) from error
