# SPDX-License-Identifier: Apache-2.0
"""Prompts, settings, and what transformers writes with them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from jft.models import MODELS
from tests.models import peer
from tests.models.table import TABLE

GOLDEN = Path(__file__).parent / "golden" / "generate.npz"
NUM_PROMPTS = 4
# transformers' beam search takes a pad_token_id of 0 for none, and fills with the end
BASE = {"pad_token_id": 3, "eos_token_id": [5, 17, 22, 31, 40]}
# texts end often: each value of early_stopping gives other texts
LONG = {"num_beams": 2, "length_penalty": 1.5, "eos_token_id": [5, 14, 17, 35, 40]}
# name -> settings; they end early in some rows and not in others
SETTINGS = {
    "greedy": {},
    "penalties": {
        "repetition_penalty": 1.7,
        "no_repeat_ngram_size": 2,
        "min_new_tokens": 3,
    },
    "words": {
        "bad_words_ids": [[9], [5], *([i, j] for i in range(12) for j in range(12))],
        "suppress_tokens": [12, 13],
        "begin_suppress_tokens": [20, 21, 22, 23],
        "forced_bos_token_id": 8,
        "forced_eos_token_id": 9,
    },
    "beam": {"num_beams": 3},
    "beam, short": {"num_beams": 3, "length_penalty": -1.0},
    "beam, long": LONG,
    "beam, early": {**LONG, "early_stopping": True},
    "beam, never": {**LONG, "early_stopping": "never"},
    "beam, penalties": {
        "num_beams": 2,
        "repetition_penalty": 2.0,
        "no_repeat_ngram_size": 2,
        "min_length": 6,
        "renormalize_logits": True,
        "forced_eos_token_id": 9,
    },
}
# a tied output layer repeats what it reads; what was read before shall matter, too
CHANGES = {"tie_word_embeddings": False}
SCALES = [
    (r".*(?:c_proj|dense|fc2|o|o_proj|out_proj|wo)\.weight", 4.0),
    (r".*(?:wpe|embed_positions)\.weight", 4.0),
]
# (family, task) -> settings that are compared with torch and recorded
RECORDED = {
    ("gpt2", "causal_lm"): tuple(SETTINGS),
    ("bart", "seq2seq_lm"): ("beam, penalties", "words"),
}
# prompt width, most new tokens
SIZES = ((1, 8), (3, 5), (7, 8))


def make_model(model_type, config, task, scales=()):
    """What `generate` reads of a model, with drawn weights and no settings."""
    module, params = peer.make_jft(model_type, config, task, scales)
    return SimpleNamespace(
        module=module,
        params=params,
        family=MODELS[model_type],
        config={},
        generation_config={},
    )


def language_models():
    """The families that write texts, and the task that does."""
    for model_type, family in MODELS.items():
        for task in ("causal_lm", "seq2seq_lm"):
            if task in family.heads:
                yield model_type, task


def make_prompts(task, width, *, seed=0):
    """Several lengths: padded on the left for decoders, on the right for encoders."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(4, 41, (NUM_PROMPTS, width))
    mask = np.ones_like(ids)
    for row, padding in enumerate(rng.integers(0, width, NUM_PROMPTS)):
        if task == "causal_lm":
            mask[row, :padding] = 0
        else:
            mask[row, width - padding :] = 0
    return {"input_ids": np.where(mask, ids, 0), "attention_mask": mask}


def make_config(model_type, task):
    """The config of a tiny model, and the scales of its weights."""
    row = TABLE[model_type]
    changes = CHANGES if task == "causal_lm" else {}
    config = peer.full_config(model_type, row, task, changes)
    return config, [*row.scales, *SCALES]


def make_models(model_type, task, folder):
    """A tiny model of drawn weights in both libraries."""
    import jft

    config, scales = make_config(model_type, task)
    peer.write_folder(folder, model_type, config, task, scales)
    return peer.read_torch(folder, model_type, task), jft.load(folder)


def make_settings(name, config, num_new):
    """Everything that both libraries are given."""
    start = {"decoder_start_token_id": config.get("decoder_start_token_id")}
    return {**BASE, **start, **SETTINGS[name], "max_new_tokens": num_new}


def torch_generate(model, batch, settings):
    """New tokens, and the scores of beams or None, as transformers has them."""
    import torch

    model.generation_config.update(max_length=None, forced_eos_token_id=None)
    with torch.no_grad():
        out = model.generate(
            **{name: torch.from_numpy(x) for name, x in batch.items()},
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
            **settings,
        )
    is_decoder = not model.config.is_encoder_decoder
    width = batch["input_ids"].shape[1] if is_decoder else 1
    scores = getattr(out, "sequences_scores", None)
    tokens = out.sequences[:, width:].numpy()
    return tokens, None if scores is None else scores.numpy()
