# SPDX-License-Identifier: Apache-2.0
"""A Hub id is found without a network; neither code nor pickles are fetched."""

import json

import pytest

import jft
from jft.params import find_folder
from jft.types import InputError

COMMIT = "a" * 40


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The Hub's cache of one model, as huggingface_hub lays it out; no network."""
    import huggingface_hub.constants as constants

    repo = tmp_path / "models--someone--tiny"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps({"model_type": "brt"}))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return snapshot


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_id_is_found_in_the_cache_without_a_network(revision, cache):
    assert find_folder("someone/tiny", revision=revision) == cache
    with pytest.raises(InputError, match=r"'brt' is not known; known are \['"):
        jft.load("someone/tiny", revision=revision)


@pytest.mark.parametrize(
    ("name", "revision"), [("someone/other", None), ("someone/tiny", "b" * 40)]
)
def test_what_the_cache_has_not_is_said_in_clear_words(name, revision, cache):
    with pytest.raises(InputError, match=r"not in the Hub's cache.*HF_HUB_OFFLINE"):
        find_folder(name, revision=revision)


@pytest.mark.parametrize(
    "name",
    [
        "a/b/c",
        "",
        "./missing",
        "missing.",
        "a--b",
        "foo/.bar",
        "no such folder",
        "/no/such/one",
    ],
)
def test_what_is_neither_folder_nor_id_is_refused(name):
    with pytest.raises(InputError, match="is no folder"):
        find_folder(name)


def test_network_that_breaks_is_said_in_clear_words(monkeypatch):
    import huggingface_hub

    def download(name, **options):
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(InputError, match=r"the Hub did not give 'a/b'.*reset by peer"):
        find_folder("a/b")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(InputError, match="is no folder"):
        find_folder(tmp_path / "model.safetensors")


def test_a_folder_has_no_revision(tmp_path):
    assert find_folder(tmp_path) == tmp_path
    with pytest.raises(InputError, match="revisions are the Hub's"):
        find_folder(tmp_path, revision="main")


def test_neither_code_nor_pickled_weights_are_fetched(monkeypatch):
    import huggingface_hub

    asked = {}

    def download(name, **options):
        asked.update(options)
        return "/somewhere"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    find_folder("someone/tiny", revision=COMMIT)
    files = [
        "config.json", "model.safetensors", "model-00001-of-00002.safetensors",
        "tokenizer.json", "vocab.txt", "spiece.model", "source.spm",
        "pytorch_model.bin", "modeling_tiny.py", "onnx/model.safetensors",
        "consolidated.safetensors", "flax_model.msgpack", "tf_model.h5",
    ]  # fmt: skip
    kept = huggingface_hub.utils.filter_repo_objects(
        files,
        allow_patterns=asked["allow_patterns"],
        ignore_patterns=asked["ignore_patterns"],
    )
    assert list(kept) == files[:7]
    assert asked["revision"] == COMMIT
