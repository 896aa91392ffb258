# SPDX-License-Identifier: Apache-2.0
"""What the old head is asked for in training: answers to keep, examples to replay."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

import jft
from experiments import feed, forward, objective
from experiments.objective import Parts
from experiments.plan import Plan
from experiments.source_task import LEARN, OldModel, SourceTask
from jft import data, partition, paths, train
from jft.config import Config, SourceConfig
from jft.tasks import get_task
from jft.types import ApplyFn, Batch, InputError, LossFn, ParamLabels

AsksFn = Callable[[train.OpenGroups], bool]


def asks_old_head(config: Config) -> bool:
    """Whether a training step looks at what the old head says."""
    return bool(config.train.lwf.weight or config.train.replay.share)


def check(config: Config) -> None:
    """Refuse what the settings alone show to be wrong.

    Raises:
      InputError: naming the key.
    """
    if not asks_old_head(config):
        return
    name = _setting(config)
    if config.model.reinit_layers:
        raise InputError(
            f"{name} is set, but model.reinit_layers is {config.model.reinit_layers}: "
            "the old head's answers pass through the layers that it would draw new. "
            "Set one of them to 0."
        )
    if config.train.loss_chunk:
        raise InputError(
            f"train.loss_chunk is {config.train.loss_chunk}, but with {name} a step "
            "needs the outputs of two heads at once; set train.loss_chunk to None."
        )
    if config.train.lwf.weight:
        objective.divergence(get_task(config.data.task), "train.lwf")
    if config.train.replay.share:
        _check_replay(config, config.source)


def _setting(config: Config) -> str:
    return "train.lwf.weight" if config.train.lwf.weight else "train.replay.share"


def _check_replay(config: Config, source: SourceConfig) -> None:
    share = config.train.replay.share
    if source.name is None:
        raise InputError(
            f"train.replay.share is {share}, but source.name is None: there is nothing "
            "to replay. Name the data of the old task in the section source."
        )
    if LEARN not in {*source.split_sizes, *source.split_paths}:
        raise InputError(
            f"train.replay.share is {share}, but source.split_sizes and "
            f"source.split_paths name no {LEARN!r}, a part to learn from; what is "
            "measured on cannot be replayed."
        )
    if config.train.grad_accum_steps > 1:
        raise InputError(
            f"train.replay.share is {share} and train.grad_accum_steps "
            f"{config.train.grad_accum_steps}, but the replayed examples' mean is one "
            "of its own, which no part of a batch knows; set grad_accum_steps to 1."
        )


# --- when it is asked -----------------------------------------------------------------
def asks_when(
    config: Config, model: jft.Pretrained, old: OldModel | None, labels: ParamLabels
) -> AsksFn:
    """Which open groups have a step ask the old head: those that change its answers.

    While a new head moves alone, as in a linear probe, the old one's part of the loss
    is a constant.

    Raises:
      InputError: if nothing that ever moves changes them, though they are asked for.
    """
    if not asks_old_head(config):
        return lambda groups: False
    assert old is not None
    label_of = paths.flatten(labels)
    read = label_of.keys() - set(model.report.new) - old.head.keys()
    layers = {
        model.layer_index(path)
        for path in read
        if partition.is_trainable(label_of[path])
    }
    if not layers:
        raise InputError(
            f"{_setting(config)} is set, but the old head reads nothing that moves, so "
            "its answers stay as they are. Set it to 0, or let something of the body "
            "move (partition.rules)."
        )
    return lambda groups: groups is None or bool(layers & groups)


def silent_phases(config: Config, plan: Plan, asks: AsksFn) -> list[train.Phase]:
    """The known phases of a run that looks back in which nobody asks the old head."""
    if not asks(None) or config.train.phases == "gated":
        return []
    return [phase for phase in plan.phases if not asks(phase.trainable)]


# --- replay: the stream ---------------------------------------------------------------
def num_replayed(config: Config, *, multiple: int) -> int:
    """Examples of the source in each step, such that its devices share them.

    ``n / (n + global_batch_size)`` is the share, as nearly as ``multiple`` allows.
    """
    share = config.train.replay.share
    wanted = config.data.global_batch_size * share / (1 - share)
    return multiple * max(1, round(wanted / multiple))


def add_replay(
    config: Config,
    loader: data.TrainLoader,
    source: SourceTask | None,
    *,
    multiple: int,
) -> data.TrainLoader:
    """Let each batch carry examples of the source task, where the config says so.

    Raises:
      InputError: if there are fewer to learn from than a step replays.
    """
    if not config.train.replay.share:
        return loader
    assert source is not None
    count, table = num_replayed(config, multiple=multiple), source.tables[LEARN]
    if len(source.splits[LEARN]) < count:
        raise InputError(
            f"a step replays {count} examples, but the part {LEARN!r} of the source "
            f"task has only {len(source.splits[LEARN])}. Lower train.replay.share, or "
            "give source.split_sizes more to learn from."
        )
    # one shape: a step is compiled for each that comes along with one of the task's
    settings = dataclasses.replace(
        source.config.data, global_batch_size=count, num_lengths=1
    )
    own = dataclasses.replace(source.config, data=settings)
    other = feed.make_train_loader(own, table, source.old.model)
    return data.join_loaders(loader, other, name=train.REPLAYED)


# --- learning without forgetting: what was said before --------------------------------
def add_old_answers(
    config: Config, old: OldModel | None, place: Callable[[Batch], Batch]
) -> Callable[[Batch], Batch]:
    """Place a batch and add ``old_logits``, where the config keeps the old answers."""
    if not config.train.lwf.weight:
        return place
    assert old is not None
    dtype = jnp.dtype(config.train.compute_dtype)
    before = train.cast_floating(old.model.params, dtype)
    apply_fn = get_task(config.data.task).make_apply(old.model.apply_fn)
    ask = jax.jit(lambda params, batch: apply_fn(params, batch, key=None))

    def place_with_answers(batch: Batch) -> Batch:
        placed = place(batch)
        inputs = {k: x for k, x in placed.items() if k != train.REPLAYED}
        return {**placed, "old_logits": ask(before, inputs)}

    return place_with_answers


# --- the step -------------------------------------------------------------------------
def add_old_head(
    config: Config,
    parts: Parts,
    model: jft.Pretrained,
    *,
    old: OldModel | None,
    source: SourceTask | None,
) -> Parts:
    """Let a step ask the old head too, as the config says."""
    if config.train.lwf.weight:
        assert old is not None
        parts = _keep_answers(config, parts, model, old)
    if config.train.replay.share:
        assert source is not None
        parts = _replay(config, parts, source)
    return parts


def _old_forward(config: Config, old: OldModel, *, task: str) -> ApplyFn:
    forward_fn = forward.remat(config, old.model, old.model.apply_fn)
    head = train.cast_floating(old.head, jnp.dtype(config.train.compute_dtype))
    return train.make_old_forward(get_task(task).make_apply(forward_fn), head)


def _keep_answers(
    config: Config, parts: Parts, model: jft.Pretrained, old: OldModel
) -> Parts:
    task, settings = get_task(config.data.task), config.train.lwf
    old_fn = _old_forward(config, old, task=config.data.task)
    # two draws of dropout are two bodies
    one_body = task.runs_plainly and not config.train.r_drop
    apply_fn = train.ask_both_heads(
        parts.apply_fn,
        old_fn,
        body_fn=forward.remat(config, model, model.prefix_fn) if one_body else None,
        boundary=model.num_layers + 1,
    )
    loss_fn = train.lwf_loss(
        parts.loss_fn,
        weight=settings.weight,
        temperature=settings.temperature,
        divergence_fn=objective.divergence(task, "train.lwf"),
    )
    return _on_new_head(parts, apply_fn, loss_fn)


def _replay(config: Config, parts: Parts, source: SourceTask) -> Parts:
    own, task = source.config, source.task
    old_loss = objective.eval_loss(own)
    apply_fn = train.ask_about_replayed(
        parts.apply_fn, _old_forward(own, source.old, task=own.data.task)
    )
    loss_fn = train.replay_loss(
        parts.loss_fn, old_loss, weight=config.train.replay.weight
    )
    metrics = {"loss": old_loss, **task.train_metrics}
    parts = _on_new_head(parts, apply_fn, loss_fn)
    for name, fn in metrics.items():
        parts.metric_fns[f"replayed_{name}"] = train.on_replayed(fn)
    if parts.prefix_fn is None:
        return parts
    old_prefix = source.old.model.prefix_fn if task.runs_plainly else _as_it_is
    return parts._replace(
        prefix_fn=train.with_replayed_prefix(parts.prefix_fn, old_prefix)
    )


def _on_new_head(parts: Parts, apply_fn: ApplyFn, loss_fn: LossFn) -> Parts:
    metrics = {name: train.on_new_head(fn) for name, fn in parts.metric_fns.items()}
    # outputs of two heads are not one row of numbers a token
    return Parts(apply_fn, loss_fn, metrics, parts.prefix_fn, chunks=None)


def _as_it_is(
    params: object, batch: Batch, *, stop: int, key: jax.Array | None = None
) -> Batch:
    """The prefix of a forward that runs as a whole."""
    del params, stop, key
    return batch


def describe(
    config: Config,
    source: SourceTask | None,
    loader: data.TrainLoader,
    *,
    silent: Sequence[train.Phase],
) -> list[str]:
    """What a step does for the old task, in sentences."""
    lines, lwf, replay = [], config.train.lwf, config.train.replay
    if lwf.weight:
        lines.append(
            "learning without forgetting: the old head's answers to the new inputs are "
            f"kept, weight {lwf.weight:g}, temperature {lwf.temperature:g}"
        )
    if source is not None and train.REPLAYED in loader.settings:
        count = loader.settings[train.REPLAYED]["global_batch_size"]
        lines.append(
            f"replay: {count} {source.name} a step beside "
            f"{config.data.global_batch_size} of the task, weight {replay.weight:g}"
        )
    if silent:
        spans = ", ".join(f"{phase.start} to {phase.stop}" for phase in silent)
        lines.append(
            f"from step {spans} nothing moves that the old head reads: it is not asked"
        )
    return lines
