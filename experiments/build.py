# SPDX-License-Identifier: Apache-2.0
"""From a config to the objects of a run, in stage order, up to the training loop."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import jft
from configs import common
from experiments import anchors, feed, objective, source_task, two_heads
from experiments.plan import Plan, make_plan
from jft import data, export, optim, partition, paths, train
from jft.config import (
    AdapterConfig,
    Config,
    DataConfig,
    ModelConfig,
    OptimConfig,
    apply_overrides,
    load_config_file,
    resolve,
)
from jft.models import family_of
from jft.params import adapters
from jft.tasks import Task, call_with_options, choose_metrics, get_task, mode_of
from jft.types import (
    Batch,
    Group,
    InputError,
    ParamLabels,
)

MANY_PARAMS = 10_000  # an example, from where on a warning is due


# --- config ---------------------------------------------------------------------------
def read_config(spec: str, overrides: Mapping[str, Any]) -> Config:
    """The config of ``file.py:arguments`` with some values replaced, completed."""
    _, config = load_config_file(spec)
    return complete(resolve(apply_overrides(config, overrides)))


def called(spec: str) -> str:
    """What a config is called in a table: its file, and its short arguments.

    >>> called("configs/sst2.py:moves=head,pretrained=/a/model")
    'sst2 moves=head'
    """
    file, _, arguments = spec.partition(":")
    short = [word for word in arguments.split(",") if "/" not in word]
    return f"{Path(file).stem} {','.join(short)}".strip()


def complete(config: Config) -> Config:
    """Fill in what a config leaves to its task: metrics, and which one chooses.

    Raises:
      InputError: for what the settings alone show to be wrong.
    """
    task, evals = get_task(config.data.task), config.evals
    metrics = choose_metrics(task, evals.metrics)
    metric = evals.metric or (metrics[0] if metrics else "loss")
    evals = dataclasses.replace(
        evals, metrics=metrics, metric=metric, mode=evals.mode or mode_of(metric)
    )
    config = dataclasses.replace(config, evals=evals)
    check_config(config)
    return config


def usual_config(task: str, *, max_length: int) -> Config:
    """What every experiment starts from, for a folder without the config of its run."""
    config = common.base_config()
    config.data.task = task
    config.data.max_length = max_length
    return resolve(config)


def check_config(config: Config) -> None:
    """Refuse what the settings alone show to be wrong, before a workdir is claimed."""
    if make_adapter(config.adapter) is not None and config.model.pretrained is None:
        raise InputError(
            f"adapter.method is {config.adapter.method!r}, but model.pretrained is "
            "None: what a model from scratch has drawn would stay random. Name a "
            "checkpoint, or set adapter.method to None."
        )
    if config.model.quantize is not None and config.model.pretrained is None:
        raise InputError(
            f"model.quantize is {config.model.quantize!r}, but model.pretrained is "
            "None: what has been drawn must train, and what is quantised cannot. Name "
            "a checkpoint, or set model.quantize to None."
        )
    feed.check_augment(config.data)
    measured = sorted({"loss", *config.evals.metrics})
    if config.evals.metric not in measured:
        raise InputError(
            f"evals.metric is {config.evals.metric!r}, which is not measured; expected "
            f"one of {measured}. Add it to evals.metrics."
        )
    source_task.check(config)
    if config.optim.unfreeze.method == "plateau" and config.train.phases == "gated":
        raise InputError(
            'optim.unfreeze.method "plateau" opens layers between two programs, but '
            'train.phases is "gated"; set it to "compiled".'
        )
    if (
        config.optim.unfreeze.method != "none"
        and config.train.phases == "gated"
        and not config.train.frozen_dropout
    ):
        raise InputError(
            'train.phases is "gated", one program that cannot tell which layers are '
            "frozen at a step, so that dropout is everywhere; set train.frozen_dropout "
            'to True, or train.phases to "compiled".'
        )
    objective.check(config)
    two_heads.check(config)
    anchors.check(config)
    feed.check_options(config.data)
    export.parse_size(config.export.max_shard_size)
    make_mesh(config)


# --- data -----------------------------------------------------------------------------
def check_task(model: jft.Pretrained, config: DataConfig) -> None:
    """Refuse a model whose head answers another task."""
    needed = get_task(config.task).head
    if model.task != needed:
        raise InputError(
            f"the model has the head {model.task!r}, but data.task {config.task!r} "
            f"needs {needed!r}; use a config of its own task."
        )


def check_classes(model: jft.Pretrained, class_names: tuple[str, ...]) -> None:
    """Refuse data whose classes are not the model's."""
    known = model.class_names
    if class_names and known != class_names:
        raise InputError(
            f"the data has the classes {list(class_names)}, but the model was trained "
            f"on {list(known)}; use the data of its own task."
        )


