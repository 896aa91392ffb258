# SPDX-License-Identifier: Apache-2.0
"""Between a finished run and its base: WiSE-FT's models, and which does both tasks.

    python -m experiments.interpolate --workdir=runs/digits/20260101-120000
    python -m experiments.interpolate --workdir=… --alphas=0,0.5,1 --export_alpha=0.5

Each model is ``(1 - alpha)`` of the base and ``alpha`` of the run's best step; what was
drawn new, such as the head, stays as trained, and the source task (section ``source``)
is asked with its own head. Choose alpha by the columns of validation and source. Writes
``wise_ft/results.json`` in the workdir, ``curve.png`` where the run has a source task,
and the model of ``--export_alpha`` in ``export``. An adapter is folded first.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

import jft
from experiments import build, dataset, judge, keep
from jft import evals, params, train
from jft.config import new_flags, run_without_config
from jft.evals import ScoreFn
from jft.tables import format_table
from jft.types import InputError, Params

FLAGS = new_flags()
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a finished run.", FLAGS)
ALPHAS = flags.DEFINE_list(
    "alphas",
    [f"{x / 10:g}" for x in range(11)],
    "Points from 0, the base, to 1, the run.",
    FLAGS,
)
EXPORT_ALPHA = flags.DEFINE_float(
    "export_alpha", None, "Also write the model of this point.", 0.0, 1.0, FLAGS
)


def main() -> None:
    """Score every point, print and write the table, draw it, export one."""
    if WORKDIR.value is None:
        raise InputError("--workdir is missing; name the folder of a finished run.")
    alphas = read_alphas(ALPHAS.value)
    train.keep_compiled()
    job, trained = keep.load_run(Path(WORKDIR.value))
    curve = score_points(job, trained, alphas)

    folder = Path(WORKDIR.value) / "wise_ft"
    folder.mkdir(exist_ok=True)
    metrics = metric_of(job)
    evals.write_summary(folder / "results.json", {"metric": metrics, "curve": curve})
    print(describe(curve, metrics))
    if job.source is not None:
        evals.plot_wise_ft(
            curve,
            folder / "curve.png",
            metric=metrics["test"],
            source_metric=metrics["source"],
            source_name=job.source.name,
            target_name=dataset.name_of(job.config.data),
        )
    if EXPORT_ALPHA.value is not None:
        base, model, new = ends(job, trained)
        point = params.interpolate(
            base.params, model.params, EXPORT_ALPHA.value, keep=new
        )
        jft.save(folder / "export", model, params=point)
    print(f"\nwritten: {folder}")


def read_alphas(words: list[str]) -> list[float]:
    """The points, checked before anything is loaded."""
    try:
        alphas = [float(word) for word in words]
    except ValueError:
        alphas = []
    if not alphas or not all(0 <= alpha <= 1 for alpha in alphas):
        raise InputError(
            f"--alphas is {','.join(words)!r}; expected numbers from 0 to 1, such as "
            "0,0.5,1."
        )
    return alphas


def ends(
    job: build.Job, trained: Params
) -> tuple[jft.Pretrained, jft.Pretrained, list[str]]:
    """The plain base, the plain run, and regexes of what the run alone has.

    Raises:
      InputError: for a run from scratch, or an adapter that cannot be folded.
    """
    if job.config.model.pretrained is None:
        raise InputError(
            "the run's model.pretrained is None: a model from scratch has no base, so "
            "there is nothing between. Name a run that started from a checkpoint."
        )
    base, model = jft.fold(job.model), jft.fold(job.model, params=trained)
    return base, model, [re.escape(path) for path in job.model.report.new]


def score_points(
    job: build.Job, trained: Params, alphas: Sequence[float]
) -> list[dict[str, Any]]:
    """The curve of a finished run, see `jft.evals.wise_ft_curve`."""
    base, model, new = ends(job, trained)
    score_fns = make_score_fns(job, model)
    return evals.wise_ft_curve(base.params, model.params, alphas, score_fns, keep=new)


def make_score_fns(job: build.Job, model: jft.Pretrained) -> dict[str, ScoreFn]:
    """What scores a plain model on validation, on test, and on the source task."""
    evaluate = judge.Evaluator(job.config, model)

    def on_split(split: str) -> ScoreFn:
        return lambda params: evaluate(params, job.tables[split]).scores

    score_fns = {split: on_split(split) for split in ("validation", "test")}
    if job.source is not None:
        old = job.source.old
        own = job.source._replace(old=old._replace(model=jft.fold(old.model)))
        score_fns["source"] = judge.Forgetting(own).scores
    return score_fns


def metric_of(job: build.Job) -> dict[str, str]:
    """What each split is told by."""
    metric = job.config.evals.metric
    assert metric is not None
    source = {} if job.source is None else {"source": job.source.metric}
    return {"validation": metric, "test": metric, **source}


def describe(curve: list[dict[str, Any]], metrics: Mapping[str, str]) -> str:
    """The table as text."""
    rows = [
        [point["alpha"], *(point[split][name] for split, name in metrics.items())]
        for point in curve
    ]
    headers = [f"{split} {metric}" for split, metric in metrics.items()]
    return format_table(rows, ["alpha", *headers])


if __name__ == "__main__":
    run_without_config(main, flag_values=FLAGS)
