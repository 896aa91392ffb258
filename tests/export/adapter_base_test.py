# SPDX-License-Identifier: Apache-2.0
"""An adapter says which base it is for, and comes from the Hub like a model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jft
from jft.params.adapters import Lora, make_base_digest
from jft.params.quantised import KINDS
from jft.paths import flatten, map_with_path
from jft.types import InputError
from tests.adapter_sets import adapted
from tests.params.adapters import table

COMMIT = "c" * 40
WEIGHTS = "adapter_model.safetensors"
LAYER = "bert/encoder/layer/1/output/dense/kernel"


@pytest.fixture(scope="module")
def base():
    return table.make_model("bert", "sequence_classification")[0]


@pytest.fixture
def folder(base, tmp_path):
    adapter = Lora(rank=2, targets=("query",), bias="lora_only")
    jft.save_adapter(tmp_path / "law", adapted(base, adapter, 1))
    return tmp_path / "law"


def changed(base, change):
    return base._replace(params=map_with_path(change, base.params))


def test_other_numbers_are_another_base(base, folder):
    other = changed(base, lambda path, x: x * 1.02 if path == LAYER else x)
    with pytest.raises(InputError, match=r"adapter of another base.*check_base=False"):
        jft.load_adapter(folder, other)
    with pytest.raises(InputError, match="adapter of another base"):
        jft.gather(other, {"law": folder})
    used = jft.load_adapter(folder, other, check_base=False)
    assert flatten(used.params)[LAYER] is flatten(other.params)[LAYER]


@pytest.mark.parametrize(
    "change",
    [
        lambda path, x: x.astype(jnp.bfloat16),
        lambda path, x: x.astype(jnp.float16),
        # what comes with the adapter, and a head drawn with another key
        lambda path, x: x + 1 if path.startswith("classifier") else x,
        lambda path, x: x + 1 if path.endswith("query/bias") else x,
    ],
)
def test_the_same_base_in_another_dress(change, base, folder):
    other = changed(base, change)
    assert jft.load_adapter(folder, other).params["adapters"]


def test_an_adapter_over_half_precision_fits_the_whole(base, tmp_path):
    half = changed(base, lambda path, x: x.astype(jnp.bfloat16))
    jft.save_adapter(tmp_path, adapted(half, Lora(rank=2, targets=("key",)), 1))
    assert jft.load_adapter(tmp_path, base).params["adapters"]
    other = changed(base, lambda path, x: x * 1.02 if path == LAYER else x)
    with pytest.raises(InputError, match="adapter of another base"):
        jft.load_adapter(tmp_path, other)


def test_an_adapter_that_says_nothing_is_taken(base, folder):
    """As PEFT writes it."""
    save_file(load_file(folder / WEIGHTS), folder / WEIGHTS, metadata={"format": "pt"})
    other = changed(base, lambda path, x: x * 1.02 if path == LAYER else x)
    assert jft.load_adapter(folder, other).params["adapters"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_of_the_whole_fits_its_quantised_copy_alone(kind, base, folder):
    copy = jft.quantize(base, kind)
    assert jft.load_adapter(folder, copy).params["adapters"]
    other = changed(base, lambda path, x: x * 1.02 if path == LAYER else x)
    with pytest.raises(InputError, match="adapter of another base"):
        jft.load_adapter(folder, jft.quantize(other, kind))
    with pytest.raises(InputError, match="adapter of another base"):
        jft.gather(jft.quantize(other, kind), {"law": folder})


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_an_adapter_of_a_quantised_base_knows_the_whole(dtype, base, tmp_path):
    """Also of one that was never there in full, and on the other kind of codes."""
    jft.save(tmp_path / "base", base)
    copy = jft.load(tmp_path / "base", quantize="nf4", dtype=dtype)
    jft.save_adapter(tmp_path / "law", adapted(copy, Lora(rank=2, targets=("key",)), 1))
    for fits in (base, jft.quantize(base, "int8")):
        assert jft.load_adapter(tmp_path / "law", fits).params["adapters"]
    other = changed(base, lambda path, x: x * 1.02 if path == LAYER else x)
    with pytest.raises(InputError, match="adapter of another base"):
        jft.load_adapter(tmp_path / "law", other)


def test_a_copy_of_numbers_that_say_less_is_not_compared(base, folder):
    """As the base itself is not, in float16."""
    half = changed(base, lambda path, x: (x * 1.02).astype(jnp.float16))
    assert jft.load_adapter(folder, jft.quantize(half, "int8")).params["adapters"]


def test_a_model_whose_base_is_kept_in_another_way_is_told(base, folder):
    model, copy = jft.load_adapter(folder, base), jft.quantize(base, "nf4")
    said = r"kernel is in full there and nf4 here.*jft\.save_adapter"
    with pytest.raises(InputError, match=said):
        jft.gather(copy, {"law": model})
    over_copy = jft.load_adapter(folder, copy)
    with pytest.raises(InputError, match="kernel is nf4 there and in full here"):
        jft.gather(base, {"law": over_copy})
    with pytest.raises(InputError, match="kernel is nf4 there and int8 here"):
        jft.gather(jft.quantize(base, "int8"), {"law": over_copy})
    assert jft.gather(copy, {"law": over_copy}).use("law").params["adapters"]


def test_digest_is_of_paths_shapes_and_numbers():
    leaves = {"a": np.ones((2, 3), np.float32), "b": np.zeros(2, np.float32)}
    digest = make_base_digest(leaves)
    turned = {**leaves, "a": np.ones((3, 2), np.float32)}
    renamed = {"a": leaves["a"], "c": leaves["b"]}
    others = [make_base_digest(x)([]) for x in (turned, renamed)]
    assert len({digest([]), digest(["b"]), *others}) == 4
    close = {**leaves, "a": leaves["a"] * (1 + 2**-10)}  # alike in bfloat16
    assert make_base_digest(close)([]) == digest([])
    whole = {**leaves, "q": np.ones(2, np.int8)}
    assert make_base_digest(whole)([]) is None
    assert make_base_digest(whole)(["q"]) == digest([])


def test_an_adapter_says_with_which_head_its_base_is_loaded(base, folder, tmp_path):
    base = base._replace(class_names=("a", "b", "c", "d"))
    saved = jft.save(tmp_path / "base", base)
    assert jft.adapter_head(folder) == {"task": "sequence_classification"}
    number = base._replace(config={**base.config, "problem_type": "multi_label"})
    model = adapted(number, Lora(rank=2, targets=("key",)), 1)
    jft.save_adapter(tmp_path / "news", model)
    assert jft.adapter_head(tmp_path / "news") == {
        "task": "sequence_classification",
        "class_names": ["a", "b", "c", "d"],
        "problem_type": "multi_label",
    }
    save_file(load_file(folder / WEIGHTS), folder / WEIGHTS)
    assert jft.adapter_head(folder) == {}
    save_file(load_file(folder / WEIGHTS), folder / WEIGHTS, {"jft_head": "{"})
    with pytest.raises(InputError, match="write the adapter again"):
        jft.adapter_head(folder)
    with pytest.raises(InputError, match="is no adapter"):
        jft.adapter_head(saved[0].parent)


# --- the Hub --------------------------------------------------------------------------
@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    """The Hub's cache with the adapter, as huggingface_hub lays it out; no network."""
    import huggingface_hub.constants as constants

    repo = tmp_path / "models--someone--law"
    (repo / "snapshots").mkdir(parents=True)
    folder.rename(repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return repo / "snapshots" / COMMIT


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_an_id_is_found_in_the_cache(revision, hub, base):
    model = jft.load_adapter("someone/law", base, revision=revision)
    same = jft.load_adapter(hub, base)
    jax.tree.map(np.testing.assert_array_equal, model.params, same.params)
    several = jft.gather(base, {"law": "someone/law"})
    jax.tree.map(np.testing.assert_array_equal, several.use("law").params, same.params)


@pytest.mark.parametrize(
    ("name", "revision", "said"),
    [
        ("someone/other", None, r"not in the Hub's cache.*HF_HUB_OFFLINE"),
        ("someone/law", "d" * 40, f"at revision '{'d' * 40}' is no folder here"),
        ("no such folder", None, r"no folder; give the path of an adapter's folder"),
    ],
)
def test_what_is_not_there_is_said_in_clear_words(name, revision, said, hub, base):
    with pytest.raises(InputError, match=said):
        jft.load_adapter(name, base, revision=revision)


def test_a_folder_has_no_revision(folder, base):
    with pytest.raises(InputError, match="revisions are the Hub's"):
        jft.load_adapter(folder, base, revision="main")


def test_two_files_are_fetched(folder, base, monkeypatch):
    import huggingface_hub

    asked = {}

    def download(name, **options):
        asked.update(options, name=name)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    jft.load_adapter("someone/law", base, revision=COMMIT)
    files = [
        "adapter_config.json", WEIGHTS, "adapter_model.bin", "config.json",
        "model.safetensors", f"checkpoint-100/{WEIGHTS}", "README.md",
    ]  # fmt: skip
    kept = huggingface_hub.utils.filter_repo_objects(
        files,
        allow_patterns=asked["allow_patterns"],
        ignore_patterns=asked["ignore_patterns"],
    )
    assert list(kept) == files[:2]
    assert (asked["name"], asked["revision"]) == ("someone/law", COMMIT)