# --- models and params ----------------------------------------------------------------
def load_model(
    config: ModelConfig,
    task: Task,
    train: data.Examples,
    *,
    max_length: int,
    key: jax.Array,
) -> jft.Pretrained:
    """Load the checkpoint with a new head, or make the model from scratch."""
    dtype = jnp.dtype(config.dtype)
    classes = {} if not train.class_names else {"class_names": train.class_names}
    if task.problem_type is not None:
        classes["problem_type"] = task.problem_type
    if config.pretrained is not None:
        return jft.load(
            config.pretrained,
            task=task.head,
            key=key,
            dtype=dtype,
            revision=config.revision,
            quantize=config.quantize,
            reinit_layers=config.reinit_layers,
            **classes,
        )
    settings = {"model_type": config.model_type, **config.model_config}
    if task.reads == "image":
        processor = processor_config_of(settings)
    else:
        processor = make_tokenizer(config, task, train, max_length=max_length)
    return jft.init_model(
        settings, key=key, task=task.head, processor=processor, dtype=dtype, **classes
    )


def make_tokenizer(
    config: ModelConfig, task: Task, train: data.Examples, *, max_length: int
) -> Any:
    """The tokenizer of a text model from scratch: of a folder, or learned."""
    if config.tokenizer is None:
        raise InputError(
            f"model.pretrained is None, but the task {task.name!r} needs a tokenizer; "
            'set model.tokenizer to a folder that has one, or to "train".'
        )
    if config.tokenizer != "train":
        tokenizer = data.load_tokenizer(config.tokenizer)
        if tokenizer is None:
            raise InputError(
                f"model.tokenizer is {config.tokenizer!r}, a folder without a "
                "tokenizer.json; name one that has it."
            )
        return tokenizer
    kinds = {column.kind for column in task.columns}
    template = {"chat_template": data.CHATML} if "messages" in kinds else {}
    return call_with_options(
        data.train_tokenizer,
        feed.all_texts(task, train),
        max_length=max_length,
        options={**template, **config.tokenizer_options},
        what="model.tokenizer_options",
    )


def load_base(config: Config) -> jft.Pretrained:
    """The checkpoint with the head that it came with, and the config's adapter.

    Raises:
      InputError: if it came without a head.
    """
    assert config.model.pretrained is not None
    base = jft.load(
        config.model.pretrained,
        dtype=jnp.dtype(config.model.dtype),
        revision=config.model.revision,
        quantize=config.model.quantize,
    )
    if base.task == "base":
        raise InputError(
            f"{config.model.pretrained} came without a head, so there is no task that "
            "it could do before; leave out what asks for its old answers."
        )
    # its forward reads an adapter too, where the model has one
    return add_adapter(config, base, key=jax.random.key(0))


def load_old_model(
    config: Config, model: jft.Pretrained
) -> source_task.OldModel | None:
    """What ``model`` was before its new head, where the config looks back at it."""
    if config.source.name is None and not two_heads.asks_old_head(config):
        return None
    old = source_task.find_old_model(load_base(config), model)
    needed = get_task(config.data.task).head
    if config.train.lwf.weight and old.model.task != needed:
        raise InputError(
            f"train.lwf.weight is {config.train.lwf.weight}, but "
            f"{config.model.pretrained} came with the head {old.model.task!r}, which "
            f"cannot answer the inputs of {needed!r}; set it to 0."
        )
    return old


