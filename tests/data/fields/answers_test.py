# SPDX-License-Identifier: Apache-2.0
"""Windows hold the answer's tokens, and logits lead back to the answer's text."""

import itertools
import json
import pickle

import numpy as np
import pytest

from jft.data.fields.answers import Answer, make_answer_fields, read_answers
from jft.data.fields.padding import Pad
from jft.data.fields.tokens import TextFieldsFn
from jft.types import InputError
from tests.data.fields.tagging_test import make_byte_level
from tests.tiny_tokenizer import make_tokenizer

NONE = {"text": [], "answer_start": []}


def make_example(context, *answers, question="a film"):
    """An example whose answers are where they first are in the context."""
    found = {"text": [*answers], "answer_start": [context.index(a) for a in answers]}
    return {"question": question, "context": context, "answers": found}


def make_tiny_fields(tokenizer=None, *, max_length=10, stride=2, question=2):
    """Windows of 5 tokens behind a question of 2."""
    return make_answer_fields(
        tokenizer or make_tokenizer(),
        max_length=max_length,
        stride=stride,
        max_question_length=question,
    )


def windows_of(fields_fn, example):
    (windows,) = fields_fn([example])
    return windows


def targets_of(windows):
    return [window["targets"].tolist() for window in windows]


def text_of(window, context, targets=None):
    """The characters that a window's targets stand for."""
    start, end = window["targets"] if targets is None else targets
    return context[window["offset_start"][start] : window["offset_end"][end]]


def read(windows, logits, context, **options):
    start, end = zip(*logits, strict=True)
    offsets = [[w[name] for w in windows] for name in ("offset_start", "offset_end")]
    return read_answers(start, end, *offsets, context=context, **options)


# --- windows --------------------------------------------------------------------------
def test_windows_of_a_context_and_where_they_hold_the_answer():
    context = "good bad great awful plot cast film not"
    windows = windows_of(make_tiny_fields(), make_example(context, "awful plot cast"))
    # [CLS] a film [SEP], five of eight tokens, [SEP]; the next repeats two of them
    assert [w["input_ids"].tolist() for w in windows] == [
        [2, 5, 10, 3, 6, 7, 8, 9, 11, 3],
        [2, 5, 10, 3, 9, 11, 12, 10, 14, 3],
    ]
    assert [w["token_type_ids"].tolist() for w in windows] == [[0] * 4 + [1] * 6] * 2
    assert [w["attention_mask"].tolist() for w in windows] == [[1] * 10] * 2
    assert windows[0]["offset_start"].tolist() == [-1] * 4 + [0, 5, 9, 15, 21, -1]
    assert windows[0]["offset_end"].tolist() == [-1] * 4 + [4, 8, 14, 20, 25, -1]
    assert targets_of(windows) == [[0, 0], [4, 6]]  # the border cuts it in the first
    assert text_of(windows[1], context) == "awful plot cast"
    assert {x.dtype.name for w in windows for x in w.values()} == {"int32"}
    names = {"input_ids", "attention_mask", "token_type_ids", "offset_start"}
    assert set(windows[0]) == names | {"offset_end", "truncated", "targets"}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("good", [[4, 4], [0, 0]]),
        ("plot", [[8, 8], [5, 5]]),  # in both, as they overlap
        ("bad great awful", [[5, 7], [0, 0]]),
        ("great awful plot cast film not", [[0, 0], [0, 0]]),
        ("film not", [[0, 0], [7, 8]]),
        ("lot ca", [[0, 0], [5, 6]]),  # parts of words: the tokens that they lie in
        (" plot ", [[8, 8], [5, 5]]),  # white space is no part of it
        (" awful", [[7, 7], [4, 4]]),
    ],
)
def test_targets_by_the_place_of_the_answer(answer, expected):
    context = "good bad great awful plot cast film not"
    example = make_example(context, answer)
    assert targets_of(windows_of(make_tiny_fields(), example)) == expected


