# SPDX-License-Identifier: Apache-2.0
"""The conversations that the package has: whole, varied, and about this jft."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import jft
from configs.common import base_config
from jft.data.fields.chat import make_chat_fields
from jft.data.fields.padding import IGNORED
from tests.data.fields.chat_test import STYLES, learnt, tokenizer_of

FILE = Path(jft.__file__).parent / "shipped" / "conversations.jsonl"
LINES = FILE.read_text(encoding="utf-8").splitlines()
CONVERSATIONS = [json.loads(line)["messages"] for line in LINES]
KEY = re.compile(r"\b(data|optim|train|checkpoint|evals)\.([a-z_0-9]+)")


def test_they_are_small_varied_and_in_turns():
    assert FILE.stat().st_size < 15_000
    assert 60 <= len(LINES) == len(set(LINES)) <= 100
    for messages in CONVERSATIONS:
        assert all(set(m) == {"role", "content"} for m in messages)
        assert all(m["content"].strip() == m["content"] != "" for m in messages)
        roles = [m["role"] for m in messages]
        asked = roles[roles[0] == "system" :]
        assert asked == ["user", "assistant"] * (len(asked) // 2)
    assert sum(m[0]["role"] == "system" for m in CONVERSATIONS) >= 5
    assert sum(len(m) > 3 for m in CONVERSATIONS) >= 10


def test_the_keys_that_they_name_exist():
    config = base_config()
    text = "\n".join(m["content"] for messages in CONVERSATIONS for m in messages)
    found = set(KEY.findall(text.replace("jft.", "")))
    assert len(found) >= 10
    for section, key in found - {("train", "num_steps"), ("evals", "generate")}:
        assert key in config[section], f"{section}.{key}"


@pytest.mark.parametrize("style", STYLES)
def test_all_their_answers_are_learnt(style):
    tokenizer = tokenizer_of(style)
    fields_fn = make_chat_fields(tokenizer, max_length=512)
    found = fields_fn([{"messages": messages} for messages in CONVERSATIONS])
    for messages, [row] in zip(CONVERSATIONS, found, strict=True):
        answers = [m["content"] for m in messages if m["role"] == "assistant"]
        texts = learnt(tokenizer, row)
        assert len(texts) == len(answers)
        for answer, text in zip(answers, texts, strict=True):
            assert answer in text
        assert row["truncated"] == 0
        assert (np.asarray(row["targets"]) == IGNORED).any()
