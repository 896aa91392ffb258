# SPDX-License-Identifier: Apache-2.0
"""Every key of a config, with its default and its meaning, in stage order.

One frozen dataclass a section. A field of type ``Duration`` is given by exactly one of
four keys: ``num`` by ``num_steps``, ``num_epochs``, ``num_examples`` or ``num_percent``
(of the run). In a config file another unit than the default's takes its place by
``set_duration(section, num_steps=100)``, on the command line by
``--config.train.num_steps=100``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from jft.config.durations import Duration
from jft.config.kinds import (
    Count,
    Dtype,
    Fraction,
    NonNegative,
    Options,
    Positive,
    Range,
    Whole,
)

Unfreezing: TypeAlias = Literal[
    "none", "top_down", "chain_thaw", "lp_ft", "explicit", "plateau"
]
_ONE_EPOCH = Duration(amount=1, unit="epochs")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What goes in."""

    task: str = "image_classification"  # a name in jft.tasks.TASKS
    task_options: Options = field(default_factory=dict)  # of the task's fields
    source: str = "folder"  # a name in jft.data.SOURCES
    path: str | None = None  # file, folder or name of the source; of split_paths
    source_options: Options = field(default_factory=dict)  # of the source, by keyword
    # field of the task -> column of the source (by position where a file has no
    # header); a field not named here is the column of its name
    columns: Mapping[str, str | int | tuple[str, ...]] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()  # in the order of their ids; (): found, sorted
    # split -> its own file or folder below path, or slice of the source; {}: all are
    # drawn from one source. Splits without one are drawn from that of "train"
    split_paths: Mapping[str, str] = field(default_factory=dict)
    # what is drawn: examples (int), a fraction (float) or "rest"; {}: none
    split_sizes: Mapping[str, int | float | str] = field(
        default_factory=lambda: {"train": "rest", "validation": 0.1, "test": 0.1}
    )
    split_per_class: bool = False  # sizes are of each class, not of all
    split_stratify: bool = False  # every split has the classes in the same shares
    split_group: str | None = None  # column: rows of one value stay in one split
    split_seed: int = 0  # apart from `seed`, so that seeds share a test set
    on_error: Literal["error", "skip"] = "error"  # of rows that cannot be read
    max_length: Count = 128  # tokens a text; longer texts are cut
    global_batch_size: Count = 32  # examples a step, over all devices and processes
    # texts of a batch: "length" puts those of like length together; "pad" fills all up
    # to max_length; "pack" puts several into a row
    batching: Literal["pad", "length", "pack"] = "length"
    num_lengths: Count = 4  # the most shapes of batches, each compiled once
    cache: str | None = None  # of tokenized texts; None: $JFT_CACHE or ~/.cache/jft
    augment: str | None = None  # a name in jft.data.AUGMENTATIONS
    num_workers: Whole = 0  # processes; 0: threads. Never changes the result


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """What the model could do before: its source task, by the head that it came with.

    It is measured before, during and after. What is not said here is as in ``data``.
    """

    name: str | None = None  # a name in jft.data.SOURCES; None: nobody looks back
    path: str | None = None
    options: Options = field(default_factory=dict)
    columns: Mapping[str, str | int | tuple[str, ...]] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()  # in the order of the model's ids; (): its own
    split_paths: Mapping[str, str] = field(default_factory=dict)
    # test: to measure on; train, where there is one: to learn from again
    split_sizes: Mapping[str, int | float | str] = field(
        default_factory=lambda: {"test": "rest"}
    )
    split_per_class: bool = False
    split_group: str | None = None
    split_seed: int = 0
    task: str | None = None  # None: that of data
    task_options: Options = field(default_factory=dict)
    max_length: Count | None = None  # None: that of data
    # of those that are replayed; the rest of how a batch is made is data's
    batching: Literal["pad", "length", "pack"] | None = None  # None: that of data
    augment: str | None = None  # None: as they are, whatever is done with data's
    metric: str | None = None  # of the task; None: its first


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model, from which numbers."""

    # folder in Hugging Face layout, Hub id, "jft:<shipped>", or None: from scratch
    pretrained: str | None = None
    revision: str | None = None  # of a Hub id: pin a commit for runs to repeat
    reinit_layers: Whole = 0  # blocks of it to draw new, from the top
    model_type: str = "vit"  # where pretrained is None: a name in jft.models.MODELS
    # likewise: fields of its config.json
    model_config: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None  # likewise, of texts: a folder of one, or "train"
    tokenizer_options: Options = field(default_factory=dict)  # data.train_tokenizer's
    dtype: Dtype = "float32"  # of the parameters
    # products that stay as they are, in 8 or 4 bits a number, for a run with an
    # adapter, or one whose rules leave them frozen
    quantize: Literal["int8", "nf4"] | None = None
    # auto: by cuDNN where it computes the same on this machine, else by XLA; cudnn: or
    # an error that says why not. No GPU has run it yet
    attention: Literal["auto", "xla", "cudnn"] = "xla"


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """What is added to a base that stays as it is."""

    method: str | None = None  # a name in jft.params.adapters.ADAPTERS; None: nothing
    # keyword arguments of its class; what another method has is refused
    options: Options = field(default_factory=dict)
    # of those that are told where, as lora: modules by name, as PEFT's, or regexes over
    # paths
    targets: tuple[str, ...] = ("all-linear",)
    # regexes of paths of the base that move too; None: a classifier's head
    also_train: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class PartitionConfig:
    """Which numbers move."""

    # (regex of a whole parameter path, label), the first match wins; "frozen" is the
    # label of what never moves. With an adapter, of what it lets move of the base; its
    # own are "adapter" and "lora_B"
    rules: tuple[tuple[str, str], ...] = (("classifier/.*", "head"), (".*", "backbone"))


@dataclass(frozen=True, kw_only=True)
class UnfreezeConfig:
    """When each layer starts to move."""

    method: Unfreezing = "none"
    start: Duration = Duration(amount=0, unit="steps")  # top_down: when the head opens
    # top_down, chain_thaw: between two openings
    every: Duration = Duration(amount=10, unit="percent")
    # lp_ft: the head alone, then everything; the schedule and its warm-up run anew in
    # each of the two parts, as if it were a run
    probe: Duration = Duration(amount=50, unit="percent")
    finetune_learning_rate: Positive | None = None  # lp_ft: of the second; None: same
    open_at: tuple[tuple[int, int], ...] = ()  # explicit: (layer, step) pairs
    patience: Count = 3  # plateau: evaluations without progress before one more opens
    min_delta: NonNegative = 0.0  # plateau: progress smaller than this counts as none


@dataclass(frozen=True, kw_only=True)
class EwcConfig:
    """How hard parameters are pulled back to what the source task needs."""

    # of the penalty, a part of the loss; 0: none. Records have the penalty as
    # "penalty", and the loss without it
    strength: NonNegative = 0.0
    # the Fisher's: drawn from the model, or the data's own
    targets: Literal["model", "data"] = "model"


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How they move."""

    optimizer: str = "adamw"  # a name in jft.optim.OPTIMIZERS
    hyperparams: Options = field(default_factory=dict)  # its keyword arguments
    learning_rate: Positive = 1e-3  # the peak, before factors of layers and labels
    schedule: str = "cosine"  # a name in jft.optim.SCHEDULES
    schedule_options: Options = field(default_factory=dict)  # its keyword arguments
    warmup: Duration = Duration(amount=5, unit="percent")  # linear, from 0
    weight_decay: NonNegative = 0.05  # decoupled; times the learning rate once
    l2_sp: NonNegative = 0.0  # decoupled pull towards the starting point
    # (regex of a path, its own pull), the first wins
    l2_sp_rules: tuple[tuple[str, NonNegative], ...] = ()
    # what is pulled does not decay, as in the paper; else it does both
    l2_sp_replaces_decay: bool = False
    ewc: EwcConfig = EwcConfig()
    clip_norm: Positive | None = 1.0  # of all trainable gradients together, or None
    # factor of the learning rate from a layer to the one below; None: no such decay
    layer_decay: Annotated[float, Range(above=0, maximum=1)] | None = None
    layer_decay_preset: Literal["timm", "beit", "electra", "ulmfit"] = "timm"
    # label -> factor of the learning rate
    multipliers: Mapping[str, NonNegative] = field(default_factory=dict)
    # scale a layer's rate by its relative gradient, measured so often
    auto_rgn_every: Duration | None = None
    auto_rgn_batches: Count = 5  # on the mean over so many batches
    ema_decay: Fraction | None = None  # evaluate a moving average of the weights
    swa_start: Duration | None = None  # or their plain mean from here on
    swa_every: Duration = _ONE_EPOCH  # of points so far apart
    unfreeze: UnfreezeConfig = UnfreezeConfig()


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How many devices along each axis of the mesh."""

    # that share a batch; -1: all that the others leave
    data: Annotated[int, Range(minimum=-1)] = -1
    fsdp: Count = 1  # that share a batch, the parameters and the optimizer
    tensor: Count = 1  # that share the products of each layer


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """Whose logits are learned too."""

    model: str | None = None  # folder or Hub id, of the same task; None: no teacher
    # of the teacher's part of the loss
    weight: Annotated[float, Range(minimum=0, maximum=1)] = 0.5
    temperature: Positive = 2.0


@dataclass(frozen=True, kw_only=True)
class LwfConfig:
    """Learning without forgetting, by the head that it came with."""

    weight: NonNegative = 0.0  # of keeping its answers to the new inputs; 0: not
    temperature: Positive = 2.0


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """Whether each step has examples of the source task's part "train"."""

    share: Fraction = 0.0  # of all examples of a step; 0: none
    weight: NonNegative = 1.0  # of their mean loss beside the task's


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """Whether to keep what layers below all that move say of each row."""

    # auto: where that is legal and saves work; on: or an error
    use: Literal["auto", "on", "off"] = "auto"
    max_gigabytes: Positive = 8.0  # of files in the workdir, while it runs
    dtype: Dtype = "float32"  # bfloat16: half as many bytes, rounded


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One step, many steps."""

    num: Duration = Duration(amount=10, unit="epochs")  # the length of the run
    grad_accum_steps: Count = 1  # parts a batch is computed in; same result
    compute_dtype: Dtype = "float32"
    # of the task's loss: label_smoothing, focal_gamma, class_weights ("balanced" or one
    # a class), …
    loss_options: Options = field(default_factory=dict)
    # of language models: tokens of each row scored at a time, for the same result; 0:
    # all; None: few where all would take much memory
    loss_chunk: Whole | None = None
    mixout: Fraction = 0.0  # probability that a weight is the base's in a step
    r_drop: NonNegative = 0.0  # pull two dropouts of an example together; 0: one pass
    teacher: TeacherConfig = TeacherConfig()
    lwf: LwfConfig = LwfConfig()
    replay: ReplayConfig = ReplayConfig()
    mesh: MeshConfig = MeshConfig()
    # what blocks keep for the backward pass: (regex of a block's path, "all",
    # "products" or "nothing"), the first match wins; else all
    remat: tuple[tuple[str, str], ...] = ()
    frozen_dropout: bool = False  # whether layers below all that move drop out
    cache: CacheConfig = CacheConfig()
    # one program a phase, or "gated": one for all
    phases: Literal["compiled", "gated"] = "compiled"
    max_nonfinite_steps: Count = 10  # skipped in a row before the run stops
    log_every: Duration = Duration(amount=10, unit="steps")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """How it is kept."""

    save_every: Duration = _ONE_EPOCH
    keep_last: Count = 2
    keep_every: Duration | None = None  # kept for ever
    keep_best: Whole = 1
    full: bool = False  # also write frozen parameters that the base has
    on_corrupt: Literal["error", "fall_back"] = "error"  # fall_back: the last good one


@dataclass(frozen=True, kw_only=True)
class EvalsConfig:
    """Is it any good?"""

    eval_every: Duration = _ONE_EPOCH
    metrics: tuple[str, ...] | None = None  # of the task; None: its usual ones
    # of validation: picks the best, stops, opens on plateau; None: the first of them
    metric: str | None = None
    mode: Literal["max", "min"] | None = None  # None: as the metric is meant
    # of jft.evals.generate, for tasks that write texts
    generation: Options = field(default_factory=dict)
    early_stop_patience: Count | None = None  # evaluations without progress


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """How it leaves."""

    enabled: bool = True
    max_shard_size: str = "5GB"  # of one safetensors file
    # a run with an adapter: folded into the model, apart as PEFT has it, or both: apart
    # in the folder "adapter". Of a method that cannot be folded, "both" is "apart"
    adapter: Literal["folded", "apart", "both"] = "both"


@dataclass(frozen=True, kw_only=True)
class Config:
    """All of a run's settings."""

    seed: Whole = 0  # of weights, order, augmentation and dropout
    data: DataConfig = DataConfig()
    source: SourceConfig = SourceConfig()
    model: ModelConfig = ModelConfig()
    adapter: AdapterConfig = AdapterConfig()
    partition: PartitionConfig = PartitionConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evals: EvalsConfig = EvalsConfig()
    export: ExportConfig = ExportConfig()
