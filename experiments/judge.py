# SPDX-License-Identifier: Apache-2.0
"""How good is it, during the run: evaluation, the source task, and the hooks."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import jft
from experiments import build, feed, keep, objective, source_task
from jft import data, evals, processes, tasks, train
from jft.config import Config
from jft.tasks import get_task
from jft.types import Batch, Interrupted, Params


class Evaluator:
    """Evaluates parameters on splits, and counts the seconds."""

    def __init__(
        self,
        config: Config,
        model: jft.Pretrained,
        *,
        place: Callable[[Batch], Batch],
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> None:
        self.seconds = 0.0
        self._config = config
        self._model = model
        self._task = get_task(config.data.task)
        self._place = place
        self._stop_requested = stop_requested
        # of each table; they are iterated anew for every evaluation
        self._batches: dict[feed.Table, data.EvalBatches] = {}
        self._last_kept: data.TokenTable | None = None
        self._eval_step = train.make_eval_step(
            self._task.make_apply(model.apply_fn),
            objective.eval_loss(config),
            predict=self._task.predict,
            compute_dtype=build.compute_dtype(config),
            chunks=objective.eval_chunks(config, model),
        )

    @property
    def num_programs(self) -> int:
        """Programs compiled for it so far."""
        return int(self._eval_step._cache_size())

    def __call__(
        self,
        params: Params,
        table: feed.Table,
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
        evaluated = self.run(params, table if kept is None else kept)
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

    def run(self, params: Params, table: feed.Table) -> evals.Evaluated:
        """What the model says of every row."""
        return evals.evaluate(
            self._eval_step,
            params,
            map(self._place, self._batches_of(table)),
            stop_requested=self._stop_requested,
        )

    def _batches_of(self, table: feed.Table) -> data.EvalBatches:
        if table not in self._batches:
            self._batches[table] = feed.make_eval_batches(
                self._config.data, table, self._model
            )
        return self._batches[table]

    def _write(self, params: Params, table: feed.Table) -> list[str]:
        """The text that the model writes for every row, in the order of the rows."""
        return write_all(
            self._model._replace(params=params),
            self._batches_of(table),
            self._config,
            stop_requested=self._stop_requested,
        )


def write_all(
    model: jft.Pretrained,
    batches: Iterable[Batch],
    config: Config,
    *,
    stop_requested: Callable[[], bool] = lambda: False,
) -> list[str]:
    """The text that the model writes for every row, in the order of ``index``.

    Each of several processes writes its own rows' on its first device.
    """
    if jax.process_count() > 1:
        params = jax.tree.map(jnp.asarray, processes.whole_tree(model.params))
        model = model._replace(params=params)
    written: dict[int, str] = {}
    for batch in batches:
        if stop_requested():
            raise Interrupted("a stop was requested during evaluation")
        texts = write_texts(model, batch, config)
        written |= dict(zip(batch["index"].tolist(), texts, strict=True))
    for others in processes.gather(written):
        written |= others
    return [written[index] for index in sorted(written) if index >= 0]


def write_texts(model: jft.Pretrained, batch: Batch, config: Config) -> list[str]:
    """One text for each row of a batch, as ``evals.generation`` says."""
    generated = evals.generate(
        model,
        {name: batch[name] for name in ("input_ids", "attention_mask")},
        **config.evals.generation,
    )
    texts: list[str] = model.processor.batch_decode(
        [
            tokens[:length]
            for tokens, length in zip(generated.tokens, generated.lengths, strict=True)
        ],
        skip_special_tokens=True,
    )
    return texts


def continue_texts(
    task: tasks.Task, model: jft.Pretrained, examples: data.Examples, config: Config
) -> list[str]:
    """How a decoder goes on from each example."""
    written: list[str] = []
    size = config.data.global_batch_size
    for start in range(0, len(examples), size):
        span = range(start, min(start + size, len(examples)))
        batch = make_prompts(task, model, [examples[i] for i in span])
        written += write_texts(model, batch, config)
    return written


def make_prompts(
    task: tasks.Task, model: jft.Pretrained, examples: Sequence[Mapping[str, Any]]
) -> Batch:
    """The tokens that a decoder goes on from, padded on the left."""
    assert task.make_prompt is not None
    return dict(
        model.processor(
            [task.make_prompt(model, example) for example in examples],
            padding=True,
            padding_side="left",
            add_special_tokens=task.inputs[0].kind != "messages",
            return_tensors="np",
        )
    )


class Forgetting:
    """Measures what the model could do before, on the part of its data for that."""

    def __init__(
        self, source: source_task.SourceTask, evaluator: Callable[..., Evaluator]
    ) -> None:
        self._source = source
        self._evaluate = evaluator(source.config, source.old.model)

    @property
    def seconds(self) -> float:
        """Seconds spent on it so far."""
        return self._evaluate.seconds

    def record(self, step: int, params: Params) -> train.Record:
        """The metrics of a body with the old head, as a record of the history."""
        whole = self._source.old.params(params)
        table = self._source.tables[source_task.MEASURE]
        scores = self._evaluate(whole, table).scores
        return {"step": step, "split": "source", **scores}

    def report(self, history: train.History, params: Params) -> dict[str, Any]:
        """The source task's metric before and after, for the summary."""
        first = next(r for r in history if r["split"] == "source")
        after, metric = self.record(0, params), self._source.metric
        return evals.forgetting_report(
            first[metric], after[metric], source=self._source.name, metric=metric
        )


def make_hooks(
    job: build.Job,
    *,
    record: Callable[[train.History, train.Record], None],
    save: keep.SaveFn,
    evaluate: Callable[[train.TrainState], Mapping[str, float]],
    source: Forgetting | None,
    last_good: Callable[[], str],
) -> list[train.Hook]:
    """Log, evaluate, measure forgetting, save, and know when to stop, in this order."""
    config, plan = job.config, job.plan
    metric, mode = config.evals.metric, config.evals.mode
    patience = config.evals.early_stop_patience
    hooks = [
        train.log_metrics(plan.log_every, record=record),
        train.evaluate_every(
            plan.eval_every, lambda m: evaluate(m.state), record=record
        ),
        train.save_every(plan.save_every, lambda m: save(m.state, m.history)),
        train.save_best(metric, mode=mode, save=lambda m: save(m.state, m.history)),
    ]
    if source is not None:
        forgetting = train.evaluate_every(
            plan.eval_every,
            lambda m: source.record(m.step, keep.eval_params(m.state)),
            record=record,
            split="source",
        )
        hooks.insert(2, forgetting)
    if patience is not None:
        hooks.append(
            train.stop_early(
                metric, mode=mode, patience=patience, start_step=plan.last_opening
            )
        )
    hooks.append(train.stop_on_nonfinite(config.train.max_nonfinite_steps, last_good))
    return hooks
