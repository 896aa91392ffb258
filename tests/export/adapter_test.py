# SPDX-License-Identifier: Apache-2.0
"""PEFT and jft read each other's adapters and give the same answers."""

import importlib.util
import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jft
from jft.params.adapters import Bottleneck, Ia3, Lora, Vera
from jft.paths import flatten, map_with_path
from jft.types import InputError
from tests.models import peer
from tests.models.table import TABLE
from tests.params.adapters import table

TOLERANCE = 1e-4  # on logits of spread one
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

needs_peft = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "peft")),
    reason="torch or peft is absent: pip install -e '.[parity]'",
)

CASES = {
    "bert, patterns, rank-stabilized, its biases, a head": (
        "bert",
        "sequence_classification",
        Lora(
            rank=4,
            targets=("query", "value", "attention.output.dense"),
            rank_pattern=(("value", 2),),
            alpha_pattern=(("value", 5.0),),
            rslora=True,
            bias="lora_only",
        ),
    ),
    "bert, words": (
        "bert",
        "token_classification",
        Lora(rank=4, targets=("word_embeddings", "key")),
    ),
    "bert, factors": (
        "bert",
        "sequence_classification",
        Ia3(
            targets=("key", "value", r".*/\d+/output/dense"),
            feedforward=(r"\d+/output/dense",),
        ),
    ),
    "gpt2, all biases": ("gpt2", "causal_lm", Lora(rank=4, bias="all")),
    "gpt2, factors": (
        "gpt2",
        "causal_lm",
        Ia3(targets=("c_attn", "mlp.c_proj"), feedforward=("mlp.c_proj",)),
    ),
    "llama, lengths, singular vectors": (
        "llama",
        "causal_lm",
        Lora(rank=2, dora=True, init_method="pissa"),
    ),
    "roberta, a head of two layers": (
        "roberta",
        "sequence_classification",
        Lora(rank=4),
    ),
    "t5, lengths": ("t5", "seq2seq_lm", Lora(rank=4, targets=("q", "v"), dora=True)),
    "vit": ("vit", "image_classification", Lora(rank=4)),
    "vit, patches": (
        "vit",
        "image_classification",
        Lora(rank=4, targets=("projection", "query")),
    ),
    "bert, shared factors": (
        "bert",
        "sequence_classification",
        Vera(rank=12, targets=("query", "intermediate.dense", r".*/\d+/output/dense")),
    ),
    "gpt2, shared factors": ("gpt2", "causal_lm", Vera(rank=12)),
}


def write_base(folder, model_type, task):
    """A base in a folder that both read, and a batch."""
    if model_type == "vit":
        config = jft.with_classes(table.VIT, ["a", "b", "c"])
        images = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32)
        peer.write_folder(folder, model_type, config, task)
        return {"pixel_values": images}
    row = TABLE[model_type]
    config = peer.full_config(model_type, row, task)
    peer.write_folder(folder, model_type, config, task, row.scales)
    return peer.make_batch(row, config, task)


def read_torch(folder, model_type, task):
    import transformers

    cls = getattr(transformers, jft.models.get_family(model_type).heads[task])
    return cls.from_pretrained(folder, attn_implementation="eager").eval()


def torch_logits(model, task, batch):
    import torch

    if "pixel_values" in batch:
        pixels = torch.from_numpy(batch["pixel_values"].transpose(0, 3, 1, 2).copy())
        return model(pixel_values=pixels).logits.detach().numpy()
    return peer.torch_forward(model, task, batch).detach().numpy()


def real_of(task, batch):
    return ... if "pixel_values" in batch else peer.real_positions(task, batch)


def moved(model):
    """All that the adapter may change, changed."""
    rng = np.random.default_rng(3)
    base = jft.partition.label_params(
        jft.params.adapters.without_adapters(model.params), [(".*", "base")]
    )
    labels = jft.params.adapters.label_adapted(model.params, base, model.adapter)

    def move(x, label):
        noise = 0.1 * rng.normal(size=x.shape).astype(np.float32)
        return x if label == "frozen" else x + jnp.asarray(noise)

    return jax.tree.map(move, model.params, labels)


