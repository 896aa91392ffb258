# SPDX-License-Identifier: Apache-2.0
"""How good is it: the scores of a split, and what the model could do before."""

import time
from collections.abc import Callable
from typing import Any

import jft
from experiments import feed, forward, objective, source_task, writing
from experiments.activations import Activations
from experiments.build import Job
from experiments.devices import compute_dtype, make_place
from jft import data, evals, optim, partition, tasks, train
from jft.config import Config
from jft.tasks import get_task
from jft.types import Params


def eval_params(state: train.TrainState) -> Params:
    """The parameters to judge: averaged where the optimizer keeps an average."""
    trainable = optim.eval_params(state.opt_state, state.trainable)
    return partition.combine(trainable, state.frozen)


class Evaluator:
    """Evaluates parameters on splits, and counts the seconds."""

    def __init__(
        self,
        config: Config,
        model: jft.Pretrained,
        *,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> None:
        self.seconds = 0.0
        self._config = config
        self._model = model
        self._task = get_task(config.data.task)
        self._place = make_place(config)
        self._stop_requested = stop_requested
        # of each table; they are iterated anew for every evaluation
        self._batches: dict[tasks.Table, data.EvalBatches] = {}
        self._last_kept: data.TokenTable | None = None
        self._eval_step = train.make_eval_step(
            self._task.make_apply(model.apply_fn),
            objective.eval_loss(config),
            predict=self._task.predict,
            compute_dtype=compute_dtype(config),
            chunks=forward.eval_chunks(config, model),
        )

    @property
    def num_programs(self) -> int:
        """Programs compiled for it so far."""
        return int(self._eval_step._cache_size())

    def __call__(
        self,
        params: Params,
        table: tasks.Table,
        *,
        kept: data.TokenTable | None = None,
    ) -> tasks.Evaluation:
        """Score ``params`` on every example of a split.

        ``kept`` has the activations of the same rows, to start from.
        """
        began = time.perf_counter()
        if kept is not self._last_kept:  # whose files may be gone, but for our hold
            self._batches.pop(self._last_kept, None)
            self._last_kept = kept
        evaluated = evals.evaluate(
            self._eval_step,
            params,
            map(self._place, self._batches_of(table if kept is None else kept)),
            stop_requested=self._stop_requested,
        )
        if self._task.writes:
            rows = {**evaluated.rows, "texts": self._write(params, table)}
            evaluated = evals.Evaluated(
                loss=evaluated.loss, rows=rows, index=evaluated.index
            )
        evaluation = tasks.score(
            self._task, evaluated, table, metric_names=self._config.evals.metrics
        )
        self.seconds += time.perf_counter() - began
        return evaluation

    def _batches_of(self, table: tasks.Table) -> data.EvalBatches:
        if table not in self._batches:
            self._batches[table] = feed.make_eval_batches(
                self._config.data, table, self._model
            )
        return self._batches[table]

    def _write(self, params: Params, table: tasks.Table) -> list[str]:
        """The text that the model writes for every row, in the order of the rows."""
        return writing.write_all(
            self._model._replace(params=params),
            self._batches_of(table),
            self._config,
            stop_requested=self._stop_requested,
        )


class Forgetting:
    """Measures what the model could do before, on the part of its data for that."""

    def __init__(
        self,
        source: source_task.SourceTask,
        *,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> None:
        self._source = source
        self._evaluate = Evaluator(
            source.config, source.old.model, stop_requested=stop_requested
        )

    @property
    def seconds(self) -> float:
        """Seconds spent on it so far."""
        return self._evaluate.seconds

    def scores(self, params: Params) -> dict[str, float]:
        """The metrics of a body with the old head."""
        table = self._source.tables[source_task.MEASURE]
        return dict(self._evaluate(self._source.old.params(params), table).scores)

    def report(self, history: train.History, params: Params) -> dict[str, Any]:
        """The source task's metric before and after, for the summary."""
        first = next(r for r in history if r["split"] == "source")
        after, metric = self.scores(params), self._source.metric
        return evals.forgetting_report(
            first[metric], after[metric], source=self._source.name, metric=metric
        )


class Judges:
    """What judges a run: its own task, and perhaps what the model could do before."""

    def __init__(
        self, job: Job, kept: Activations, *, stop_requested: Callable[[], bool]
    ) -> None:
        self.seconds_in_training = 0.0  # of `measure`
        self._job = job
        self._kept = kept
        self._own = Evaluator(job.config, job.model, stop_requested=stop_requested)
        self.source = job.source and Forgetting(
            job.source, stop_requested=stop_requested
        )

    @property
    def splits(self) -> tuple[str, ...]:
        """What is measured while training: the ``split`` of the records."""
        return ("validation", "source") if self.source else ("validation",)

    @property
    def seconds(self) -> float:
        """Seconds spent on evaluation so far."""
        return self._own.seconds + (self.source.seconds if self.source else 0.0)

    @property
    def num_programs(self) -> int:
        """Programs compiled so far for the run's own task."""
        return self._own.num_programs

    def measure(self, split: str, state: train.TrainState) -> dict[str, float]:
        """Score one of the splits while training."""
        before, params = self.seconds, eval_params(state)
        if split == "source":
            assert self.source is not None
            scores = self.source.scores(params)
        else:
            table, kept = self._job.tables[split], self._kept.table(split)
            scores = dict(self._own(params, table, kept=kept).scores)
        self.seconds_in_training += self.seconds - before
        return scores

    def test(self, params: Params) -> tasks.Evaluation:
        """Score the test split, and keep what was predicted."""
        return self._own(params, self._job.tables["test"])

    def report_forgetting(
        self, history: train.History, params: Params
    ) -> dict[str, Any] | None:
        """The source task's metric before and after, where there is a source task."""
        return self.source and self.source.report(history, params)
