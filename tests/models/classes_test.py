# SPDX-License-Identifier: Apache-2.0
"""The head's classes and its kind of problem: loaded, exported, in transformers."""

import json
import re

import jax
import numpy as np
import pytest

import jft
from jft.models.classes import ANY_OF_SEVERAL, NUMBER, ONE_OF_SEVERAL, with_classes
from jft.types import InputError
from tests.models import peer
from tests.models.table import TABLE
from tests.tiny_tokenizer import make_tokenizer

KEY = jax.random.key(3)
NAMES = ("calm", "joy", "rage")
PROBLEMS = {
    ONE_OF_SEVERAL: NAMES,
    ANY_OF_SEVERAL: NAMES,
    NUMBER: ("LABEL_0",),
}
NO_TORCH = "torch is absent: pip install -e '.[parity]'"
VIT = {
    "model_type": "vit", "hidden_size": 12, "num_hidden_layers": 1, "image_size": 4,
    "num_attention_heads": 2, "intermediate_size": 16, "patch_size": 2,
}  # fmt: skip


def write(folder, task="sequence_classification", names=NAMES, problem_type=None):
    """A tiny BERT with a head of these classes."""
    config = {"model_type": "bert", **TABLE["bert"].config}
    if names:
        config = with_classes(config, names, problem_type)
    _, params = peer.make_jft("bert", config, task)
    jft.export.save_pretrained(folder, params, config=config, task=task)
    return params


@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_config_says_what_transformers_would(problem_type, tmp_path):
    from transformers import BertConfig

    names = PROBLEMS[problem_type]
    theirs = BertConfig(
        problem_type=problem_type,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    if problem_type == NUMBER:
        theirs = BertConfig(problem_type=problem_type, num_labels=1)
    theirs.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    write(tmp_path / "base", "base", names=())
    model = jft.load(
        tmp_path / "base",
        task="sequence_classification",
        class_names=None if problem_type == NUMBER else names,
        problem_type=problem_type,
        key=KEY,
    )
    jft.save(tmp_path / "ours", model)
    ours = json.loads((tmp_path / "ours" / "config.json").read_text())
    for field in ("problem_type", "id2label", "label2id", "num_labels"):
        assert ours.get(field) == written.get(field), field
    assert model.class_names == names
    assert model.params["classifier"]["kernel"].shape == (24, len(names))


def make_model(model_type, problem_type):
    """A model from scratch whose logits have a spread, and a batch for it."""
    rng = np.random.default_rng(1)
    row = TABLE["bert"]
    if model_type == "vit":
        settings, task = VIT, "image_classification"
        batch = {"pixel_values": rng.normal(size=(4, 4, 4, 3)).astype(np.float32)}
    else:
        settings = {"model_type": "bert", **row.config}
        task = "sequence_classification"
        ids = rng.integers(4, 41, (4, 6)).astype(np.int32)
        batch = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    names = None if problem_type == NUMBER else NAMES
    model = jft.init_model(
        settings, key=KEY, task=task, class_names=names, problem_type=problem_type
    )
    params = jax.tree.map(lambda x: x * 20 if x.ndim > 1 else x, model.params)
    return model._replace(params=params), batch


def loss_by_hand(problem_type, logits, targets):
    logits = logits.astype(np.float64)
    if problem_type == NUMBER:
        return ((logits[:, 0] - targets) ** 2).mean()
    if problem_type == ANY_OF_SEVERAL:
        return (np.logaddexp(0, logits) - targets * logits).mean()
    scores = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(logits)), targets]
    return scores.mean()


