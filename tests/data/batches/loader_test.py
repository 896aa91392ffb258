# SPDX-License-Identifier: Apache-2.0
"""An epoch has each example once; workers, processes and a resume change nothing."""

import itertools
from functools import partial

import numpy as np
import pytest

from jft.data import (
    ArraySource,
    get_augmentation,
    make_eval_batches,
    make_image_fields,
    make_train_loader,
)
from jft.types import InputError

NUM_EXAMPLES = 23
FIELDS_FN = make_image_fields(
    {"do_resize": False, "image_mean": [0.5], "image_std": [0.5]}, num_classes=3
)


def make_source(num_examples=NUM_EXAMPLES, seed=0):
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 255, (num_examples, 4, 4, 1), np.uint8)
    targets = np.arange(num_examples) % 3
    return ArraySource({"image": image, "targets": targets})


def make_loader(**changes):
    arguments = {
        "global_batch_size": 6,
        "seed": 1,
        "fields_fn": FIELDS_FN,
        "augment": get_augmentation("small_affine"),
        "process_index": 0,
        "process_count": 1,
    }
    return make_train_loader(make_source(), **{**arguments, **changes})


def take(loader, start, count):
    stream = loader.batches(start)
    batches = list(itertools.islice(stream, count))
    stream.close()
    return batches


def assert_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
            assert a[name].dtype == b[name].dtype


def test_batch_fields():
    batch = take(make_loader(), 0, 1)[0]
    found = {name: (value.shape, value.dtype.name) for name, value in batch.items()}
    assert found == {
        "pixel_values": ((6, 4, 4, 1), "float32"),
        "targets": ((6,), "int32"),
        "index": ((6,), "int32"),
        "loss_mask": ((6,), "float32"),
    }
    assert batch["loss_mask"].all()
    np.testing.assert_array_equal(batch["targets"], batch["index"] % 3)


def test_each_epoch_visits_every_example_once_in_another_order():
    batches = take(make_loader(), 0, 3 * NUM_EXAMPLES // 6 + 1)
    order = np.concatenate([batch["index"] for batch in batches])
    epochs = [
        order[i * NUM_EXAMPLES : (i + 1) * NUM_EXAMPLES].tolist() for i in range(3)
    ]
    for epoch in epochs:
        assert sorted(epoch) == list(range(NUM_EXAMPLES))
    assert len({tuple(epoch) for epoch in epochs}) == 3
    first_of_seed_2 = take(make_loader(seed=2), 0, 4)
    other = np.concatenate([batch["index"] for batch in first_of_seed_2])
    assert other[:NUM_EXAMPLES].tolist() not in epochs


def test_augmentation_differs_between_epochs_and_not_between_runs():
    batches = take(make_loader(), 0, 8)
    plain = take(make_loader(augment=None), 0, 8)
    seen = {}
    for batch, raw in zip(batches, plain, strict=True):
        np.testing.assert_array_equal(batch["index"], raw["index"])
        assert (batch["pixel_values"] != raw["pixel_values"]).any()
        for index, image in zip(batch["index"], batch["pixel_values"], strict=True):
            seen.setdefault(int(index), []).append(image)
    repeated = [images for images in seen.values() if len(images) > 1]
    assert repeated
    assert all((a[0] != a[1]).any() for a in repeated)
    assert_same(batches, take(make_loader(), 0, 8))


@pytest.mark.parametrize("start", [1, 3, 4, 5, 9])  # 4 holds the border of two epochs
def test_resume_anywhere_and_twice_continues_the_stream(start):
    loader = make_loader()
    unbroken = take(loader, 0, 14)
    state = loader.state(start)
    again = make_loader()
    resumed = take(again, again.check_state(state), 3)
    assert_same(resumed, unbroken[start : start + 3])
    twice = make_loader()
    step = twice.check_state(again.state(start + 3))
    assert_same(take(twice, step, 2), unbroken[start + 3 : start + 5])


def test_workers_do_not_change_the_stream():
    threads = take(make_loader(), 3, 6)
    processes = take(make_loader(num_workers=2), 3, 6)
    assert_same(threads, processes)


@pytest.mark.parametrize("process_count", [2, 3])
def test_processes_share_each_global_batch_in_order(process_count):
    whole = take(make_loader(), 2, 6)
    shards = [
        take(make_loader(process_index=p, process_count=process_count), 2, 6)
        for p in range(process_count)
    ]
    joined = [
        {name: np.concatenate([shard[name] for shard in row]) for name in row[0]}
        for row in zip(*shards, strict=True)
    ]
    assert_same(joined, whole)


def test_grain_iterators_restore_at_every_element():
    import grain

    pipeline = make_loader().pipeline[2:9].to_iter_dataset()
    grain.experimental.assert_equal_output_after_checkpoint(pipeline)


def test_state_is_checked():
    loader = make_loader()
    state = loader.state(7)
    assert loader.check_state(state) == 7
    for changes, name in [({"seed": 5}, "seed"), ({"global_batch_size": 3}, "global")]:
        with pytest.raises(InputError, match=name):
            make_loader(**changes).check_state(state)
    other = make_train_loader(
        make_source(seed=9), global_batch_size=6, seed=1, fields_fn=FIELDS_FN
    )
    with pytest.raises(InputError, match=r"another stream of examples: \['source'\]"):
        other.check_state(state)


def test_steps_per_epoch_is_not_rounded():
    assert make_loader().steps_per_epoch == 23 / 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"process_count": 4}, "6 does not divide over 4 processes"),
        ({"global_batch_size": 0}, "does not divide"),
        ({"seed": -1}, "seed must be from 0"),
        ({"seed": 2**32}, "seed must be from 0"),
    ],
)
def test_bad_train_arguments_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        make_loader(**changes)


