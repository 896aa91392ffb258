# SPDX-License-Identifier: Apache-2.0
"""``jft.load`` and ``jft.save`` on text models: heads, names, tokenizers, memory."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jft
from jft.models import MODELS, get_family
from jft.params import abstract_params, init_params
from jft.paths import flatten
from jft.types import InputError
from tests.models import peer
from tests.models.table import TABLE

WEIGHTS = "model.safetensors"
KEY = jax.random.key(3)
ROW = TABLE["bert"]


def write_bert(folder, task="base", changes=None):
    """A tiny BERT's folder, by jft alone."""
    config = peer.full_config("bert", ROW, task, changes)
    module, params = peer.make_jft("bert", config, task)
    jft.export.save_pretrained(folder, params, config=config, task=task)
    return module, params


def rewrite(folder, change):
    """Change the tensors of a folder: ``change(tensors) -> tensors``."""
    tensors = change(load_file(folder / WEIGHTS))
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def assert_same(ours, theirs):
    ours, theirs = flatten(ours), flatten(theirs)
    for path in ours.keys() & theirs.keys():
        np.testing.assert_array_equal(ours[path], theirs[path], err_msg=path)


# --- heads ----------------------------------------------------------------------------
def test_own_head_is_the_one_that_architectures_names(tmp_path):
    _, params = write_bert(tmp_path, "token_classification")
    model = jft.load(tmp_path)
    assert model.task == "token_classification"
    assert model.class_names == ("class 0", "class 1", "class 2", "class 3")
    assert model.report.new == model.report.unused == ()
    assert_same(model.params, params)


def test_base_gets_a_new_head_from_the_familys_initializer(tmp_path):
    _, params = write_bert(tmp_path)
    model = jft.load(tmp_path, task="sequence_classification", num_classes=3, key=KEY)
    assert model.report.new == ("classifier/bias", "classifier/kernel")
    assert_same(model.params["bert"], params["bert"])
    head = init_params(
        model.family, model.module.config, task=model.task, key=KEY,
        only=["classifier/.*"],
    )["classifier"]  # fmt: skip
    np.testing.assert_array_equal(model.params["classifier"]["kernel"], head["kernel"])
    assert (model.params["classifier"]["bias"] == 0).all()
    assert 0.01 < model.params["classifier"]["kernel"].std() < 0.04


def test_task_model_gives_its_backbone_to_another_head(tmp_path):
    _, params = write_bert(tmp_path, "masked_lm")
    model = jft.load(tmp_path, task="sequence_classification", num_classes=2, key=KEY)
    # a masked-word model has no pooler: it is new too
    assert {path.split("/")[1] for path in model.report.new} == {
        "pooler", "kernel", "bias",
    }  # fmt: skip
    assert {path.split("/")[0] for path in model.report.unused} == {"cls"}
    assert_same(model.params["bert"]["encoder"], params["bert"]["encoder"])
    base = jft.load(tmp_path, task="base", key=KEY)
    assert_same(base.params["bert"]["encoder"], params["bert"]["encoder"])


def test_new_classes_replace_a_head_of_the_same_size_too(tmp_path):
    write_bert(tmp_path, "sequence_classification")
    model = jft.load(tmp_path, num_classes=4, key=KEY)
    assert model.report.new == ("classifier/bias", "classifier/kernel")
    assert model.class_names == ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "sequence_classification"}, "classifier/bias.*key is None"),
        ({"num_classes": 2, "key": KEY}, "'base' has no classes.*task="),
        ({"task": "causal_lm"}, r"no head for the task 'causal_lm'.*\['base'"),
        ({"vocab_size": 7, "key": KEY}, "can only grow"),
        ({"vocab_size": 50}, "key is None"),
    ],
)
def test_what_cannot_be_loaded_so_is_refused(options, message, tmp_path):
    write_bert(tmp_path)
    with pytest.raises(InputError, match=message):
        jft.load(tmp_path, **options)


