# SPDX-License-Identifier: Apache-2.0
"""What computes? One file a family; ``MODELS`` maps ``model_type`` to its record."""

from jft.models import vit
from jft.models.family import Family, make_apply_fn
from jft.types import InputError

MODELS: dict[str, Family] = {"vit": vit.FAMILY}

__all__ = ["MODELS", "Family", "get_family", "make_apply_fn"]


def get_family(model_type: str) -> Family:
    """Look up the family of a config.json's ``model_type``.

    Raises:
      InputError: if there is none; the message lists the known ones.

    >>> get_family("vit").hf_architecture
    'ViTForImageClassification'
    """
    if model_type not in MODELS:
        raise InputError(
            f"model_type {model_type!r} is not known; known are {sorted(MODELS)}."
        )
    return MODELS[model_type]
