# SPDX-License-Identifier: Apache-2.0
import pickle

import numpy as np
import pytest

from jft.data import (
    make_eval_batches,
    make_text_fields,
    make_train_loader,
    trim_padding,
)
from jft.types import InputError
from tests.tiny_tokenizer import make_tokenizer

EXAMPLE = {"text": "A good film", "targets": np.int32(1), "index": 4}


def values(fields, *names):
    return [fields[name].tolist() for name in names]


def test_fields_of_one_text():
    fields = make_text_fields(make_tokenizer(), max_length=8, num_classes=2)(EXAMPLE)
    assert {n: (v.dtype.name, v.shape) for n, v in fields.items()} == {
        "input_ids": ("int32", (8,)),
        "attention_mask": ("int32", (8,)),
        "token_type_ids": ("int32", (8,)),
        "targets": ("int32", ()),
        "index": ("int32", ()),
    }
    assert values(fields, "input_ids", "attention_mask") == [
        [2, 5, 6, 10, 3, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0],
    ]
    assert (fields["targets"], fields["index"]) == (1, 4)
    unlabelled = make_text_fields(make_tokenizer(), max_length=8)({"text": "film"})
    assert "targets" not in unlabelled
    assert "index" not in unlabelled


def test_a_pair_and_truncation_of_the_longer_text():
    fields_fn = make_text_fields(make_tokenizer(), max_length=8)
    fields = fields_fn({"text": "a good film not", "text_pair": "bad plot"})
    assert values(fields, "input_ids", "token_type_ids", "attention_mask") == [
        [2, 5, 6, 10, 3, 7, 11, 3],
        [0, 0, 0, 0, 0, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1, 1],
    ]


CHANGES = {
    "right": {},
    "left": {"padding_side": "left"},
    "without types": {"model_input_names": ["input_ids", "attention_mask"]},
    "other type of padding": {"pad_token_type_id": 3, "truncation_side": "left"},
}


@pytest.mark.parametrize("name", CHANGES)
def test_equals_transformers(name):
    tokenizer = make_tokenizer(**CHANGES[name])
    fields_fn = make_text_fields(tokenizer, max_length=7)
    for text, pair in [("film", None), ("a good good film not bad", None), ("a", "b")]:
        expected = tokenizer(
            text,
            pair,
            truncation=True,
            max_length=7,
            padding="max_length",
            return_tensors="np",
        )
        found = fields_fn({"text": text, "text_pair": pair})
        assert set(found) == set(expected)
        for field, tokens in expected.items():
            np.testing.assert_array_equal(found[field], tokens[0])


def test_a_text_is_tokenized_once(monkeypatch):
    fields_fn = make_text_fields(make_tokenizer(), max_length=8, num_classes=2)
    texts = []

    class Counting:
        padding_side = fields_fn.tokenizer.padding_side

        def __call__(self, text, *args, **options):
            texts.append(text)
            return tokenizer(text, *args, **options)

    tokenizer, fields_fn.tokenizer = fields_fn.tokenizer, Counting()
    first = fields_fn(EXAMPLE)
    first["input_ids"][0] = 1  # the example's own
    again = fields_fn({**EXAMPLE, "targets": 0})
    assert texts == [EXAMPLE["text"]]
    assert again["input_ids"][0] != 1
    assert again["targets"] == 0
    assert fields_fn({"text": "bad"})["input_ids"][1] == 7


def test_settings_tell_tokenizers_and_lengths_apart():
    tokenizer = make_tokenizer()
    settings = make_text_fields(tokenizer, max_length=8).settings
    tokenizer("a", truncation=True, max_length=3, padding="max_length")
    assert make_text_fields(tokenizer, max_length=8).settings == settings
    assert make_text_fields(make_tokenizer(), max_length=8).settings == settings
    assert make_text_fields(tokenizer, max_length=9).settings != settings
    for changes in ({"padding_side": "left"}, {"pad_token": "[UNK]"}):
        other = make_text_fields(make_tokenizer(**changes), max_length=8)
        assert other.settings["tokenizer"] != settings["tokenizer"]
    tokenizer.add_tokens(["plot twist"])
    other = make_text_fields(tokenizer, max_length=8)
    assert other.settings["tokenizer"] != settings["tokenizer"]


def test_it_has_a_tokenizer_of_its_own_and_can_be_pickled():
    tokenizer = make_tokenizer()
    fields_fn = make_text_fields(tokenizer, max_length=8, num_classes=2)
    expected = fields_fn(EXAMPLE)
    copied = pickle.loads(pickle.dumps(fields_fn))
    tokenizer.padding_side = "left"
    tokenizer.add_tokens(["good film"])
    fields_fn._tokens.cache_clear()
    for found in (fields_fn(EXAMPLE), copied(EXAMPLE)):
        for name, tokens in expected.items():
            np.testing.assert_array_equal(found[name], tokens)
    assert copied.settings == fields_fn.settings


