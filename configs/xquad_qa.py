# SPDX-License-Identifier: Apache-2.0
"""A BERT learns to mark the answer to a question in a paragraph.

    python -m experiments.finetune --config=configs/xquad_qa.py:pretrained=…/minilm

The English part of XQuAD (Artetxe et al. 2020): 1,190 questions on 240 paragraphs of 48
articles, in SQuAD's JSON, in ``$JFT_DATA/xquad`` or ``../shared/data/xquad`` beside the
checkout. Divided by article, so that no test paragraph is of an article seen.

From all-MiniLM-L6-v2, seed 0, F1 on the articles of the test split: 19.4, and 13.8 by
Trainer with batches of its own order. Without dropout and on the same batches: 28.3,
and 25.6 by Trainer; 25.6 by both where padding competes with the tokens, as in the loss
of transformers (``train.loss_options.mask_padding=False``). 26 November 2026. Some 900
questions are few to learn from: dropout alone moves the score by ten points.

Arguments: ``pretrained`` (a folder or Hub id; the default is all-MiniLM-L6-v2),
``epochs``, ``quicktest``.
"""

from typing import Any

from configs import common
from configs.sst2 import MINILM
from jft.config import parse_arg, set_duration


def get_config(arg: str | None = None) -> Any:
    args = parse_arg(arg, pretrained=MINILM, epochs=3)
    config = common.base_config()

    config.data.task = "question_answering"
    config.data.task_options = {"stride": 64}
    config.data.source = "squad"
    config.data.path = common.shared_data("xquad/xquad.en.json")
    config.data.split_sizes = {"train": "rest", "validation": 0.1, "test": 0.25}
    config.data.split_group = "title"
    config.data.max_length = 256
    config.data.global_batch_size = 16

    config.model.pretrained = args.pretrained

    config.partition.rules = [[".*", "all"]]

    config.optim.learning_rate = 1e-4
    config.optim.schedule = "linear"
    set_duration(config.optim, warmup_percent=10)
    config.optim.weight_decay = 0.0

    set_duration(config.train, num_epochs=args.epochs)

    if args.quicktest:
        common.quicktest(config)
    return config
