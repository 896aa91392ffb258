# SPDX-License-Identifier: Apache-2.0
"""A byte-level tokenizer as GPT-2's, trained on a few sentences without a network."""

from functools import lru_cache
from typing import Any

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "What is the capital of France? The capital of France is Paris.",
    "Layers open one by one, from the new head down.",
    "Grüße aus Köln! naïve café, 東京 🙂",
]


@lru_cache
def _rules(special: tuple[str, ...]) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return backend.to_str()


def make_bytes_tokenizer(
    *special: str, template: str | None = None, **changes: Any
) -> Any:
    """Make one with the given special tokens besides ``<eos>`` and ``<pad>``.

    ``template`` says what stands around a text: ``"<bos> $A <eos>"``.
    """
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    special = ("<eos>", "<pad>", *special)
    backend = Tokenizer.from_str(_rules(special))
    if template is not None:
        around = [token for token in template.split() if token in special]
        backend.post_processor = TemplateProcessing(
            single=template,
            special_tokens=[(token, backend.token_to_id(token)) for token in around],
        )
    settings = {"eos_token": "<eos>", "pad_token": "<pad>", **changes}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **settings)