def processor_config_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The preprocessor_config.json of a model from scratch: to its size, to [-1, 1]."""
    config = family_of(settings).config_from_dict(settings)
    known = {field.name for field in dataclasses.fields(config)}
    if unknown := sorted(set(settings) - known - {"model_type"}):
        raise InputError(
            f"model.model_config has unknown fields {unknown}; expected some of "
            f"{sorted(known - {'num_labels'})}."
        )
    (height, width), channels = config.image_size, config.num_channels
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * channels,
        "image_std": [0.5] * channels,
        "do_convert_rgb": channels == 3,
    }


def add_adapter(
    config: Config, model: jft.Pretrained, *, key: jax.Array
) -> jft.Pretrained:
    """Put the config's adapter on the model, if it names one."""
    adapter = make_adapter(config.adapter)
    if adapter is None:
        return model
    adapted = jft.adapt(model, adapter, key=key)
    if config.export.enabled and exported_as(config, adapted) != "apart":
        jft.check_foldable(adapted)  # not only when the run is over
    return adapted


def exported_as(config: Config, model: jft.Pretrained) -> str:
    """How a run's model leaves: "folded", "apart", or "both".

    What PEFT has not, and a model without an adapter, is one whole. Of a method that
    cannot be folded "both" is "apart".
    """
    adapter, kind = model.adapter, config.export.adapter
    if adapter is None or adapter.peft_type is None:
        return "folded"
    return "apart" if kind == "both" and not adapter.foldable else kind


def make_adapter(config: AdapterConfig) -> adapters.Adapter | None:
    """The method with those of the settings that it has; others' are refused."""
    if config.method is not None and config.method not in adapters.ADAPTERS:
        raise InputError(
            f"adapter.method is {config.method!r}; expected None or one of "
            f"{sorted(adapters.ADAPTERS)}."
        )
    _check_settings(config)
    if config.method is None:
        return None
    names = _settings_of(config.method)
    return adapters.ADAPTERS[config.method](
        **{name: getattr(config, name) for name in names}
    )


def _settings_of(method: str) -> set[str]:
    return {field.name for field in dataclasses.fields(adapters.ADAPTERS[method])}


def _check_settings(config: AdapterConfig) -> None:
    """Refuse what would be read by no method, or by another one."""
    usual = resolve(common.base_config()).adapter
    known = set() if config.method is None else _settings_of(config.method)
    for field in dataclasses.fields(config):
        name = field.name
        given, default = getattr(config, name), getattr(usual, name)
        if name in known | {"method"} or given == default:
            continue
        methods = [m for m in sorted(adapters.ADAPTERS) if name in _settings_of(m)]
        raise InputError(
            f"adapter.{name} is {given!r}, but adapter.method is {config.method!r}, "
            f"which has no such setting; set adapter.method to one of {methods}, or "
            f"leave adapter.{name} at {default!r}."
        )


# --- partition ------------------------------------------------------------------------
def label_params(config: Config, model: jft.Pretrained) -> ParamLabels:
    """Label the parameters and make sure that what is new will train."""
    base = adapters.without_adapters(model.params)
    labels = partition.label_params(base, config.partition.rules)
    if model.adapter is not None:
        labels = adapters.label_adapted(model.params, labels, model.adapter)
    partition.check_new_leaves_move(model.report.new, labels)
    partition.check_quantised_stay(model.params, labels)
    return labels


