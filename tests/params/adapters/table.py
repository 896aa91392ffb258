# SPDX-License-Identifier: Apache-2.0
"""Every method with settings that fit a family: what the contract runs over."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import jft
from jft.models import MODELS, get_family, make_apply_fn, make_prefix_fn
from jft.params import MergeReport, adapters
from jft.paths import map_with_path
from tests.models import peer
from tests.models.table import TABLE

VIT = {
    "model_type": "vit",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 8,
    "patch_size": 4,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


class Method(NamedTuple):
    """How one method is tested."""

    adapter: adapters.Adapter
    adds: bool = True  # parameters of its own
    starts: bool = True  # answers as the base before it has learned anything
    families: tuple[str, ...] = ()  # where it is tested; empty: all


METHODS = {
    "lora": Method(adapters.Lora(rank=2, alpha=4.0)),
    "lora, patterns, rank-stabilized": Method(
        adapters.Lora(
            rank=2,
            rslora=True,
            bias="lora_only",
            rank_pattern=((r".*/0/.*", 3),),
            alpha_pattern=((r".*/1/.*", 5.0),),
        ),
        families=("bert",),  # of settings, one family is enough
    ),
    "lora, pissa": Method(
        adapters.Lora(rank=2, alpha=4.0, init_method="pissa"), families=("bert",)
    ),
    "dora": Method(adapters.Lora(rank=2, dora=True)),
    "lora, a convolution": Method(
        adapters.Lora(rank=2, targets=("all-linear", "projection")), families=("vit",)
    ),
    "vera": Method(adapters.Vera(rank=6)),
    "houlsby": Method(adapters.Bottleneck(reduction_factor=4, nonlinearity="gelu")),
    "pfeiffer": Method(
        adapters.Bottleneck(placement="pfeiffer", reduction_factor=4),
        families=("bert",),
    ),
    "ia3": Method(adapters.Ia3(targets=("all-linear",))),
    "bitfit": Method(adapters.BitFit(), adds=False),
    "norm": Method(adapters.NormTuning(), adds=False),
    "prompt": Method(adapters.PromptTuning(num_virtual_tokens=3), starts=False),
    "prefix": Method(adapters.PrefixTuning(num_virtual_tokens=3), starts=False),
}
FAMILIES = (*TABLE, "vit")
STILL = ("_start", "vera_A", "vera_B")  # what ends the names of leaves that stay


def methods_of(model_type):
    """The methods that a family can have, by name."""
    return {
        name: row
        for name, row in METHODS.items()
        if not row.families or model_type in row.families
    }


def task_of(model_type):
    """The head that is tested: one that trains, where the family has it."""
    heads = MODELS[model_type].heads
    order = ("sequence_classification", "image_classification", "seq2seq_lm")
    return next(task for task in order if task in heads)


def make_model(model_type, task=None):
    """A tiny model whose parameters are drawn with numpy, and a batch of it."""
    task = task or task_of(model_type)
    family = get_family(model_type)
    if model_type == "vit":
        images = np.random.default_rng(0).normal(size=(3, 8, 8, 3))
        batch = {"pixel_values": images.astype(np.float32)}
        config, scales = jft.with_classes(VIT, ["a", "b", "c"]), ()
    else:
        row = TABLE[model_type]
        config, scales = peer.full_config(model_type, row, task), row.scales
        batch = peer.make_batch(row, config, task)
    module, params = peer.make_jft(model_type, config, task, scales)
    model_config = family.config_from_dict(config)
    model = jft.Pretrained(
        module=module,
        apply_fn=make_apply_fn(module),
        prefix_fn=make_prefix_fn(module),
        params=params,
        config=config,
        task=task,
        processor=None,
        generation_config=None,
        class_names=(),
        layer_index=family.layer_index(model_config),
        num_layers=family.num_layers(model_config),
        family=family,
        report=MergeReport((), (), (), {}),
    )
    return model, batch


def trained(params, size=0.2):
    """The parameters with every adapter's moved from its start."""
    rng = np.random.default_rng(1)

    def move(path, x):
        own = path.startswith(f"{adapters.SUBTREE}/") and not path.endswith(STILL)
        noise = rng.normal(size=x.shape).astype(np.float32)
        return x + size * jnp.asarray(noise) if own else x

    return map_with_path(move, params)


def answers(model, params, batch):
    """What is compared: logits, or hidden states."""
    outputs = model.apply_fn(params, batch, key=None)
    return np.asarray(peer.pick(model.task, outputs))