def test_of_several_answers_the_first_that_a_window_holds():
    context = "good bad great awful plot cast film not"
    example = make_example(context, "cast", "good", "bad")
    assert targets_of(windows_of(make_tiny_fields(), example)) == [[4, 4], [6, 6]]


@pytest.mark.parametrize("answer", [" ", "  ", "\u200d", "\x00"])
def test_an_answer_without_a_token_is_none(answer):
    context = f"good bad{answer} great"
    windows = windows_of(make_tiny_fields(), make_example(context, answer))
    assert targets_of(windows) == [[0, 0]]


def test_without_an_answer_or_without_answers():
    (none,), (unknown,) = make_tiny_fields()(
        [
            {"question": "a film", "context": "good", "answers": NONE},
            {"question": "a film", "context": "good"},
        ]
    )
    assert none["targets"].tolist() == [0, 0]
    assert "targets" not in unknown
    assert make_tiny_fields()([]) == []


def test_characters_without_a_token_at_an_end_of_the_context():
    context = "\u200dgood bad\u200d"
    windows = windows_of(make_tiny_fields(), make_example(context, context))
    assert targets_of(windows) == [[4, 5]]


def test_what_a_table_needs_to_know():
    tokenizer = make_tokenizer(padding_side="left", truncation_side="left")
    fields_fn = make_tiny_fields(tokenizer)
    assert isinstance(fields_fn, TextFieldsFn)
    names = {"input_ids": 0, "attention_mask": 0, "token_type_ids": 0}
    assert fields_fn.padding == {name: Pad(value) for name, value in names.items()}
    assert fields_fn.padding_side == "right"
    assert fields_fn.host_fields == ("offset_start", "offset_end", "truncated")
    lengths = {"max_length": 10, "stride": 2, "max_question_length": 2}
    assert fields_fn.settings.items() > lengths.items()
    context = "good bad great awful plot cast film not"
    example = make_example(context, "awful plot cast")
    assert targets_of(windows_of(fields_fn, example)) == [[0, 0], [4, 6]]


def test_a_long_question_is_cut_and_counted():
    example = make_example("good", question="  a film not bad")
    fields_fn = make_tiny_fields(question=3)
    (long,), (short,) = fields_fn([example, {**example, "question": " a film not"}])
    assert long["input_ids"].tolist() == [2, 5, 10, 14, 3, 6, 3]
    assert short["input_ids"].tolist() == long["input_ids"].tolist()
    assert (long["truncated"], short["truncated"]) == (1, 0)


@pytest.mark.parametrize("question", ["👩👩👩👩👩👩👩👩👩👩", "a films " * 9, "é" * 40])
@pytest.mark.parametrize("most", [5, 6, 8])
def test_a_question_is_cut_below_any_length(question, most):
    fields_fn = make_tiny_fields(make_byte_level(), max_length=12, question=most)
    windows = windows_of(fields_fn, {"question": question, "context": "a " * 40})
    for window in windows:
        kept = window["input_ids"][window["offset_start"] < 0].tolist()
        whole = fields_fn.tokenizer(question)["input_ids"]
        assert most - 4 < len(kept) <= most  # a character has up to four tokens
        assert kept == whole[: len(kept)]
        assert window["truncated"] == 1


def test_a_token_behind_the_last_character_does_not_hold_up_the_cut():
    from tokenizers import processors

    tokenizer = make_byte_level()
    trimmed = processors.ByteLevel(trim_offsets=True)  # as RoBERTa's
    tokenizer.backend_tokenizer.post_processor = trimmed
    fields_fn = make_tiny_fields(tokenizer, max_length=12, question=5)
    (window, *_) = windows_of(fields_fn, make_example("a a", question="é" + " " * 9))
    assert (window["offset_start"] < 0).sum() == 5
    assert window["truncated"] == 1


