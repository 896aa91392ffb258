# SPDX-License-Identifier: Apache-2.0
"""How a training step of jft grows: its seconds beside its operations, and its memory.

An axis starts from the config and changes one number: ``batch``, its rows; ``length``,
their tokens; ``depth``, blocks; ``width``, with heads of the same width; ``trainable``,
the layers that move besides the head, from the top down; ``groups``, labels that have a
learning rate of their own. ``--axis=depth`` or ``--axis=depth=1,2,4`` chooses one;
without it all are measured. Batches are full of the config's own tokens, of
``--shape``, by default 16x64; a model of another depth or width has weights that were
just drawn. Operations, and the bytes of a step, are those that the compiler counts.
"""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from experiments import build, devices, objective, run_config
from experiments.benchmarks.axes import VALUES, VARY, check_axes
from experiments.benchmarks.measure import Measured, Settings, ratios
from experiments.benchmarks.step import filled, make_ours, time_steps
from jft import train
from jft.evals.canvas import BLUE, ORANGE, PALE
from jft.tables import format_table
from jft.types import Batch, InputError

Row = dict[str, Any]  # one value of an axis

SHAPE = (16, 64)
NOISE = 1.1  # seconds that grow so much faster than the operations may be chance
HEADERS = ("ms", "GFLOP", "GFLOP/s", "MB", "optimizer MB", "compile s")


def measure(settings: Settings) -> Measured:
    """Measure each axis, for each config."""
    axes = settings.axes or VALUES
    check_axes(axes)
    results, plots = [], {}
    for number, name in enumerate(settings.configs):
        job = make_job(name, settings)
        stream = job.loader.batches()
        batch = next(stream)
        stream.close()
        for axis, values in axes.items():
            result = measure_axis(job, batch, axis, values, settings)
            results.append({"config": run_config.short_name(name), **result})
            plots[f"{axis}_{number}" if number else axis] = draw(results[-1])
    return Measured(results, "\n\n".join(map(describe, results)), plots)


def make_job(name: str, settings: Settings) -> build.Job:
    """The job of a config that reads tokens; all that it trains is open at once."""
    plain = {"data.batching": "length", "optim.unfreeze.method": "none"}
    overrides = {**settings.overrides, **plain}
    job = build.make_job(run_config.load(name, overrides))
    if job.task.reads != "text":
        raise InputError(
            f"the task {job.task.name!r} reads {job.task.reads}s, but growth fills "
            "batches with tokens; use a config of a task that reads texts."
        )
    return job


def measure_axis(
    job: build.Job,
    batch: Batch,
    axis: str,
    values: Sequence[int],
    settings: Settings,
) -> dict[str, Any]:
    """A row a value; all values take their steps in turn."""
    shape = settings.shape or SHAPE
    values = values or VALUES[axis] or range(job.model.num_layers + 2)
    rows, sides = [], {}
    for value in values:
        case, case_shape = VARY[axis](job, shape, value)
        run, facts = make_ours(case, filled(batch, *case_shape))
        rows.append({"value": value, **facts})
        sides[str(value)] = run
    seconds = time_steps(sides, settings)
    for row, measured in zip(rows, seconds.values(), strict=True):
        row["seconds"] = measured
    result = {"axis": axis, "shape": shape, "rows": rows, **summarize(rows)}
    if axis == "trainable":
        result["forward_flops"] = forward_flops(job, filled(batch, *shape))
    return result


def forward_flops(job: build.Job, batch: Batch) -> float:
    """Operations of an evaluation step."""
    parts = objective.make_parts(job.config, job.model, job.splits["train"])
    eval_step: Any = train.make_eval_step(
        parts.apply_fn, parts.loss_fn, compute_dtype=devices.compute_dtype(job.config)
    )
    compiled = eval_step.lower(job.model.params, batch).compile()
    return float(compiled.cost_analysis()["flops"])


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """The growth over the last doubling, and where seconds outgrow operations most."""
    last = rows[-1]
    halves = [row for row in rows if 0 < 2 * row["value"] <= last["value"]]
    steps = [growth(small, large) for small, large in itertools.pairwise(rows)]
    return {
        "last_doubling": growth(halves[-1], last) if halves else None,
        "steepest": max(steps, key=excess, default=None),
    }


