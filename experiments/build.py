# SPDX-License-Identifier: Apache-2.0
"""From a config to the objects of a run, in stage order; the scripts share it."""

import dataclasses
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from absl import flags

import jft
from jft import checkpoint, data, evals, export, optim, partition, paths, train
from jft.config import (
    Config,
    DataConfig,
    Duration,
    ModelConfig,
    OptimConfig,
    config_digest,
    read_config,
    to_steps,
)
from jft.models import family_of
from jft.tasks import get_task
from jft.types import (
    FROZEN,
    Batch,
    Group,
    InputError,
    ParamLabels,
    Params,
    Schedule,
)

TASK = "image_classification"


# --- config ---------------------------------------------------------------------------
def check_config(config: Config) -> None:
    """Refuse what the settings alone show to be wrong, before a workdir is claimed."""
    evals.check_metric_names(config.evals.metrics)
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
    if config.data.augment is not None:
        data.get_augmentation(config.data.augment)
    export.parse_size(config.export.max_shard_size)
    make_mesh(config)


# --- data -----------------------------------------------------------------------------
def load_splits(config: DataConfig) -> dict[str, data.Subset]:
    """Load the source and divide it into train, validation and test."""
    expected = {"train", "validation", "test"}
    if set(config.split_sizes) != expected:
        raise InputError(
            f"data.split_sizes names {sorted(config.split_sizes)}; expected exactly "
            f"{sorted(expected)}."
        )
    source = data.load_source(config.source, config.path, **config.source_options)
    return data.split_source(
        source,
        config.split_sizes,
        seed=config.split_seed,
        per_class=config.split_per_class,
    )


def make_train_loader(
    config: Config, source: data.Source, model: jft.Pretrained
) -> data.TrainLoader:
    """The stream of training batches."""
    augment = config.data.augment
    return data.make_train_loader(
        source,
        global_batch_size=config.data.global_batch_size,
        seed=config.seed,
        fields_fn=make_fields(model),
        augment=None if augment is None else data.get_augmentation(augment),
        num_workers=config.data.num_workers,
    )


def make_fields(model: jft.Pretrained) -> data.ImageFields:
    """How an example becomes fields: as the model's processor does it."""
    if model.processor_config is None:
        raise InputError(
            "the model folder has no preprocessor_config.json, so its image size and "
            "normalisation are not known; add the one its model was trained with."
        )
    num_classes = len(model.class_names)
    return data.make_image_fields(model.processor_config, num_classes=num_classes)


def check_classes(model: jft.Pretrained, class_names: tuple[str, ...]) -> None:
    """Refuse data whose classes are not the model's."""
    known = model.class_names
    if known != class_names:
        raise InputError(
            f"the data has the classes {list(class_names)}, but the model was trained "
            f"on {list(known)}; use the data of its own task."
        )