def test_a_tokenizer_without_cls_has_the_question_first():
    fields_fn = make_tiny_fields(make_byte_level(), max_length=16, question=8)
    windows = windows_of(fields_fn, make_example("a films é a", "films é"))
    assert windows[0]["offset_start"][0] == -1
    assert text_of(windows[0], "a films é a").strip() == "films é"
    with pytest.raises(InputError, match="line 3 has no token"):
        fields_fn([{"question": " ", "context": "a film", "id": "dev.json, line 3"}])
    # [CLS] is a position of its own
    assert make_tiny_fields()([{"question": " ", "context": "a film"}])


def test_many_examples_are_those_of_one_at_a_time(minilm):
    fields_fn = make_answer_fields(
        minilm, max_length=20, stride=3, max_question_length=6
    )
    text = "naïve café 👩‍👩‍👧 中文 e\u0301te\u0301\u200d said 3.5% — \ufe0fplot twist? "
    examples = [make_example(text * n, "twist", question=text) for n in (1, 2, 5, 1)]
    copied = pickle.loads(pickle.dumps(fields_fn))
    for found, example in zip(fields_fn(examples), examples, strict=True):
        for window, alone in zip(found, windows_of(copied, example), strict=True):
            for name, expected in alone.items():
                np.testing.assert_array_equal(window[name], expected)


def test_every_token_lies_in_a_window_and_offsets_are_characters(minilm):
    context = (
        "naïve café 👩‍👩‍👧 中文 e\u0301te\u0301\u200d said 3.5% — \ufe0fplot twist? "
        * 4
    )
    fields_fn = make_answer_fields(
        minilm, max_length=24, stride=5, max_question_length=6
    )
    for answer in ("café", "👩‍👩‍👧", "中文", "e\u0301te", "3.5%", "twist?"):
        windows = windows_of(fields_fn, make_example(context, answer))
        found = [w for w in windows if w["targets"].any()]
        assert found
        assert {text_of(window, context) for window in found} <= {answer}
    whole = minilm(context, return_offsets_mapping=True)["offset_mapping"][1:-1]
    spans = [
        [
            tuple(map(int, pair))
            for pair in zip(start, end, strict=True)
            if min(pair) >= 0
        ]
        for start, end in ((w["offset_start"], w["offset_end"]) for w in windows)
    ]
    assert spans[0] == whole[: len(spans[0])]
    for before, after in itertools.pairwise(spans):
        assert before[-5:] == after[:5]
    assert [*spans[0], *(x for w in spans[1:] for x in w[5:])] == whole


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ((10, 5, 2), "room for 5 tokens.*expected more than stride 5"),
        ((10, -1, 2), "stride -1"),
        ((10, 0, 7), "room for 0 tokens"),
        ((10, 0, 0), "a question of at least 1"),
        ((33, 2, 2), "max_length is 33 tokens"),
    ],
)
def test_windows_that_cannot_be_are_refused(lengths, message):
    max_length, stride, question = lengths
    with pytest.raises(InputError, match=message):
        make_tiny_fields(max_length=max_length, stride=stride, question=question)


def test_a_slow_tokenizer_is_refused():
    from transformers import ByT5Tokenizer

    with pytest.raises(InputError, match="question answering needs a fast tokenizer"):
        make_tiny_fields(ByT5Tokenizer())


# --- answers --------------------------------------------------------------------------
CONTEXT = "good bad great awful plot cast film not"


def make_logits(number, start, end, *, length=10):
    """Logits of windows that are 0 but where told: ``{(window, token): value}``."""
    logits = [(np.zeros(length), np.zeros(length)) for _ in range(number)]
    for column, values in enumerate((start, end)):
        for (window, token), value in values.items():
            logits[window][column][token] = value
    return logits


def test_the_best_span_of_all_windows():
    windows = windows_of(make_tiny_fields(), make_example(CONTEXT))
    logits = make_logits(2, {(0, 5): 3, (1, 6): 4}, {(0, 7): 3, (1, 7): 1.5})
    expected = Answer("bad great awful", 6.0, 0.0)
    assert read(windows, logits, CONTEXT) == expected
    padded = [tuple(np.pad(x, (0, 3)) for x in pair) for pair in logits]
    assert read(windows, padded, CONTEXT) == expected
    logits[1][1][7] = 2.5
    assert read(windows, logits, CONTEXT) == Answer("cast film", 6.5, 0.0)


