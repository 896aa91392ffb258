# SPDX-License-Identifier: Apache-2.0
"""Answers that are a part of a text: windows over the text, and answers from logits."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jft.data.fields.tokens import Row, TokenizerFields, check_fast, check_max_length
from jft.data.sources.source import Example
from jft.types import InputError

NO_ANSWER = 0  # the position that stands for it: [CLS], or the question's first token


class AnswerFields(TokenizerFields):
    """A question and a context -> one row a window; made by `make_answer_fields`."""

    host_fields = ("offset_start", "offset_end", "truncated")

    def __init__(
        self, tokenizer: Any, *, max_length: int, stride: int, max_question_length: int
    ) -> None:
        super().__init__(
            tokenizer,
            max_length=max_length,
            stride=stride,
            max_question_length=max_question_length,
        )
        self.max_length = max_length
        self.stride = stride
        self.max_question_length = max_question_length
        self.tokenizer.truncation_side = "right"  # first window first; none is lost
        self.padding_side = "right"  # so that a token's position is that of its logits

    def __call__(self, examples: Sequence[Example]) -> list[list[Row]]:
        """Prepare examples, all in one call of the tokenizer."""
        if not examples:
            return []
        given = [example["question"].lstrip() for example in examples]
        questions = self._shortened(given)
        encoded = self.encode(
            questions,
            text_pair=[example["context"] for example in examples],
            truncation="only_second",
            max_length=self.max_length,
            stride=self.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        rows: list[list[Row]] = [[] for _ in examples]
        for i, owner in enumerate(encoded["overflow_to_sample_mapping"]):
            cut = np.asarray(questions[owner] != given[owner], np.int32)
            offsets = _context_offsets(encoded, i)
            rows[owner].append(
                {**self.model_row(encoded, i), **offsets, "truncated": cut}
            )
        for windows, example in zip(rows, examples, strict=True):
            _check_no_answer(windows, example)
            if "answers" in example:
                _add_targets(windows, example)
        return rows

    def _shortened(self, questions: Sequence[str]) -> list[str]:
        """The questions, those of too many tokens without the last ones."""
        encoded = self.encode(list(questions), add_special_tokens=False)
        return [
            question if len(ids) <= self.max_question_length else self._cut(question)
            for question, ids in zip(questions, encoded["input_ids"], strict=True)
        ]

    def _cut(self, question: str) -> str:
        # what is left of a word can be of more tokens than it had within the word
        options = {"add_special_tokens": False, "return_offsets_mapping": True}
        while True:
            offsets = self.encode([question], **options)["offset_mapping"][0]
            if len(offsets) <= self.max_question_length:
                return question
            start = offsets[self.max_question_length][0]
            question = question[: min(start, len(question) - 1)]


def make_answer_fields(
    tokenizer: Any, *, max_length: int, stride: int, max_question_length: int = 64
) -> AnswerFields:
    """Make the fields of questions whose answer is a part of a context.

    A row is the question and a window of the context; windows overlap, so that an
    answer at the end of one is whole in the next. ``targets`` of a window are the
    first and last token of the first of the answers that lies in it as a whole, or
    twice 0, the position of [CLS], which stands for "not here". A tokenizer without
    [CLS] has the question's first token there.

    Args:
      tokenizer: a fast one of transformers; copied.
      max_length: of a row, in tokens, special tokens included.
      stride: tokens of the context that a window shares with the one before it.
      max_question_length: in tokens; what is behind is cut off.

    Returns:
      A picklable ``examples -> rows``, the windows of each example from its first to
      its last: ``input_ids``, ``attention_mask`` and, where the tokenizer gives them,
      ``token_type_ids``, each int32 [l]; ``offset_start`` and ``offset_end`` int32
      [l], the characters of the context that each token is of, -1 outside it;
      ``truncated``, 1 where the question was cut, else 0; ``targets`` int32 [2] if the
      example has answers. The example has ``question``, ``context`` and ``answers``:
      ``{"text": strings, "answer_start": characters}``, both empty where there is no
      answer. Rows are padded on the right, whichever side the tokenizer prefers.

    Raises:
      InputError: for a slow tokenizer, one with nothing to pad with, a ``max_length``
        as `make_text_fields` refuses it, or windows that do not move on.

    Source: windows and targets as in https://arxiv.org/abs/1810.04805 (section 4.2) and
    https://arxiv.org/abs/1806.03822 (questions without an answer).
    """
    check_fast(tokenizer, "question answering")
    check_max_length(tokenizer, max_length)
    special = tokenizer.num_special_tokens_to_add(pair=True)
    room = max_length - special - max_question_length
    if max_question_length < 1 or not 0 <= stride < room:
        raise InputError(
            f"windows of max_length {max_length} have room for {room} tokens of the "
            f"context, besides {special} special tokens and a question of up to "
            f"max_question_length {max_question_length}; expected more than stride "
            f"{stride}, the tokens that a window repeats (0 or more), and a question "
            "of at least 1. Make max_length larger, or stride or max_question_length "
            "smaller."
        )
    return AnswerFields(
        tokenizer,
        max_length=max_length,
        stride=stride,
        max_question_length=max_question_length,
    )


class Answer(NamedTuple):
    """What was read off the logits of one question."""

    text: str  # "" for no answer
    score: float  # of the best span: the sum of two logits; 0 where there is no span
    no_answer_score: float  # of no answer, in the window that is surest of one


def read_answers(
    start_logits: Sequence[np.ndarray],
    end_logits: Sequence[np.ndarray],
    offset_start: Sequence[np.ndarray],
    offset_end: Sequence[np.ndarray],
    *,
    context: str,
    n_best: int = 20,
    max_answer_length: int = 30,
    no_answer: bool = False,
    threshold: float = 0.0,
) -> Answer:
    """Read the answer to one question off the logits of all its windows.

    In each window the ``n_best`` likeliest first tokens meet the ``n_best`` likeliest
    last ones; of the spans that lie in the context, end where or after they start and
    are not too long, the one with the largest sum of logits wins, over all windows.
    The score of no answer is the smallest sum that a window has at position 0.

    The answer has no white space around it, and spans of nothing else are passed over.

    Args:
      start_logits: of each window float [L], with or without padding on the right.
      end_logits: likewise.
      offset_start: of each window int [l], of `make_answer_fields`.
      offset_end: likewise.
      context: of the question.
      n_best: see above.
      max_answer_length: in tokens.
      no_answer: whether the answer may be "".
      threshold: it is "" where no answer scores more than this above the best span.

    Example:
      >>> offsets = np.array([-1, -1, 0, 4]), np.array([-1, -1, 3, 8])
      >>> start, end = np.array([1.0, 0, 0, 3]), np.array([1.0, 0, 0, 3])
      >>> context = "two cats"
      >>> read_answers([start], [end], [offsets[0]], [offsets[1]], context=context)
      Answer(text='cats', score=6.0, no_answer_score=2.0)

    Source: the recipe of transformers' examples, ``postprocess_qa_predictions``;
    https://arxiv.org/abs/1810.04805 (section 4.3) for no answer.
    """
    windows = list(zip(start_logits, end_logits, offset_start, offset_end, strict=True))
    spans = [_spans(*window, n_best, max_answer_length) for window in windows]
    scores, firsts, lasts = (np.concatenate(x) for x in zip(*spans, strict=True))
    empty = min(float(s[NO_ANSWER] + e[NO_ANSWER]) for s, e, _, _ in windows)
    text, score = "", 0.0
    for i in np.argsort(-scores, kind="stable"):
        text = context[firsts[i] : lasts[i]].strip()
        if text:
            score = float(scores[i])
            break
    if no_answer and empty - score > threshold:
        text = ""
    return Answer(text, score, empty)


def _spans(
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    offset_start: np.ndarray,
    offset_end: np.ndarray,
    n_best: int,
    max_answer_length: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, first and last characters of a window's spans, each [number]."""
    length = len(offset_start)
    start = np.argsort(start_logits[:length])[::-1][:n_best, None]  # [n, 1]
    end = np.argsort(end_logits[:length])[::-1][None, :n_best]  # [1, n]
    inside = (offset_start[start] >= 0) & (offset_start[end] >= 0)
    possible = inside & (start <= end) & (end < start + max_answer_length)
    starts, ends = (np.broadcast_to(x, possible.shape)[possible] for x in (start, end))
    scores = start_logits[starts] + end_logits[ends]
    return scores, offset_start[starts], offset_end[ends]


