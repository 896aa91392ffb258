# SPDX-License-Identifier: Apache-2.0
"""A step moves what is open and nothing else, and pays for no more than that."""

import functools
import gc
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jft import paths
from jft.optim import layer_multiplier, make_optimizer, top_down
from jft.partition import label_params
from jft.tasks.classification import accuracy, make_loss
from jft.train import (
    bytes_on_a_device,
    cast_floating,
    init_state,
    make_eval_step,
    make_mesh,
    make_train_step,
    phases,
    place_state,
    shard_batch,
    state_shardings,
)
from jft.types import InputError

HEAD_ONLY = [("classifier/.*", "head"), (".*", "frozen")]
ALL = [("classifier/.*", "head"), (".*", "backbone")]
TOP = [("classifier/.*", "head"), ("vit/encoder/layer/1/.*", "top"), (".*", "frozen")]
KEY_BIAS = "attention/attention/key/bias"  # its true gradient is zero


def setup(model, rules, *, dtype=None, **optimizer):
    """Labels, optimizer and a state factory for a model."""
    params = model.params if dtype is None else cast_floating(model.params, dtype)
    labels = label_params(params, rules)
    settings = {"learning_rate": 1e-2, **optimizer}
    tx = make_optimizer(labels, layer_index=model.layer_index, **settings)
    state = functools.partial(init_state, params, labels, tx=tx, key=jax.random.key(1))
    return labels, tx, state


def step_of(model, labels, tx, **options):
    return make_train_step(
        model.apply_fn,
        make_loss(),
        tx,
        labels,
        group_of=model.layer_index,
        metric_fns={"accuracy": accuracy},
        **options,
    )


def same_leaves(a, b):
    a, b = paths.flatten(a), paths.flatten(b)
    assert a.keys() == b.keys()
    return {k: bool(np.array_equal(np.asarray(a[k]), np.asarray(b[k]))) for k in a}


@pytest.mark.parametrize("rules", [HEAD_ONLY, TOP, ALL], ids=["head", "top", "all"])
def test_what_is_frozen_stays_and_what_is_not_moves(tiny_vit, rules):
    labels, tx, make_state = setup(tiny_vit, rules, weight_decay=0.1, clip_norm=1.0)
    state = make_state()
    before = jax.tree.map(np.asarray, state.params)
    step = step_of(tiny_vit, labels, tx)
    for i in range(3):
        state, _ = step(state, tiny_vit.batch(8, seed=i))
    same = same_leaves(before, state.params)
    flat = paths.flatten(labels)
    assert {path for path in same if same[path]} == {
        path for path, label in flat.items() if label == "frozen"
    }


def test_optimizer_state_is_that_of_the_trainables(tiny_vit):
    _, _, make_state = setup(tiny_vit, TOP)
    state = make_state()
    trainable = sum(x.nbytes for x in jax.tree.leaves(state.trainable))
    moments = sum(x.nbytes for x in jax.tree.leaves(state.opt_state) if x.ndim)
    assert moments == 2 * trainable
    everything = sum(x.nbytes for x in jax.tree.leaves(state.params))
    assert trainable < everything / 2


def test_donated_and_shared_buffers(tiny_vit):
    labels, tx, make_state = setup(tiny_vit, TOP)
    state = make_state()
    step_of(tiny_vit, labels, tx)(state, tiny_vit.batch(8))
    assert all(x.is_deleted() for x in jax.tree.leaves(state.trainable))
    assert not any(x.is_deleted() for x in jax.tree.leaves(state.frozen))
    assert not any(x.is_deleted() for x in jax.tree.leaves(tiny_vit.params))


KEEPERS = [  # of the parameters that they are started from
    {"l2_sp": 0.1, "ewc": 0.1, "ema_decay": 0.9},
    {"keep_anchor": True, "swa": (1, 1)},
    {"optimizer": "sam"},
    {"optimizer": "schedule_free_adamw"},
]


@pytest.mark.parametrize("options", KEEPERS, ids=str)
@pytest.mark.parametrize("own_loop", [False, True])
def test_what_is_donated_has_buffers_of_its_own(options, own_loop):
    params, labels = {"w": jnp.ones(2)}, {"w": "all"}
    tx = make_optimizer(labels, learning_rate=0.1, **options)
    if own_loop:  # as make_optimizer says
        given = jax.tree.map(jnp.copy, (params, tx.init(params)))
    else:
        state = init_state(params, labels, tx=tx, key=jax.random.key(0))
        given = state.trainable, state.opt_state
    new = jax.jit(lambda *x: x, donate_argnums=(0, 1))(*given)
    assert all(x.is_deleted() for x in jax.tree.leaves(given))
    assert not params["w"].is_deleted()
    assert jnp.array_equal(new[0]["w"], params["w"])


