# SPDX-License-Identifier: Apache-2.0
"""What computes? One file a family; ``MODELS`` maps ``model_type`` to its record."""

from collections.abc import Mapping
from typing import Any

from jft.models import (
    albert,
    bart,
    bert,
    deberta_v2,
    distilbert,
    electra,
    gemma2,
    gemma3,
    gpt2,
    gpt_neox,
    llama,
    marian,
    mbart,
    mistral,
    modernbert,
    olmo2,
    phi3,
    qwen2,
    qwen3,
    roberta,
    t5,
    vit,
)
from jft.models.family import Family
from jft.models.forward import make_apply_fn, make_prefix_fn
from jft.types import InputError

MODELS: dict[str, Family] = {
    family.model_type: family
    for family in (
        albert.FAMILY,
        bart.FAMILY,
        bert.FAMILY,
        deberta_v2.FAMILY,
        distilbert.FAMILY,
        electra.FAMILY,
        gemma2.FAMILY,
        gemma3.FAMILY,
        gpt2.FAMILY,
        gpt_neox.FAMILY,
        llama.FAMILY,
        marian.FAMILY,
        mbart.FAMILY,
        mistral.FAMILY,
        modernbert.FAMILY,
        olmo2.FAMILY,
        phi3.FAMILY,
        qwen2.FAMILY,
        qwen3.FAMILY,
        roberta.FAMILY,
        t5.FAMILY,
        vit.FAMILY,
        roberta.XLM_FAMILY,
    )
}

__all__ = [
    "MODELS",
    "Family",
    "family_of",
    "get_family",
    "make_apply_fn",
    "make_prefix_fn",
]


def get_family(model_type: str) -> Family:
    """Look up the family of a config.json's ``model_type``.

    Raises:
      InputError: if there is none; the message lists the known ones.

    >>> get_family("vit").heads["image_classification"]
    'ViTForImageClassification'
    """
    if model_type not in MODELS:
        raise InputError(
            f"model_type {model_type!r} is not known; known are {sorted(MODELS)}."
        )
    return MODELS[model_type]


def family_of(config: Mapping[str, Any]) -> Family:
    """Look up the family of a config.json, given as a dict.

    Raises:
      InputError: if its ``model_type`` is absent or not known.
    """
    if "model_type" not in config:
        raise InputError(
            "config.json has no model_type, so the model is not known; known are "
            f"{sorted(MODELS)}."
        )
    return get_family(config["model_type"])
