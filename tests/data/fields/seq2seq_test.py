# SPDX-License-Identifier: Apache-2.0
"""A text and its target become the inputs and labels that transformers makes."""

import importlib.util
import json
import pickle

import numpy as np
import pytest

from jft.data.fields.padding import IGNORED
from jft.data.fields.seq2seq import make_seq2seq_fields
from jft.types import InputError
from tests.data.fields.bytes_tokenizer import SENTENCES, make_bytes_tokenizer

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="torch is absent: pip install -e '.[parity]'",
)
needs_sentencepiece = pytest.mark.skipif(
    importlib.util.find_spec("sentencepiece") is None,
    reason="sentencepiece is absent: pip install -e '.[text]'",
)
PAIRS = [
    {"text": "The quick brown fox", "target_text": "Der Fuchs"},
    {"text": "one", "target_text": "Layers open one by one, from the new head down."},
]
LENGTHS = {"max_length": 12, "max_target_length": 10}


def t5_like(**changes):
    return make_bytes_tokenizer(template="$A <eos>", **changes)


def bart_like(**changes):
    return make_bytes_tokenizer(
        "<s>", template="<s> $A <eos>", bos_token="<s>", **changes
    )


def mbart_like(tgt_lang="de_DE"):
    from transformers import MBartTokenizer

    tokenizer = MBartTokenizer(src_lang="en_XX", tgt_lang=tgt_lang)
    tokenizer.add_tokens(["Der", "Fuchs", "Layers", "open", "fox"])
    return tokenizer


def mbart50_like(tgt_lang="de_DE"):
    from transformers import MBart50Tokenizer

    tokenizer = MBart50Tokenizer(src_lang="en_XX", tgt_lang=tgt_lang)
    tokenizer.add_tokens(["Der", "Fuchs", "Layers", "open", "fox"])
    return tokenizer


def padded(fields_fn, rows, name):
    pad = fields_fn.padding[name].value
    longest = max(len(row[name]) for row in rows)
    return np.stack(
        [
            np.pad(row[name], (0, longest - len(row[name])), constant_values=pad)
            for row in rows
        ]
    )


def t5_shift(labels, pad, start):
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 4, "d_ff": 4, "d_kv": 2, "num_layers": 1, "num_heads": 1}
    config = T5Config(
        vocab_size=8, pad_token_id=pad, decoder_start_token_id=start, **sizes
    )
    return T5ForConditionalGeneration(config)._shift_right(torch.tensor(labels))


def bart_shift(labels, pad, start):
    import torch
    from transformers.models.bart.modeling_bart import shift_tokens_right

    return shift_tokens_right(torch.tensor(labels), pad, start)


def marian_shift(labels, pad, start):
    import torch
    from transformers.models.marian.modeling_marian import shift_tokens_right

    return shift_tokens_right(torch.tensor(labels), pad, start)


def mbart_shift(labels, pad, start):
    import torch
    from transformers.models.mbart.modeling_mbart import shift_tokens_right

    return shift_tokens_right(
        torch.where(torch.tensor(labels) < 0, pad, torch.tensor(labels)), pad
    )


SHIFTS = {
    "t5": (t5_like, "<pad>", t5_shift),
    "bart": (bart_like, "<eos>", bart_shift),
    "marian": (t5_like, "<pad>", marian_shift),
    "mbart": (mbart_like, None, mbart_shift),
    "mbart50": (mbart50_like, None, mbart_shift),
}


