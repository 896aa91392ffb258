# SPDX-License-Identifier: Apache-2.0
"""The heads of decoders: words, texts by their last token, tokens, spans."""

from typing import Any, ClassVar

import jax

from jft.models import heads
from jft.models.layers import dense
from jft.models.model import TextModel
from jft.types import Batch


class CausalModel(TextModel):
    """A decoder with the head of a task.

    Its config has ``head_dropout``, the rate before the classifier of tokens.
    """

    output_layer: ClassVar[str] = "lm_head"  # where it is not tied to the words
    token_classifier: ClassVar[str] = "classifier"

    @classmethod
    def head_rules(cls) -> dict[str, tuple[str, ...]]:
        """Task -> regexes of the parameters of its head."""
        return {
            **heads.HEAD_RULES,
            "causal_lm": (rf"{cls.output_layer}/.*",),
            "sequence_classification": (r"score/.*",),
            "token_classification": (rf"{cls.token_classifier}/.*",),
        }

    def score_words(self, x: jax.Array, backbone: Any) -> jax.Array:
        """Score every word: ``[B, L, D] -> [B, L, V]``."""
        cfg, name = self.config, self.output_layer
        if cfg.tie_word_embeddings:
            scores: jax.Array = backbone.score_words(x)
            return scores
        return dense(x, cfg.vocab_size, name=name, init=cfg.init, bias=False)

    def answer(
        self, x: jax.Array, batch: Batch, backbone: Any, *, deterministic: bool
    ) -> Any:
        """What the head makes of ``[B, L, D]``, see `jft.models.heads`."""
        cfg, task = self.config, self.task
        if task == "base":
            return {"last_hidden_state": x}
        if task == "causal_lm":
            return self.score_words(x, backbone)
        if task == "sequence_classification":
            return heads.score_last_token(x, batch, cfg.num_labels, init=cfg.init)
        if task == "question_answering":
            return heads.mark_span(x, init=cfg.init)
        return heads.classify_tokens(
            x,
            cfg.num_labels,
            rate=cfg.head_dropout,
            deterministic=deterministic,
            init=cfg.init,
            name=self.token_classifier,
        )
