# SPDX-License-Identifier: Apache-2.0
"""How much of a GPU a training step uses, and how large a batch it holds, in bfloat16.

BERT-base at 32 x 512, ViT-B/16 at 128 images of 224 x 224, and a Llama of 1.1 billion
parameters at 4 x 2048, all with random weights, on batches without padding.
``--config=bert-base`` names one of them. Parameters and AdamW are float32, the forward
bfloat16. Everything moves, with attention by cuDNN where that applies and by XLA, and
with blocks that keep less for the backward pass; then the head alone, and LoRA on every
product. BERT drops out everywhere but in attention, in torch too, where Trainer runs
with ``bf16`` and ``torch_compile``, but on a CPU not compiled. Of a step that does not
fit no time is taken. The largest batch is found by doubling, from what the compiler
plans and jax may have: 0.75 of the memory, or ``XLA_PYTHON_CLIENT_MEM_FRACTION``.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments import build, objective, training
from experiments.benchmarks import gpu_cases, gpu_peer
from experiments.benchmarks.gpu_cases import Case, Variant
from experiments.benchmarks.measure import (
    Measured,
    Settings,
    median_range,
    peak_bytes,
    ratios,
)
from experiments.benchmarks.utilisation import count_products, utilisation
from jft import partition, train
from jft.models import make_apply_fn
from jft.models.cudnn import attentions_traced, describe_attention, with_attention
from jft.tables import format_table

HEADERS = ("ms", "TFLOP", "MFU", "GB", "compile s")


def measure(settings: Settings) -> Measured:
    """Measure each case, a variant after the other.

    Trainer goes first: torch gives its memory back, and jax keeps what it has had.
    """
    cases = gpu_cases.find_cases(settings.configs)
    theirs = {n: gpu_peer.time_steps(case, settings) for n, case in cases.items()}
    results = []
    for name, case in cases.items():
        measured = measure_case(case, theirs[name], settings)
        results.append({"case": name, **measured})
        print(describe(results[-1]), flush=True)
    return Measured(results, "")


def measure_case(
    case: Case, theirs: Sequence[float], settings: Settings
) -> dict[str, Any]:
    """Steps of each variant beside Trainer's, and the largest batches."""
    steps = [measure_step(case, v, settings) for v in gpu_cases.VARIANTS]
    largest = {
        moves: largest_batch(case, Variant(moves=moves), settings)
        for moves in ("all", "head")
    }
    ours = steps[0].get("seconds")
    ratio = ratios(theirs, ours) if ours else None
    return {"steps": steps, "trainer": theirs, "ratio": ratio, "largest": largest}


def measure_step(case: Case, variant: Variant, settings: Settings) -> dict[str, Any]:
    """What a step costs; no seconds where it does not fit."""
    job = gpu_cases.make_job(case, variant, settings.overrides)
    batch = gpu_cases.make_batch(case, case.rows)
    state = training.init_state(job)
    began = time.perf_counter()
    with attentions_traced() as attentions:
        program = compile_step(job, state, batch)
    facts = {
        **variant._asdict(),
        "by": describe_attention(attentions),
        "compile_seconds": time.perf_counter() - began,
        "flops": needed_flops(job, batch),
        "trainable": program.num_params,
        "bytes": peak_bytes(program.executable),
    }
    limit = train.device_bytes()
    if limit is not None and facts["bytes"] > limit:
        return facts
    seconds = time_steps(program, state, jax.device_put(batch), settings)
    kind = jax.devices()[0].device_kind
    mfu = [utilisation(facts["flops"], x, device_kind=kind) for x in seconds]
    return {**facts, "seconds": seconds, "mfu": mfu}


def compile_step(job: build.Job, state: train.TrainState, batch: Any) -> Any:
    """The compiled step; of arrays or of shapes."""
    return training.make_train_step(job, state_shardings=None).compile(state, batch)


def time_steps(
    program: Any, state: train.TrainState, batch: Any, settings: Settings
) -> list[float]:
    """Seconds of a step, a figure a round; one before, untimed."""
    seconds = []
    state, _ = program(state, batch)
    for _ in range(settings.rounds):
        jax.block_until_ready(state.trainable)
        began = time.perf_counter()
        for _ in range(settings.steps):
            state, _ = program(state, batch)
        jax.block_until_ready(state.trainable)
        seconds.append((time.perf_counter() - began) / settings.steps)
    return seconds


def needed_flops(job: build.Job, batch: Mapping[str, Any]) -> int:
    """Operations of the products of the loss and its gradient, nothing done twice."""
    trainable, frozen = partition.split(job.model.params, job.labels)
    forward_fn = with_attention(make_apply_fn(job.model.module), "xla")
    apply_fn = job.task.make_apply(forward_fn)
    loss_fn = objective.train_loss(job.config, job.splits["train"])

    def loss(trainable: Any, frozen: Any, batch: Any) -> jax.Array:
        params = partition.combine(trainable, frozen)
        total, weight = loss_fn(apply_fn(params, batch, key=None), batch)
        return total / weight

    shapes = jax.eval_shape(lambda *x: x, trainable, frozen, dict(batch))
    return count_products(jax.grad(loss), *shapes)


def largest_batch(case: Case, variant: Variant, settings: Settings) -> dict[str, Any]:
    """Rows of the largest batch that fits, a power of two, and its bytes."""
    job = gpu_cases.make_job(case, variant, settings.overrides)
    limit = train.device_bytes()
    state = jax.eval_shape(lambda: training.init_state(job))
    found: dict[str, Any] = {"rows": 0, "bytes": 0, "limit": limit}
    rows = 1
    while limit is not None:
        batch = gpu_cases.make_batch(case, rows)
        needed = peak_bytes(compile_step(job, state, batch).executable)
        if needed > limit:
            break
        found |= {"rows": rows, "bytes": needed}
        rows *= 2
    return found


def describe(result: Mapping[str, Any]) -> str:
    """The table of a case, and what it says."""
    rows = [
        [one["moves"], one["by"].removeprefix("attention: "), one["remat"], *cells(one)]
        for one in result["steps"]
    ]
    table = format_table(rows, ["moves", "attention", "blocks keep", *HEADERS])
    said = [f"{result['case']}: largest batch that fits, in rows:"]
    said += [
        f"  {moves}: {found['rows']}, {found['bytes'] / 1e9:.2f} GB"
        for moves, found in result["largest"].items()
    ]
    if result["ratio"] is not None:
        said.append(
            f"Trainer {median_range([1e3 * x for x in result['trainer']])} ms a step; "
            f"jft is {median_range(result['ratio'])} times as fast."
        )
    return "\n".join([table, *said, ""])


def cells(one: Mapping[str, Any]) -> list[Any]:
    """Milliseconds, operations, utilisation, memory, and seconds of compiling."""
    seconds = one.get("seconds")
    mfu = [x for x in one.get("mfu", []) if x is not None]
    return [
        median_range([1e3 * x for x in seconds]) if seconds else "does not fit",
        f"{one['flops'] / 1e12:.3g}",
        f"{np.median(mfu):.3f}" if mfu else "",
        f"{one['bytes'] / 1e9:.2f}",
        f"{one['compile_seconds']:.1f}",
    ]