def test_spans_that_cannot_be_are_passed_over():
    windows = windows_of(make_tiny_fields(), make_example(CONTEXT))[:1]
    backwards = make_logits(1, {(0, 7): 5}, {(0, 5): 4, (0, 8): 1})
    assert read(windows, backwards, CONTEXT).text == "awful plot"
    of_the_question = make_logits(1, {(0, 1): 9, (0, 4): 1}, {(0, 2): 9, (0, 4): 1})
    assert read(windows, of_the_question, CONTEXT).text == "good"
    behind_it = make_logits(1, {(0, 8): 9}, {(0, 9): 9, (0, 8): 1})
    assert read(windows, behind_it, CONTEXT).text == "plot"
    too_long = make_logits(1, {(0, 4): 5, (0, 6): 1}, {(0, 8): 5, (0, 6): 3})
    assert read(windows, too_long, CONTEXT).text == "good bad great awful plot"
    assert read(windows, too_long, CONTEXT, max_answer_length=5).score == 10
    assert read(windows, too_long, CONTEXT, max_answer_length=4).text == (
        "good bad great"
    )


def test_two_tokens_of_one_character_are_no_span_backwards():
    offsets = np.array([-1, 0, 0]), np.array([-1, 1, 1])
    start, end = np.array([0.0, 0, 2]), np.array([0.0, 2, 0])
    found = read_answers([start], [end], [offsets[0]], [offsets[1]], context="é")
    assert found == Answer("é", 2.0, 0.0)


def test_only_the_best_starts_and_ends_meet():
    windows = windows_of(make_tiny_fields(), make_example(CONTEXT))[:1]
    # by n_best 1 the likeliest start and the likeliest end are no span
    logits = make_logits(1, {(0, 7): 5, (0, 4): 4}, {(0, 5): 5, (0, 8): 3})
    assert read(windows, logits, CONTEXT, n_best=1) == Answer("", 0.0, 0.0)
    assert read(windows, logits, CONTEXT, n_best=2) == Answer("good bad", 9.0, 0.0)


def test_no_answer_is_where_all_windows_are_sure_of_it():
    windows = windows_of(make_tiny_fields(), make_example(CONTEXT))
    start, end = {(0, 0): 8, (1, 0): 3, (0, 4): 2}, {(0, 0): 8, (1, 0): 1, (0, 4): 1}
    logits = make_logits(2, start, end)
    assert read(windows, logits, CONTEXT) == Answer("good", 3.0, 4.0)
    assert read(windows, logits, CONTEXT, no_answer=True) == Answer("", 3.0, 4.0)
    at = {"no_answer": True, "threshold": 1.0}
    assert read(windows, logits, CONTEXT, **at).text == "good"
    below = {"no_answer": True, "threshold": 0.9}
    assert read(windows, logits, CONTEXT, **below).text == ""
    logits[1][0][0] = 1.0
    assert read(windows, logits, CONTEXT, no_answer=True) == Answer("good", 3.0, 2.0)


def test_an_answer_has_no_space_around_it():
    context = "a  films é"
    offset_start, offset_end = np.array([-1, 0, 1, 2]), np.array([-1, 1, 2, 8])
    logits = np.array([0.0, 0, 2, 1])  # the likeliest span is a space alone
    found = read_answers(
        [logits], [logits], [offset_start], [offset_end], context=context
    )
    assert found == Answer("films", 3.0, 0.0)


# --- an independent implementation, one span at a time --------------------------------
def slow_answer(windows, logits, context, *, n_best, max_length, no_answer, threshold):
    spans, empty = [], []
    for window, (start_logits, end_logits) in zip(windows, logits, strict=True):
        empty.append(float(start_logits[0]) + float(end_logits[0]))
        order = [
            sorted(range(len(x)), key=lambda i, x=x: x[i], reverse=True)[:n_best]
            for x in (start_logits, end_logits)
        ]
        for start in order[0]:
            for end in order[1]:
                if window["offset_start"][start] == -1:
                    continue
                if window["offset_end"][end] == -1:
                    continue
                if not start <= end <= start + max_length - 1:
                    continue
                score = float(start_logits[start]) + float(end_logits[end])
                spans.append((score, text_of(window, context, (start, end))))
    score, text = max(spans)
    if no_answer and min(empty) - score > threshold:
        text = ""
    return Answer(text, score, min(empty))


