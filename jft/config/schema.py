# SPDX-License-Identifier: Apache-2.0
"""Every setting of a run: frozen dataclasses, one a section, in stage order.

A field of type ``Duration`` is given by exactly one of four keys: ``num`` by
``num_steps``, ``num_epochs``, ``num_examples`` or ``num_percent``. No field has a
default: a config file starts from ``configs/common.py``, which sets each of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from jft.config.durations import Duration


class Range(NamedTuple):
    """The limits of a number; ``minimum`` and ``maximum`` are themselves allowed."""

    minimum: int | float | None = None
    maximum: int | float | None = None
    above: int | float | None = None  # exclusive minimum
    below: int | float | None = None  # exclusive maximum

    def holds(self, value: int | float) -> bool:
        """Return whether the value lies inside."""
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        words = ("at least", "at most", "above", "below")
        limits = zip(words, self, strict=True)
        return " and ".join(f"{word} {x}" for word, x in limits if x is not None)


Count: TypeAlias = Annotated[int, Range(minimum=1)]
Whole: TypeAlias = Annotated[int, Range(minimum=0)]
Positive: TypeAlias = Annotated[float, Range(above=0)]
NonNegative: TypeAlias = Annotated[float, Range(minimum=0)]
Fraction: TypeAlias = Annotated[float, Range(minimum=0, below=1)]
Dtype: TypeAlias = Literal["float32", "bfloat16", "float64"]
Option: TypeAlias = (
    bool | int | float | str | tuple[str, ...] | tuple[float, ...] | None
)
Options: TypeAlias = Mapping[str, Option | Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What goes in."""

    task: str  # a name in jft.tasks.TASKS
    task_options: Options  # keyword arguments of the task's fields
    source: str  # a name in jft.data.SOURCES
    path: str | None  # file, folder or name of the source
    source_options: Options  # further keyword arguments of the source
    columns: Mapping[str, str | int | tuple[str, ...]]  # field -> column of the source
    class_names: tuple[str, ...]  # in the order of their ids; (): found in the data
    split_paths: Mapping[str, str]  # split -> file or folder below path, or slice
    split_sizes: Mapping[str, int | float | str]  # split -> count, fraction or "rest"
    split_per_class: bool  # counts and fractions are of each class
    split_stratify: bool  # every split has the classes in the same shares
    split_group: str | None  # column whose equal values stay in one split
    split_seed: int
    on_error: Literal["error", "skip"]  # of a row that cannot be read
    max_length: Count  # tokens a text
    global_batch_size: Count  # examples a step, over all devices and processes
    batching: Literal["pad", "length", "pack"]  # how texts form a batch
    num_lengths: Count  # the most shapes that are compiled for it
    cache: str | None  # folder of tokenized texts
    augment: str | None  # a name in jft.data.AUGMENTATIONS
    num_workers: Whole  # processes that prepare batches; 0 uses threads


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """What the model could do before: its source task, by the head that it came with.

    What is not named here is done as with ``data``. The split ``train`` is to learn
    from again, and need not be there; the split ``test`` is to measure on.
    """

    name: str | None  # a name in jft.data.SOURCES; None: nobody looks back
    path: str | None  # file, folder or name of the source
    options: Options  # further keyword arguments of the source
    columns: Mapping[str, str | int | tuple[str, ...]]  # field -> column of the source
    class_names: tuple[str, ...]  # in the order of the model's ids; (): the model's
    split_paths: Mapping[str, str]  # split -> file or folder below path, or slice
    split_sizes: Mapping[str, int | float | str]  # split -> count, fraction or "rest"
    split_per_class: bool  # counts and fractions are of each class
    split_group: str | None  # column whose equal values stay in one split
    split_seed: int
    task: str | None  # a name in jft.tasks.TASKS; None: that of data
    task_options: Options  # keyword arguments of its fields
    max_length: Count | None  # tokens a text; None: as data's
    batching: Literal["pad", "length", "pack"] | None  # of replay; None: as data's
    augment: str | None  # of replay, a name in jft.data.AUGMENTATIONS
    metric: str | None  # of the task; None: its first


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model, from which numbers."""

    # folder in Hugging Face layout, Hub id, "jft:<shipped>", or None: from scratch
    pretrained: str | None
    revision: str | None  # commit, branch or tag of a Hub id
    reinit_layers: Whole  # blocks of it drawn new, from the top
    model_type: str  # a name in jft.models.MODELS; read where pretrained is None
    model_config: Mapping[str, Any]  # fields of config.json; likewise
    tokenizer: str | None  # a folder of one, or "train"; likewise, of texts
    tokenizer_options: Options  # of jft.data.train_tokenizer
    dtype: Dtype  # of the parameters
    quantize: Literal["int8", "nf4"] | None  # of the products that stay as they are
    attention: Literal["auto", "xla", "cudnn"]  # by what; auto: cuDNN where it applies


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """What is added to a base that stays as it is."""

    method: str | None  # a name in jft.params.adapters.ADAPTERS; None: nothing is
    targets: tuple[str, ...]  # lora, vera, ia3: by name or regex, or "all-linear"
    also_train: tuple[str, ...] | None  # regexes of paths of the base; None: the head
    rank: Count  # lora, vera
    alpha: Positive  # lora: what it adds is scaled by alpha / rank
    rank_pattern: tuple[tuple[str, int], ...]  # lora: (module by name or regex, rank)
    alpha_pattern: tuple[tuple[str, float], ...]  # lora: likewise
    rslora: bool  # lora: scaled by alpha / sqrt(rank)
    dora: bool  # lora: the lengths of columns are learned apart
    dropout: Fraction  # lora, vera: of the inputs of what they add
    bias: Literal["none", "all", "lora_only"]  # lora: which biases of the base move
    init_method: Literal["random", "pissa"]  # lora
    feedforward: tuple[str, ...]  # ia3: those of the targets whose inputs are scaled
    d_initial: float  # vera: where the factors of A's columns start
    placement: Literal["houlsby", "pfeiffer"]  # bottleneck: see Bottleneck
    reduction_factor: Count  # bottleneck: the block's width over the narrow layer's
    nonlinearity: str  # bottleneck: a name in jft.models.nonlinearities.ACTIVATIONS
    num_virtual_tokens: Count  # prompt, prefix: how many
    # prompt: what they start as; None: words, or of images random
    prompt_init: Literal["vocab", "text", "normal"] | None
    prompt_text: str | None  # prompt, "text": the words


@dataclass(frozen=True, kw_only=True)
class PartitionConfig:
    """Which numbers move."""

    rules: tuple[tuple[str, str], ...]  # (regex of a whole path, label), first wins


@dataclass(frozen=True, kw_only=True)
class UnfreezeConfig:
    """When each layer starts to move."""

    method: Literal["none", "top_down", "chain_thaw", "lp_ft", "explicit", "plateau"]
    start: Duration  # top_down: when the head opens
    every: Duration  # top_down, chain_thaw: time between two openings
    probe: Duration  # lp_ft: the head alone, before everything opens
    finetune_learning_rate: Positive | None  # lp_ft: peak after it; None: the same
    open_at: tuple[tuple[int, int], ...]  # explicit: (layer, step) pairs
    patience: Count  # plateau: evaluations without progress before one more opens
    min_delta: NonNegative  # plateau: progress smaller than this counts as none


@dataclass(frozen=True, kw_only=True)
class EwcConfig:
    """How hard parameters are pulled back to what the source task needs."""

    strength: NonNegative  # of the penalty, which is a part of the loss; 0: none
    targets: Literal["model", "data"]  # drawn from the model, or the data's own


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How they move."""

    optimizer: str  # a name in jft.optim.OPTIMIZERS
    hyperparams: Options  # keyword arguments of the optimizer
    learning_rate: Positive  # peak, of the head
    schedule: str  # a name in jft.optim.SCHEDULES
    schedule_options: Options  # keyword arguments of the schedule
    warmup: Duration
    weight_decay: NonNegative  # decoupled; multiplied by the learning rate once
    l2_sp: NonNegative  # pull towards the starting point
    l2_sp_rules: tuple[tuple[str, NonNegative], ...]  # (regex of a path, its own pull)
    l2_sp_replaces_decay: bool  # whether what is pulled is spared the weight decay
    ewc: EwcConfig
    clip_norm: Positive | None  # global norm of all trainable gradients
    # factor of the learning rate from a layer to the one below; None: no such decay
    layer_decay: Annotated[float, Range(above=0, maximum=1)] | None
    layer_decay_preset: Literal["timm", "beit", "electra", "ulmfit"]
    multipliers: Mapping[str, NonNegative]  # label -> factor of the learning rate
    ema_decay: Fraction | None  # moving average of the trainable parameters
    auto_rgn_every: Duration | None  # rates by relative gradients, or None
    auto_rgn_batches: Count  # that these are measured on
    swa_start: Duration | None  # from where on their plain mean is taken, or None
    swa_every: Duration  # between two points of that mean
    unfreeze: UnfreezeConfig


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How many devices along each axis of the mesh."""

    data: Annotated[int, Range(minimum=-1)]  # -1: all devices that the others leave
    fsdp: Count
    tensor: Count


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """Whose logits are learned too."""

    model: str | None  # folder or Hub id of a model of the same task; None: no teacher
    weight: Annotated[float, Range(minimum=0, maximum=1)]  # of the teacher's part
    temperature: Positive


@dataclass(frozen=True, kw_only=True)
class LwfConfig:
    """Whether the old head must say of new inputs what it said before."""

    weight: NonNegative  # of that part of the loss; 0: not asked
    temperature: Positive


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """Whether each step has examples of the source task."""

    share: Fraction  # of all examples of a step; 0: none
    weight: NonNegative  # of their mean loss


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """Whether to keep what layers below all that move say of each row."""

    use: Literal["auto", "on", "off"]  # auto: where that is legal and saves work
    max_gigabytes: Positive  # of files
    dtype: Dtype


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One step, many steps."""

    num: Duration  # length of the run
    grad_accum_steps: Count  # parts that a batch is computed in
    compute_dtype: Dtype
    loss_options: Options  # keyword arguments of the task's loss
    loss_chunk: Whole | None  # tokens of a row scored at a time; 0: all; None: chosen
    mixout: Fraction  # probability that a weight is the pre-trained one in a step
    r_drop: NonNegative  # weight of the divergence of two dropouts; 0: one pass
    teacher: TeacherConfig
    lwf: LwfConfig
    replay: ReplayConfig
    mesh: MeshConfig
    remat: tuple[tuple[str, str], ...]  # (regex of a block's path, what it keeps)
    frozen_dropout: bool  # whether layers below all that move drop out
    cache: CacheConfig
    phases: Literal["compiled", "gated"]  # one program a phase, or one for all
    max_nonfinite_steps: Count  # skipped steps in a row before the run stops
    log_every: Duration


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """How it is kept."""

    save_every: Duration
    keep_last: Count
    keep_every: Duration | None  # kept for ever
    keep_best: Whole
    full: bool  # also write frozen parameters that the base has
    on_corrupt: Literal["error", "fall_back"]  # fall_back: to the last good step


@dataclass(frozen=True, kw_only=True)
class EvalsConfig:
    """Is it any good?"""

    eval_every: Duration
    metrics: tuple[str, ...] | None  # of the task; None: its default ones
    # of the validation split: picks the best, stops, opens on plateau; None: the first
    metric: str | None
    mode: Literal["max", "min"] | None  # None: as the metric is meant
    generation: Options  # keyword arguments of jft.evals.generate, of tasks that write
    early_stop_patience: Count | None  # evaluations without progress


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """How it leaves."""

    enabled: bool
    max_shard_size: str  # such as "5GB"
    adapter: Literal["folded", "apart", "both"]  # of a run with an adapter


@dataclass(frozen=True, kw_only=True)
class Config:
    """All of a run's settings, in stage order."""

    seed: Whole
    data: DataConfig
    source: SourceConfig
    model: ModelConfig
    adapter: AdapterConfig
    partition: PartitionConfig
    optim: OptimConfig
    train: TrainConfig
    checkpoint: CheckpointConfig
    evals: EvalsConfig
    export: ExportConfig
