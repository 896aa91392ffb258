# SPDX-License-Identifier: Apache-2.0
"""How the model's forward runs: what it keeps, how it attends, what runs apart."""

import re

import jft
from jft import paths, train
from jft.config import Config
from jft.models.cudnn import with_attention
from jft.models.remat import Forward, with_remat
from jft.params import adapters
from jft.tasks import get_task
from jft.types import InputError, PrefixFn


def remat(config: Config, model: jft.Pretrained, forward_fn: Forward) -> Forward:
    """The forward, or part of it, whose blocks keep what the config says.

    Raises:
      InputError: if a rule names no block.
    """
    rules = config.train.remat
    parents = {
        "/".join(parts[: i + 1])
        for path in paths.flatten(adapters.without_adapters(model.params))
        for parts in [path.split("/")]
        for i, part in enumerate(parts)
        if part.isdecimal()
    }
    for pattern, policy in rules:
        if not any(re.fullmatch(pattern, path) for path in parents):
            raise InputError(
                f"the rule {[pattern, policy]} of train.remat names no block; blocks "
                f"are {sorted(parents)[:3]}, …"
            )
    return with_remat(forward_fn, rules)


def attend_as_told(
    config: Config, model: jft.Pretrained, *, head_shares: int
) -> jft.Pretrained:
    """The model, whose forwards attend by what the config says.

    They are fed by jft's own loaders, which pad behind the text. ``head_shares``: the
    mesh's devices that share out heads.
    """
    options = {"right_padded": True, "head_shares": head_shares}
    apply_fn, prefix_fn = (
        with_attention(forward_fn, config.model.attention, **options)
        for forward_fn in (model.apply_fn, model.prefix_fn)
    )
    return model._replace(apply_fn=apply_fn, prefix_fn=prefix_fn)


def prefix_fn(config: Config, model: jft.Pretrained) -> PrefixFn | None:
    """What runs the frozen layers below all that move, where they run alone."""
    plain = get_task(config.data.task).runs_plainly
    return model.prefix_fn if plain and not config.train.frozen_dropout else None


def eval_chunks(config: Config, model: jft.Pretrained) -> train.Chunks | None:
    """How an evaluation scores tokens in parts, where the task can."""
    size = config.train.loss_chunk
    if size == 0 or not get_task(config.data.task).sums_tokens:
        return None
    return train.Chunks(
        prefix_fn=model.prefix_fn, boundary=model.num_layers + 1, size=size
    )


def train_chunks(config: Config, model: jft.Pretrained) -> train.Chunks | None:
    """The same of the training step; R-Drop compares logits, so it needs them all."""
    if config.train.r_drop:
        return None
    rematted = remat(config, model, model.prefix_fn)
    return eval_chunks(config, model._replace(prefix_fn=rematted))