@needs_peft
@pytest.mark.parametrize("case", CASES)
def test_same_answers_both_ways(case, tmp_path):
    import peft

    model_type, task, adapter = CASES[case]
    batch = write_base(tmp_path / "base", model_type, task)
    real = real_of(task, batch)
    base = jft.load(tmp_path / "base")
    model = jft.adapt(base, adapter, key=jax.random.key(0))
    params = moved(model)

    def logits(model, params):
        return np.asarray(jax.jit(model.apply_fn)(params, batch, key=None))

    plain, ours = logits(base, base.params), logits(model, params)
    assert np.abs(ours - plain)[real].max() > 0.1

    # what jft writes, PEFT reads: nothing left over, nothing absent
    jft.save_adapter(tmp_path / "ours", model, params=params)
    torch_model = read_torch(tmp_path / "base", model_type, task)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        wrapped = peft.PeftModel.from_pretrained(torch_model, tmp_path / "ours").eval()
    assert not [w for w in told if "missing" in str(w.message).lower()]
    theirs = torch_logits(wrapped, task, batch)
    np.testing.assert_allclose(ours[real], theirs[real], atol=TOLERANCE)

    # what PEFT writes, jft reads
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped.save_pretrained(tmp_path / "theirs")
    again = jft.load_adapter(tmp_path / "theirs", base)
    np.testing.assert_allclose(logits(again, again.params)[real], ours[real], atol=1e-5)
    names, written = (
        set(load_file(tmp_path / x / WEIGHTS)) for x in ("ours", "theirs")
    )
    assert {
        n for n in names ^ written if "word_embeddings.base_layer" not in n
    } == set()

    # folded into the base, as PEFT merges it
    merged = wrapped.merge_and_unload()
    folded = jft.fold(again)
    np.testing.assert_allclose(
        logits(folded, folded.params)[real],
        torch_logits(merged, task, batch)[real],
        atol=TOLERANCE,
    )


@needs_peft
@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT asks an old name
def test_reads_what_peft_makes(tmp_path):
    """A config by PEFT's own class, with its names, patterns and starts."""
    import peft

    batch = write_base(tmp_path / "base", "bert", "sequence_classification")
    torch_model = read_torch(tmp_path / "base", "bert", "sequence_classification")
    settings = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules="all-linear",
        rank_pattern={r".*\.0\..*query": 2},
        alpha_pattern={"value": 3},
        init_lora_weights=False,
        task_type="SEQ_CLS",
    )
    wrapped = peft.get_peft_model(torch_model, settings).eval()
    wrapped.save_pretrained(tmp_path / "theirs")
    model = jft.load_adapter(tmp_path / "theirs", jft.load(tmp_path / "base"))
    ours = model.apply_fn(model.params, batch, key=None)
    theirs = torch_logits(wrapped, "sequence_classification", batch)
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)
    # all-linear picks the same modules
    asked = jft.adapt(jft.load(tmp_path / "base"), Lora(rank=4), key=jax.random.key(0))
    assert set(flatten(asked.params)) == set(flatten(model.params))


@needs_peft
@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT asks an old name
def test_reads_the_factors_that_peft_draws(tmp_path):
    import peft

    batch = write_base(tmp_path / "base", "bert", "sequence_classification")
    torch_model = read_torch(tmp_path / "base", "bert", "sequence_classification")
    settings = peft.VeraConfig(
        r=8,
        target_modules=["query", "intermediate.dense"],
        projection_prng_key=3,
        init_weights=False,
        task_type="SEQ_CLS",
    )
    wrapped = peft.get_peft_model(torch_model, settings).eval()
    wrapped.save_pretrained(tmp_path / "theirs")
    base = jft.load(tmp_path / "base")
    model = jft.load_adapter(tmp_path / "theirs", base)
    ours = model.apply_fn(model.params, batch, key=None)
    theirs = torch_logits(wrapped, "sequence_classification", batch)
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)
    tensors = load_file(tmp_path / "theirs" / WEIGHTS)
    rest = {name: x for name, x in tensors.items() if "vera_A" not in name}
    save_file(rest, tmp_path / "theirs" / WEIGHTS)
    with pytest.raises(InputError, match="save_projection=True"):
        jft.load_adapter(tmp_path / "theirs", base)
    small = {"base_model.vera_A": np.zeros((8, 5), np.float32)}
    save_file(tensors | small, tmp_path / "theirs" / WEIGHTS)
    with pytest.raises(InputError, match="another base: vera_A"):
        jft.load_adapter(tmp_path / "theirs", base)