def test_errors_of_an_example_reach_the_consumer():
    fields_fn = make_image_fields(
        {"do_resize": False, "image_mean": [0.5], "image_std": [0.5]}, num_classes=2
    )
    with pytest.raises(InputError, match="outside the 2 classes"):
        take(make_loader(fields_fn=fields_fn), 0, 4)


def ragged(fields_fn, example):
    fields = fields_fn(example)
    rows = 4 if example["index"] else 3
    return {**fields, "pixel_values": fields["pixel_values"][:rows]}


def test_uneven_shapes_are_refused():
    loader = make_loader(fields_fn=partial(ragged, FIELDS_FN), augment=None)
    with pytest.raises(InputError, match=r"cannot form a batch.*\(3, 4, 1\)"):
        take(loader, 0, 4)


def eval_batches(num_examples=NUM_EXAMPLES, batch_size=6, index=0, count=1):
    return make_eval_batches(
        make_source(num_examples),
        global_batch_size=batch_size,
        fields_fn=FIELDS_FN,
        process_index=index,
        process_count=count,
    )


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("num_examples", [1, 5, 6, 7, 23])
def test_evaluation_sees_each_example_once(num_examples, count):
    parts = [eval_batches(num_examples, index=i, count=count) for i in range(count)]
    found = []
    for batches in parts:
        listed = list(batches)
        assert len(listed) == len(batches) == -(-num_examples // 6)
        for batch in listed:
            real = batch["loss_mask"] == 1
            assert batch["pixel_values"].shape == (6 // count, 4, 4, 1)
            assert set(batch["loss_mask"].tolist()) <= {0.0, 1.0}
            assert (batch["index"][~real] == -1).all()
            assert not batch["pixel_values"][~real].any()
            found.extend(batch["index"][real].tolist())
    assert sorted(found) == list(range(num_examples))


def test_evaluation_is_in_order_and_repeats():
    batches = eval_batches()
    first = list(batches)
    assert_same(first, list(batches))
    order = np.concatenate([batch["index"] for batch in first])
    assert order.tolist() == [*range(23), -1]
    source = make_source()
    expected = (source[4]["image"].astype(np.float32) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(first[0]["pixel_values"][4], expected, atol=1e-6)


def test_evaluation_refuses_an_uneven_share():
    with pytest.raises(InputError, match="does not divide over 4"):
        eval_batches(count=4)


class Empty:
    class_names = ("a",)
    targets = np.zeros(0, np.int32)

    def __len__(self):
        return 0

    def __getitem__(self, index):
        raise IndexError(index)


@pytest.mark.parametrize(
    "make", [make_eval_batches, partial(make_train_loader, seed=0)]
)
def test_an_empty_source_is_refused(make):
    with pytest.raises(InputError, match="holds no example"):
        make(Empty(), global_batch_size=2, fields_fn=FIELDS_FN)
