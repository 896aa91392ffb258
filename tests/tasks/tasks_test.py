# SPDX-License-Identifier: Apache-2.0
"""Every task keeps the contract; a guard fails when one is missing from the table.

From the same examples: fields that pickle, a loss that is a sum and a weight, the
metrics of the reference libraries on 1, 2 and 4 devices with a ragged last batch, and
predictions that a person can read.
"""

import functools
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jft import data, evals, tasks, train
from jft.data import ArraySource, make_examples
from jft.export import model_card
from jft.export.card import PIPELINES
from jft.models import MODELS
from jft.tasks import TASKS, get_task, task_of_head
from jft.types import InputError
from tests.tasks.table import NUM, ROWS, make_model

BATCH = 4  # so that the last of 11 examples is a batch of 3


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    """Task -> its model, examples and table, made once."""
    cache = tmp_path_factory.mktemp("cache")

    @functools.cache
    def make(name):
        row, task = ROWS[name], get_task(name)
        examples = make_examples(ArraySource(row.columns), task.columns)
        model = make_model(row, name, examples.class_names)
        table = examples
        if task.reads == "text":
            table = data.tokenize(examples, model.fields, cache_dir=cache)
        return model, examples, table

    return make


def augment_of(model):
    make_augment = model.task.make_augment
    return None if make_augment is None else make_augment(model.pretrained)


def eval_batches(model, table, batch_size=BATCH):
    fields = {"fields_fn": model.fields} if model.task.reads == "image" else {}
    return data.make_eval_batches(
        table,
        global_batch_size=batch_size,
        augment=augment_of(model),
        num_lengths=2,  # each compiles a program
        **fields,
    )


@functools.cache
def make_eval_step(model, size=None):
    """The step; with a size, that many tokens of each row are scored at a time."""
    chunks = size and train.Chunks(
        prefix_fn=model.pretrained.prefix_fn,
        boundary=model.pretrained.num_layers + 1,
        size=size,
    )
    return train.make_eval_step(
        model.task.make_apply(model.pretrained.apply_fn),
        model.task.make_loss(),
        predict=model.task.predict,
        chunks=chunks,
    )


@functools.cache
def slowly(name, model, examples):
    return ROWS[name].slow(model, examples)


@functools.cache
def scored(model, table, num_devices=1):
    """The scores as a run computes them."""
    devices = np.array(jax.devices()[:num_devices]).reshape(num_devices, 1)
    mesh = jax.sharding.Mesh(devices, ("data", "fsdp"))
    place = functools.partial(train.shard_batch, mesh=mesh)
    batches = list(eval_batches(model, table))
    evaluated = evals.evaluate(
        make_eval_step(model), model.pretrained.params, map(place, batches)
    )
    if model.task.writes:
        texts = {}
        for batch in batches:
            made = evals.generate(
                model.pretrained,
                {name: batch[name] for name in ("input_ids", "attention_mask")},
                **ROWS[model.task.name].generation,
            )
            for i, tokens, length in zip(
                batch["index"], made.tokens, made.lengths, strict=True
            ):
                texts[int(i)] = model.pretrained.processor.decode(
                    tokens[:length], skip_special_tokens=True
                )
        rows = {"texts": [texts[i] for i in range(len(table))]}
        evaluated = evals.Evaluated(
            loss=evaluated.loss, rows=rows, index=evaluated.index
        )
    return tasks.score(model.task, evaluated, table)


def test_every_task_is_in_the_table():
    assert set(ROWS) == set(TASKS)
    assert all(task.name == name for name, task in TASKS.items())


@pytest.mark.parametrize("name", TASKS)
def test_fields_pickle_and_make_batches(name, setup):
    model, examples, table = setup(name)
    again = pickle.loads(pickle.dumps(model.fields))
    one = examples[0] if model.task.reads == "image" else [examples[0]]
    for a, b in zip(
        jax.tree.leaves(model.fields(one)), jax.tree.leaves(again(one)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    batches = list(eval_batches(model, table))
    assert sum(int(batch["loss_mask"].sum()) for batch in batches) == len(table)
    assert all({"index", "loss_mask"} <= set(batch) for batch in batches)


@pytest.mark.parametrize("name", TASKS)
def test_loss_is_a_sum_and_a_weight(name, setup):
    """Rows that are padding weigh nothing, whatever stands in them."""
    model, _, table = setup(name)
    step = make_eval_step(model)

    def total(batch_size):
        outputs = [
            step(model.pretrained.params, batch)
            for batch in eval_batches(model, table, batch_size=batch_size)
        ]
        return [sum(float(x[k]) for x in outputs) for k in ("loss_sum", "weight")]

    parts, whole = total(BATCH), total(len(table))  # as in one batch
    np.testing.assert_allclose(parts, whole, rtol=1e-4)
    assert whole[1] > 0


@pytest.mark.parametrize("name", [n for n, t in TASKS.items() if t.train_metrics])
def test_metrics_of_a_step_leave_padding_out(name, setup):
    model, _, table = setup(name)
    apply_fn = model.task.make_apply(model.pretrained.apply_fn)

    @jax.jit
    def pairs(params, batch):
        outputs = apply_fn(params, batch, key=None)
        return [
            metric_fn(outputs, batch) for metric_fn in model.task.train_metrics.values()
        ]

    def totals(batch_size):
        batches = eval_batches(model, table, batch_size=batch_size)
        found = [pairs(model.pretrained.params, batch) for batch in batches]
        return np.sum(np.asarray(found), axis=0)

    assert len(table) % BATCH  # the last batch has padding
    np.testing.assert_allclose(totals(BATCH), totals(len(table)), rtol=1e-4)


@pytest.mark.parametrize("name", TASKS)
def test_training_steps_lower_the_loss(name, setup):
    model, _, table = setup(name)
    loss_fn = model.task.make_loss()
    apply_fn = model.task.make_apply(model.pretrained.apply_fn)
    batch = next(iter(eval_batches(model, table, batch_size=len(table))))

    def mean_loss(params):
        total, weight = loss_fn(apply_fn(params, batch, key=None), batch)
        return total / weight

    before, grads = jax.jit(jax.value_and_grad(mean_loss))(model.pretrained.params)
    norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(grads)))
    moved = jax.tree.map(
        lambda p, g: p - (0.01 / norm * g).astype(p.dtype),
        model.pretrained.params,
        grads,
    )
    assert float(norm) > 1e-3
    assert jax.jit(mean_loss)(moved) < before