def test_a_head_that_is_not_known_asks_for_a_task(tmp_path):
    write_bert(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["BertForNextSentencePrediction"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"'BertForNextSentencePrediction'.*task="):
        jft.load(tmp_path)
    assert jft.load(tmp_path, task="base").report.new == ()


# --- sizes, dtypes, places ------------------------------------------------------------
def test_embedding_grows_with_the_tokenizer(tmp_path):
    _, params = write_bert(tmp_path, "masked_lm")
    model = jft.load(tmp_path, vocab_size=50, key=KEY)
    table = model.params["bert"]["embeddings"]["word_embeddings"]["embedding"]
    old = params["bert"]["embeddings"]["word_embeddings"]["embedding"]
    assert table.shape == (50, 24)
    np.testing.assert_array_equal(table[:41], old)
    assert 0.005 < table[41:].std() < 0.05  # drawn, as the family initialises
    np.testing.assert_array_equal(
        model.params["cls"]["predictions"]["bias"][:41],
        params["cls"]["predictions"]["bias"],
    )
    assert model.config["vocab_size"] == 50
    assert "made larger bert/embeddings/word_embeddings" in str(model.report)
    jft.save(tmp_path / "grown", model)
    assert_same(jft.load(tmp_path / "grown").params, model.params)


def test_dtype_that_holds_no_fractions_is_refused(tmp_path):
    write_bert(tmp_path)
    with pytest.raises(InputError, match="dtype is int32"):
        jft.load(tmp_path, dtype=jnp.int32)


def test_what_is_shipped_has_no_revision():
    with pytest.raises(InputError, match="which jft ships"):
        jft.load("jft:letters_vit", revision="main")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("stored", [np.float32, np.float16, jnp.bfloat16])
def test_dtype_is_chosen_on_load(dtype, stored, tmp_path):
    write_bert(tmp_path)
    rewrite(tmp_path, lambda tensors: {k: x.astype(stored) for k, x in tensors.items()})
    params = jft.load(tmp_path, dtype=dtype).params
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(dtype)}


def test_leaves_go_straight_to_their_shards(tmp_path):
    write_bert(tmp_path, changes={"vocab_size": 400, "hidden_size": 48})
    mesh = jft.train.make_mesh(data=1, fsdp=4)
    model = jft.load(tmp_path, mesh=mesh)
    expected = jft.train.param_shardings(model.params, mesh)
    for path, leaf in flatten(model.params).items():
        assert leaf.sharding == flatten(expected)[path], path
    table = model.params["bert"]["embeddings"]["word_embeddings"]["embedding"]
    assert {shard.data.shape for shard in table.addressable_shards} == {(100, 48)}
    assert_same(model.params, jft.load(tmp_path).params)


PEAK = """
import sys, threading, time
import jax, jax.numpy as jnp
import jft

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def watch():
    while not done:
        peaks.append(resident())
        time.sleep(0.001)

jax.jit(jnp.sin)(jnp.ones(3)).block_until_ready()
before, peaks, done = resident(), [0], False
watcher = threading.Thread(target=watch)
watcher.start()
model = jft.load(sys.argv[1], dtype=jnp.dtype(sys.argv[2]))
done = True
watcher.join()
size = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
print((max(peaks) - before) / size)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_little_more_than_the_model_is_ever_in_memory(tmp_path):
    # BERT-base, 438 MB: resident pages of the mapped file count as well
    family = get_family("bert")
    template = abstract_params(family, family.config_from_dict({}), task="base")
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, leaf.dtype), template)
    config = {"model_type": "bert", "architectures": ["BertModel"]}
    jft.export.save_pretrained(tmp_path, params, config=config, max_shard_size="200MB")
    ratio = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path), "float32"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    ).stdout
    assert 1 < float(ratio) < 1.2


def test_tied_copy_must_be_the_same(tmp_path):
    _, params = write_bert(tmp_path, "masked_lm")
    words = "bert.embeddings.word_embeddings.weight"
    copy = "cls.predictions.decoder.weight"
    rewrite(tmp_path, lambda tensors: {**tensors, copy: tensors[words].copy()})
    model = jft.load(tmp_path)
    assert model.report.unused == ()
    assert_same(model.params, params)
    rewrite(tmp_path, lambda tensors: {**tensors, copy: tensors[words] + 1})
    with pytest.raises(InputError, match=r"decoder\.weight and .* differ.*to false"):
        jft.load(tmp_path)
    # another head has no use for it
    base = jft.load(tmp_path, task="token_classification", num_classes=2, key=KEY)
    assert "cls/predictions/decoder/weight" in base.report.unused


# --- tokenizers, files ----------------------------------------------------------------
def write_tokenizer(folder, num_words):
    """A word-level tokenizer, in the file that transformers writes."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"w{i}" for i in range(num_words - len(words))]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    )
    fast.save_pretrained(folder)


def test_tokenizer_comes_and_goes_with_the_model(tmp_path):
    write_bert(tmp_path / "in")
    write_tokenizer(tmp_path / "in", 41)
    model = jft.load(tmp_path / "in")
    files = jft.save(tmp_path / "out", model)
    assert tmp_path / "out" / "tokenizer.json" in files
    again = jft.load(tmp_path / "out")
    assert (
        again.processor("w1 w7")["input_ids"] == model.processor("w1 w7")["input_ids"]
    )
    assert len(again.processor) == 41


