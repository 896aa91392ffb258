# SPDX-License-Identifier: Apache-2.0
import itertools
import json
import sys

import jax
import numpy as np
import pytest

from jft.data import make_train_loader, select_columns
from jft.data.sources.tfds import TfdsSource
from jft.optim import make_optimizer
from jft.partition import label_params
from jft.tasks.classification import make_loss
from jft.train import fit, init_state, log_metrics, make_train_step

BATCH, ROWS, STEPS = 8, 36, 12  # two epochs and two thirds
STOP = 7  # 56 of 36 + 36 examples: in the middle of the second epoch


class ToyFields:
    """A picture of the row's number, and its class by name."""

    def __call__(self, example):
        grey = example["image"].mean(dtype=np.float32) / 20 - 1
        return {
            "pixel_values": np.full((8, 8, 1), grey, np.float32),
            "targets": np.asarray("012".index(example["targets"]), np.int32),
            "index": np.asarray(example["index"], np.int32),
        }


def make_loader(data_dir, **changes):
    source = TfdsSource("toy_tfds", split=f"train[4:{ROWS + 4}]", data_dir=data_dir)
    fields = {"image": "image", "targets": "level"}
    arguments = {"global_batch_size": BATCH, "seed": 3, "fields_fn": ToyFields()}
    return make_train_loader(select_columns(source, fields), **arguments, **changes)


def take(loader, start, count):
    stream = loader.batches(start)
    batches = list(itertools.islice(stream, count))
    stream.close()
    return batches


@pytest.fixture
def train(tiny_vit):
    labels = label_params(tiny_vit.params, [(".*", "all")])
    tx = make_optimizer(labels, learning_rate=1e-2, layer_index=tiny_vit.layer_index)
    step = make_train_step(
        tiny_vit.apply_fn, make_loss(), tx, labels, group_of=tiny_vit.layer_index
    )

    def run(loader, state=None, history=None, stop=None):
        if state is None:
            key = jax.random.key(0)
            state = init_state(tiny_vit.params, labels, tx=tx, key=key)
        seen = itertools.count(int(state.step))
        return fit(
            state,
            step,
            batches=loader.batches,
            num_steps=STEPS,
            hooks=(log_metrics(1),),
            history=history,
            stop_requested=lambda: next(seen) == stop,
        )

    return run


def test_a_run_stopped_in_the_second_epoch_goes_on_with_the_very_next_batch(
    toy_data_dir, train
):
    loader = make_loader(toy_data_dir)
    batches = take(loader, 0, STEPS)
    unbroken = train(loader)
    losses = [record["loss"] for record in unbroken.history]
    assert losses[-1] < losses[0]
    order = np.concatenate([batch["index"] for batch in batches])
    for epoch in (order[:ROWS], order[ROWS : 2 * ROWS]):
        assert sorted(epoch.tolist()) == list(range(ROWS))

    first = train(loader, stop=STOP)
    assert int(first.state.step) == STOP
    kept = json.dumps(loader.state(STOP))
    again = make_loader(toy_data_dir)  # as another process would
    assert again.check_state(json.loads(kept)) == STOP
    (following,) = take(again, STOP, 1)
    for name, value in batches[STOP].items():
        np.testing.assert_array_equal(following[name], value)
    second = train(again, state=first.state, history=first.history)
    assert second.history == unbroken.history
    pairs = zip(*map(jax.tree.leaves, (second.state, unbroken.state)), strict=True)
    for one, other in pairs:
        if not jax.dtypes.issubdtype(one.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(one, other)
    assert "tensorflow" not in sys.modules


def test_worker_processes_read_the_same_batches(toy_data_dir):
    alone = take(make_loader(toy_data_dir), STOP, 2)
    together = take(make_loader(toy_data_dir, num_workers=2), STOP, 2)
    for one, other in zip(alone, together, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