def read_questions(folder):
    file = folder / "xquad" / "xquad.en.json"
    for article in json.loads(file.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                yield {
                    "id": question["id"],
                    "question": question["question"],
                    "context": paragraph["context"],
                    "answers": {
                        name: [answer[name] for answer in question["answers"]]
                        for name in ("text", "answer_start")
                    },
                }


@pytest.fixture(scope="module")
def xquad(shared_data):
    examples = list(read_questions(shared_data))
    assert len(examples) == 1190
    return examples


@pytest.fixture(scope="module")
def xquad_windows(minilm, xquad):
    return make_answer_fields(minilm, max_length=128, stride=32)(xquad)


def test_equals_a_slow_implementation_on_random_logits(xquad, xquad_windows):
    rng = np.random.default_rng(0)
    empty = 0
    for i in range(0, 1190, 40):
        windows, context = xquad_windows[i], xquad[i]["context"]
        logits = [
            tuple(rng.normal(size=(2, len(window["input_ids"])))) for window in windows
        ]
        for start, end in logits:
            start[0] += rng.normal() + 2
            end[0] += rng.normal() + 2
        n_best, longest = rng.integers(1, 25), rng.integers(1, 40)
        chosen = {"n_best": int(n_best) + 5, "no_answer": bool(i % 3), "threshold": 0.3}
        found = read(windows, logits, context, max_answer_length=int(longest), **chosen)
        expected = slow_answer(
            windows, logits, context, max_length=int(longest), **chosen
        )
        assert found.text == expected.text
        np.testing.assert_allclose(found[1:], expected[1:], rtol=1e-12)
        empty += found.text == ""
    assert 0 < empty < 20


def test_logits_at_the_targets_give_every_answer(xquad, xquad_windows):
    assert sum(len(windows) for windows in xquad_windows) == 2586
    wrong = {}
    for windows, example in zip(xquad_windows, xquad, strict=True):
        logits = []
        for window in windows:
            pair = np.zeros((2, 128), np.float32)
            pair[[0, 1], window["targets"]] = 1.0
            logits.append(tuple(pair))
        answer = example["answers"]["text"][0]
        found = read(windows, logits, example["context"])
        if found.text != answer:
            wrong[answer] = found.text
    # the data set's own slip: this answer ends in the middle of a number
    assert wrong == {
        "7,000,000 square kilometres (2,70": "7,000,000 square kilometres (2,700"
    }


def test_targets_are_those_of_the_recipe_of_transformers(minilm, xquad, xquad_windows):
    """Walking from the ends of each window to the answer, as its examples do."""
    for windows, example in zip(xquad_windows[::5], xquad[::5], strict=True):
        first = example["answers"]["answer_start"][0]
        last = first + len(example["answers"]["text"][0])
        encoded = minilm(
            example["question"],
            example["context"],
            truncation="only_second",
            max_length=128,
            stride=32,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        assert len(encoded["input_ids"]) == len(windows)
        for i, window in enumerate(windows):
            assert window["input_ids"].tolist() == encoded["input_ids"][i]
            offsets, parts = encoded["offset_mapping"][i], encoded.sequence_ids(i)
            start = parts.index(1)
            end = len(parts) - 1 - parts[::-1].index(1)
            expected = [0, 0]
            if offsets[start][0] <= first and offsets[end][1] >= last:
                while start < len(offsets) and offsets[start][0] <= first:
                    start += 1
                while offsets[end][1] >= last:
                    end -= 1
                expected = [start - 1, end + 1]
            assert window["targets"].tolist() == expected