@needs_peft
@pytest.mark.filterwarnings("ignore")  # PEFT's own, of what is shown here
def test_tied_words_are_not_folded_for_pefts_merge_is_another_model(tmp_path):
    """Its merged table scores the outputs too, which the adapter beside it did not."""
    import peft

    task = "causal_lm"
    batch = write_base(tmp_path / "base", "gpt2", task)
    real, base = real_of(task, batch), jft.load(tmp_path / "base")
    adapter = Lora(rank=2, targets=("wte",), bias="all")
    model = jft.adapt(base, adapter, key=jax.random.key(0))
    params = moved(model)
    jft.save_adapter(tmp_path / "ours", model, params=params)
    torch_model = read_torch(tmp_path / "base", "gpt2", task)
    wrapped = peft.PeftModel.from_pretrained(torch_model, tmp_path / "ours").eval()
    ours = np.asarray(jax.jit(model.apply_fn)(params, batch, key=None))
    beside = torch_logits(wrapped, task, batch)
    np.testing.assert_allclose(ours[real], beside[real], atol=TOLERANCE)
    merged = torch_logits(wrapped.merge_and_unload(), task, batch)
    assert np.abs(merged - beside)[real].max() > 0.05
    with pytest.raises(InputError, match="wte is the embedding and, transposed, the"):
        jft.fold(model, params=params)


# --- without PEFT ---------------------------------------------------------------------
@pytest.fixture
def written(tmp_path):
    model, _ = table.make_model("bert", "sequence_classification")
    adapted = jft.adapt(model, Lora(rank=2, targets=("query",)), key=jax.random.key(0))
    jft.save_adapter(tmp_path, adapted, params=moved(adapted))
    return model, tmp_path


def test_files_and_keys_are_pefts(written):
    _, folder = written
    config = json.loads((folder / CONFIG).read_text())
    assert config["peft_type"] == "LORA"
    assert config["target_modules"] == ["query"]
    assert config["modules_to_save"] == ["classifier"]
    tensors = load_file(folder / WEIGHTS)
    stem = "base_model.model.bert.encoder.layer.0.attention.self.query"
    assert tensors[f"{stem}.lora_A.weight"].shape == (2, 24)
    assert tensors[f"{stem}.lora_B.weight"].shape == (24, 2)
    assert tensors["base_model.model.classifier.weight"].shape == (4, 24)
    assert len(tensors) == 2 * 2 + 2


def test_what_is_read_is_written_again(written, tmp_path):
    model, folder = written
    again = jft.load_adapter(folder, model)
    jft.save_adapter(tmp_path / "again", again)
    assert (tmp_path / "again" / CONFIG).read_text() == (folder / CONFIG).read_text()
    one, other = load_file(folder / WEIGHTS), load_file(tmp_path / "again" / WEIGHTS)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(
    ("adapter", "settings"),
    [
        (
            Bottleneck(placement="pfeiffer", reduction_factor=5, nonlinearity="gelu"),
            {"placement": "pfeiffer", "reduction_factor": 5, "nonlinearity": "gelu"},
        ),
        (Vera(rank=6, d_initial=0.2), {"r": 6, "save_projection": True}),
    ],
)
def test_other_methods_are_read_as_written(adapter, settings, tmp_path):
    """A bottleneck's folder is jft's own: PEFT has none."""
    base, batch = table.make_model("bert", "sequence_classification")
    model = jft.adapt(base, adapter, key=jax.random.key(0))
    params = moved(model)
    jft.save_adapter(tmp_path, model, params=params)
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config | settings == config
    assert config["peft_type"] == adapter.peft_type
    again = jft.load_adapter(tmp_path, base)
    assert flatten(again.params).keys() == flatten(params).keys()
    np.testing.assert_allclose(
        again.apply_fn(again.params, batch, key=None),
        model.apply_fn(params, batch, key=None),
        atol=1e-6,
    )
    found = {"also_train", "targets"}  # the tensors tell
    for name, value in vars(adapter).items():
        assert name in found or getattr(again.adapter, name) == value


