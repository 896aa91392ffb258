# SPDX-License-Identifier: Apache-2.0
"""What `startup` runs in a new process: the way to the first step, each part timed.

    python -m experiments.benchmarks.first_step --config=configs/digits.py

Prints one JSON object: seconds, and how many programs of the step were found compiled.
Nothing is imported above, for importing is timed too.
"""

import json
import time
from collections.abc import Callable


def start() -> None:
    """Import jft, then read the flags and go on."""
    lap = make_clock()
    import jft  # noqa: F401 - how long it takes is the question

    seconds = {"import": lap()}
    from absl import flags

    from jft.config import new_flags, read_overrides, run_without_config

    values = new_flags()
    spec = flags.DEFINE_string("config", None, "The config.", values)
    words = flags.DEFINE_multi_string("set", [], "Overrides.", values)

    def main() -> None:
        overrides = read_overrides(words.value)
        print(json.dumps({**seconds, **take(spec.value, overrides, lap)}))

    run_without_config(main, flag_values=values)


def take(
    spec: str, overrides: dict[str, object], lap: Callable[[], float]
) -> dict[str, float]:
    """Take the first step of a config as `experiments.finetune` does."""
    import jax

    from experiments import build, run_config, training
    from jft import train

    train.keep_compiled()
    job = build.make_job(run_config.load(spec, overrides))
    stream = job.loader.batches()
    batch = next(stream)
    stream.close()
    state = jax.block_until_ready(training.init_state(job))
    seconds = {"job": lap()}
    found: list[str] = []
    in_xla: list[float] = []

    def count(event: str, **_: object) -> None:
        if event.endswith("/cache_hits"):
            found.append(event)

    def add(event: str, duration: float, **_: object) -> None:
        if event.endswith("/backend_compile_duration"):
            in_xla.append(duration)

    jax.monitoring.register_event_listener(count)
    jax.monitoring.register_event_duration_secs_listener(add)
    step_fn = training.make_train_step(job, state_shardings=None)
    groups = job.plan.open_groups_at(0, [])
    compiled = step_fn.compile(state, batch, open_groups=groups)
    seconds |= {"compile": lap(), "xla": sum(in_xla), "found": len(found)}
    jax.block_until_ready(compiled(state, batch))
    return seconds | {"step": lap()}


def make_clock() -> Callable[[], float]:
    """What returns the seconds since it was called last."""
    since = time.perf_counter()

    def lap() -> float:
        nonlocal since
        before, since = since, time.perf_counter()
        return since - before

    return lap


if __name__ == "__main__":
    start()
