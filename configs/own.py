# SPDX-License-Identifier: Apache-2.0
"""Any task on any data, from the command line alone.

    python -m experiments.finetune --config=configs/own.py:source=csv,path=mails.csv \
        --config.model.pretrained=google-bert/bert-base-uncased \
        --config.data.columns.text=subject --config.data.columns.targets=folder

Everything moves, with the defaults of Hugging Face's Trainer; every key of
``jft/config/schema.py`` can be set in the same way.

Arguments: ``task`` (a name in ``jft.tasks.TASKS``), ``source`` (one in
``jft.data.SOURCES``), ``path``, ``quicktest``.
"""

from typing import Any

from configs import common
from jft.config import parse_arg, set_duration


def get_config(arg: str | None = None) -> Any:
    args = parse_arg(arg, task="text_classification", source="csv", path="")
    config = common.base_config()

    config.data.task = args.task
    config.data.source = args.source
    config.data.path = args.path or None

    common.like_trainer(config)

    set_duration(config.train, num_epochs=3)

    if args.quicktest:
        common.quicktest(config)
    return config