def _context_offsets(encoded: Any, row: int) -> Row:
    """The characters of the context that each token of a window is of."""
    is_context = np.array([i == 1 for i in encoded.sequence_ids(row)], bool)
    offsets = np.array(encoded["offset_mapping"][row], np.int32).reshape(-1, 2)
    start, end = np.where(is_context[:, None], offsets, -1).T
    return {"offset_start": start, "offset_end": end}


def _check_no_answer(windows: Sequence[Row], example: Example) -> None:
    if any(window["offset_start"][:1] >= 0 for window in windows):
        raise InputError(
            f"the question of {example.get('id', 'an example')} has no token, and the "
            "tokenizer puts none before it, so no position stands for the absence of "
            "an answer. Write a question."
        )


def _add_targets(windows: Sequence[Row], example: Example) -> None:
    """Give every window of an example its ``targets`` int32 [2]."""
    spans = [
        (start + len(text) - len(text.lstrip()), start + len(text.rstrip()))
        for text, start in zip(
            example["answers"]["text"], example["answers"]["answer_start"], strict=True
        )
    ]
    for i, window in enumerate(windows):
        inside = window["offset_start"] >= 0
        # a character without a token, at an end of the context, is in that window
        low = window["offset_start"][inside].min() if i else 0
        is_last = i == len(windows) - 1
        high = len(example["context"]) if is_last else window["offset_end"].max()
        targets = (NO_ANSWER, NO_ANSWER)
        for start, end in spans:
            tokens = np.flatnonzero(
                (window["offset_end"] > start) & (window["offset_start"] < end)
            )
            if low <= start and end <= high and len(tokens):
                targets = (tokens[0], tokens[-1])
                break
        window["targets"] = np.asarray(targets, np.int32)
