# SPDX-License-Identifier: Apache-2.0
"""The chain equals its formula, on trees of any kind, and refuses contradictions."""

from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jft import paths
from jft.optim import (
    default_decay_mask,
    eval_params,
    label_multiplier,
    layer_multiplier,
    make_optimizer,
    make_schedule,
    product,
)
from jft.partition import combine, label_params, num_params, split
from jft.types import InputError

SHAPES = {
    "embed/kernel": (3, 2),
    "block/kernel": (2, 4),
    "block/bias": (4,),
    "extra/kernel": (2, 2),
    "head/kernel": (4, 3),
    "head/bias": (3,),
}
LABELS = {p: "frozen" if p.startswith("extra") else "body" for p in SHAPES}
LABELS |= {"head/kernel": "head", "head/bias": "head"}
LABEL_TREE = paths.unflatten(LABELS)
LAYERS = {"embed": 0, "block": 1, "extra": 1, "head": 2}


def layer_index(path):
    return LAYERS[path.split("/")[0]]


def draw(seed, dtype=np.float32):
    generator = np.random.default_rng(seed)
    return {p: generator.normal(size=s).astype(dtype) for p, s in SHAPES.items()}


def holes(tree):
    """Replace the frozen leaves by None, as a split does."""
    return paths.map_with_path(lambda p, x: None if LABELS[p] == "frozen" else x, tree)


def hand_adamw(params, grads_of, *, steps):
    """AdamW with everything, written down: clip, decay, anchor, layers, schedule."""
    clip, wd, l2, decay, head_times, ema_decay = 0.7, 0.1, 0.03, 0.5, 3.0, 0.9
    b1, b2, eps = 0.8, 0.95, 1e-6
    moving = [p for p in SHAPES if LABELS[p] != "frozen"]
    p = {k: v.copy() for k, v in params.items()}
    m, v = ({k: np.zeros_like(p[k]) for k in moving} for _ in range(2))
    ema = {k: p[k].copy() for k in moving}
    for t in range(steps):
        g = grads_of(t)
        norm = np.sqrt(sum((g[k] ** 2).sum() for k in moving))
        rate = 0.02 * t / 4 if t < 4 else 0.02 * (10 - t) / 6
        for k in moving:
            gk = g[k] * min(1.0, clip / norm)
            m[k] = b1 * m[k] + (1 - b1) * gk
            v[k] = b2 * v[k] + (1 - b2) * gk**2
            mhat, vhat = m[k] / (1 - b1 ** (t + 1)), v[k] / (1 - b2 ** (t + 1))
            direction = mhat / (np.sqrt(vhat) + eps)
            if k.endswith("kernel"):
                direction = direction + wd * p[k]
            if not k.startswith("head"):
                direction = direction + l2 * (p[k] - params[k])
            scale = decay ** (2 - layer_index(k)) * (head_times if "head" in k else 1)
            p[k] = p[k] - rate * scale * direction
            ema[k] = ema_decay * ema[k] + (1 - ema_decay) * p[k]
    return p, ema


def everything():
    return make_optimizer(
        LABEL_TREE,
        learning_rate=make_schedule("linear", 0.02, num_steps=10, warmup_steps=4),
        hyperparams={"b1": 0.8, "b2": 0.95, "eps": 1e-6},
        weight_decay=0.1,
        l2_sp=0.03,
        clip_norm=0.7,
        anchor_mask=lambda path, leaf: not path.startswith("head/"),
        multiplier=product(
            layer_multiplier(0.5, layer_index, num_layers=1),
            label_multiplier({"head": 3.0}, LABEL_TREE),
        ),
        ema_decay=0.9,
    )


def train(tx, params, grads_of, *, steps):
    opt_state = tx.init(params)
    update = jax.jit(tx.update)
    for t in range(steps):
        updates, opt_state = update(grads_of(t), opt_state, params)
        params = optax.apply_updates(params, updates)
    return params, opt_state