def test_model_without_a_tokenizer_has_none(tmp_path):
    write_bert(tmp_path)
    assert jft.load(tmp_path).processor is None


def test_tokenizer_with_more_words_than_the_embedding_is_refused(tmp_path):
    write_bert(tmp_path)
    write_tokenizer(tmp_path, 44)
    with pytest.raises(InputError, match=r"44 tokens.*41 rows.*vocab_size=44"):
        jft.load(tmp_path)
    assert jft.load(tmp_path, vocab_size=44, key=KEY).config["vocab_size"] == 44


def test_token_that_no_text_produces_needs_no_row(tmp_path):
    write_bert(tmp_path)
    write_tokenizer(tmp_path, 41)
    tokenizer = jft.load(tmp_path).processor
    tokenizer.add_special_tokens({"extra_special_tokens": ["<image_soft_token>"]})
    tokenizer.save_pretrained(tmp_path)
    assert len(jft.load(tmp_path).processor) == 42


def test_damaged_tokenizer_is_named(tmp_path):
    write_bert(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"the tokenizer in .* cannot be read"):
        jft.load(tmp_path)


def test_code_in_a_folder_is_passed_over(tmp_path):
    write_bert(tmp_path)
    write_tokenizer(tmp_path, 41)
    (tmp_path / "evil.py").write_text("raise SystemExit('the code of the folder ran')")
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((tmp_path / name).read_text())
        content["auto_map"] = {
            "AutoConfig": "evil.Evil", "AutoTokenizer": ["evil.Evil", None],
        }  # fmt: skip
        content.pop("tokenizer_class", None)
        (tmp_path / name).write_text(json.dumps(content))
    assert len(jft.load(tmp_path).processor) == 41


# --- bad input: before anything is allocated ------------------------------------------
def damage_truncated(folder):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-100])


def damage_nan(folder):
    def change(tensors):
        tensors["encoder.layer.1.output.dense.bias"][0] = np.nan
        return tensors

    rewrite(folder, change)


def damage_pickle(folder):
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def damage_index(folder):
    damage_missing_shard(folder)
    index = {"weight_map": {"embeddings.word_embeddings.weight": "../x.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def damage_missing_shard(folder):
    (folder / WEIGHTS).unlink()
    index = {"weight_map": {"embeddings.word_embeddings.weight": "x.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def damage_model_type(folder):
    (folder / "config.json").write_text('{"model_type": "nobody"}')


def damage_field(folder):
    config = json.loads((folder / "config.json").read_text())
    config["position_embedding_type"] = "relative_key"
    (folder / "config.json").write_text(json.dumps(config))


DAMAGES = {
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "has no weights"),
    "pickle only": (damage_pickle, r"pytorch_model\.bin.*save_pretrained"),
    "index outside": (damage_index, r"\.\./x\.safetensors.*own folder"),
    "missing shard": (damage_missing_shard, r"x\.safetensors, which is not there"),
    "truncated": (damage_truncated, "cannot be read.*damaged or incomplete"),
    "no safetensors": (lambda f: (f / WEIGHTS).write_text("{}"), "cannot be read"),
    "unknown model": (damage_model_type, "'nobody' is not known; known are .*'bert'"),
    "unsupported field": (damage_field, "position_embedding_type is 'relative_key'"),
    "tokenizer": (lambda f: write_tokenizer(f, 44), "44 tokens"),
    "nan": (damage_nan, r"encoder\.layer\.1\.output\.dense\.bias holds NaN"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_bad_folder_is_one_sentence_before_anything_is_allocated(
    name, tmp_path, monkeypatch
):
    write_bert(tmp_path)
    damage, message = DAMAGES[name]
    damage(tmp_path)

    def allocate(*args, **options):
        raise AssertionError("something was allocated")

    for what in ("init_params", "merge"):
        monkeypatch.setattr(f"jft.pretrained.{what}", allocate)
    with pytest.raises(InputError, match=message) as caught:
        jft.load(tmp_path, task="sequence_classification", num_classes=2, key=KEY)
    assert "\n" not in str(caught.value)


def test_every_family_can_start_from_nothing():
    for model_type, row in TABLE.items():
        for task in MODELS[model_type].heads:
            config = peer.full_config(model_type, row, task)
            family = get_family(model_type)
            shapes = abstract_params(family, family.config_from_dict(config), task=task)
            assert shapes
