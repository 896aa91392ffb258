# SPDX-License-Identifier: Apache-2.0
"""Prompt tuning: learned vectors before those of the words.

Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning", arXiv
2104.08691. For images: Jia et al. 2022, "Visual Prompt Tuning" (the shallow kind),
arXiv 2203.12119.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jft.params.adapters.adapter import (
    Call,
    Forward,
    Leaves,
    LeavesOf,
    Product,
    wide,
)
from jft.params.adapters.lengthened import lengthen, run_lengthened
from jft.params.adapters.virtual_tokens import VirtualTokens
from jft.paths import flatten
from jft.types import Batch, InputError, Params

LEAF = "prompt_embeddings"


@dataclass(frozen=True, kw_only=True)
class PromptTuning(VirtualTokens):
    """The model reads learned vectors, then the text; all of the base stays.

    As in PEFT: of an encoder-decoder the encoder reads them. A classifier that reads
    the first token, such as BERT's, reads the first of them; what is answered for each
    token is answered for the text's alone. Words that a model scales it scales too.
    Images have theirs behind the class token, which PEFT has not.

    PEFT gives the model vectors in the place of words, and two families of transformers
    then do less than with words, so that there its answers differ from these. Marian
    with ``scale_embedding`` scales words and not vectors: there the text stands
    ``sqrt(D)`` times too small beside the prompt. RoBERTa counts positions by words
    that are no padding, and cannot of vectors: of a text padded on the left they count
    from the padding on, so that its answers depend on how much of that there is. Padded
    on the right they agree.

    The model's answers change from the start on.

    Attributes:
      num_virtual_tokens: P, how many vectors.
      prompt_init: what they start as: ``"vocab"``, words drawn from the table;
        ``"text"``, the words of ``prompt_text``; ``"normal"``, drawn with the mean and
        the spread of the table. None is "vocab", and of images, which have no words,
        the paper's uniform distribution.
      prompt_text: repeated until there are enough words; or its ids.
    """

    peft_type: ClassVar[str] = "PROMPT_TUNING"
    packs: ClassVar[bool] = False
    kinds: ClassVar[tuple[str, ...]] = ("embed", "images")
    prompt_init: Literal["vocab", "text", "normal"] | None = None
    prompt_text: str | tuple[int, ...] | None = None

    def read_by(self, processor: Any) -> "PromptTuning":
        """Turn the text into ids.

        Raises:
          InputError: if there is no text where one is asked for, or one where none is,
            or nothing to read it with.
        """
        asked, text = self.prompt_init == "text", self.prompt_text
        if asked != bool(text):
            raise InputError(
                f'prompt_init is {self.prompt_init!r} and prompt_text {text!r}; "text" '
                "needs a prompt_text, and nothing else reads it."
            )
        if not isinstance(text, str):
            return self
        if not hasattr(processor, "get_vocab"):
            raise InputError(
                f"prompt_text is {text!r}, but the model has no tokenizer; give the "
                'ids of its tokens, or another prompt_init than "text".'
            )
        return replace(self, prompt_text=tuple(processor(text)["input_ids"]))

    def init(
        self, products: Mapping[str, Product], params: Params, key: jax.Array
    ) -> dict[str, Leaves]:
        """Draw ``[P, D]``, in float32, for the words that the text is embedded with."""
        path, product = next(iter(products.items()))
        count, flat = self.num_virtual_tokens, flatten(params)
        if product.kind == "images":
            kernel = flat[f"{path}/patch_embeddings/projection/kernel"].shape
            drawn = self._draw_for_images(kernel, key)
        else:
            table = flat[f"{path}/embedding"]
            drawn = _draw_words(table, self.prompt_init, self.prompt_text, count, key)
        return {path: {LEAF: drawn}}

    def shapes(self, path: str, product: Product) -> dict[str, tuple[int, ...]]:
        """Of the vectors: ``[P, D]``."""
        del path
        return {LEAF: (self.num_virtual_tokens, product.shape[-1])}

    def _draw_for_images(self, kernel: tuple[int, ...], key: jax.Array) -> jax.Array:
        """Uniform, as wide as Xavier's for the matrix of the patches."""
        if self.prompt_init is not None:
            raise InputError(
                f"prompt_init is {self.prompt_init!r}, but images have no words; leave "
                "it None."
            )
        bound = math.sqrt(6 / (math.prod(kernel[:-1]) + kernel[-1]))
        shape = (self.num_virtual_tokens, kernel[-1])
        return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

    def around(
        self, run: Forward, module: Any, batch: Batch, own: LeavesOf, **options: Any
    ) -> Any:
        """The batch is longer below the head, and what is answered is not."""
        if not own or "pixel_values" in batch:
            del options["cached"]
            return run(batch, own, **options)
        count = self.num_virtual_tokens
        return run_lengthened(run, module, batch, own, count=count, **options)

    def forward(self, path: str, call: Call, leaves: Leaves) -> jax.Array:
        """The vectors of the words, or of an image, with the prompt among them."""
        del path
        prompt = leaves[LEAF]
        if call.nth:  # a decoder's words, or types of tokens that are words
            return call.run(call.x)
        if call.x.ndim > 2:  # images, whose first token is the class's
            x = call.run(call.x)
            return lengthen(x, prompt, behind=1)
        return lengthen(call.run(call.x[:, prompt.shape[0] :]), prompt)

    def fold(self, path: str, base: Leaves, leaves: Leaves) -> Leaves:
        """Refused before: no word of the base is read without being in the text."""
        raise InputError(
            f"the prompt of {path} cannot be folded; keep it apart, with "
            "jft.save_adapter."
        )

    def to_rows(
        self, leaves_of: LeavesOf, *, task: str, word_scale: float
    ) -> tuple[dict[str, Any], np.ndarray]:
        """The vectors ``[P, D]`` as scaled words."""
        del task
        (leaves,) = leaves_of.values()
        rows = wide(leaves[LEAF]) * word_scale
        return {"prompt_tuning_init": "RANDOM", "token_dim": rows.shape[1]}, rows

    @classmethod
    def from_rows(
        cls,
        rows: np.ndarray,
        config: Mapping[str, Any],
        products: Mapping[str, Product],
        *,
        word_scale: float,
    ) -> dict[str, Leaves]:
        """The vectors at the words, or the images, of the model."""
        del config
        place = next(path for path, x in products.items() if x.kind in cls.kinds)
        return {place: {LEAF: rows / np.float32(word_scale)}}


def _draw_words(
    table: Any, how: str | None, ids: Any, count: int, key: jax.Array
) -> jax.Array:
    """Vectors ``[P, D]`` of a table of words ``[V, D]``."""
    rows, width = table.shape
    if how == "normal":
        words = wide(table)
        noise = jax.random.normal(key, (count, width), jnp.float32)
        return noise * float(words.std()) + float(words.mean())
    if how == "text":
        if not 0 <= min(ids) <= max(ids) < rows:
            raise InputError(
                f"prompt_text has the ids {sorted(set(ids))}, but the model knows the "
                f"words 0 to {rows - 1}; use its own tokenizer."
            )
        chosen = jnp.asarray(np.resize(np.asarray(ids, np.int32), count))
    else:
        chosen = jax.random.randint(key, (count,), 0, rows)
    return jnp.asarray(table)[chosen].astype(jnp.float32)
