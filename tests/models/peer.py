# SPDX-License-Identifier: Apache-2.0
"""The same tiny models in jft and in transformers + torch, and what both answer.

Weights are a function of the checkpoint's key and shape, so that a recorded case needs
no weights: a machine without torch draws them again.
"""

import hashlib
import json
import re
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jft
from jft.models import get_family
from jft.params import abstract_params, checkpoint_keys, from_tensor, to_tensor
from jft.paths import flatten, map_with_path
from jft.train import softmax_cross_entropy

NUM_TEXTS, LENGTH, TARGET_LENGTH, NUM_LABELS = 3, 7, 5, 4
WEIGHTS = "model.safetensors"


def full_config(model_type, row, task, changes=None):
    """A config.json's dict, with four classes for heads that have classes."""
    config = {"model_type": model_type, **row.config, **(changes or {})}
    if task.endswith("classification"):
        config = jft.with_classes(config, [f"class {i}" for i in range(NUM_LABELS)])
    return config


def draw(key, shape, scales=()):
    """Weights of a tensor: matrices that keep a spread, norms around one."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    noise = rng.normal(size=shape)
    if len(shape) > 1:
        value = noise * shape[-1] ** -0.5
    else:
        value = noise * 0.2 + key.endswith("weight")
    for pattern, factor in scales:
        if re.fullmatch(pattern, key):
            value = value * factor
    return value.astype(np.float32)


def make_batch(row, config, task=None, *, seed=0):
    """Odd lengths, padding on the right, for decoders on the left too, and nowhere.

    An encoder-decoder's first text ends with the end of text, where classifiers read,
    and the second is left out for the heads that make it of the first.
    """
    rng = np.random.default_rng(seed)

    def tokens(length, padded):
        ids = rng.integers(4, config["vocab_size"], (NUM_TEXTS, length))
        mask = np.ones((NUM_TEXTS, length), np.int32)
        mask[0, length - padded :] = 0
        mask[1, : padded - 1 if row.left_padding else 0] = 0
        pad = config.get("pad_token_id") or 0
        return np.where(mask, ids, pad).astype(np.int32), mask

    ids, mask = tokens(LENGTH, 3)
    if row.encoder_decoder:
        ids[np.arange(NUM_TEXTS), mask.sum(axis=1) - 1] = config["eos_token_id"]
    batch = {"input_ids": ids, "attention_mask": mask}
    if row.token_types:
        kinds = config.get("type_vocab_size", row.token_types) or 1
        batch["token_type_ids"] = rng.integers(0, kinds, ids.shape).astype(np.int32)
    if row.encoder_decoder and task in (None, "base", "seq2seq_lm"):
        ids, mask = tokens(TARGET_LENGTH, 2)
        mask[1] = 1  # a decoder's text starts at its start
        ids[:, 0] = config["decoder_start_token_id"]
        batch |= {"decoder_input_ids": ids, "decoder_attention_mask": mask}
    return batch


def real_positions(task, batch):
    """Where the outputs mean something: a mask over their leading axes."""
    if task == "sequence_classification":
        return np.ones(NUM_TEXTS, bool)
    decoder = "decoder_attention_mask" in batch and task != "token_classification"
    return batch["decoder_attention_mask" if decoder else "attention_mask"] > 0


def pick(task, outputs):
    """The one array that is compared: hidden states or logits."""
    return outputs["last_hidden_state"] if task == "base" else outputs


# --- jft ------------------------------------------------------------------------------
def make_jft(model_type, config, task, scales=()):
    """A module and its drawn parameters, without torch."""
    family = get_family(model_type)
    model_config = family.config_from_dict(config)
    template = abstract_params(family, model_config, task=task)
    keys = checkpoint_keys(family, task, flatten(template))

    def drawn(path, leaf):
        shape = to_tensor(path, np.empty(leaf.shape, np.int8), family).shape
        return jnp.asarray(from_tensor(path, draw(keys[path], shape, scales), family))

    return family.make_module(model_config, task), map_with_path(drawn, template)


def key_hash(shapes):
    """A digest of ``{key: shape}``: which tensors a checkpoint holds."""
    listed = json.dumps({key: list(shape) for key, shape in sorted(shapes.items())})
    return hashlib.sha256(listed.encode()).hexdigest()[:16]


def jft_key_hash(model_type, task, params):
    """The digest of what jft would export."""
    family = get_family(model_type)
    keys = checkpoint_keys(family, task, flatten(params))
    return key_hash(
        {
            keys[path]: to_tensor(path, np.asarray(leaf), family).shape
            for path, leaf in flatten(params).items()
        }
    )


def jft_loss(task, outputs, batch, targets):
    """Mean cross-entropy over real positions; for hidden states a projection."""
    real = jnp.asarray(real_positions(task, batch), jnp.float32)
    outputs = pick(task, outputs)
    if task == "base":
        return (outputs * targets * real[..., None]).sum() / real.sum()
    if task == "question_answering":
        outputs, real = outputs.swapaxes(1, 2), jnp.ones((NUM_TEXTS, 2))
        filler = jnp.finfo(outputs.dtype).min
        outputs = jnp.where(batch["attention_mask"][:, None] > 0, outputs, filler)
    total, weight = softmax_cross_entropy(outputs, targets, loss_mask=real)
    return total / weight


def jft_answers(module, params, batch, task, targets):
    """Outputs, loss and every gradient, in one program."""

    def loss_of(params):
        outputs = module.apply({"params": params}, batch)
        return jft_loss(task, outputs, batch, targets), outputs

    grad_fn = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
    (loss, outputs), grads = grad_fn(params)
    return np.asarray(pick(task, outputs)), float(loss), flatten(grads)


def make_targets(task, outputs, batch):
    """What the loss is taken against, by the shape of the outputs."""
    rng = np.random.default_rng(5)
    if task == "base":
        return rng.normal(size=outputs.shape).astype(np.float32)
    if task == "question_answering":
        first = np.argmax(batch["attention_mask"], axis=1)
        return np.stack([first, first + 1], axis=1).astype(np.int32)
    return rng.integers(0, outputs.shape[-1], outputs.shape[:-1]).astype(np.int32)


# --- transformers + torch -------------------------------------------------------------
def write_folder(folder, model_type, config, task, scales=()):
    """Let transformers write a folder, then draw every tensor in it anew."""
    import transformers
    from safetensors.numpy import load_file, save_file

    cls = getattr(transformers, get_family(model_type).heads[task])
    settings = {k: v for k, v in config.items() if k != "model_type"}
    cls(cls.config_class(**settings)).save_pretrained(folder)
    tensors = load_file(folder / WEIGHTS)
    drawn = {key: draw(key, x.shape, scales) for key, x in tensors.items()}
    save_file(drawn, folder / WEIGHTS, metadata={"format": "pt"})
    return {key: x.shape for key, x in drawn.items()}


def read_torch(folder, model_type, task):
    """Load a folder with transformers; nothing may be missing or left over."""
    import transformers

    cls = getattr(transformers, get_family(model_type).heads[task])
    model, info = cls.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(info.values()), info
    return model.eval()


def torch_forward(model, task, batch):
    """The one tensor that is compared."""
    import torch

    inputs = {name: torch.from_numpy(x.astype(np.int64)) for name, x in batch.items()}
    outputs = model(**inputs)
    if task == "base":
        return outputs.last_hidden_state
    if task == "question_answering":
        return torch.stack([outputs.start_logits, outputs.end_logits], dim=-1)
    return outputs.logits


def torch_answers(model, task, batch, targets):
    """Outputs, loss and gradients by checkpoint key."""
    import torch
    from torch.nn.functional import cross_entropy

    outputs = torch_forward(model, task, batch)
    real = torch.from_numpy(real_positions(task, batch))
    wanted = torch.from_numpy(np.asarray(targets))
    if task == "base":
        loss = (outputs * wanted * real[..., None]).sum() / real.sum()
    elif task == "question_answering":
        scores = outputs.transpose(1, 2)
        keep = torch.from_numpy(batch["attention_mask"])[:, None] > 0
        scores = scores.masked_fill(~keep, torch.finfo(scores.dtype).min)
        loss = cross_entropy(scores.reshape(-1, LENGTH), wanted.long().reshape(-1))
    else:
        loss = cross_entropy(outputs[real], wanted[real].long())
    model.zero_grad()
    loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return outputs.detach().numpy(), float(loss.detach()), saved_names(model, grads)


def saved_names(model, tensors):
    """Rename tensors, as transformers does when it saves them, and make arrays."""
    from transformers.core_model_loading import revert_weight_conversion

    saved = revert_weight_conversion(model, tensors)
    return {name: tensor.numpy() for name, tensor in saved.items()}


def spread(outputs, real) -> float:
    """Standard deviation of what is compared."""
    return float(outputs[real].std())


def golden_file(model_type) -> Path:
    """Where a family's recorded answers are."""
    return Path(__file__).parent / "golden" / f"{model_type}.npz"