@pytest.mark.parametrize(
    ("mesh", "open_groups"),
    [(None, None), (None, {3}), ({"fsdp": 4}, {3})],
    ids=["gates", "phase", "fsdp"],
)
def test_every_result_takes_the_place_of_what_it_replaces(
    tiny_vit, mesh, open_groups, monkeypatch
):
    """In the compiled program; what is frozen, and the batch, it leaves alone."""
    monkeypatch.setattr("jft.train.sharding.MIN_SHARDED_SIZE", 64)
    labels, tx, make_state = setup(
        tiny_vit, TOP, ema_decay=0.9, open_at=top_down(tiny_vit.num_layers, every=1)
    )
    state, batch, shardings = make_state(), tiny_vit.batch(8), None
    if mesh is not None:
        devices = make_mesh(**mesh)
        shardings = state_shardings(state, devices)
        state, batch = place_state(state, shardings), shard_batch(batch, devices)
    step = step_of(tiny_vit, labels, tx, state_shardings=shardings)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Some donated buffers were not usable")
        program = step.compile(
            state, batch, open_groups=open_groups and frozenset(open_groups)
        ).executable
    moving = state._replace(frozen=None, key=jax.random.key_data(state.key))
    given, frozen, data = program.args_info[0]
    assert all(leaf.donated for leaf in jax.tree.leaves(given))
    assert not any(leaf.donated for leaf in jax.tree.leaves((frozen, data)))
    aliased = program.memory_analysis().alias_size_in_bytes
    assert aliased == bytes_on_a_device(moving)


def test_no_garbage_is_collected_while_a_step_is_traced(tiny_vit):
    labels, tx, make_state = setup(tiny_vit, HEAD_ONLY)
    collects = []

    def apply_fn(params, batch, *, key):
        collects.append(gc.isenabled())
        return tiny_vit.apply_fn(params, batch, key=key)

    step = make_train_step(apply_fn, make_loss(), tx, labels)
    step.lower(make_state(), tiny_vit.batch(8))
    assert collects
    assert not any(collects)
    assert gc.isenabled()


def test_head_only_costs_a_forward(make_tiny_vit):
    model = make_tiny_vit(hidden_size=64, intermediate_size=256, num_hidden_layers=4)
    labels, tx, make_state = setup(model, HEAD_ONLY)
    batch = model.batch(32)
    step = step_of(model, labels, tx).compile(make_state(), batch)
    evaluate = make_eval_step(model.apply_fn, make_loss())
    forward = evaluate.lower(model.params, batch).compile().cost_analysis()["flops"]
    assert step.flops <= 1.05 * forward
    labels, tx, make_state = setup(model, ALL)
    assert step_of(model, labels, tx).compile(make_state(), batch).flops > 2 * forward


@pytest.mark.parametrize("ragged", [0, 5])
def test_accumulation_equals_the_large_batch(tiny_vit, ragged):
    with jax.enable_x64(True):
        ends = []
        for parts in (1, 4):
            labels, tx, make_state = setup(
                tiny_vit, ALL, dtype=jnp.float64, optimizer="sgd", clip_norm=0.1
            )
            state = make_state()
            step = step_of(tiny_vit, labels, tx, grad_accum_steps=parts)
            for i in range(2):
                batch = tiny_vit.batch(8, seed=i, ragged=ragged)
                batch = cast_floating(batch, jnp.float64)
                state, metrics = step(state, batch)
            ends.append((state.trainable, metrics))
        for a, b in zip(
            jax.tree.leaves(ends[0]), jax.tree.leaves(ends[1]), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_loss_is_the_mean_over_real_rows(tiny_vit):
    labels, tx, make_state = setup(tiny_vit, ALL)
    batch = tiny_vit.batch(8, ragged=3)
    _, metrics = step_of(tiny_vit, labels, tx)(make_state(), batch)
    logits = np.asarray(tiny_vit.apply_fn(tiny_vit.params, batch, key=None), np.float64)
    logits, targets = logits[:5], batch["targets"][:5]
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(5), targets]
    np.testing.assert_allclose(metrics["loss"], losses.mean(), rtol=1e-5)
    expected = (logits.argmax(-1) == targets).mean()
    np.testing.assert_allclose(metrics["accuracy"], expected)