@needs_torch
@pytest.mark.parametrize("name", SHIFTS)
def test_both_sides_equal_transformers(name):
    make, start_token, shift = SHIFTS[name]
    tokenizer = make()
    start = start_token and tokenizer.convert_tokens_to_ids(start_token)
    fields_fn = make_seq2seq_fields(tokenizer, decoder_start_token_id=start, **LENGTHS)
    rows = [row for [row] in fields_fn(PAIRS)]
    texts = [pair["text"] for pair in PAIRS]
    goals = [pair["target_text"] for pair in PAIRS]
    inputs = tokenizer(
        texts, truncation=True, max_length=12, padding=True, return_tensors="np"
    )
    labels = tokenizer(
        text_target=goals,
        truncation=True,
        max_length=10,
        padding=True,
        return_tensors="np",
    )
    expected = np.where(labels["attention_mask"], labels["input_ids"], IGNORED)
    np.testing.assert_array_equal(padded(fields_fn, rows, "targets"), expected)
    for field in ("input_ids", "attention_mask"):
        np.testing.assert_array_equal(padded(fields_fn, rows, field), inputs[field])
    shifted = shift(expected.astype(np.int64), tokenizer.pad_token_id, start).numpy()
    found = padded(fields_fn, rows, "decoder_input_ids")
    # transformers goes on shifting into the padding, which nothing looks at
    real = expected != IGNORED
    np.testing.assert_array_equal(found[real], shifted[real])
    assert (found[~real] == tokenizer.pad_token_id).all()
    assert {x.dtype.name for row in rows for x in row.values()} == {"int32"}
    long = [len(tokenizer(text)["input_ids"]) > 12 for text in texts]
    long_goals = [len(tokenizer(text_target=t)["input_ids"]) > 10 for t in goals]
    cut = [any(pair) for pair in zip(long, long_goals, strict=True)]
    assert [row["truncated"] for row in rows] == cut


def test_what_stands_where():
    tokenizer = bart_like()
    eos, bos = tokenizer.convert_tokens_to_ids(["<eos>", "<s>"])
    fields_fn = make_seq2seq_fields(tokenizer, decoder_start_token_id=eos, **LENGTHS)
    [[row]] = fields_fn([{"text": "a", "target_text": "one"}])
    a, one = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in ("a", "one"))
    assert {name: x.tolist() for name, x in row.items()} == {
        "input_ids": [bos, *a, eos],
        "attention_mask": [1] * (len(a) + 2),
        "decoder_input_ids": [eos, bos, *one],
        "targets": [bos, *one, eos],
        "truncated": 0,
    }
    assert {name: pad.group for name, pad in fields_fn.padding.items()} == {
        "input_ids": "input",
        "attention_mask": "input",
        "decoder_input_ids": "target",
        "targets": "target",
    }


def test_without_a_target_there_is_the_text_alone():
    fields_fn = make_seq2seq_fields(t5_like(), decoder_start_token_id=1, **LENGTHS)
    [[row]] = fields_fn([{"text": "a"}])
    assert list(row) == ["input_ids", "attention_mask", "truncated"]
    assert fields_fn([]) == []


def test_the_prefix_stands_before_the_text():
    lengths = {"decoder_start_token_id": 1, "max_length": 40, "max_target_length": 9}
    prefix = "translate English to German: "
    plain = make_seq2seq_fields(t5_like(), **lengths)
    fields_fn = make_seq2seq_fields(t5_like(), prefix=prefix, **lengths)
    [[expected]] = plain([{**PAIRS[0], "text": prefix + PAIRS[0]["text"]}])
    [[found]] = fields_fn(PAIRS[:1])
    for name, tokens in expected.items():
        np.testing.assert_array_equal(found[name], tokens)
    assert fields_fn.settings != plain.settings


def test_a_cut_target_still_ends():
    for tokenizer in (t5_like(), make_bytes_tokenizer()):  # who ends a text
        fields_fn = make_seq2seq_fields(
            tokenizer, decoder_start_token_id=1, max_length=5, max_target_length=6
        )
        whole = tokenizer(PAIRS[1]["target_text"], add_special_tokens=False)
        [[row]] = fields_fn(PAIRS[1:])
        kept = whole["input_ids"][:5]
        assert row["targets"].tolist() == [*kept, tokenizer.eos_token_id]
        assert row["decoder_input_ids"].tolist() == [1, *kept]
        assert row["truncated"] == 1
        room = {"max_length": 40, "max_target_length": len(whole["input_ids"]) + 1}
        fields_fn = make_seq2seq_fields(tokenizer, decoder_start_token_id=1, **room)
        assert fields_fn(PAIRS[1:])[0][0]["truncated"] == 0


