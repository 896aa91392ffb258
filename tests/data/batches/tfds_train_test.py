# SPDX-License-Identifier: Apache-2.0
"""Training on slices of a TFDS data set goes on with the very next batch."""

import itertools
import json
import sys

import jax
import numpy as np
import pytest

from jft.data import (
    Column,
    check_splits,
    load_splits,
    make_examples,
    make_train_loader,
)
from jft.data.fields.targets import target_fields
from jft.optim import make_optimizer
from jft.partition import label_params
from jft.tasks.classification import make_loss
from jft.train import fit, init_state, log_metrics, make_train_step
from jft.types import InputError

BATCH, ROWS, STEPS = 6, 32, 12  # two epochs and a quarter
STOP = 7  # 42 of 32 + 32 examples: in the second epoch
SLICES = {"train": "train[:80%]", "validation": "train[80%:]", "test": "test"}


class ToyFields:
    """A picture of the row's number, and its class."""

    def __call__(self, example):
        grey = example["image"].mean(dtype=np.float32) / 20 - 1
        pixels = np.full((8, 8, 1), grey, np.float32)
        return {"pixel_values": pixels, **target_fields(example, num_classes=3)}


def load_examples(data_dir, slices=SLICES):
    sources = load_splits(
        "tfds",
        "toy_tfds",
        options={"data_dir": data_dir},
        columns={"image": "image", "targets": "level"},
        split_paths=slices,
        split_option="split",
        sizes={},
        seed=0,
    )
    columns = Column("image", "image"), Column("targets", "class")
    return {
        name: make_examples(source, columns, class_names=["0", "1", "2"])
        for name, source in sources.items()
    }


def make_loader(data_dir, **changes):
    train = load_examples(data_dir)["train"]
    arguments = {"global_batch_size": BATCH, "seed": 3, "fields_fn": ToyFields()}
    return make_train_loader(train, **arguments, **changes)


def take(loader, start, count):
    stream = loader.batches(start)
    batches = list(itertools.islice(stream, count))
    stream.close()
    return batches


def test_slices_are_splits(toy_data_dir):
    splits = load_examples(toy_data_dir)
    sizes = {name: len(split) for name, split in splits.items()}
    assert sizes == {"train": ROWS, "validation": 8, "test": 10}
    check_splits(splits, global_batch_size=BATCH)
    ids = [split[i]["id"] for split in splits.values() for i in range(len(split))]
    assert sorted(map(int, ids)) == [*range(40), *range(100, 110)]
    place = splits["validation"].where(3, "targets")
    assert place == "toy_tfds/1.0.0, train, row 35, column 'level'"


@pytest.mark.parametrize("other", ["train[70%:]", "train[31:32]+test[:1]", "train"])
def test_overlapping_slices_are_refused(other, toy_data_dir):
    slices = {**SLICES, "test": other}
    message = r"'train' and 'test' share \d+ rows of toy_tfds/1\.0\.0, train: "
    with pytest.raises(InputError, match=message):
        load_examples(toy_data_dir, {name: slices[name] for name in ("train", "test")})


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
