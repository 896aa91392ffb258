# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jft.evals import evaluate
from jft.types import InputError, Interrupted

NUM, NUM_FEATURES, NUM_CLASSES = 19, 6, 3
DATA = np.random.default_rng(0)
FEATURES = DATA.normal(size=(NUM, NUM_FEATURES)).astype(np.float32)
TARGETS = DATA.integers(0, NUM_CLASSES, NUM).astype(np.int32)
PARAMS = {"kernel": DATA.normal(size=(NUM_FEATURES, NUM_CLASSES)).astype(np.float32)}


@jax.jit
def eval_step(params, batch):
    logits = batch["features"] @ params["kernel"]
    losses = -jnp.take_along_axis(
        jax.nn.log_softmax(logits), batch["targets"][:, None], axis=1
    )[:, 0]
    loss_mask = batch["loss_mask"]
    return {
        "rows": {"logits": logits},
        "loss_sum": jnp.sum(losses * loss_mask),
        "weight": jnp.sum(loss_mask),
    }


def make_batches(batch_size, order=None, put=lambda batch: batch):
    order = np.arange(NUM) if order is None else order
    for start in range(0, NUM, batch_size):
        index = order[start : start + batch_size]
        num_padding = batch_size - len(index)
        rows = np.concatenate([index, np.zeros(num_padding, int)])  # a real example's
        loss_mask = (np.arange(batch_size) < len(index)).astype(np.float32)
        yield put(
            {
                "features": FEATURES[rows] + (1 - loss_mask)[:, None] * 1e3,
                "targets": TARGETS[rows],
                "index": rows.astype(np.int32),
                "loss_mask": loss_mask,
            }
        )


def run(batches, step=eval_step, **options):
    return evaluate(step, PARAMS, batches, **options)


def logits_of(result):
    return np.stack(result.rows["logits"])


def assert_same(result, other):
    np.testing.assert_array_equal(other.index, result.index)
    np.testing.assert_allclose(logits_of(other), logits_of(result), atol=1e-6)
    np.testing.assert_allclose(other.loss, result.loss, rtol=1e-6)


def test_equals_the_whole_set_at_once():
    logits = FEATURES @ PARAMS["kernel"]
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    result = run(make_batches(8))
    np.testing.assert_array_equal(result.index, np.arange(NUM))
    assert set(result.rows) == {"logits"}
    np.testing.assert_allclose(logits_of(result), logits, rtol=1e-5, atol=1e-6)
    expected = -np.log(probs[np.arange(NUM), TARGETS]).mean()
    np.testing.assert_allclose(result.loss, expected, rtol=1e-6)


def test_the_loss_is_a_mean_over_weights_not_over_batches():
    """A batch that weighs nothing changes nothing; without any weight there is none."""

    def step(params, batch):
        # the words asked in a row: as many as its class, in class 0 none
        words = batch["targets"] * batch["loss_mask"]
        outputs = eval_step(params, batch)
        return outputs | {"loss_sum": (words * words).sum(), "weight": words.sum()}

    expected = (TARGETS**2).sum() / TARGETS.sum()
    order = np.argsort(TARGETS, kind="stable")  # the first batches weigh 0
    for batch_size in (2, 8, 19):
        result = run(make_batches(batch_size, order), step)
        np.testing.assert_allclose(result.loss, expected, rtol=1e-6)
        np.testing.assert_array_equal(result.index, np.arange(NUM))
    nothing = [b | {"targets": np.zeros(8, np.int32)} for b in make_batches(8)]
    assert np.isnan(run(nothing, step).loss)


def test_rows_of_one_batch_may_be_longer_than_those_of_another():
    lengths = np.arange(NUM) // 4 + 1  # of the batch that a row is in

    def step(params, batch):
        outputs = eval_step(params, batch)
        length = int(lengths[batch["index"][0]])
        tokens = np.tile(batch["index"][:, None], (1, length))
        return outputs | {"rows": {"tokens": tokens}}

    rows = run(make_batches(4), step).rows["tokens"]
    assert [len(row) for row in rows] == lengths.tolist()
    assert all((row == i).all() for i, row in enumerate(rows))


@pytest.mark.parametrize("batch_size", [1, 4, 19, 32])
def test_batch_size_and_padding_change_nothing(batch_size):
    assert_same(run(make_batches(8)), run(make_batches(batch_size)))


def test_order_of_the_source_is_restored():
    shuffled = np.random.default_rng(1).permutation(NUM)
    assert_same(run(make_batches(8)), run(make_batches(8, shuffled)))


def test_sharded_over_devices_counts_the_same():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    put = functools.partial(jax.device_put, device=rows)
    assert len(jax.devices()) == 4
    assert_same(run(make_batches(8)), run(make_batches(8, put=put)))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(jnp.bfloat16, np.float32), (jnp.float16, np.float16), (jnp.int32, np.int32)],
)
def test_only_what_numpy_does_not_know_changes_its_dtype(dtype, expected):
    def step(params, batch):
        outputs = eval_step(params, batch)
        return outputs | {"rows": {"x": outputs["rows"]["logits"].astype(dtype)}}

    assert run(make_batches(8), step).rows["x"][0].dtype == expected


def test_a_stop_is_noticed_between_batches():
    answers = iter([False, False, True])
    ran = []

    def step(params, batch):
        ran.append(1)
        return eval_step(params, batch)

    with pytest.raises(Interrupted):
        run(make_batches(4), step, stop_requested=lambda: next(answers))
    assert len(ran) == 2


def test_an_example_that_comes_twice_is_named():
    batches = [*make_batches(8), next(make_batches(4))]
    with pytest.raises(InputError, match=r"examples \[0, 1, 2, 3\] .*more than once"):
        run(batches)


def test_nothing_real_is_an_error():
    batches = [b | {"loss_mask": np.zeros(8, np.float32)} for b in make_batches(8)]
    for given in (batches, []):
        with pytest.raises(InputError, match="no real example"):
            run(given)


def test_a_missing_field_is_named():
    batches = [{"features": FEATURES, "targets": TARGETS}]
    with pytest.raises(InputError, match=r"lacks \['index', 'loss_mask'\]"):
        run(batches)


def test_host_arrays_may_be_one_processs_share(monkeypatch):
    """Whole evaluations of two processes are in tests/experiments/processes_test.py."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match="2 processes evaluate needs global device"):
        run(make_batches(8))
