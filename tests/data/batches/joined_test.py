# SPDX-License-Identifier: Apache-2.0
"""Joined loaders give at any step the batches that each alone would give."""

import dataclasses
import itertools

import numpy as np
import pytest

from jft.data import join_loaders, make_train_loader
from jft.data.sources.source import ArraySource
from jft.types import InputError


def numbers(example):
    return {"x": np.float32(example["x"])}


def make_loader(start, size, batch, seed=0):
    source = ArraySource({"x": np.arange(start, start + size)})
    return make_train_loader(
        source, fields_fn=numbers, global_batch_size=batch, seed=seed,
        process_index=0, process_count=1,
    )  # fmt: skip


def take(loader, start, count):
    stream = loader.batches(start)
    batches = list(itertools.islice(stream, count))
    stream.close()
    return batches


def test_any_step_has_the_batch_of_each_stream():
    one, other = make_loader(0, 10, 4), make_loader(100, 7, 3)
    joined = join_loaders(one, other, name="along")
    apart = zip(take(one, 0, 8), take(other, 0, 8), strict=True)
    for both, (mine, along) in zip(take(joined, 0, 8), apart, strict=True):
        np.testing.assert_array_equal(both["x"], mine["x"])
        np.testing.assert_array_equal(both["along"]["x"], along["x"])
    # from any step on, as after a resume
    for late, early in zip(take(joined, 5, 3), take(joined, 0, 8)[5:], strict=True):
        np.testing.assert_array_equal(late["x"], early["x"])
        np.testing.assert_array_equal(late["along"]["x"], early["along"]["x"])


def test_each_stream_goes_through_its_own_epochs():
    joined = join_loaders(make_loader(0, 8, 4), make_loader(100, 6, 3), name="along")
    assert joined.steps_per_epoch == 2
    batches = take(joined, 0, 2)
    seen = np.concatenate([batch["along"]["x"] for batch in batches])
    assert sorted(seen) == list(range(100, 106))
    assert joined.largest()["along"]["x"].shape == (3,)


def test_a_checkpoint_names_both():
    one, other = make_loader(0, 10, 4), make_loader(100, 7, 3)
    joined = join_loaders(one, other, name="along")
    assert joined.check_state(joined.state(5)) == 5
    changed = join_loaders(one, make_loader(100, 7, 3, seed=1), name="along")
    for stream in (changed, one):
        with pytest.raises(InputError, match="along"):
            stream.check_state(joined.state(5))
    assert dataclasses.asdict(joined)["settings"]["along"]["global_batch_size"] == 3