# --- optim ----------------------------------------------------------------------------
def make_optimizer(
    config: OptimConfig,
    model: jft.Pretrained,
    labels: ParamLabels,
    plan: Plan,
    *,
    keep_anchor: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """The whole chain."""
    return optim.make_optimizer(
        labels,
        optimizer=config.optimizer,
        learning_rate=plan.schedule,
        hyperparams=config.hyperparams,
        weight_decay=config.weight_decay,
        decay_mask=anchors.decay_mask(config, model, labels),
        l2_sp=anchors.l2_sp(config, model, labels),
        ewc=anchors.ewc(config, model, labels),
        anchor_mask=anchors.make_mask(model),
        keep_anchor=keep_anchor,
        clip_norm=config.clip_norm,
        layer_index=model.layer_index,
        num_layers=model.num_layers,
        layer_decay=config.layer_decay,
        layer_decay_preset=config.layer_decay_preset,
        final_norm=model.family.final_norm,
        multipliers=config.multipliers,
        open_at=plan.open_at,
        ema_decay=config.ema_decay,
        auto_rgn=plan.auto_rgn,
        auto_rgn_batches=config.auto_rgn_batches,
        swa=plan.swa,
    )


def make_multiplier(
    config: OptimConfig, model: jft.Pretrained, labels: ParamLabels
) -> Callable[[str], float]:
    """Each path's factor of the learning rate: its layer's times its label's."""
    label_of = paths.flatten(labels)

    def by_label(path: str) -> float:
        return config.multipliers.get(label_of[path], 1.0)

    if config.layer_decay is None and config.layer_decay_preset != "ulmfit":
        return by_label
    by_layer = optim.layer_multiplier(
        config.layer_decay,
        model.layer_index,
        num_layers=model.num_layers,
        preset=config.layer_decay_preset,
        final_norm=model.family.final_norm,
    )
    return lambda path: by_layer(path) * by_label(path)


class Job(NamedTuple):
    """What is fixed before the first step: the stages from data to optim."""

    config: Config
    splits: dict[str, data.Examples]
    task: Task
    model: jft.Pretrained
    old: source_task.OldModel | None  # what the model was before its new head
    source: source_task.SourceTask | None  # what it could do then
    tables: dict[str, feed.Table]
    loader: data.TrainLoader
    task_loader: data.TrainLoader  # the same without examples of the source task
    labels: ParamLabels
    asks: two_heads.AsksFn  # whether a step with these groups asks the old head
    plan: Plan
    tx: optax.GradientTransformationExtraArgs
    multiplier: Callable[[str], float]  # path -> factor of the learning rate
    key: jax.Array  # root of all randomness of training


def make_job(config: Config) -> Job:
    """Go through the stages data, models, params, partition and optim."""
    splits, task = feed.load_examples(config), get_task(config.data.task)
    key_model, key_train = jax.random.split(jax.random.key(config.seed))
    model = load_model(
        config.model,
        task,
        splits["train"],
        max_length=config.data.max_length,
        key=key_model,
    )
    model = add_adapter(config, model, key=jax.random.fold_in(key_model, 1))
    old = load_old_model(config, model)
    source = None if config.source.name is None else source_task.load(config, old)
    tables = feed.make_tables(config.data, splits, model)
    task_loader = feed.make_train_loader(config, tables["train"], model)
    loader = two_heads.add_replay(
        config,
        task_loader,
        source,
        multiple=train.num_shares(make_mesh(config)),
    )
    labels = label_params(config, model)
    plan = make_plan(config, model, labels, loader.steps_per_epoch)
    return Job(
        config=config,
        splits=splits,
        task=task,
        model=model,
        old=old,
        source=source,
        tables=tables,
        loader=loader,
        task_loader=task_loader,
        labels=labels,
        asks=two_heads.asks_when(config, model, old, labels),
        plan=plan,
        tx=make_optimizer(
            config.optim,
            model,
            labels,
            plan,
            keep_anchor=anchors.mixes(config.train, model, labels),
        ),
        multiplier=make_multiplier(config.optim, model, labels),
        key=key_train,
    )


def describe(job: Job) -> str:
    """The table of what will be trained, what is watched besides, and warnings."""
    table = partition.describe(
        job.model.params,
        job.labels,
        layer_index=job.model.layer_index,
        multiplier=job.multiplier,
        open_at=job.plan.open_at,
    )
    more = [] if job.source is None else [source_task.describe(job.source)]
    silent = two_heads.silent_phases(job.config, job.plan, job.asks)
    more += two_heads.describe(job.config, job.source, job.loader, silent=silent)
    warnings = few_examples(job)
    warnings += anchors.pulled_twice(job.config.optim, job.model, job.labels)
    more += [f"warning: {text}" for text in warnings]
    return "\n\n".join([table, *more])


def few_examples(job: Job) -> list[str]:
    """Warn where much learns from little."""
    trainable, _ = partition.split(job.model.params, job.labels)
    moving, examples = partition.num_params(trainable), len(job.splits["train"])
    if moving <= MANY_PARAMS * examples:
        return []
    return [
        f"{moving:,} parameters learn from {examples:,} examples, more than "
        f"{MANY_PARAMS:,} an example: watch the validation metric for overfitting; a "
        "frozen body, gradual unfreezing or an adapter moves fewer."
    ]


# --- train ----------------------------------------------------------------------------
def init_state(job: Job) -> train.TrainState:
    """The state at step 0."""
    return train.init_state(
        job.model.params,
        job.labels,
        tx=job.tx,
        key=job.key,
        frozen_dtype=compute_dtype(job.config),
    )


def with_fisher(job: Job, state: train.TrainState) -> train.TrainState:
    """Tell the optimizer how much the source task needs each parameter; of EWC."""
    assert job.source is not None
    key = "optim.ewc.strength"
    anchored = anchors.anchored_paths(job.model, job.labels, key=key)
    fisher = anchors.source_fisher(job.config, job.source, anchored)
    return state._replace(opt_state=optim.with_fisher(state.opt_state, fisher))


def make_train_step(
    job: Job, *, state_shardings: train.TrainState | None
) -> train.TrainStep:
    """The step of the task, which asks the old head where the groups want that."""
    config, model = job.config, job.model
    apply_fn, loss_fn = objective.make_objective(config, model, job.splits["train"])
    alone = two_heads.Parts(
        apply_fn=apply_fn,
        loss_fn=loss_fn,
        metric_fns=objective.train_metrics(config),
        prefix_fn=objective.prefix_fn(config, model),
        chunks=objective.train_chunks(config, model),
    )
    both = two_heads.add_old_head(config, alone, model, old=job.old, source=job.source)
    steps = {
        asks: train.make_train_step(
            parts.apply_fn,
            parts.loss_fn,
            job.tx,
            job.labels,
            group_of=model.layer_index,
            grad_accum_steps=config.train.grad_accum_steps,
            compute_dtype=compute_dtype(config),
            metric_fns=parts.metric_fns,
            prefix_fn=parts.prefix_fn,
            chunks=parts.chunks,
            mixout=config.train.mixout,
            state_shardings=state_shardings,
        )
        for asks, parts in ((False, alone), (True, both))
    }
    if not two_heads.asks_old_head(config):
        return steps[False]
    return train.choose_step(
        lambda groups: steps[job.asks(groups)], group_of=model.layer_index
    )


def plan_memory(
    job: Job,
    train_step: train.TrainStep,
    state: train.TrainState,
    place: Callable[[Batch], Batch],
) -> train.MemoryPlan:
    """Compile the largest step, that of the last phase and the longest batch.

    Raises:
      InputError: if it does not fit a device.
    """
    batch = place(job.loader.largest())
    groups = None
    if job.plan.open_at is not None and job.config.train.phases == "compiled":
        groups = frozenset(job.plan.open_at)
        if job.plan.phases:
            largest = max(job.plan.phases, key=lambda phase: len(phase.trainable))
            groups = largest.trainable
    program = train_step.compile(state, batch, open_groups=groups)
    plan = train.plan_memory(program, state, batch)
    train.check_memory(plan, train.device_bytes())
    return plan


def open_groups_at(
    job: Job,
) -> Callable[[int, train.History], frozenset[Group] | None]:
    """Which layers move at a step, given the records so far."""
    config, plan = job.config, job.plan
    if plan.open_at is None or config.train.phases == "gated":
        return lambda step, history: None
    if config.optim.unfreeze.method == "plateau":
        return lambda step, history: optim.plateau_opening(
            [
                r[config.evals.metric]
                for r in history
                if r["split"] == "validation" and r["step"] <= step
            ],
            groups=list(plan.open_at),
            patience=config.optim.unfreeze.patience,
            min_delta=config.optim.unfreeze.min_delta,
            mode=config.evals.mode,
        )
    return train.groups_at(plan.phases)


def make_mesh(config: Config) -> Any:
    """The mesh, and a batch size that divides over it."""
    sizes = config.train.mesh
    mesh = train.make_mesh(data=sizes.data, fsdp=sizes.fsdp, tensor=sizes.tensor)
    train.check_batch_size(
        config.data.global_batch_size,
        num_devices=train.num_shares(mesh),
        grad_accum_steps=config.train.grad_accum_steps,
    )
    return mesh


def compute_dtype(config: Config) -> Any:
    """The dtype to compute in, or None where it is that of the parameters."""
    chosen = config.train.compute_dtype
    return None if chosen == config.model.dtype else jnp.dtype(chosen)
