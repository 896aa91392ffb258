# SPDX-License-Identifier: Apache-2.0
"""Methods that put something learned before the text: prompts and prefixes."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from jft.config.kinds import Count
from jft.params.adapters.adapter import Adapter, Leaves, LeavesOf, Product


@dataclass(frozen=True, kw_only=True)
class VirtualTokens(Adapter):
    """What they share; PEFT keeps all that one has learned in a single tensor.

    Attributes:
      num_virtual_tokens: P, how many positions are before the text.
    """

    foldable: ClassVar[bool] = False
    known: ClassVar[tuple[str, ...]] = (
        "encoder_hidden_size", "init_weights", "num_attention_heads", "num_layers",
        "num_transformer_submodules", "num_virtual_tokens", "prefix_projection",
        "prompt_tuning_init", "prompt_tuning_init_text", "token_dim",
        "tokenizer_kwargs", "tokenizer_name_or_path",
    )  # fmt: skip
    num_virtual_tokens: Count = 20

    def most_tokens(self, most: int) -> int:
        """What is before the text takes positions too."""
        return most - self.num_virtual_tokens

    @abc.abstractmethod
    def to_rows(
        self, leaves_of: LeavesOf, *, task: str, word_scale: float
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Its own options of PEFT's file, and the tensor ``[P, …]``.

        Args:
          leaves_of: its parameters, module -> leaves.
          task: the model's.
          word_scale: what the model multiplies its words with: PEFT puts a prompt in
            behind that, jft before.
        """

    @classmethod
    @abc.abstractmethod
    def from_rows(
        cls,
        rows: np.ndarray,
        config: Mapping[str, Any],
        products: Mapping[str, Product],
        *,
        word_scale: float,
    ) -> dict[str, Leaves]:
        """Undo `to_rows`: module -> leaves."""
