# SPDX-License-Identifier: Apache-2.0
"""mBART: BART with its norms before the parts, and one more behind the last block.

Liu et al. 2020, "Multilingual Denoising Pre-training for Neural Machine Translation",
arXiv 2001.08210; mBART-50: Tang et al. 2020, arXiv 2008.00401.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp

from jft.models.bart import make_family
from jft.models.bart_config import BartConfig, read_config
from jft.models.encoder_decoder import with_shifted_input
from jft.types import Batch, InputError


@dataclass(frozen=True, kw_only=True)
class MBartConfig(BartConfig):
    """The fields of config.json that change the arithmetic, with its defaults."""

    decoder_start_token_id: int | None = None
    num_labels: int = 2

    norm_first: ClassVar[bool] = True

    def with_decoder_input(self, batch: Batch) -> Batch:
        """As BART's, but a text starts with its own last token, the language's."""
        if "decoder_input_ids" in batch or "input_ids" not in batch:
            return batch
        if self.pad_token_id is None:
            raise InputError("config.json: pad_token_id is null; mBART needs it.")
        ids = jnp.asarray(batch["input_ids"], jnp.int32)
        last = jnp.sum(ids != self.pad_token_id, axis=1) - 1
        return with_shifted_input(batch, ids[jnp.arange(ids.shape[0]), last])


# what older versions could choose, as mBART has it
MBART_ONLY: Mapping[str, tuple[Any, ...]] = {
    "normalize_before": (True,),
    "normalize_embedding": (True,),
    "add_final_layer_norm": (True,),
    "static_position_embeddings": (False,),
}

FAMILY = make_family(
    "mbart",
    "MBart",
    config_from_dict=lambda config: read_config(MBartConfig, config, MBART_ONLY),
    variants={
        "mbart-large-cc25": MBartConfig(vocab_size=250027, scale_embedding=True),
        "mbart-large-50": MBartConfig(vocab_size=250054, scale_embedding=True),
    },
)
