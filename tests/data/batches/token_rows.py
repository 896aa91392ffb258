# SPDX-License-Identifier: Apache-2.0
"""Examples and fields functions whose every token says where it is from."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jft.data import IGNORED, Pad

STEP = 100  # token = STEP * (example + 1) + its place from 0
MASKED = 7


@dataclass(frozen=True)
class Lines:
    """Examples of 1 to ``longest`` tokens."""

    num: int
    longest: int = 40
    seed: int = 0

    def __len__(self):
        return self.num

    def __getitem__(self, index):
        if not 0 <= index < self.num:
            raise IndexError(index)
        draw = np.random.default_rng((self.seed, index)).uniform()
        length = 1 + int(self.longest * draw**2)  # few long ones
        return {
            "number": index,
            "length": length,
            "targets": index % 3,
            "id": f"lines.csv, line {index + 2}",
        }


@dataclass
class ClassFields:
    """A class a row, and host fields."""

    settings: dict[str, Any] = field(default_factory=lambda: {"max_length": 41})
    padding_side: str = "right"
    host_fields = ("number", "words")

    @property
    def padding(self):
        return {"input_ids": Pad(1), "attention_mask": Pad(0)}

    def __call__(self, examples):
        return [self.rows(example) for example in examples]

    def rows(self, example):
        ids = tokens(example)
        return [
            {
                "input_ids": ids,
                "attention_mask": np.ones_like(ids),
                "targets": np.int32(example["targets"]),
                "number": example["number"],
                "words": ids[::2],
            }
        ]


@dataclass
class TokenFields(ClassFields):
    """A target a token, which is its token's negative."""

    host_fields = ()

    @property
    def padding(self):
        return super().padding | {"targets": Pad(IGNORED)}

    def rows(self, example):
        ids = tokens(example)
        return [{"input_ids": ids, "attention_mask": ids * 0 + 1, "targets": -ids}]


@dataclass
class PairFields(ClassFields):
    """Two groups of lengths; the second is about half of the first."""

    host_fields = ()

    @property
    def padding(self):
        target = {"decoder_input_ids": Pad(2, "target")}
        return super().padding | target | {"targets": Pad(IGNORED, "target")}

    def rows(self, example):
        ids = tokens(example)
        target = ids[: 1 + (len(ids) + example["number"] % 5) // 2]
        return [
            {
                "input_ids": ids,
                "attention_mask": ids * 0 + 1,
                "decoder_input_ids": target,
                "targets": -target,
            }
        ]


@dataclass
class StrideFields(TokenFields):
    """Rows of at most ten tokens, as many as it takes."""

    def rows(self, example):
        ids = tokens(example)
        return [
            {"input_ids": x, "attention_mask": x * 0 + 1, "targets": -x}
            for x in np.split(ids, range(10, len(ids), 10))
        ]


def tokens(example):
    first = STEP * (example["number"] + 1)
    return np.arange(first, first + example["length"], dtype=np.int32)


def mask_tokens(row, generator):
    """A random change as of masked language models: a fifth of the tokens."""
    chosen = generator.random(len(row["input_ids"])) < 0.2
    ids = np.where(chosen, np.int32(MASKED), row["input_ids"])
    return {**row, "input_ids": ids}
