# SPDX-License-Identifier: Apache-2.0
"""A new task is learned in many ways: which of them keeps the old one, at what cost?

    python -m experiments.forgetting --config=configs/forgetting.py:model=digits \
        --workdir=runs/forgetting --seeds=5

``model=digits``: the shipped ViT of printed letters learns handwritten digits from 10
examples of each; the old task is the letters. ``model=minilm,pretrained=…``: a BERT
that tells good reviews from bad (the export of ``configs/sst2.py``) learns to find
names in 1,000 sentences of WikiANN; the old task is the reviews of SST-2's test file.
One part of the old task's examples is there to learn from again, for replay and EWC,
another to measure on. Arguments: ``method``, one of `METHODS`; ``model``;
``pretrained``; ``quicktest``.

Every method has the same steps and batches. On the digits, rates and strengths were
chosen on the validation split of seed 100, from one or two a method; those of
``minilm`` were not. There ``lwf`` is refused: a head that reads a whole review has no
answer for each word.
"""

from typing import Any

from configs import common, digits, wikiann_ner
from jft.config import parse_arg, set_duration

HEAD = [["classifier/.*", "head"], [".*", "frozen"]]


def get_config(arg: str | None = None) -> Any:
    args = parse_arg(
        arg, model=("digits", "minilm"), method=tuple(METHODS), pretrained=""
    )
    config = MODELS[args.model](args.pretrained)
    METHODS[args.method](config, args.model)
    if args.quicktest:
        common.quicktest(config)
    return config


def letters_to_digits(pretrained: str) -> Any:
    """200 steps of 50 digits."""
    config = digits.get_config("recipe=full")
    if pretrained:
        config.model.pretrained = pretrained
    config.source.options = {"num_per_class": 20, "seed": 1}
    config.source.split_sizes = {"train": 10, "test": 10}
    config.source.split_per_class = True
    config.source.augment = config.data.augment
    set_duration(config.train, num_steps=200)
    set_duration(config.checkpoint, save_every_steps=200)
    config.evals.early_stop_patience = None
    return config


def reviews_to_names(pretrained: str) -> Any:
    """Three epochs of 1,000 sentences."""
    config = wikiann_ner.get_config(f"pretrained={pretrained},epochs=3")
    config.data.split_paths = {"train": "train.txt"}
    config.data.split_sizes = {"train": 1000, "validation": 500, "test": 1000}
    config.data.num_lengths = 2
    config.optim.learning_rate = 2e-4

    config.source.name = "tsv"
    config.source.task = "text_classification"
    config.source.path = common.shared_data("sst2/test.tsv")
    config.source.columns = {"text": 0, "targets": 1}
    config.source.split_sizes = {"train": 500, "test": 500}
    return config


MODELS = {"digits": letters_to_digits, "minilm": reviews_to_names}


def full(config: Any, model: str) -> None:
    """Everything moves alike from the first step."""
    del config, model


def head(config: Any, model: str) -> None:
    """Only the new head moves."""
    config.partition.rules = HEAD
    config.optim.learning_rate = {"digits": 1e-2, "minilm": 5e-3}[model]


def gradual(config: Any, model: str) -> None:
    """Lower layers move less and start later."""
    config.optim.learning_rate = {"digits": 4e-3, "minilm": 4e-4}[model]
    config.optim.layer_decay = 0.75
    config.optim.unfreeze.method = "top_down"
    set_duration(config.optim.unfreeze, every_percent=10)


def lora(config: Any, model: str) -> None:
    """Thin factors move beside every product, and the new head."""
    config.adapter.method = "lora"
    config.optim.learning_rate = {"digits": 3e-3, "minilm": 2e-3}[model]


def l2_sp(config: Any, model: str) -> None:
    """Weights are pulled to where they started, in place of their decay."""
    config.optim.l2_sp_replaces_decay = True
    config.optim.l2_sp = {"digits": 30.0, "minilm": 100.0}[model]


def ewc(config: Any, model: str) -> None:
    """The same, each as strongly as the old task needs it."""
    config.optim.ewc.strength = {"digits": 1e3, "minilm": 1e3}[model]


def lwf(config: Any, model: str) -> None:
    """The old head's answers to the new inputs are kept."""
    config.train.lwf.weight = {"digits": 1.0, "minilm": 1.0}[model]


def replay(config: Any, model: str) -> None:
    """Half of every step's examples are of the old task."""
    config.train.replay.share = {"digits": 0.5, "minilm": 0.5}[model]


def lp_ft(config: Any, model: str) -> None:
    """The new head first, then everything."""
    config.optim.unfreeze.method = "lp_ft"
    config.optim.unfreeze.finetune_learning_rate = config.optim.learning_rate
    config.optim.learning_rate = {"digits": 1e-2, "minilm": 5e-3}[model]


METHODS = {
    "full": full,
    "head": head,
    "gradual": gradual,
    "lora": lora,
    "l2_sp": l2_sp,
    "ewc": ewc,
    "lwf": lwf,
    "replay": replay,
    "lp_ft": lp_ft,
}
