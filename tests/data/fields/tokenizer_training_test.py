# SPDX-License-Identifier: Apache-2.0
"""Tokenizers from texts: the same again, saved and loaded, and what they put around."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jft.data.fields.tokenizer_training import CHATML, KINDS, train_tokenizer
from jft.types import InputError

TEXTS = [
    f"{a} {b} {c} , isn't it ?"
    for a in ("An extraordinary", "a more ordinary", "the least ordinary", "no")
    for b in ("film", "filming", "films", "filmed plot")
    for c in ("enters", "entered again", "entering", "was entertaining")
]
PROBES = ["the  ordinary film\tenters", "filming, entertained!", "é ∑ unseen words"]


def fingerprint(tokenizer):
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()


def train(kind, texts=TEXTS, **options):
    return train_tokenizer(texts, kind=kind, **{"vocab_size": 330, **options})


IN_ANOTHER_PROCESS = """
from tests.data.fields import tokenizer_training_test as here
for kind in here.KINDS:
    print(here.fingerprint(here.train(kind)))
"""


def test_other_processes_learn_the_same():
    outputs = [
        subprocess.run(
            [sys.executable, "-c", IN_ANOTHER_PROCESS],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[3],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.getcwd()},
        ).stdout.split()
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1] == [fingerprint(train(kind)) for kind in KINDS]


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_the_texts_changes_nothing(kind):
    again = train(kind, iter(TEXTS[::-1]))
    assert fingerprint(again) == fingerprint(train(kind))
    assert fingerprint(train(kind, TEXTS[:40])) != fingerprint(train(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_vocabulary_is_as_large_as_asked_for_and_pad_is_0(kind):
    size = 300 if kind == "byte_bpe" else 90
    tokenizer = train(kind, vocab_size=size)
    assert len(tokenizer) == size
    assert sorted(tokenizer.get_vocab().values()) == list(range(size))
    special = list(KINDS[kind].special_tokens.values())
    assert tokenizer.convert_tokens_to_ids(special) == list(range(len(special)))
    assert tokenizer.pad_token_id == 0


@pytest.mark.parametrize("kind", KINDS)
def test_frequent_words_are_one_token_and_all_come_back(kind):
    tokenizer = train(kind)
    assert len(tokenizer.tokenize(" ordinary film")) in (2, 3)  # bytes: a space too
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        back = tokenizer.decode(ids, skip_special_tokens=True)
        if kind == "wordpiece":  # which forgets where spaces are around signs
            back, text = back.replace(" ", ""), text.replace(" ", "")
        assert back == text


def test_bytes_write_every_text_as_it_is():
    tokenizer = train("byte_bpe")
    for text in (*PROBES, " leading", "A\n\nb  c", "今日 😀"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text


def test_lowercase_loses_case():
    for kind in KINDS:
        lower = train(kind, lowercase=True)
        assert lower.tokenize("FILM") == lower.tokenize("film")
        cased = train(kind)
        assert cased.tokenize("FILM") != cased.tokenize("film")


@pytest.mark.parametrize("kind", KINDS)
def test_auto_tokenizer_loads_what_was_saved(kind, tmp_path):
    from transformers import AutoTokenizer

    chat = {"chat_template": CHATML} if "bos" in KINDS[kind].special_tokens else {}
    tokenizer = train(kind, max_length=77, **chat)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert fingerprint(loaded) == fingerprint(tokenizer)
    assert loaded(PROBES) == tokenizer(PROBES)
    assert loaded.special_tokens_map == tokenizer.special_tokens_map
    assert loaded.chat_template == tokenizer.chat_template
    assert loaded.model_max_length == 77


# --- around the texts -----------------------------------------------------------------
def words(tokenizer, *texts):
    return tokenizer.convert_ids_to_tokens(tokenizer(*texts)["input_ids"])


def test_bert_like_texts_are_between_cls_and_sep():
    tokenizer = train("wordpiece")
    assert words(tokenizer, "film", "plot") == [
        "[CLS]",
        "film",
        "[SEP]",
        "plot",
        "[SEP]",
    ]
    assert tokenizer("film", "plot")["token_type_ids"] == [0, 0, 0, 1, 1]
    assert "token_type_ids" not in train("bpe")("film")


def test_t5_like_texts_end_and_llama_like_ones_begin():
    assert words(train("unigram"), "film") == ["▁film", "</s>"]
    assert words(train("unigram"), "film", "film") == ["▁film", "</s>"] * 2
    assert words(train("bpe"), "film") == ["<s>", "▁film"]
    bare = train("byte_bpe", around=(None, None))
    assert words(bare, " film") == ["Ġfilm"]
    both = train("byte_bpe", around=("bos", "eos"))
    assert words(both, " film") == ["<s>", "Ġfilm", "</s>"]
    # the offsets of a word do not have its space
    assert both(" film", return_offsets_mapping=True)["offset_mapping"][1] == (1, 5)


def test_chat_is_chatml_and_marks_what_the_model_writes():
    names = {"pad": "<pad>", "bos": "<|im_start|>", "eos": "<|im_end|>"}
    tokenizer = train("byte_bpe", special_tokens=names, chat_template=CHATML)
    chat = [
        {"role": "user", "content": "a film ?"},
        {"role": "assistant", "content": "no plot"},
    ]
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    turns = "<|im_start|>user\na film ?<|im_end|>\n<|im_start|>assistant\n"
    assert text == turns + "no plot<|im_end|>\n"
    prompt = tokenizer.apply_chat_template(
        chat[:1], tokenize=False, add_generation_prompt=True
    )
    assert prompt == turns
    encoded = tokenizer.apply_chat_template(
        chat, return_dict=True, return_assistant_tokens_mask=True
    )
    assert encoded["input_ids"].count(tokenizer.bos_token_id) == 2
    pairs = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    written = tokenizer.decode([token for token, is_written in pairs if is_written])
    assert written == "no plot<|im_end|>"


def test_roles_may_share_a_token():
    names = dict.fromkeys(("pad", "bos", "eos"), "<|endoftext|>")
    tokenizer = train("byte_bpe", special_tokens=names, vocab_size=300)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 0
    assert len(tokenizer) == 300


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "sentencepiece"}, "kind is 'sentencepiece'; expected one of"),
        ({"kind": "bpe", "texts": []}, "no text"),
        ({"kind": "bpe", "texts": ["", " "]}, "no text"),
        ({"kind": "bpe", "texts": "one text"}, "a list of texts"),
        ({"kind": "byte_bpe", "vocab_size": 258}, "3 special.*256.*are 259. Raise it"),
        ({"kind": "wordpiece", "vocab_size": 20}, "one character.*kind='byte_bpe'"),
        ({"kind": "unigram", "special_tokens": {"eos": "</s>"}}, r"\['unk'\]"),
        ({"kind": "bpe", "around": ("cls", None)}, r"\['cls'\]"),
        ({"kind": "byte_bpe", "special_tokens": {"end": "</s>"}}, r"has \['end'\]"),
    ],
)
def test_what_cannot_be_trained_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        train_tokenizer(**{"texts": TEXTS, "vocab_size": 330, **options})
