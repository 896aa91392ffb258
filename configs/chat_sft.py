# SPDX-License-Identifier: Apache-2.0
"""A small Llama learns the assistant's turns of conversations about jft.

    python -m experiments.finetune --config=configs/chat_sft.py
    python -m experiments.predict --workdir=… --texts='What is a frozen parameter?'

The conversations, written by hand, are shipped with the package; a line of the file is
``{"messages": [{"role": "user", "content": …}, …]}``. Only what the assistant says is
learned. From scratch the model can do no more than repeat its few texts; give
``pretrained`` for more.

Arguments: ``pretrained`` (None: a Llama of 1 million parameters from scratch, with a
tokenizer learned from the conversations; else a folder or Hub id of a model with a chat
template), ``epochs``, ``quicktest``.
"""

from pathlib import Path
from typing import Any

import jft
from configs import common
from jft.config import parse_arg, set_duration

CONVERSATIONS = Path(jft.__file__).parent / "shipped" / "conversations.jsonl"
SMALL = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}


def get_config(arg: str | None = None) -> Any:
    args = parse_arg(arg, pretrained="", epochs=40)
    config = common.base_config()

    config.data.task = "chat"
    config.data.source = "jsonl"
    config.data.path = str(CONVERSATIONS)
    config.data.split_sizes = {"train": "rest", "validation": 0.1, "test": 0.1}
    config.data.max_length = 256
    config.data.global_batch_size = 8
    config.data.batching = "pack"

    if args.pretrained:
        config.model.pretrained = args.pretrained
        config.optim.learning_rate = 2e-5
    else:
        config.model.model_type = "llama"
        config.model.model_config = SMALL
        config.model.tokenizer = "train"
        config.model.tokenizer_options = {"kind": "byte_bpe", "vocab_size": 1000}
        config.optim.learning_rate = 3e-3

    config.partition.rules = [[".*", "all"]]

    config.optim.schedule = "cosine"
    set_duration(config.optim, warmup_percent=10)
    config.optim.weight_decay = 0.01

    set_duration(config.train, num_epochs=args.epochs)
    set_duration(config.evals, eval_every_epochs=2)
    config.evals.generation = {"method": "greedy", "max_new_tokens": 100}

    if args.quicktest:
        common.quicktest(config)
    return config