# --- models and params ----------------------------------------------------------------
def load_model(
    config: ModelConfig, class_names: tuple[str, ...], *, key: jax.Array
) -> jft.Pretrained:
    """Load the checkpoint with a new head, or make the model from scratch."""
    dtype = jnp.dtype(config.dtype)
    if config.pretrained is not None:
        return jft.load(
            config.pretrained, class_names=class_names, key=key, dtype=dtype
        )
    settings = {"model_type": config.model_type, **config.model_config}
    return jft.init_model(
        settings,
        key=key,
        class_names=class_names,
        processor_config=processor_config_of(settings),
        dtype=dtype,
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


# --- partition ------------------------------------------------------------------------
def label_params(config: Config, model: jft.Pretrained) -> ParamLabels:
    """Label the parameters and make sure that what is new will train."""
    labels = partition.label_params(model.params, config.partition.rules)
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
    moving = {
        model.layer_index(path)
        for path, label in paths.flatten(labels).items()
        if label != FROZEN
    }
    if unfreeze.method == "explicit":
        _check_explicit(unfreeze.open_at, moving)
    chosen = open_at[unfreeze.method]
    return {layer: when for layer, when in chosen.items() if layer in moving}


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
    by_layer = (
        optim.layer_multiplier(
            config.layer_decay,
            model.layer_index,
            num_layers=model.num_layers,
            preset=config.layer_decay_preset,
            final_norm=model.family.final_norm,
        )
        if config.layer_decay is not None
        else lambda path: 1.0
    )
    label_of = paths.flatten(labels)
    return lambda path: by_layer(path) * config.multipliers.get(label_of[path], 1.0)


# --- train ----------------------------------------------------------------------------
def open_groups_at(
    config: Config, plan: Plan
) -> Callable[[int, train.History], frozenset[Group] | None]:
    """Which layers move at a step, given the records so far."""
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
    listed = plan.phases
    return lambda step, history: next(
        phase.trainable for phase in listed if phase.start <= step < phase.stop
    )


def make_mesh(config: Config) -> Any:
    """The mesh, and a batch size that divides over it."""
    mesh = train.make_mesh(data=config.train.mesh.data, fsdp=config.train.mesh.fsdp)
    train.check_batch_size(
        config.data.global_batch_size,
        num_devices=mesh.size,
        grad_accum_steps=config.train.grad_accum_steps,
    )
    return mesh


class Stream:
    """Placed batches from a step on, and the seconds that the run waited for them."""

    def __init__(
        self, loader: data.TrainLoader, place: Callable[[Batch], Batch]
    ) -> None:
        self._loader = loader
        self._place = place
        self._prefetch: data.Prefetch | None = None

    def __call__(self, step: int) -> Iterator[Batch]:
        """The batch of every step from ``step`` on."""
        self._prefetch = data.prefetch_to_device(
            self._loader.batches(step), self._place
        )
        return self._prefetch

    @property
    def wait_seconds(self) -> float:
        """Seconds waited so far."""
        return self._prefetch.wait_seconds if self._prefetch else 0.0

    def close(self) -> None:
        """Stop the threads or workers behind it."""
        if self._prefetch:
            self._prefetch.close()


class Evaluator:
    """Evaluates parameters on sources, and counts the seconds."""

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
        self._fields = make_fields(model)
        self._place = place
        self._stop_requested = stop_requested
        self._eval_step = train.make_eval_step(
            model.apply_fn,
            get_task(TASK).make_loss(0.0),
            compute_dtype=compute_dtype(config),
        )

    def __call__(self, params: Params, source: data.Source) -> evals.Evaluation:
        """Score ``params`` on every example of ``source``."""
        began = time.perf_counter()
        batches = data.make_eval_batches(
            source,
            global_batch_size=self._config.data.global_batch_size,
            fields_fn=self._fields,
        )
        evaluation = evals.evaluate(
            self._eval_step,
            params,
            map(self._place, batches),
            metric_names=self._config.evals.metrics,
            stop_requested=self._stop_requested,
        )
        self.seconds += time.perf_counter() - began
        return evaluation


def eval_params(state: train.TrainState) -> Params:
    """The parameters to judge: averaged where the optimizer keeps an average."""
    trainable = optim.eval_params(state.opt_state, state.trainable)
    return partition.combine(trainable, state.frozen)


def compute_dtype(config: Config) -> Any:
    """The dtype to compute in, or None where it is that of the parameters."""
    chosen = config.train.compute_dtype
    return None if chosen == config.model.dtype else jnp.dtype(chosen)


# --- checkpoint -----------------------------------------------------------------------
def make_checkpoints(
    config: Config, directory: Any, plan: Plan
) -> checkpoint.Checkpoints:
    """The checkpoints of a run, with its rules of what to keep."""
    return checkpoint.Checkpoints(
        directory,
        keep_last=config.checkpoint.keep_last,
        keep_every=plan.keep_every,
        keep_best=config.checkpoint.keep_best,
        best_mode=config.evals.mode,
    )


def make_manifest(
    config: Config, model: jft.Pretrained, labels: ParamLabels, *, config_digest: str
) -> checkpoint.Manifest:
    """The identity of a run: what must be the same when it resumes."""
    return checkpoint.Manifest(
        base=config.model.pretrained or "scratch",
        base_digest=checkpoint.tree_digest(model.params),
        labels=paths.flatten(labels),
        config_digest=config_digest,
    )


SaveFn = Callable[[train.TrainState, train.History], None]


def make_save(
    config: Config,
    checkpoints: checkpoint.Checkpoints,
    manifest: checkpoint.Manifest,
    loader: data.TrainLoader,
    plan: Plan,
) -> SaveFn:
    """A function that saves a state and the records so far, once a step."""
    saved: list[int] = checkpoints.steps()
    groups_at = open_groups_at(config, plan)

    def save(state: train.TrainState, history: train.History) -> None:
        step = int(state.step)
        if step in saved:
            return
        scores = [
            r[config.evals.metric]
            for r in history
            if r["split"] == "validation" and r["step"] == step
        ]
        groups = groups_at(max(step - 1, 0), history) or ()
        checkpoints.save(
            step,
            checkpoint.state_arrays(state, full=config.checkpoint.full),
            data_state=loader.state(step),
            history=history,
            manifest=dataclasses.replace(
                manifest, open_groups=tuple(sorted(map(str, groups)))
            ),
            best_value=scores[0] if scores else None,
        )
        saved.append(step)

    return save


def resume(
    config: Config,
    checkpoints: checkpoint.Checkpoints,
    manifest: checkpoint.Manifest,
    state: train.TrainState,
    loader: data.TrainLoader,
) -> tuple[train.TrainState, train.History]:
    """The newest saved state and its records; ``state`` and none for a new run."""
    if checkpoint.choose_start(checkpoints).kind != "resume":
        return state, []
    restored = checkpoints.restore_latest(
        checkpoint.state_arrays(state, full=config.checkpoint.full),
        expect=manifest,
        on_corrupt=config.checkpoint.on_corrupt,
    )
    for reason in restored.skipped:
        print(reason, file=sys.stderr)
    step = loader.check_state(restored.data_state)
    print(f"going on from step {step} in {checkpoints.directory}", flush=True)
    return checkpoint.with_arrays(state, restored.arrays), restored.history


def restore_best(
    config: Config,
    checkpoints: checkpoint.Checkpoints,
    manifest: checkpoint.Manifest,
    state: train.TrainState,
) -> train.TrainState:
    """The state of the best step, or of the newest where none was evaluated."""
    step = checkpoints.best_step()
    if step is None:  # nothing was evaluated
        step = checkpoints.latest_step()
    assert step is not None
    restored = checkpoints.restore(
        step,
        checkpoint.state_arrays(state, full=config.checkpoint.full),
        expect=manifest,
    )
    return checkpoint.with_arrays(state, restored.arrays)


# --- evals ----------------------------------------------------------------------------
class SourceTask:
    """What the model could do before: the base with its own head, and its data."""

    def __init__(self, config: Config, evaluator: Callable[..., Evaluator]) -> None:
        assert config.evals.forgetting is not None
        if config.model.pretrained is None:
            raise InputError(
                f"evals.forgetting is {config.evals.forgetting!r}, but "
                "model.pretrained is None: a model from scratch has nothing to forget. "
                "Set evals.forgetting to None."
            )
        base = jft.load(config.model.pretrained)
        self.name = config.evals.forgetting
        self.source = data.load_source(self.name, **config.evals.forgetting_options)
        check_classes(base, self.source.class_names)
        (head,) = base.family.head_rules
        self._head = evals.set_head_aside(base.params, head=head)
        self._evaluate = evaluator(base)

    def record(self, step: int, params: Params) -> train.Record:
        """The metrics of a body with the old head, as a record of the history."""
        whole = evals.put_head_back(params, self._head)
        scores = self._evaluate(whole, self.source).scores
        return {"step": step, "split": "source", **scores}

    def report(self, history: train.History, params: Params) -> dict[str, Any]:
        """The source task's accuracy before and after, for the summary."""
        first = next(r for r in history if r["split"] == "source")
        after = self.record(0, params)
        return evals.forgetting_report(
            first["accuracy"], after["accuracy"], source=self.name
        )


def load_source_task(
    config: Config, evaluator: Callable[..., Evaluator]
) -> SourceTask | None:
    """The source task, where forgetting is to be measured."""
    return None if config.evals.forgetting is None else SourceTask(config, evaluator)


def make_hooks(
    config: Config,
    plan: Plan,
    *,
    record: Callable[[train.History, train.Record], None],
    save: SaveFn,
    evaluate: Callable[[train.TrainState], Mapping[str, float]],
    source: SourceTask | None,
    last_good: Callable[[], str],
) -> list[train.Hook]:
    """Log, evaluate, measure forgetting, save, and know when to stop, in this order."""
    metric, mode = config.evals.metric, config.evals.mode
    patience = config.evals.early_stop_patience
    hooks = [
        train.log_metrics(plan.log_every, record),
        train.evaluate_every(plan.eval_every, lambda m: evaluate(m.state), record),
        train.save_every(plan.save_every, lambda m: save(m.state, m.history)),
        train.save_best(metric, mode=mode, save=lambda m: save(m.state, m.history)),
    ]
    if source is not None:
        forgetting = train.evaluate_every(
            plan.eval_every,
            lambda m: source.record(m.step, eval_params(m.state)),
            record,
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


# --- a run's best step, or an exported folder -----------------------------------------
def define_model_flags(values: Any) -> None:
    """Define ``--workdir`` and ``--model``, of which a script takes exactly one."""
    flags.DEFINE_string("workdir", None, "Folder of a run; its best step.", values)
    flags.DEFINE_string("model", None, "Folder in Hugging Face layout.", values)


def load_trained(values: Any) -> tuple[jft.Pretrained, Config | None]:
    """The model that the flags name, and the config of its run if it is one's."""
    workdir, folder = values["workdir"].value, values["model"].value
    if (workdir is None) == (folder is None):
        raise InputError(
            f"give exactly one of --workdir and --model; got --workdir={workdir} and "
            f"--model={folder}."
        )
    if folder is not None:
        return jft.load(folder), None
    config = read_config(workdir)
    key_model, _ = jax.random.split(jax.random.key(config.seed))
    train_split = load_splits(config.data)["train"]
    model = load_model(config.model, train_split.class_names, key=key_model)
    labels = label_params(config, model)
    steps_per_epoch = len(train_split) / config.data.global_batch_size
    plan = make_plan(config, model, labels, steps_per_epoch)
    state = train.init_state(
        model.params,
        labels,
        tx=make_optimizer(config.optim, model, labels, plan),
        key=jax.random.key(config.seed),
    )
    with make_checkpoints(config, Path(workdir) / "checkpoints", plan) as checkpoints:
        if checkpoints.latest_step() is None:
            raise InputError(
                f"{workdir} has no checkpoint yet; let its run save one first."
            )
        manifest = make_manifest(
            config, model, labels, config_digest=config_digest(config)
        )
        best = restore_best(config, checkpoints, manifest, state)
    params = partition.combine(eval_params(best), model.params)
    return model._replace(params=params), config