@pytest.mark.parametrize("problem_type", PROBLEMS)
@pytest.mark.parametrize("model_type", ["bert", "vit"])
def test_transformers_takes_the_same_loss(model_type, problem_type, tmp_path):
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    import transformers

    model, batch = make_model(model_type, problem_type)
    jft.save(tmp_path, model)
    logits = np.asarray(model.apply_fn(model.params, batch, key=None))
    assert 0.2 < logits.std() < 5
    targets = {
        NUMBER: np.array([0.5, -1.0, 2.0, 3.5], np.float32),
        ANY_OF_SEVERAL: (np.eye(4, 3) + np.eye(4, 3, k=1)).astype(np.float32),
        ONE_OF_SEVERAL: np.array([0, 2, 1, 1]),
    }[problem_type]  # fmt: skip
    cls = getattr(transformers, model.family.heads[model.task])
    inputs = {k: torch.from_numpy(x) for k, x in batch.items()}
    if model_type == "vit":
        inputs = {"pixel_values": inputs["pixel_values"].permute(0, 3, 1, 2)}
    theirs = cls.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        outputs = theirs(**inputs, labels=torch.from_numpy(targets))
    np.testing.assert_allclose(outputs.logits.numpy(), logits, atol=1e-4)
    expected = loss_by_hand(problem_type, logits, targets)
    assert float(outputs.loss) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_transformers_pipeline_treats_the_scores_as_meant(problem_type, tmp_path):
    pytest.importorskip("torch", reason=NO_TORCH)
    from transformers import pipeline

    model, _ = make_model("bert", problem_type)
    tokenizer = make_tokenizer(model_max_length=16)
    jft.save(tmp_path, model._replace(processor=tokenizer))
    text = "a great film"
    fields = {k: np.asarray(x)[None] for k, x in tokenizer(text).items()}
    logits = np.asarray(model.apply_fn(model.params, fields, key=None))[0]
    expected = {
        NUMBER: logits,
        ANY_OF_SEVERAL: 1 / (1 + np.exp(-logits)),
        ONE_OF_SEVERAL: np.exp(logits) / np.exp(logits).sum(),
    }[problem_type]
    answers = pipeline("text-classification", model=str(tmp_path))(text, top_k=None)
    found = {answer["label"]: answer["score"] for answer in answers}
    assert [found[name] for name in PROBLEMS[problem_type]] == pytest.approx(
        expected.tolist(), abs=1e-4
    )


# --- whose head -----------------------------------------------------------------------
@pytest.mark.parametrize("problem_type", [None, ANY_OF_SEVERAL])
def test_head_of_these_classes_is_kept(problem_type, tmp_path):
    params = write(tmp_path, problem_type=problem_type)
    model = jft.load(tmp_path, class_names=list(NAMES), problem_type=problem_type)
    assert model.report.new == ()
    assert model.config.get("problem_type") == problem_type
    np.testing.assert_array_equal(
        model.params["classifier"]["kernel"], params["classifier"]["kernel"]
    )


@pytest.mark.parametrize(
    "options",
    [
        {"class_names": NAMES[::-1]},
        {"class_names": NAMES, "problem_type": ANY_OF_SEVERAL},
        {"class_names": NAMES[:2]},
        {"num_classes": 3},
        {"problem_type": NUMBER},
    ],
)
def test_head_of_other_classes_is_replaced(options, tmp_path):
    write(tmp_path)
    model = jft.load(tmp_path, key=KEY, **options)
    assert model.report.new == ("classifier/bias", "classifier/kernel")


def test_classifier_of_tokens_is_none_of_texts(tmp_path):
    write(tmp_path, "token_classification")
    model = jft.load(
        tmp_path, task="sequence_classification", class_names=NAMES, key=KEY
    )
    assert {"classifier/bias", "classifier/kernel"} <= set(model.report.new)


@pytest.mark.parametrize("said", [NUMBER, None])
def test_head_of_a_number_is_kept_with_its_name(said, tmp_path):
    write(tmp_path, names=["stars"], problem_type=said)
    model = jft.load(tmp_path, problem_type=NUMBER)
    assert model.report.new == ()
    assert model.class_names == ("stars",)
    assert model.config["problem_type"] == NUMBER  # else its pipelines take a sigmoid
    renamed = jft.load(tmp_path, problem_type=NUMBER, class_names=["marks"], key=KEY)
    assert renamed.report.new == ("classifier/bias", "classifier/kernel")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"problem_type": "multi"}, f"expected one of .*{ANY_OF_SEVERAL}"),
        ({"problem_type": NUMBER, "class_names": ["a", "b"]}, "a single number.*2 cl"),
        ({"problem_type": ONE_OF_SEVERAL, "class_names": ["a"]}, "one class only"),
        ({"problem_type": ANY_OF_SEVERAL}, "give the classes"),
        ({"problem_type": NUMBER, "task": "base"}, "has no classes"),
        (
            {
                "problem_type": ANY_OF_SEVERAL,
                "task": "token_classification",
                "class_names": ["a", "b"],
            },
            "each token one class",
        ),
        ({"class_names": []}, "all different"),
    ],
)
def test_classes_that_contradict_are_refused(options, message, tmp_path):
    write(tmp_path)
    settings = {"model_type": "bert", **TABLE["bert"].config}
    options = {"task": "sequence_classification", **options}
    with pytest.raises(InputError, match=re.compile(message)):
        jft.load(tmp_path, key=KEY, **options)
    with pytest.raises(InputError, match=re.compile(message)):
        jft.init_model(settings, key=KEY, **options)