def test_languages_are_written_where_mbart_wants_them():
    options = {"decoder_start_token_id": None, "src_lang": "fr_XX", **LENGTHS}
    tokenizer = mbart_like(tgt_lang=None)
    fields_fn = make_seq2seq_fields(tokenizer, tgt_lang="ro_RO", **options)
    [[row]] = fields_fn([{"text": "fox", "target_text": "Fuchs"}])
    eos = tokenizer.eos_token_id
    french, romanian, fuchs = tokenizer.convert_tokens_to_ids(
        ["fr_XX", "ro_RO", "Fuchs"]
    )
    assert row["input_ids"].tolist()[-2:] == [eos, french]
    assert row["targets"].tolist()[-2:] == [eos, romanian]
    assert row["decoder_input_ids"].tolist()[0] == romanian
    assert fuchs in row["targets"]
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("en_XX", None)  # not touched
    other = make_seq2seq_fields(tokenizer, tgt_lang="de_DE", **options)
    assert other.settings != fields_fn.settings


def test_languages_that_cannot_be_are_refused():
    options = {"decoder_start_token_id": None, **LENGTHS}
    with pytest.raises(InputError, match="give it as tgt_lang"):
        make_seq2seq_fields(mbart_like(tgt_lang=None), **options)
    with pytest.raises(InputError, match=r"src_lang is 'english'.*'en_XX'"):
        make_seq2seq_fields(mbart_like(), src_lang="english", **options)
    with pytest.raises(InputError, match=r"'tgt_lang': 'de_DE'.*say it with prefix"):
        make_seq2seq_fields(t5_like(), tgt_lang="de_DE", **options)


def test_lengths_and_ends_that_cannot_be_are_refused():
    tokenizer = bart_like(model_max_length=16)
    for name, length in [("max_length", 2), ("max_target_length", 17)]:
        with pytest.raises(InputError, match=rf"^{name} is {length} tokens"):
            make_seq2seq_fields(
                tokenizer, decoder_start_token_id=0, **{**LENGTHS, name: length}
            )
    with pytest.raises(InputError, match="no end-of-text token"):
        make_seq2seq_fields(
            make_bytes_tokenizer(eos_token=None), decoder_start_token_id=0, **LENGTHS
        )


# --- Marian: a model of words for each side -------------------------------------------
@pytest.fixture(scope="module")
def marian(tmp_path_factory):
    """A Marian tokenizer with two models of words and one vocabulary."""
    import sentencepiece
    from transformers import MarianTokenizer

    folder = tmp_path_factory.mktemp("marian")
    texts = {"source": SENTENCES, "target": ["Der Fuchs springt über den Hund."] * 3}
    pieces = set()
    for name, sentences in texts.items():
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_prefix=str(folder / name),
            model_type="bpe",
            vocab_size=70 if name == "source" else 40,
            minloglevel=2,
        )
        model = sentencepiece.SentencePieceProcessor(
            model_file=str(folder / f"{name}.model")
        )
        (folder / f"{name}.model").rename(folder / f"{name}.spm")
        pieces |= {model.id_to_piece(i) for i in range(len(model))}
    names = ["</s>", "<unk>", *sorted(pieces - {"</s>", "<unk>", "<s>"}), "<pad>"]
    vocab = {piece: i for i, piece in enumerate(names)}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    return MarianTokenizer.from_pretrained(folder)


@needs_sentencepiece
@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")
def test_each_side_is_cut_by_its_own_model(marian):
    fields_fn = make_seq2seq_fields(
        marian, decoder_start_token_id=marian.pad_token_id, **LENGTHS
    )
    fields_fn = pickle.loads(pickle.dumps(fields_fn))
    text = "Der Fuchs"
    for _ in range(2):  # the second call starts from the source's model again
        [[row]] = fields_fn([{"text": text, "target_text": text}])
        own = marian(text)["input_ids"]
        other = marian(text_target=text)["input_ids"]
        assert own != other
        assert row["input_ids"].tolist() == own
        assert row["targets"].tolist() == other
        assert row["decoder_input_ids"].tolist() == [marian.pad_token_id, *other[:-1]]
