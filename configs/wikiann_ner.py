# SPDX-License-Identifier: Apache-2.0
"""A BERT finds the names of people, organisations and places in English sentences.

    python -m experiments.finetune --config=configs/wikiann_ner.py:pretrained=…/minilm

WikiANN (Pan et al. 2017), one word and its IOB2 tag a line with ``en:`` before each
word: ``train.txt`` (20,000 sentences), ``dev.txt`` and ``test.txt`` (10,000 each), in
``$JFT_DATA/wikiann-en`` or ``../shared/data/wikiann-en`` beside the checkout.

From all-MiniLM-L6-v2, one epoch, seed 0: entity F1 69.8 on the validation split, and
69.4 by Trainer with batches of its own (26 November 2026; two CPU cores, 338 s and
347 s).

Arguments: ``pretrained`` (a folder or Hub id; the default is all-MiniLM-L6-v2),
``epochs``, ``quicktest``.
"""

from typing import Any

from configs import common
from configs.sst2 import MINILM
from jft.config import parse_arg, set_duration


def get_config(arg: str | None = None) -> Any:
    args = parse_arg(arg, pretrained=MINILM, epochs=1)
    config = common.base_config()

    config.data.task = "token_classification"
    config.data.source = "conll"
    config.data.path = common.shared_data("wikiann-en")
    config.data.source_options = {"prefix": "en:"}
    config.data.columns = {"targets": "tags"}
    config.data.split_paths = {
        "train": "train.txt",
        "validation": "dev.txt",
        "test": "test.txt",
    }
    config.data.split_sizes = {}
    config.data.max_length = 128

    config.model.pretrained = args.pretrained

    common.like_trainer(config)

    set_duration(config.train, num_epochs=args.epochs)

    if args.quicktest:
        common.quicktest(config)
    return config
