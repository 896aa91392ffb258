# SPDX-License-Identifier: Apache-2.0
"""Tokens a second that jft and torch write, from the same prompts and weights.

Greedily with a cache of keys and values, in float32; torch by ``model.generate`` of
transformers. ``--shape=8x64``, the default, is 8 prompts of the config's validation
split and 64 new tokens of each: no text ends before, and all must be the same tokens.
The weights are those that the config starts from. A round is one call; jft's program
is compiled before.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import jft
from experiments import build, run_config, writing
from experiments.benchmarks import torch_peer
from experiments.benchmarks.measure import (
    Measured,
    Settings,
    in_turn,
    median_range,
    ratios,
)
from jft import evals
from jft.config import Config
from jft.tables import format_table
from jft.tasks import get_task
from jft.types import Batch, InputError

SHAPE = (8, 64)
SPECIAL = ("eos_token_id", "pad_token_id", "decoder_start_token_id")


def measure(settings: Settings) -> Measured:
    """Write in turn, for each config."""
    configs = {
        name: run_config.load(name, settings.overrides) for name in settings.configs
    }
    for config in configs.values():
        check(config)
    results = [measure_one(n, build.make_job(c), settings) for n, c in configs.items()]
    rows = [
        [
            result["config"],
            "x".join(map(str, result["shape"])),
            result["prompt_length"],
            *map(median_range, (result["jft"], result["torch"], result["ratio"])),
            result["same_tokens"],
        ]
        for result in results
    ]
    headers = ["rows x new", "prompt", "jft tokens/s", "torch tokens/s", "jft / torch"]
    return Measured(results, format_table(rows, ["config", *headers, "same tokens"]))


def check(config: Config) -> None:
    """Refuse a task whose models write no text."""
    task = get_task(config.data.task)
    if task.make_prompt is None and not task.writes:
        raise InputError(
            f"the config is of the task {task.name!r}, whose models write no text; "
            'use one of "chat", "causal_lm" or "sequence_to_sequence".'
        )


def measure_one(name: str, job: build.Job, settings: Settings) -> dict[str, Any]:
    """Tokens a second, a figure a round."""
    rows, num_new = settings.shape or SHAPE
    batch = make_prompts(job, rows)
    wanted = make_decoding(job.model, num_new)
    sides = {
        "jft": make_ours(job.model, batch, wanted),
        "torch": make_theirs(job, batch, wanted, settings.device),
    }
    written = {side: write() for side, write in sides.items()}
    check_same(written["jft"], written["torch"], (rows, num_new))
    seconds = in_turn(sides, rounds=settings.rounds)
    rates = {side: [rows * num_new / s for s in xs] for side, xs in seconds.items()}
    return {
        "config": run_config.short_name(name),
        "shape": [rows, num_new],
        "prompt_length": batch["input_ids"].shape[1],
        "same_tokens": written["jft"].size,
        **rates,
        "ratio": ratios(rates["jft"], rates["torch"]),
    }


def make_prompts(job: build.Job, rows: int) -> Batch:
    """The first texts of the validation split, over again where there are too few."""
    task, model = job.task, job.model
    source = job.tables if task.writes else job.splits
    split = source["validation"]
    examples = [split[i % len(split)] for i in range(rows)]
    if not task.writes:
        return writing.make_prompts(task, model, examples)
    ids = [np.asarray(example["input_ids"]) for example in examples]
    lengths = np.array([len(x) for x in ids])
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded = np.full(mask.shape, split.padding["input_ids"].value)
    padded[mask] = np.concatenate(ids)
    return {"input_ids": padded, "attention_mask": mask.astype(np.int32)}


def make_decoding(model: jft.Pretrained, num_new: int) -> dict[str, Any]:
    """What both are told, instead of what the model's folder says: no early end."""
    known = {**model.config, **(model.generation_config or {})}
    named = {name: known[name] for name in SPECIAL if known.get(name) is not None}
    if "eos_token_id" in named:
        named.setdefault("pad_token_id", int(np.ravel(named["eos_token_id"])[0]))
    return {**named, "max_new_tokens": num_new, "min_new_tokens": num_new}


def make_ours(
    model: jft.Pretrained, batch: Batch, wanted: Mapping[str, Any]
) -> Callable[[], np.ndarray]:
    """One call of jft."""

    def write() -> np.ndarray:
        return evals.generate(
            model, batch, method="greedy", generation_config=wanted
        ).tokens

    return write


def make_theirs(
    job: build.Job, batch: Batch, wanted: Mapping[str, Any], device: str
) -> Callable[[], np.ndarray]:
    """One call of transformers."""
    import torch
    import transformers

    where = "cuda" if device == "gpu" else "cpu"
    model = torch_peer.load(job).to(where).eval()
    model.generation_config = transformers.GenerationConfig(**wanted, do_sample=False)
    tensors = {
        name: torch.from_numpy(torch_peer.as_torch_reads(batch[name])).to(where)
        for name in ("input_ids", "attention_mask")
    }
    # a decoder repeats the prompt, an encoder-decoder what answers start with
    width = 1 if job.task.writes else tensors["input_ids"].shape[1]

    def write() -> np.ndarray:
        return model.generate(**tensors)[:, width:].cpu().numpy()

    return write


def check_same(ours: np.ndarray, theirs: np.ndarray, shape: tuple[int, int]) -> None:
    """Refuse to compare the speed of two answers that differ."""
    if ours.shape != shape or theirs.shape != shape:
        raise AssertionError(f"jft wrote {ours.shape}, torch {theirs.shape}: {shape}?")
    differ = (ours != theirs).any(axis=1)
    if differ.any():
        rows = np.flatnonzero(differ).tolist()
        raise AssertionError(f"jft and torch wrote other tokens in the rows {rows}.")