@pytest.mark.parametrize("num_devices", [1, 2, 4])
@pytest.mark.parametrize("name", TASKS)
def test_metrics_are_those_of_the_libraries(name, num_devices, setup):
    model, examples, table = setup(name)
    found = scored(model, table, num_devices).scores
    expected = slowly(name, model, examples)
    for metric in model.task.default_metrics:
        np.testing.assert_allclose(
            found[metric], expected[metric], rtol=1e-4, atol=1e-6, err_msg=metric
        )


def test_tasks_whose_outputs_are_of_words_can_be_scored_in_parts():
    heads = {"masked_lm", "causal_lm", "seq2seq_lm"}
    for name, task in TASKS.items():
        assert task.sums_tokens == (task.head in heads), name


@pytest.mark.parametrize("name", [n for n, task in TASKS.items() if task.sums_tokens])
def test_scored_in_parts_all_is_as_at_once(name, setup):
    """The loss, what is kept of each row, and the metrics inside a training step."""
    model, _, table = setup(name)
    params = model.pretrained.params
    for batch in eval_batches(model, table):
        one, other = (make_eval_step(model, n)(params, batch) for n in (None, 2))
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)
    outputs = model.forward(params, batch)
    half = outputs.shape[1] // 2
    for metric_fn in (model.task.make_loss(), *model.task.train_metrics.values()):
        whole = metric_fn(outputs, batch)
        parts = [
            metric_fn(outputs[:, part], {**batch, "targets": batch["targets"][:, part]})
            for part in (slice(0, half), slice(half, None))
        ]
        np.testing.assert_allclose(np.sum(parts, axis=0), whole, rtol=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_a_prediction_an_example_that_json_can_hold(name, setup):
    model, examples, table = setup(name)
    evaluation = scored(model, table)
    assert len(evaluation.predictions) == NUM
    assert len(evaluation.references) == len(evaluation.predictions)
    for prediction in evaluation.predictions:
        line = model.task.write_prediction(prediction, examples.class_names)
        assert json.loads(json.dumps(line)) == line


@pytest.mark.parametrize("name", TASKS)
def test_pictures_are_drawn(name, setup, tmp_path):
    model, examples, table = setup(name)
    if model.task.plot is None:
        pytest.skip("the task has no picture of its own")
    evaluation = scored(model, table)
    drawn = model.task.plot(
        evaluation.references,
        evaluation.predictions,
        examples.class_names,
        tmp_path / model.task.plot_name,
    )
    assert drawn.stat().st_size > 5000


@pytest.mark.parametrize("name", TASKS)
def test_a_model_without_a_processor_is_refused(name, setup):
    model, _, _ = setup(name)
    bare = model.pretrained._replace(processor=None)
    with pytest.raises(InputError, match=r"the model.*add the"):
        model.task.make_fields(bare, max_length=8)


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


@pytest.mark.parametrize("name", TASKS)
def test_an_unknown_option_is_refused_and_the_known_are_listed(name, setup):
    model, _, _ = setup(name)
    with pytest.raises(InputError, match=r"train.loss_options has \['colour'\]"):
        tasks.call_with_options(
            model.task.make_loss, options={"colour": 1}, what="train.loss_options"
        )
    with pytest.raises(InputError, match="unknown metrics") as error:
        tasks.choose_metrics(model.task, ["speed"])
    assert all(name in str(error.value) for name in model.task.default_metrics)


def test_the_class_and_its_probability():
    logits = np.log(np.array([0.125, 0.25, 0.625], np.float32))
    assert get_task("text_classification").write_prediction(logits, "xyz") == {
        "class": "z",
        "probability": 0.625,
        "probabilities": {"x": 0.125, "y": 0.25, "z": 0.625},
    }


def test_lookups_list_what_there_is():
    assert get_task("text_classification").head == "sequence_classification"
    with pytest.raises(InputError, match=r"'sorting'.*image_classification.*data.task"):
        get_task("sorting")
    assert task_of_head("image_classification").name == "image_classification"
    assert (
        task_of_head("image_classification", "multi_label_classification").name
        == "image_multilabel_classification"
    )
    with pytest.raises(InputError, match=r"'detection', which no task.*sequence_class"):
        task_of_head("detection")


@pytest.mark.parametrize(("mask_padding", "candidates"), [(True, 4), (False, 8)])
def test_padding_competes_for_an_answer_only_where_asked(mask_padding, candidates):
    """As a plain softmax over the candidates has it: their number, where all tie."""
    batch = {
        "targets": jnp.array([[1, 2]]),
        "attention_mask": jnp.array([[1, 1, 1, 1, 0, 0, 0, 0]]),
        "loss_mask": jnp.ones(1),
    }
    loss_fn = get_task("question_answering").make_loss(mask_padding=mask_padding)
    total, weight = loss_fn(jnp.zeros((1, 8, 2)), batch)
    np.testing.assert_allclose(total / weight, np.log(candidates), rtol=1e-6)