def run_openings(model, *, dtype, compiled, num_steps=25):
    """Train over openings, by phases or by gates; losses, state, last gradients."""
    open_at = top_down(model.num_layers, every=6)
    labels, tx, make_state = setup(
        model,
        ALL,
        dtype=dtype,
        open_at=open_at,
        weight_decay=0.05,
        clip_norm=1.0,
        multiplier=layer_multiplier(
            0.8, model.layer_index, num_layers=model.num_layers
        ),
        learning_rate=1e-3,
    )
    step = step_of(model, labels, tx)
    state, losses, structures, programs = make_state(), [], set(), []
    for phase in phases(open_at, num_steps):
        groups = phase.trainable if compiled else None
        for i in range(phase.start, phase.stop):
            batch = cast_floating(model.batch(8, seed=i), dtype)
            state, metrics = step(state, batch, open_groups=groups)
            losses.append(float(metrics["loss"]))
        structures.add(jax.tree.structure(state.opt_state))
        programs.append(step.jitted._cache_size())
    return losses, state, structures, programs


@pytest.mark.parametrize(
    ("dtype", "loss_tolerance"), [(jnp.float64, 1e-10), (jnp.float32, 1e-5)]
)
def test_phases_equal_the_gated_program(tiny_vit, dtype, loss_tolerance):
    with jax.enable_x64(dtype == jnp.float64):
        gated = run_openings(tiny_vit, dtype=dtype, compiled=False)
        phased = run_openings(tiny_vit, dtype=dtype, compiled=True)
        np.testing.assert_allclose(gated[0], phased[0], rtol=0, atol=loss_tolerance)
        assert gated[2] == phased[2]
        assert len(phased[2]) == 1  # one structure of optimizer state in all phases
        assert gated[3] == [1, 1, 1, 1]
        assert phased[3] == [1, 2, 3, 4]  # one program a phase and none in between
        if dtype == jnp.float64:
            a, b = paths.flatten(gated[1].trainable), paths.flatten(phased[1].trainable)
            for path in a:
                if not path.endswith(KEY_BIAS):
                    np.testing.assert_allclose(a[path], b[path], rtol=0, atol=1e-10)


def test_key_biases_have_no_gradient(tiny_vit):
    """Why the comparison above leaves them out: Adam scales up their rounding noise."""
    batch = tiny_vit.batch(8)

    def loss(params):
        total, weight = make_loss()(tiny_vit.apply_fn(params, batch, key=None), batch)
        return total / weight

    grads = paths.flatten(jax.jit(jax.grad(loss))(tiny_vit.params))
    noise = {p: float(jnp.abs(g).max()) for p, g in grads.items()}
    assert all(v < 1e-6 for p, v in noise.items() if p.endswith(KEY_BIAS))
    assert all(v > 1e-5 for p, v in noise.items() if not p.endswith(KEY_BIAS))


def test_a_closed_group_does_not_move(tiny_vit):
    open_at = {0: 4, 1: 4, 2: 2, 3: 0}
    labels, tx, make_state = setup(
        tiny_vit, ALL, open_at=open_at, weight_decay=0.5, clip_norm=1.0
    )
    step = step_of(tiny_vit, labels, tx)
    state = make_state()
    before = jax.tree.map(np.asarray, state.trainable)
    for i in range(5):
        state, _ = step(state, tiny_vit.batch(8, seed=i))
        same = same_leaves(before, state.trainable)
        for path, unchanged in same.items():
            assert unchanged == (i < open_at[tiny_vit.layer_index(path)]), (i, path)


def test_lower_layers_cost_no_backward_pass(tiny_vit):
    labels, tx, make_state = setup(
        tiny_vit, ALL, open_at=top_down(tiny_vit.num_layers, every=1)
    )
    step = step_of(tiny_vit, labels, tx)
    flops = [
        step.compile(
            make_state(), tiny_vit.batch(32), open_groups=frozenset(range(low, 4))
        ).flops
        for low in (3, 2, 1, 0)
    ]
    assert flops == sorted(flops)
    assert flops[1] > 1.3 * flops[0]
    assert flops[2] > 1.3 * flops[1]