def test_a_tokenizer_without_padding_uses_the_end_of_text():
    tokenizer = make_tokenizer(pad_token=None, eos_token="[MASK]")
    fields = make_text_fields(tokenizer, max_length=6)({"text": "film"})
    assert values(fields, "input_ids", "attention_mask") == [
        [2, 10, 3, 4, 4, 4],
        [1, 1, 1, 0, 0, 0],
    ]
    with pytest.raises(InputError, match="neither a padding nor an end-of-text"):
        make_text_fields(make_tokenizer(pad_token=None), max_length=6)


@pytest.mark.parametrize("max_length", [2, 0, 33])
def test_lengths_that_cannot_be_are_refused(max_length):
    with pytest.raises(
        InputError, match=f"{max_length} tokens.*the 2 special.*at most 32"
    ):
        make_text_fields(make_tokenizer(), max_length=max_length)
    unknown = make_tokenizer(model_max_length=None)
    if max_length > 2:
        make_text_fields(unknown, max_length=max_length)


def test_a_target_outside_the_classes_names_the_row():
    fields_fn = make_text_fields(make_tokenizer(), max_length=8, num_classes=2)
    with pytest.raises(InputError, match=r"dev.tsv, line 3 has target 2"):
        fields_fn({"text": "film", "targets": 2, "id": "dev.tsv, line 3"})


# --- in the loader --------------------------------------------------------------------
class Reviews:
    """Twelve texts of different lengths."""

    class_names = ("bad", "good")
    targets = np.arange(12, dtype=np.int32) % 2

    def __len__(self):
        return 12

    def __repr__(self):
        return "Reviews()"

    def __getitem__(self, index):
        return {"text": "good " * (index + 1), "targets": self.targets[index]}


def test_batches_and_what_a_resume_compares():
    fields_fn = make_text_fields(make_tokenizer(), max_length=10, num_classes=2)
    arguments = {"global_batch_size": 4, "seed": 0, "fields_fn": fields_fn}
    loader = make_train_loader(Reviews(), **arguments)
    stream = loader.batches()
    batch = next(stream)
    stream.close()
    lengths = batch["attention_mask"].sum(axis=1)
    np.testing.assert_array_equal(lengths, np.minimum(batch["index"] + 3, 10))
    assert loader.settings.items() > fields_fn.settings.items()
    longer = make_text_fields(make_tokenizer(), max_length=12, num_classes=2)
    other = make_train_loader(Reviews(), **{**arguments, "fields_fn": longer})
    with pytest.raises(InputError, match=r"\['max_length'\] were \[10\].*now \[12\]"):
        other.check_state(loader.state(3))


def test_worker_processes_give_the_same_batches():
    fields_fn = make_text_fields(make_tokenizer(), max_length=10, num_classes=2)
    found = []
    for num_workers in (0, 1):
        loader = make_train_loader(
            Reviews(),
            global_batch_size=4,
            seed=0,
            fields_fn=fields_fn,
            num_workers=num_workers,
        )
        stream = loader.batches()
        found.append([next(stream) for _ in range(3)])
        stream.close()
    for threads, processes in zip(*found, strict=True):
        for name in threads:
            np.testing.assert_array_equal(threads[name], processes[name])


def test_padding_rows_of_an_evaluation_attend_to_nothing():
    fields_fn = make_text_fields(make_tokenizer(), max_length=10, num_classes=2)
    batches = make_eval_batches(Reviews(), global_batch_size=8, fields_fn=fields_fn)
    last = list(batches)[-1]
    assert last["loss_mask"].tolist() == [1.0] * 4 + [0.0] * 4
    assert not last["attention_mask"][4:].any()


# --- trim_padding ---------------------------------------------------------------------
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("multiple", "length"), [(1, 6), (4, 8), (8, 8), (16, 10)])
def test_trim_keeps_every_real_token(side, multiple, length):
    fields_fn = make_text_fields(make_tokenizer(padding_side=side), max_length=10)
    rows = [fields_fn({"text": text}) for text in ("film", "a good good film")]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    batch |= {"targets": np.zeros(2, np.int32), "square": np.zeros((10, 10))}
    trimmed = trim_padding(batch, multiple=multiple)
    attended = batch["attention_mask"] > 0
    kept = trimmed["attention_mask"] > 0
    assert trimmed["input_ids"].shape == (2, length)
    np.testing.assert_array_equal(
        trimmed["input_ids"][kept], batch["input_ids"][attended]
    )
    assert trimmed["targets"].shape == (2,)
    assert trimmed["square"].shape == (10, 10)


def test_trim_leaves_a_batch_without_a_token():
    batch = {"attention_mask": np.zeros((2, 3), np.int32)}
    assert trim_padding(batch)["attention_mask"].shape == (2, 3)
