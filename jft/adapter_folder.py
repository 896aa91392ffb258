# SPDX-License-Identifier: Apache-2.0
"""The folders of adapters: read over a base, and written.

base = jft.load("bert-base-uncased", **jft.adapter_head("runs/law/adapter"), key=key)
model = jft.load_adapter("runs/law/adapter", base)
jft.save_adapter("runs/law/again", model)
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jft.adapted import check_plain, check_single, config_of, products_of, with_adapter
from jft.export import write_adapter
from jft.params import ADAPTER_FILES, adapters, find_folder
from jft.params.quantised import flatten_whole
from jft.paths import unflatten
from jft.pretrained import Pretrained
from jft.types import InputError, Params


def load_adapter(
    name: str | Path,
    model: Pretrained,
    *,
    revision: str | None = None,
    check_base: bool = True,
) -> Pretrained:
    """Put an adapter that PEFT or jft wrote on its base.

    Args:
      name: a folder with adapter_config.json and adapter_model.safetensors, or a Hub
        id, of whose repository these two are fetched, see ``jft.load``.
      model: the base, with the head that the adapter is for.
      revision: of the Hub's repository; pin a commit for runs to repeat.
      check_base: refuse a base of other numbers than the one that the adapter was
        trained over, where jft wrote it: PEFT does not say over which. Hashes the base.

    Raises:
      InputError: if the folder holds no adapter, one with options that jft has not, or
        one of another base.
    """
    check_plain(model)
    digest = None
    if check_base:
        digest = adapters.make_base_digest(flatten_whole(model.params))
    folder = find_folder(name, revision=revision, files=ADAPTER_FILES)
    return read_over(folder, model, digest)


def adapter_head(name: str | Path, *, revision: str | None = None) -> dict[str, Any]:
    """Say with which head the base of an adapter is loaded.

    ``base = jft.load("bert-base-uncased", **jft.adapter_head("law"), key=key)``

    Args:
      name: see `load_adapter`.
      revision: likewise.

    Returns:
      Options of ``jft.load``: the task, the classes and the kind of problem; ``{}``
      where PEFT wrote the adapter, which does not say.

    Raises:
      InputError: if the folder holds no adapter.
    """
    folder = find_folder(name, revision=revision, files=ADAPTER_FILES)
    return adapters.read_head(folder)


def read_over(
    folder: Path, model: Pretrained, digest: adapters.BaseDigest | None
) -> Pretrained:
    """Read an adapter's folder for a base.

    Args:
      folder: see `load_adapter`.
      model: the base.
      digest: the base's, to compare with what the adapter says; None compares nothing.
    """
    flat = flatten_whole(model.params)
    names = adapters.make_names(model.family, model.task, flat)
    adapter, read = adapters.read_adapter(
        folder,
        model.params,
        products_of(model),
        names,
        word_scale=_word_scale(model),
    )
    if digest is not None:
        heads = adapters.head_paths(model.family, model.task, flat)
        adapters.check_base(folder, digest, read.trained, heads)
    flat |= {path: jnp.asarray(x, flat[path].dtype) for path, x in read.trained.items()}
    leaves_of, shared = jax.tree.map(jnp.asarray, (read.leaves_of, read.shared))
    params = adapters.with_adapters(unflatten(flat), leaves_of, shared)
    return with_adapter(model, adapter, params)


def save_adapter(
    directory: str | Path,
    model: Pretrained,
    *,
    params: Params | None = None,
    base_model: str | None = None,
    model_card: str | None = None,
) -> list[Path]:
    """Write a model's adapter as the folder that PEFT and ``load_adapter`` read.

    Of a method that PEFT has not (BitFit, bottlenecks) ``load_adapter`` alone reads it,
    and of the base it holds what moved. In PEFT's own formats a module of which a part
    moved, such as a bias that ``also_train`` names, is kept whole, as PEFT has it.

    Args:
      directory: made if absent.
      model: has an adapter.
      params: instead of the model's own, such as those of a training state.
      base_model: the name or folder of the base, to be found again by.
      model_card: becomes README.md.

    Returns:
      The files written.

    Raises:
      InputError: if the model has no adapter, or one for each row.
    """
    if model.adapter is None:
        raise InputError(
            "the model has no adapter to save; put one on with jft.adapt, or write the "
            "model with jft.save."
        )
    check_single(model)
    params = model.params if params is None else params
    return write_adapter(
        directory,
        params,
        adapter=model.adapter,
        family=model.family,
        task=model.task,
        head=_head_options(model),
        base_model=base_model,
        model_card=model_card,
        word_scale=_word_scale(model),
    )


def _head_options(model: Pretrained) -> dict[str, Any]:
    """The options of ``jft.load`` that give a base this head."""
    options: dict[str, Any] = {"task": model.task}
    if model.class_names:
        options["class_names"] = list(model.class_names)
    if problem_type := model.config.get("problem_type"):
        options["problem_type"] = problem_type
    return options


def _word_scale(model: Pretrained) -> float:
    """What the model multiplies the vectors of its words with."""
    config = config_of(model)
    if getattr(config, "scale_embedding", False):
        return float(config.d_model**0.5)
    return float(getattr(config, "embedding_scale", 1.0))