@pytest.mark.parametrize("form", ["full", "split"])
def test_adamw_with_everything_equals_the_hand_formula(form):
    def grads_of(t):
        grads = draw(t + 1, np.float64)
        grads["extra/kernel"] *= 1e6  # a frozen gradient must not reach the clip
        return grads

    prepare = holes if form == "split" else lambda tree: tree
    with jax.enable_x64(True):
        start = draw(0, np.float64)
        expected, expected_ema = hand_adamw(start, grads_of, steps=6)
        params, opt_state = train(
            everything(),
            prepare(paths.unflatten(start)),
            lambda t: prepare(paths.unflatten(grads_of(t))),
            steps=6,
        )
        found = paths.flatten(params)
        for path in found:
            np.testing.assert_allclose(found[path], expected[path], rtol=1e-12)
        averages = paths.flatten(eval_params(opt_state, params))
        for path in expected_ema:
            np.testing.assert_allclose(
                averages[path], expected_ema[path], rtol=1e-12, atol=1e-15
            )
    assert len(found) == (5 if form == "split" else 6)


def test_frozen_leaves_are_bit_identical_without_state_and_state_is_of_trainables():
    params = paths.unflatten(draw(0))
    tx = make_optimizer(LABEL_TREE, learning_rate=0.1, weight_decay=0.5)
    after, opt_state = train(
        tx, params, lambda t: paths.unflatten(draw(t + 1)), steps=3
    )
    before, now = paths.flatten(params), paths.flatten(after)
    for path, label in LABELS.items():
        same = np.array_equal(before[path], now[path])
        assert same == (label == "frozen"), path
    arrays = [x for x in jax.tree.leaves(opt_state) if x.ndim]
    trainable = [before[p] for p in SHAPES if LABELS[p] != "frozen"]
    assert sum(x.nbytes for x in arrays) == 2 * sum(x.nbytes for x in trainable)
    assert all(x.shape != (2, 2) for x in arrays)


def test_state_is_the_same_for_full_and_split_trees():
    params = paths.unflatten(draw(0))
    tx = everything()
    chex.assert_trees_all_equal(tx.init(params), tx.init(holes(params)))


class TwoLayers(nnx.Module):
    def __init__(self, rngs):
        self.body = nnx.Linear(3, 4, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)


def register(cls):
    return jax.tree_util.register_dataclass(dataclass(cls))


@register
class Layer:
    kernel: jax.Array
    bias: jax.Array

    def __call__(self, x):
        return x @ self.kernel + self.bias


@register
class Called:
    """A pytree of attributes that can be called, as an equinox module."""

    body: Layer
    head: Layer

    def __call__(self, x):
        return self.head(self.body(x))


TREES = {
    "nnx": lambda: nnx.state(TwoLayers(nnx.Rngs(0)), nnx.Param),
    "module": lambda: Called(*(Layer(**plain()[name]) for name in ("body", "head"))),
}


def plain():
    return nnx.to_pure_dict(nnx.state(TwoLayers(nnx.Rngs(0)), nnx.Param))


def train_everything(tree):
    """With all that goes by paths: parameters before and after, and their average."""
    labels = label_params(tree, [("body/bias", "frozen"), (".*/kernel|head/.*", "all")])
    depth = lambda path: {"body": 0, "head": 2}[path.split("/")[0]]  # noqa: E731
    tx = make_optimizer(
        labels,
        learning_rate=0.1,
        weight_decay=0.1,
        clip_norm=1.0,
        l2_sp=0.1,
        multiplier=layer_multiplier(0.5, depth, num_layers=1),
        layer_index=depth,
        open_at={2: 0, 0: 1},
        ema_decay=0.9,
    )
    start = split(tree, labels)
    grads = jax.tree.map(lambda x: x + 0.5, start.trainable)
    moved, opt_state = train(tx, start.trainable, lambda t: grads, steps=3)
    return combine(moved, start.frozen), eval_params(opt_state, moved)