def test_a_step_that_is_not_finite_changes_nothing(tiny_vit):
    labels, tx, make_state = setup(tiny_vit, ALL, ema_decay=0.9)
    step = step_of(tiny_vit, labels, tx)
    state, _ = step(make_state(), tiny_vit.batch(8))
    kept = jax.tree.map(np.asarray, (state.trainable, state.opt_state))
    bad = tiny_vit.batch(8)
    bad["pixel_values"][3, 0, 0, 0] = np.nan
    for streak in (1, 2):
        state, metrics = step(state, bad)
        assert int(metrics["nonfinite_streak"]) == streak
    assert all(same_leaves(kept, (state.trainable, state.opt_state)).values())
    state, metrics = step(state, tiny_vit.batch(8))
    assert int(metrics["nonfinite_streak"]) == 0
    assert int(state.nonfinite_total) == 2
    assert int(state.step) == 4


def test_a_skipped_step_delays_no_opening(tiny_vit):
    """Gates and schedule run on the steps of the run, not on those that counted."""
    open_at = {0: 3, 1: 3, 2: 2, 3: 0}
    labels, tx, make_state = setup(tiny_vit, ALL, open_at=open_at)
    step = step_of(tiny_vit, labels, tx)
    state = make_state()
    before = jax.tree.map(np.asarray, state.trainable)
    for i in range(4):
        batch = tiny_vit.batch(8, seed=i)
        if i == 1:
            batch["pixel_values"][:] = np.nan
        state, _ = step(state, batch)
        same = same_leaves(before, state.trainable)
        for path, unchanged in same.items():
            assert unchanged == (i < open_at[tiny_vit.layer_index(path)]), (i, path)


def test_mixed_precision_keeps_float32_masters(tiny_vit):
    labels, tx, _ = setup(tiny_vit, TOP)
    state = init_state(
        tiny_vit.params,
        labels,
        tx=tx,
        key=jax.random.key(0),
        frozen_dtype=jnp.bfloat16,
    )
    assert {x.dtype for x in jax.tree.leaves(state.frozen)} == {jnp.dtype("bfloat16")}
    step = step_of(tiny_vit, labels, tx, compute_dtype=jnp.bfloat16)
    state, metrics = step(state, tiny_vit.batch(8))
    assert {x.dtype for x in jax.tree.leaves(state.trainable)} == {np.dtype("float32")}
    assert metrics["loss"].dtype == jnp.float32
    _, exact = step_of(tiny_vit, labels, tx)(
        init_state(tiny_vit.params, labels, tx=tx, key=jax.random.key(0)),
        tiny_vit.batch(8),
    )
    np.testing.assert_allclose(metrics["loss"], exact["loss"], rtol=0.05)
    assert float(metrics["loss"]) != float(exact["loss"])


def test_dropout_depends_on_seed_and_step_alone(make_tiny_vit):
    model = make_tiny_vit(hidden_dropout_prob=0.5)
    labels, tx, make_state = setup(model, ALL)
    step = step_of(model, labels, tx)
    batch = model.batch(8)

    def loss_at(number, key):
        state = make_state()._replace(step=jnp.asarray(number, jnp.int32), key=key)
        return float(step(state, batch)[1]["loss"])

    seven = [loss_at(7, jax.random.key(1)) for _ in range(2)]
    assert seven[0] == seven[1]
    assert loss_at(8, jax.random.key(1)) != seven[0]
    assert loss_at(7, jax.random.key(2)) != seven[0]


def test_any_gradient_transformation(tiny_vit):
    labels = label_params(tiny_vit.params, HEAD_ONLY)
    tx = optax.adam(1e-2)
    state = init_state(tiny_vit.params, labels, tx=tx, key=jax.random.key(0))
    step = step_of(tiny_vit, labels, tx)
    losses = []
    for _ in range(5):
        state, metrics = step(state, tiny_vit.batch(8))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]


def test_labels_and_state_must_agree(tiny_vit):
    _, tx, make_state = setup(tiny_vit, HEAD_ONLY)
    other = label_params(tiny_vit.params, TOP)
    with pytest.raises(InputError, match="disagree on what trains"):
        step_of(tiny_vit, other, tx)(make_state(), tiny_vit.batch(8))


def test_open_groups_need_a_group_of(tiny_vit):
    labels, tx, make_state = setup(tiny_vit, HEAD_ONLY)
    step = make_train_step(tiny_vit.apply_fn, make_loss(), tx, labels)
    with pytest.raises(InputError, match="group_of"):
        step(make_state(), tiny_vit.batch(8), open_groups=frozenset({3}))
