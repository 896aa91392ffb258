# SPDX-License-Identifier: Apache-2.0
"""From a config to the objects of a run, in stage order, up to the training loop."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import jft
from configs import common
from experiments import feed, objective
from jft import data, export, optim, partition, paths, train
from jft.config import (
    AdapterConfig,
    Config,
    DataConfig,
    Duration,
    ModelConfig,
    OptimConfig,
    apply_overrides,
    load_config_file,
    resolve,
    to_steps,
)
from jft.models import family_of
from jft.params import adapters
from jft.tasks import Task, call_with_options, choose_metrics, get_task, mode_of
from jft.types import (
    FROZEN,
    Batch,
    Group,
    InputError,
    ParamLabels,
    Schedule,
)


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
    task = get_task(config.data.task)
    if make_adapter(config.adapter) is not None and config.model.pretrained is None:
        raise InputError(
            f"adapter.method is {config.adapter.method!r}, but model.pretrained is "
            "None: what a model from scratch has drawn would stay random. Name a "
            "checkpoint, or set adapter.method to None."
        )
    if config.data.augment is not None:
        if task.reads != "image":
            raise InputError(
                f"data.augment is {config.data.augment!r}, an augmentation of images, "
                f"but the task {task.name!r} reads {task.reads}s; set it to None."
            )
        data.get_augmentation(config.data.augment)
    measured = sorted({"loss", *config.evals.metrics})
    if config.evals.metric not in measured:
        raise InputError(
            f"evals.metric is {config.evals.metric!r}, which is not measured; expected "
            f"one of {measured}. Add it to evals.metrics."
        )
    if config.evals.forgetting is not None and "accuracy" not in measured:
        raise InputError(
            f"evals.forgetting compares accuracy, but evals.metrics has {measured}; "
            'add "accuracy" there, or set evals.forgetting to None.'
        )
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
    """The method with those of the settings that it has."""
    if config.method is None:
        return None
    if config.method not in adapters.ADAPTERS:
        raise InputError(
            f"adapter.method is {config.method!r}; expected None or one of "
            f"{sorted(adapters.ADAPTERS)}."
        )
    method = adapters.ADAPTERS[config.method]
    names = [field.name for field in dataclasses.fields(method)]
    return method(**{name: getattr(config, name) for name in names})


# --- partition ------------------------------------------------------------------------
def label_params(config: Config, model: jft.Pretrained) -> ParamLabels:
    """Label the parameters and make sure that what is new will train."""
    base = adapters.without_adapters(model.params)
    labels = partition.label_params(base, config.partition.rules)
    if model.adapter is not None:
        labels = adapters.label_adapted(model.params, labels, model.adapter)
    partition.check_new_leaves_move(model.report.new, labels)
    return labels


# --- optim ----------------------------------------------------------------------------
class Plan(NamedTuple):
    """Everything of a run that is counted in steps."""

    num_steps: int
    log_every: int
    eval_every: int
    save_every: int
    keep_every: int | None
    open_at: Mapping[Group, Any] | None  # None: everything from the start
    schedule: Schedule
    phases: list[train.Phase]  # empty where they are not known before the run

    @property
    def last_opening(self) -> int:
        """The step of the last change of what is open, as far as it is known."""
        return self.phases[-1].start if self.phases else 0


def make_plan(
    config: Config, model: jft.Pretrained, labels: ParamLabels, steps_per_epoch: float
) -> Plan:
    """Turn durations into steps and the unfreezing method into opening steps."""

    def steps(duration: Duration, num_steps: int | None = None) -> int:
        return to_steps(
            duration,
            steps_per_epoch=steps_per_epoch,
            examples_per_step=config.data.global_batch_size,
            num_steps=num_steps,
        )

    num_steps = steps(config.train.num)
    if num_steps < 1:
        raise InputError(
            f"train.num is {config.train.num}, a run of no step; expected 1 or more."
        )

    def every(duration: Duration) -> int:
        return max(1, steps(duration, num_steps))

    keep = config.checkpoint.keep_every
    open_at = _open_at(config.optim, model, labels, lambda d: steps(d, num_steps))
    known = open_at is not None and config.optim.unfreeze.method != "plateau"
    return Plan(
        num_steps=num_steps,
        log_every=every(config.train.log_every),
        eval_every=every(config.evals.eval_every),
        save_every=every(config.checkpoint.save_every),
        keep_every=None if keep is None else every(keep),
        open_at=open_at,
        schedule=optim.make_schedule(
            config.optim.schedule,
            config.optim.learning_rate,
            num_steps=num_steps,
            warmup_steps=steps(config.optim.warmup, num_steps),
            **config.optim.schedule_options,
        ),
        phases=train.phases(open_at, num_steps) if known else [],
    )


def _open_at(
    config: OptimConfig,
    model: jft.Pretrained,
    labels: ParamLabels,
    steps: Callable[[Duration], int],
) -> Mapping[Group, Any] | None:
    """When each layer that has anything trainable opens; None: all from the start."""
    unfreeze = config.unfreeze
    every = max(1, steps(unfreeze.every))
    layers = range(model.num_layers + 2)
    open_at: dict[str, Mapping[Any, Any]] = {
        "none": {},
        "top_down": optim.top_down(
            model.num_layers, every=every, start=steps(unfreeze.start)
        ),
        "chain_thaw": optim.chain_thaw(model.num_layers, every=every),
        "explicit": dict(unfreeze.open_at),
        "plateau": dict.fromkeys(reversed(layers), ()),
    }
    if unfreeze.method == "none":
        return None
    moving = moving_layers(model, labels)
    if unfreeze.method == "explicit":
        _check_explicit(unfreeze.open_at, moving)
    chosen = open_at[unfreeze.method]
    return {layer: when for layer, when in chosen.items() if layer in moving}


def moving_layers(model: jft.Pretrained, labels: ParamLabels) -> set[int]:
    """The layers that have trainable parameters."""
    return {
        model.layer_index(path)
        for path, label in paths.flatten(labels).items()
        if label != FROZEN
    }


def _check_explicit(
    open_at: Sequence[tuple[int, int]], moving: Collection[int]
) -> None:
    """Refuse pairs that do not name each layer with trainable parameters once."""
    named = sorted(layer for layer, _ in open_at)
    if named != sorted(moving):
        raise InputError(
            f"optim.unfreeze.open_at names the layers {named}, but the layers with "
            f"trainable parameters are {sorted(moving)}; give each of them one "
            "[layer, step] pair."
        )


def make_optimizer(
    config: OptimConfig, model: jft.Pretrained, labels: ParamLabels, plan: Plan
) -> optax.GradientTransformationExtraArgs:
    """The whole chain."""
    return optim.make_optimizer(
        labels,
        optimizer=config.optimizer,
        learning_rate=plan.schedule,
        hyperparams=config.hyperparams,
        weight_decay=config.weight_decay,
        l2_sp=config.l2_sp,
        clip_norm=config.clip_norm,
        layer_index=model.layer_index,
        num_layers=model.num_layers,
        layer_decay=config.layer_decay,
        layer_decay_preset=config.layer_decay_preset,
        final_norm=model.family.final_norm,
        multipliers=config.multipliers,
        open_at=plan.open_at,
        ema_decay=config.ema_decay,
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
    tables: dict[str, feed.Table]
    loader: data.TrainLoader
    labels: ParamLabels
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
    tables = feed.make_tables(config.data, splits, model)
    loader = feed.make_train_loader(config, tables["train"], model)
    labels = label_params(config, model)
    plan = make_plan(config, model, labels, loader.steps_per_epoch)
    return Job(
        config=config,
        splits=splits,
        task=task,
        model=model,
        tables=tables,
        loader=loader,
        labels=labels,
        plan=plan,
        tx=make_optimizer(config.optim, model, labels, plan),
        multiplier=make_multiplier(config.optim, model, labels),
        key=key_train,
    )


def describe(job: Job) -> str:
    """The table of what will be trained."""
    return partition.describe(
        job.model.params,
        job.labels,
        layer_index=job.model.layer_index,
        multiplier=job.multiplier,
        open_at=job.plan.open_at,
    )


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


def make_train_step(
    job: Job, *, state_shardings: train.TrainState | None
) -> train.TrainStep:
    """The step of the task."""
    apply_fn, loss_fn = objective.make_objective(
        job.config, job.model, job.splits["train"]
    )
    return train.make_train_step(
        apply_fn,
        loss_fn,
        job.tx,
        job.labels,
        group_of=job.model.layer_index,
        grad_accum_steps=job.config.train.grad_accum_steps,
        compute_dtype=compute_dtype(job.config),
        metric_fns=objective.train_metrics(job.config),
        prefix_fn=objective.prefix_fn(job.config, job.model),
        chunks=objective.train_chunks(job.config, job.model),
        state_shardings=state_shardings,
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
