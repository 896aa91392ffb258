# SPDX-License-Identifier: Apache-2.0
"""Every key of a config, with its meaning; experiments change what differs.

A duration ends in ``_steps``, ``_epochs``, ``_examples`` or ``_percent`` (of the run);
to give it in another unit than here, use ``set_duration(section, num_steps=100)``. On
the command line any unit takes its place: ``--config.train.num_steps=100``.
"""

import os
from pathlib import Path
from typing import Any

from jft.config import make_config_dict, set_duration


def base_config() -> Any:
    """Return the ConfigDict that every experiment starts from."""
    return make_config_dict(
        {
            "seed": 0,  # of weights, order, augmentation and dropout
            "data": {
                "task": "image_classification",  # a name in jft.tasks.TASKS
                "task_options": {},  # keyword arguments of the task's fields
                "source": "folder",  # a name in jft.data.SOURCES
                "path": None,  # file, folder or name of the source; of split_paths
                "source_options": {},  # further keyword arguments of the source
                # field of the task -> column of the source (by position where a file
                # has no header); a field not named here is the column of its name
                "columns": {},
                "class_names": (),  # in the order of their ids; (): found, sorted
                # split -> its own file or folder below path, or slice of the source;
                # {}: all are drawn from one source. Splits without one are drawn from
                # that of "train"
                "split_paths": {},
                # what is drawn: examples (int), a fraction (float) or "rest"; {}: none
                "split_sizes": {
                    "train": "rest",
                    "validation": 0.1,
                    "test": 0.1,
                },
                "split_per_class": False,  # sizes are of each class, not of all
                "split_stratify": False,  # all splits have the classes' shares
                "split_group": None,  # column: rows of one value stay in one split
                "split_seed": 0,  # apart from `seed`, so that seeds share a test set
                "on_error": "error",  # or "skip": leave out rows that cannot be read
                "max_length": 128,  # tokens a text; longer texts are cut
                "global_batch_size": 32,  # over all devices and processes
                # texts of a batch: "length" puts those of like length together; "pad"
                # fills all up to max_length; "pack" puts several into a row
                "batching": "length",
                "num_lengths": 4,  # the most shapes of batches, each compiled once
                "cache": None,  # of tokenized texts; None: $JFT_CACHE or ~/.cache/jft
                "augment": None,  # a name in jft.data.AUGMENTATIONS
                "num_workers": 0,  # processes; 0: threads. Never changes the result
            },
            "source": {
                # what the model could do before, by the head that it came with: it is
                # measured before, during and after; a name in jft.data.SOURCES or None
                "name": None,
                "path": None,  # this and what follows as in data
                "options": {},
                "columns": {},
                "class_names": (),  # (): those of the model
                "split_paths": {},
                # test: to measure on; train, where there is one: to learn from again
                "split_sizes": {"test": "rest"},
                "split_per_class": False,
                "split_group": None,
                "split_seed": 0,
                "task": None,  # None: that of data
                "task_options": {},
                "max_length": None,  # None: that of data
                # of those that are replayed; the rest of how a batch is made is data's
                "batching": None,  # None: that of data
                "augment": None,  # None: as they are, whatever is done with data's
                "metric": None,  # None: the first of the task
            },
            "model": {
                "pretrained": None,  # a folder, a Hub id, "jft:<shipped>", or None
                "revision": None,  # of a Hub id: pin a commit for runs to repeat
                "reinit_layers": 0,  # blocks of it to draw new, from the top
                "model_type": "vit",  # where pretrained is None: jft.models.MODELS
                "model_config": {},  # likewise: fields of its config.json
                "tokenizer": None,  # likewise, of texts: a folder, or "train"
                "tokenizer_options": {},  # of jft.data.train_tokenizer
                "dtype": "float32",  # of the parameters
                # int8 or nf4: products that stay as they are, in 8 or 4 bits a number,
                # for a run with an adapter, or one whose rules leave them frozen
                "quantize": None,
                # "xla"; "auto": by cuDNN where it computes the same on this machine,
                # else by XLA; "cudnn": or an error that says why not. No GPU has run
                # it yet
                "attention": "xla",
            },
            "adapter": {
                # lora, vera, ia3, bottleneck, bitfit, norm, prompt or prefix: the base
                # stays, and little is learned. A setting of another method is refused
                "method": None,
                # lora, vera, ia3: modules by name, as PEFT's, or regexes over paths
                "targets": ["all-linear"],
                # regexes of paths of the base that move too; None: a classifier's head
                "also_train": None,
                "rank": 8,  # lora, vera (which needs more: the paper has 256 and up)
                "alpha": 16.0,  # lora: what it adds is scaled by alpha / rank
                "rank_pattern": [],  # lora: [name or regex, rank], the first wins
                "alpha_pattern": [],  # lora: likewise
                "rslora": False,  # lora: scale by alpha / sqrt(rank)
                "dora": False,  # lora: learn the lengths of columns apart
                "dropout": 0.0,  # lora, vera: of the inputs of what they add
                "bias": "none",  # lora: the base's biases that move; all, lora_only
                "init_method": "random",  # lora: or "pissa"
                "feedforward": [],  # ia3: targets whose inputs are scaled
                "d_initial": 0.1,  # vera: where the factors of A's columns start
                # bottleneck: after attention and the MLP; or "pfeiffer", the MLP alone
                "placement": "houlsby",
                "reduction_factor": 16,  # bottleneck: the width over the narrow one
                "nonlinearity": "relu",  # bottleneck: in jft.models.nonlinearities
                "num_virtual_tokens": 20,  # prompt, prefix: learned, before the text
                # prompt: they start as words drawn from the vocabulary ("vocab", and
                # None but for images), as those of prompt_text ("text"), or "normal"
                "prompt_init": None,
                "prompt_text": None,
            },
            "partition": {
                # (regex of a whole parameter path, label), the first match wins;
                # "frozen" is the label of what never moves. With an adapter, of what it
                # lets move of the base; its own are "adapter" and "lora_B"
                "rules": [["classifier/.*", "head"], [".*", "backbone"]],
            },
            "optim": {
                "optimizer": "adamw",  # a name in jft.optim.OPTIMIZERS
                "hyperparams": {},  # its keyword arguments
                "learning_rate": 1e-3,  # the peak, of the head
                "schedule": "cosine",  # a name in jft.optim.SCHEDULES
                "schedule_options": {},  # its keyword arguments
                "warmup_percent": 5,  # linear, from 0
                "weight_decay": 0.05,  # decoupled; times the learning rate once
                "l2_sp": 0.0,  # decoupled pull towards the starting point
                "l2_sp_rules": [],  # [regex of a path, its own pull], the first wins
                # what is pulled does not decay, as in the paper; else it does both
                "l2_sp_replaces_decay": False,
                "ewc": {  # pull by how much the source task needs a parameter
                    # records have the penalty as "penalty", and the loss without it
                    "strength": 0.0,  # of the penalty, a part of the loss; 0: none
                    # the Fisher's: drawn from the "model", or the "data"'s own
                    "targets": "model",
                },
                "clip_norm": 1.0,  # of all trainable gradients together, or None
                "layer_decay": None,  # factor of the rate, a layer down, or None
                "layer_decay_preset": "timm",  # timm, beit, electra, ulmfit
                "multipliers": {},  # label -> factor of the learning rate
                # scale a layer's rate by its relative gradient, measured so often
                "auto_rgn_every_steps": None,
                "auto_rgn_batches": 5,  # on the mean over so many batches
                "ema_decay": None,  # evaluate a moving average of the weights
                "swa_start_steps": None,  # or their plain mean from here on
                "swa_every_epochs": 1,  # of points so far apart
                "unfreeze": {
                    # none, top_down, chain_thaw, lp_ft, explicit, plateau
                    "method": "none",
                    "start_steps": 0,  # top_down: when the head opens
                    "every_percent": 10,  # top_down, chain_thaw: between openings
                    # lp_ft: the head alone, then everything; the schedule and its
                    # warm-up run anew in each of the two parts, as if it were a run
                    "probe_percent": 50,
                    "finetune_learning_rate": None,  # lp_ft: of the second; None: same
                    "open_at": [],  # explicit: [layer, step] pairs
                    "patience": 3,  # plateau: evaluations without progress
                    "min_delta": 0.0,  # plateau: less progress than this is none
                },
            },
            "train": {
                "num_epochs": 10,  # the length of the run
                "grad_accum_steps": 1,  # parts a batch is computed in; same result
                "compute_dtype": "float32",  # or bfloat16
                # of the task's loss: label_smoothing, focal_gamma, class_weights
                # ("balanced" or one a class), …
                "loss_options": {},
                # of language models: tokens of each row scored at a time, for the same
                # result; 0: all; None: few where all would take much memory
                "loss_chunk": None,
                "mixout": 0.0,  # probability that a weight is the base's in a step
                "r_drop": 0.0,  # pull two dropouts of an example together; 0: one pass
                "teacher": {
                    "model": None,  # folder or Hub id: learn its logits too
                    "weight": 0.5,  # of the teacher's part of the loss
                    "temperature": 2.0,
                },
                "lwf": {  # learning without forgetting, by the head that it came with
                    "weight": 0.0,  # of keeping its answers to the new inputs; 0: not
                    "temperature": 2.0,
                },
                "replay": {  # of source's part "train", by the head that it came with
                    "share": 0.0,  # of all examples of a step; 0: none
                    "weight": 1.0,  # of their mean loss beside the task's
                },
                "mesh": {
                    "data": -1,  # devices that share a batch; -1: all that are left
                    "fsdp": 1,  # that share a batch, the parameters and the optimizer
                    "tensor": 1,  # that share the products of each layer
                },
                # what blocks keep for the backward pass: [regex of a block's path,
                # "all", "products" or "nothing"], the first match wins; else all
                "remat": [],
                "frozen_dropout": False,  # whether layers below all that move drop out
                "cache": {  # of what these layers say of each row, which never changes
                    # auto: where that is legal and saves work; on: or an error; off
                    "use": "auto",
                    "max_gigabytes": 8.0,  # of files in the workdir, while it runs
                    "dtype": "float32",  # bfloat16: half as many bytes, rounded
                },
                "phases": "compiled",  # one program a phase, or "gated": one for all
                "max_nonfinite_steps": 10,  # skipped in a row before the run stops
                "log_every_steps": 10,
            },
            "checkpoint": {
                "save_every_epochs": 1,
                "keep_last": 2,
                "keep_every_steps": None,  # kept for ever, or None
                "keep_best": 1,
                "full": False,  # also write frozen parameters that the base has
                "on_corrupt": "error",  # or fall_back: to the last good step
            },
            "evals": {
                "eval_every_epochs": 1,
                "metrics": None,  # names of the task's metrics; None: its usual ones
                # of validation: best, early stop, plateau; None: the first of them
                "metric": None,
                "mode": None,  # max or min; None: as the metric is meant
                "generation": {},  # of jft.evals.generate, for tasks that write texts
                "early_stop_patience": None,  # evaluations without progress, or None
            },
            "export": {
                "enabled": True,
                "max_shard_size": "5GB",  # of one safetensors file
                # a run with an adapter: "folded" into the model, "apart" as PEFT has
                # it, or "both": apart in the folder "adapter". Of a method that cannot
                # be folded, "both" is "apart"
                "adapter": "both",
            },
        }
    )


def shared_data(name: str) -> str:
    """Where a data set lies that is too big for a repository, or not ours to give.

    In ``$JFT_DATA`` or else in ``shared/data`` beside the checkout.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return str(Path(os.environ.get("JFT_DATA", beside)) / name)


def like_trainer(config: Any) -> None:
    """Optimize, in place, as Hugging Face's Trainer does where nothing else is said."""
    config.partition.rules = [[".*", "all"]]  # whatever the model calls its head
    config.optim.learning_rate = 5e-5
    config.optim.schedule = "linear"
    set_duration(config.optim, warmup_steps=0)
    config.optim.weight_decay = 0.0


def quicktest(config: Any) -> None:
    """Shorten a config, in place, to seconds: every stage runs, nothing is learned."""
    set_duration(config.train, num_steps=12)
    set_duration(config.train, log_every_steps=2)
    set_duration(config.optim, warmup_steps=2)
    set_duration(config.optim.unfreeze, every_steps=2)
    set_duration(config.optim.unfreeze, probe_steps=4)
    set_duration(config.checkpoint, save_every_steps=6)
    set_duration(config.evals, eval_every_steps=6)
