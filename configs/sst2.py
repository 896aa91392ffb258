# SPDX-License-Identifier: Apache-2.0
"""A BERT learns whether a sentence of a film review is positive or negative.

    python -m experiments.finetune --config=configs/sst2.py:pretrained=…/minilm,epochs=3

SST-2 (Socher et al. 2013) as three files of ``text<TAB>label`` without a header:
``train.tsv`` (6,920 sentences), ``dev.tsv`` (872) and ``test.tsv`` (1,821), in
``$JFT_DATA/sst2`` or ``../shared/data/sst2`` beside the checkout. Everything moves, and
the settings are the defaults of Hugging Face's ``Trainer``, so that
``experiments.benchmark --suite=trainer`` can hold the two against each other.

Arguments: ``pretrained`` (a folder or Hub id of a model that has a head for sequence
classification; the default is all-MiniLM-L6-v2, 22.6 million parameters, from the Hub),
``epochs``, ``moves`` (``all``; ``head``: the classifier alone; ``top_down``: a layer
more after each epoch), ``quicktest``.

From all-MiniLM-L6-v2, accuracy in percent on the validation split, mean ± standard
deviation over the seeds 0 to 2: 86.5 ± 0.4 after one epoch, 88.1 ± 0.5 after three
(Trainer: 86.0 ± 0.4 and 87.5 ± 0.2), by the same suite in float32 on one H200, 26
November 2026, before sentences shared rows; three epochs took 20 s, 14 of
them compiling (Trainer: 15 s).
"""

from typing import Any

from configs import common
from jft.config import parse_arg, set_duration

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def get_config(arg: str | None = None) -> Any:
    args = parse_arg(
        arg, pretrained=MINILM, epochs=1, moves=("all", "head", "top_down")
    )
    config = common.base_config()

    config.data.task = "text_classification"
    config.data.source = "tsv"
    config.data.path = common.shared_data("sst2")
    config.data.columns = {"text": 0, "targets": 1}
    config.data.class_names = ("negative", "positive")
    config.data.split_paths = {
        "train": "train.tsv",
        "validation": "dev.tsv",
        "test": "test.tsv",
    }
    config.data.split_sizes = {}
    config.data.max_length = 64
    config.data.batching = "pack"  # reviews of a batch share rows, without padding
    config.data.num_lengths = 1  # number of rows to compile for: batches are alike

    config.model.pretrained = args.pretrained

    common.like_trainer(config)
    if args.moves == "head":
        config.partition.rules = [["classifier/.*", "head"], [".*", "frozen"]]
        config.optim.learning_rate = 1e-3
    if args.moves == "top_down":
        config.optim.unfreeze.method = "top_down"
        set_duration(config.optim.unfreeze, every_epochs=1)

    set_duration(config.train, num_epochs=args.epochs)

    if args.quicktest:
        common.quicktest(config)
    return config
