# SPDX-License-Identifier: Apache-2.0
"""Every task keeps the contract; a guard fails when one is missing from the table."""

import pickle

import jax.numpy as jnp
import numpy as np
import pytest

from jft import evals
from jft.data import ArraySource, load_source, make_eval_batches
from jft.export import model_card
from jft.export.card import PIPELINES
from jft.models import MODELS
from jft.tasks import TASKS, get_task, task_of_head
from jft.types import InputError
from tests.tiny_tokenizer import make_tokenizer

PIXELS = {"do_resize": False, "image_mean": [0.5], "image_std": [0.5]}


@pytest.fixture
def inputs(tmp_path):
    """Task -> a source of four examples of three classes, and a processor."""
    (tmp_path / "a.tsv").write_text("a film\tx\ngood\ty\nbad plot\tz\ncast\tx\n")
    image = np.zeros((4, 2, 2, 1), np.uint8)
    targets = np.array([0, 1, 2, 0])
    images = ArraySource({"image": image, "targets": targets}, class_names="xyz")
    return {
        "image_classification": (images, PIXELS),
        "text_classification": (
            load_source("tsv", str(tmp_path / "a.tsv")),
            make_tokenizer(),
        ),
    }


def test_every_task_is_in_the_table(inputs):
    assert set(inputs) == set(TASKS)
    assert all(task.name == name for name, task in TASKS.items())


@pytest.mark.parametrize("name", TASKS)
def test_fields_and_batches(name, inputs):
    task, (source, processor) = TASKS[name], inputs[name]
    assert task.input in source[0]
    fields_fn = task.make_fields(processor, num_classes=3, max_length=8)
    pickle.loads(pickle.dumps(fields_fn))
    (batch,) = make_eval_batches(source, global_batch_size=4, fields_fn=fields_fn)
    assert {*task.fields, "index", "loss_mask"} <= set(batch)
    assert batch["targets"].tolist() == [0, 1, 2, 0]
    few = task.make_fields(processor, num_classes=2, max_length=8)
    batches = make_eval_batches(source, global_batch_size=4, fields_fn=few)
    with pytest.raises(InputError, match="outside the 2 classes"):
        list(batches)


@pytest.mark.parametrize("name", TASKS)
def test_a_model_without_a_processor_is_refused(name):
    with pytest.raises(InputError, match=r"the model.*add the"):
        TASKS[name].make_fields(None, num_classes=3, max_length=8)


@pytest.mark.parametrize("name", TASKS)
def test_loss_and_metrics_are_sums_and_weights(name):
    task = TASKS[name]
    shares = [[0.5, 0.25, 0.25], [0.2, 0.2, 0.6], [0.8, 0.1, 0.1]]
    logits = jnp.log(jnp.array(shares, jnp.float32))
    batch = {
        "targets": np.array([0, 1, 2], np.int32),
        "loss_mask": np.array([1, 1, 0], np.float32),
    }
    total, weight = task.make_loss(0.0)(logits, batch)
    np.testing.assert_allclose(total, -np.log(0.5) - np.log(0.2), rtol=1e-6)
    assert weight == 2
    total, weight = task.train_metrics["accuracy"](logits, batch)
    assert (float(total), float(weight)) == (1, 2)
    evals.check_metric_names(task.metric_names)


@pytest.mark.parametrize("name", TASKS)
def test_a_prediction_is_written_by_class(name):
    logits = np.log(np.array([0.125, 0.25, 0.625], np.float32))
    assert TASKS[name].write_prediction(logits, "xyz") == {
        "class": "z",
        "probability": 0.625,
        "probabilities": {"x": 0.125, "y": 0.25, "z": 0.625},
    }


@pytest.mark.parametrize("name", TASKS)
def test_some_family_has_the_head_and_the_card_knows_the_pipeline(name):
    task = TASKS[name]
    assert any(task.head in family.heads for family in MODELS.values())
    assert task.pipeline in PIPELINES
    card = model_card(
        "a",
        {},
        pipeline=task.pipeline,
        description="b",
        dataset="c",
        data_description="d",
        hyperparams={},
        versions={},
    )
    assert f'pipeline_tag: "{task.pipeline}"' in card


def test_lookups_list_what_there_is():
    assert get_task("text_classification").head == "sequence_classification"
    with pytest.raises(InputError, match=r"'sorting'.*image_classification.*data.task"):
        get_task("sorting")
    assert task_of_head("image_classification").name == "image_classification"
    with pytest.raises(InputError, match=r"'base', which no task.*sequence_class"):
        task_of_head("base")