@pytest.mark.parametrize("kind", TREES)
def test_a_tree_of_attributes_trains_like_the_plain_dict(kind):
    tree = TREES[kind]()
    ours, theirs = train_everything(tree), train_everything(plain())
    assert jax.tree.structure(ours[0]) == jax.tree.structure(tree)
    for mine, other in zip(ours, theirs, strict=True):
        chex.assert_trees_all_equal(paths.flatten(mine), paths.flatten(other))
    before, after = paths.flatten(tree), paths.flatten(ours[0])
    assert num_params(tree) == 26
    for path in before:
        same = np.array_equal(before[path], after[path])
        assert same == (path == "body/bias"), path


def test_the_default_decay_mask():
    decayed = {
        "vit/encoder/layer/0/attention/output/dense/kernel": (2, 2),
        "vit/embeddings/patch_embeddings/projection/kernel": (2, 2, 1, 4),
        "bert/embeddings/position_embeddings/embedding": (5, 2),
        "scale/kernel": (2, 2),
    }
    spared = {
        "vit/encoder/layer/0/attention/output/dense/bias": (2,),
        "vit/layernorm/scale": (2,),
        "vit/embeddings/position_embeddings": (1, 5, 2),
        "vit/embeddings/cls_token": (1, 1, 2),
        "odd/bias": (2, 2),
        "bias": (2, 2),
        "temperature": (),
    }
    assert all(default_decay_mask(p, np.zeros(s)) for p, s in decayed.items())
    assert not any(default_decay_mask(p, np.zeros(s)) for p, s in spared.items())


def test_a_complete_transform_equals_its_own_run():
    params = paths.unflatten(draw(0))
    tx = make_optimizer(
        jax.tree.map(lambda _: "all", params),
        optimizer=optax.sgd(0.1, momentum=0.9),
        learning_rate=None,
    )

    def grads_of(t):
        return paths.unflatten(draw(t + 1))

    chex.assert_trees_all_close(
        train(tx, params, grads_of, steps=3)[0],
        train(optax.sgd(0.1, momentum=0.9), params, grads_of, steps=3)[0],
        rtol=1e-6,
    )


def test_a_given_direction_gets_decay_sign_and_rate():
    params = {"w": {"kernel": jnp.full((2, 2), 2.0)}}
    labels = {"w": {"kernel": "all"}}
    tx = make_optimizer(
        labels, optimizer=optax.identity(), learning_rate=0.1, weight_decay=0.5
    )
    updates, _ = tx.update(params, tx.init(params), params)
    # -(rate) * (gradient + decay * parameter): the decay is times the rate once
    np.testing.assert_allclose(updates["w"]["kernel"], -0.1 * (2.0 + 0.5 * 2.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adam_w"}, r"unknown optimizer 'adam_w'; known: \['adabelief'"),
        ({"hyperparams": {"beta": 1}}, r"no hyperparameter \['beta'\]; known: \['b1'"),
        ({"learning_rate": None}, "'adamw' needs a learning_rate"),
        (
            {"optimizer": optax.sgd(1), "learning_rate": None, "weight_decay": 1.0},
            "put the decay into it",
        ),
        (
            {"optimizer": optax.sgd(1), "learning_rate": None, "l2_sp": 1.0},
            "put the decay into it",
        ),
        ({"optimizer": optax.sgd(1), "hyperparams": {"b1": 1}}, "no hyperparameter"),
        ({"open_at": {0: 0}}, "open_at needs layer_index"),
        ({"auto_rgn": 1, "open_at": {0: 0}}, "auto_rgn is 1 together with open_at"),
        ({"ema_decay": 0.9, "swa": (0, 1)}, "two averages of which one is evaluated"),
        ({"optimizer": "sam", "open_at": {0: 0}}, "'sam' cannot open groups"),
        ({"optimizer": "schedule_free_sgd", "ema_decay": 0.9}, "with ema_decay"),
        ({"ema_decay": 1.0}, r"expected a number in \[0, 1\)"),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make_optimizer(LABEL_TREE, **({"learning_rate": 0.1} | options))


def test_all_frozen_is_refused():
    with pytest.raises(InputError, match="every parameter is labelled frozen"):
        make_optimizer({"w": "frozen"}, learning_rate=0.1)