def growth(small: Row, large: Row) -> dict[str, float]:
    """The factors from one value to the other; of seconds the rounds' median."""
    seconds = statistics.median(ratios(large["seconds"], small["seconds"]))
    counted = {name: large[name] / small[name] for name in ("flops", "bytes")}
    return {
        "from": small["value"],
        "to": large["value"],
        "seconds": seconds,
        **counted,
    }


def excess(step: Mapping[str, float]) -> float:
    """How much faster the seconds grow than the operations."""
    return step["seconds"] / step["flops"]


def exponent(step: Mapping[str, float], name: str) -> float:
    """The power of the value that a quantity grows with."""
    return math.log(step[name]) / math.log(step["to"] / step["from"])


def describe(result: Mapping[str, Any]) -> str:
    """The table of an axis, and what it says."""
    rows = []
    for row in result["rows"]:
        seconds, flops = statistics.median(row["seconds"]), row["flops"]
        in_mb = [row[name] / 1e6 for name in ("bytes", "optimizer_bytes")]
        rate = flops / seconds / 1e9
        rows.append(
            [
                row["value"],
                *(1e3 * seconds, flops / 1e9, rate, *in_mb),
                row["compile_seconds"],
            ]
        )
    shape = "x".join(map(str, result["shape"]))
    title = f"{result['config']}, {shape}: {result['axis']}"
    table = format_table(rows, [result["axis"], *HEADERS])
    return "\n".join([title, table, *sentences(result)])


def sentences(result: Mapping[str, Any]) -> list[str]:
    """What the numbers of an axis say."""
    said = []
    if (step := result["last_doubling"]) is not None:
        parts = [
            f"{what} x{step[name]:.2f} (power {exponent(step, name):.2f})"
            for what, name in [
                ("seconds", "seconds"),
                ("operations", "flops"),
                ("memory", "bytes"),
            ]
        ]
        said.append(f"{step['from']} to {step['to']}: {', '.join(parts)}.")
    if (step := result["steepest"]) is not None:
        outgrow = "outgrow" if excess(step) > NOISE else "do not outgrow"
        said.append(
            f"Seconds {outgrow} operations: at most x{excess(step):.2f} of their "
            f"growth, {step['from']} to {step['to']}."
        )
    if "forward_flops" in result:
        first = result["rows"][0]
        of_forward = first["flops"] / result["forward_flops"]
        said.append(
            f"With {first['value']} layers besides the head: {of_forward:.3f} of the "
            "operations of a forward pass."
        )
    return said


def draw(result: Mapping[str, Any]) -> Any:
    """Seconds beside what the operations would make them, and memory."""
    from matplotlib.figure import Figure

    rows = result["rows"]
    values = [row["value"] for row in rows]
    ms = [1e3 * statistics.median(row["seconds"]) for row in rows]
    as_operations = [ms[0] * row["flops"] / rows[0]["flops"] for row in rows]
    figure = Figure(figsize=(8, 3.4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(values, as_operations, "--", color=PALE, label="if as its operations")
    left.plot(values, ms, "o-", color=BLUE, label="a step")
    for name, label, colour in [
        ("bytes", "a step", BLUE),
        ("optimizer_bytes", "optimizer state", ORANGE),
    ]:
        in_mb = [row[name] / 1e6 for row in rows]
        right.plot(values, in_mb, "o-", color=colour, label=label)
    for ax, unit in ((left, "ms"), (right, "MB")):
        ax.set(xlabel=result["axis"], ylabel=unit, ylim=(0, None))
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False)
    return figure
