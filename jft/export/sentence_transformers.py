# SPDX-License-Identifier: Apache-2.0
"""What makes an exported encoder one that sentence-transformers reads.

Beside the files of transformers there are ``modules.json``, which lists what runs one
after the other, and settings of each. The names are those of the published
all-MiniLM-L6-v2, which every version since 2 reads.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jft.models import Family, family_of
from jft.params import abstract_params, read_config
from jft.types import InputError

MODULES = {
    "Transformer": "",
    "Pooling": "1_Pooling",
    # without settings, so without a folder
    "Normalize": "2_Normalize",
}


def write_sentence_transformers(
    directory: str | Path, *, max_length: int, normalize: bool = True
) -> list[Path]:
    """Add to an exported encoder what sentence-transformers needs to embed texts.

    A text's embedding is the mean over its tokens (`jft.models.pooling`).

    Args:
      directory: where ``jft.save`` has written a model with the head ``base`` and its
        tokenizer.
      max_length: the tokens that texts are cut to, special tokens included.
      normalize: whether embeddings are brought to length 1.

    Returns:
      The files written.

    Raises:
      InputError: if the folder is not such a model's, or cannot be written.
    """
    folder = Path(directory)
    width = _width(folder, read_config(folder))
    names = list(MODULES)[: 3 if normalize else 2]
    texts: dict[str, Any] = {
        "modules.json": [
            {
                "idx": i,
                "name": str(i),
                "path": MODULES[name],
                "type": f"sentence_transformers.models.{name}",
            }
            for i, name in enumerate(names)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": width,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
        "sentence_bert_config.json": {
            "max_seq_length": max_length,
            "do_lower_case": False,  # the tokenizer does it where it is meant
        },
        "config_sentence_transformers.json": {
            "__version__": {},
            "prompts": {},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    }
    try:
        (folder / "1_Pooling").mkdir(exist_ok=True)
        for name, value in texts.items():
            (folder / name).write_text(json.dumps(value, indent=2), encoding="utf-8")
    except OSError as error:
        raise InputError(f"the export {folder} cannot be written: {error}.") from error
    return [folder / name for name in texts]


def _width(folder: Path, config: Mapping[str, Any]) -> int:
    """Return how many numbers the model gives for each token."""
    family = family_of(config)
    task, model_config = family.task_of(config), family.config_from_dict(config)
    if task != "base" or family.num_encoder_layers(model_config):
        raise InputError(
            f"{folder} holds a {family.model_type} with the head {task!r}; "
            "sentence-transformers averages the hidden states of one text: save an "
            "encoder or a decoder with task='base'."
        )
    return _shape_of_states(family, model_config)[-1]


def _shape_of_states(family: Family, config: Any) -> tuple[int, ...]:
    module = family.make_module(config, "base")
    params = abstract_params(family, config, task="base")
    batch = {"input_ids": jnp.zeros((1, 4), jnp.int32)}
    states = jax.eval_shape(lambda p: module.apply({"params": p}, batch), params)
    return states["last_hidden_state"].shape