def test_shared_factors_of_another_rank_are_refused(tmp_path):
    """More inputs than a model's products have are not: others had them."""
    base, _ = table.make_model("bert", "sequence_classification")
    vera = Vera(rank=4, targets=("query",))
    jft.save_adapter(tmp_path, jft.adapt(base, vera, key=jax.random.key(0)))
    tensors = load_file(tmp_path / WEIGHTS)
    longer = {"base_model.vera_A": (4, 30), "base_model.vera_B": (30, 4)}
    wider = {"base_model.vera_A": (6, 24), "base_model.vera_B": (24, 6)}

    def write(shapes):
        given = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
        save_file(tensors | given, tmp_path / WEIGHTS)

    write(longer)
    jft.load_adapter(tmp_path, base)
    for name, shape in wider.items():
        write({name: shape})
        leaf = name.removeprefix("base_model.")
        with pytest.raises(InputError, match=rf"{leaf}.*says the rank 4 where .* 6"):
            jft.load_adapter(tmp_path, base)


def test_a_part_of_an_adapter_is_refused(written):
    model, folder = written
    tensors = load_file(folder / WEIGHTS)
    for factor in ("lora_A", "lora_B"):
        absent = next(key for key in tensors if f"{factor}.weight" in key)
        rest = {key: x for key, x in tensors.items() if key != absent}
        save_file(rest, folder / WEIGHTS)
        with pytest.raises(InputError, match=r"holds .* needs \['lora_A', 'lora_B'\]"):
            jft.load_adapter(folder, model)


def test_patterns_that_name_no_module_are_refused(written):
    model, folder = written
    config = json.loads((folder / CONFIG).read_text())
    for what in ("rank_pattern", "alpha_pattern"):
        (folder / CONFIG).write_text(json.dumps(config | {what: {"key": 4}}))
        with pytest.raises(InputError, match=f"{what} has 'key', which is none of"):
            jft.load_adapter(folder, model)
        (folder / CONFIG).write_text(json.dumps(config | {what: {"query": 2}}))
        jft.load_adapter(folder, model)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"peft_type": "VERA", "bias": "all"}, "'bias': 'all'"),
        ({"use_qalora": True}, "use_qalora"),
        ({"lora_bias": True}, "lora_bias"),
        ({"init_lora_weights": "pissa_niter_4"}, "path_initial_model"),
    ],
)
def test_options_that_jft_has_not_are_named(written, changes, said):
    model, folder = written
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))
    with pytest.raises(InputError, match=said):
        jft.load_adapter(folder, model)


def test_another_base_is_refused(written):
    model, folder = written
    other, _ = table.make_model("gpt2", "sequence_classification")
    with pytest.raises(InputError, match="which the model has not"):
        jft.load_adapter(folder, other)
    tensors = load_file(folder / WEIGHTS)
    name = next(key for key in tensors if key.endswith("lora_B.weight"))
    save_file(tensors | {name: np.zeros((25, 2), np.float32)}, folder / WEIGHTS)
    with pytest.raises(InputError, match=r"another base.*\[2, 25\].*\[24, 24\]"):
        jft.load_adapter(folder, model)
    save_file(
        tensors | {"base_model.model.x.y": np.zeros(2, np.float32)}, folder / WEIGHTS
    )
    with pytest.raises(InputError, match=r"base_model\.model\.x\.y"):
        jft.load_adapter(folder, model)


def test_nothing_to_read_or_write(tmp_path):
    model, _ = table.make_model("bert")
    with pytest.raises(InputError, match="is no adapter"):
        jft.load_adapter(tmp_path, model)
    with pytest.raises(InputError, match="no adapter to save"):
        jft.save_adapter(tmp_path, model)
    lora = jft.adapt(model, Lora(rank=2), key=jax.random.key(0))
    broken = map_with_path(lambda _, x: x * jnp.nan, lora.params)
    with pytest.raises(InputError, match="NaN"):
        jft.save_adapter(tmp_path, lora, params=broken)
    with pytest.raises(InputError, match="save_adapter"):
        jft.save(tmp_path, lora)
    with pytest.raises(InputError, match="already"):
        jft.adapt(lora, Lora(), key=jax.random.key(0))
