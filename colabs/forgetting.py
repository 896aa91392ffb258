# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Learn the new, keep the old
#
# A model that has only ever seen *printed letters* learns *handwritten digits* from 10
# examples of each. Six ways to do it, from the same start, and each is asked two
# questions: how well does it read digits, and does it still read letters?

# %%
# In a fresh runtime, install jft first, from the folder where you put its repository:
# # %pip install -q /content/jft

# %%
import re
from pathlib import Path

import jax
import numpy as np
from IPython.display import Image

import jft
from jft.params import adapters, interpolate

folder = Path("runs/forgetting")
folder.mkdir(parents=True, exist_ok=True)
num_steps = 120

# %% [markdown]
# ## Two tasks, one model
#
# The letters are divided: some to learn from again (EWC needs them), others to measure
# on. No method sees the letters that it is measured on.

# %%
task = jft.tasks.get_task("image_classification")
digits_source = jft.data.load_source("digits")
letters_source = jft.data.load_source("letters", num_per_class=20, seed=1)


def divide(source, sizes):
    names = jft.data.make_examples(source, task.columns).class_names
    parts = jft.data.split_source(source, sizes, seed=0, per_class=True)
    return {
        name: jft.data.make_examples(part, task.columns, class_names=names)
        for name, part in parts.items()
    }


splits = divide(digits_source, {"train": 10, "validation": 20, "test": "rest"})
letters = divide(letters_source, {"learn": 10, "measure": 10})

# %% [markdown]
# `base` is the letters' model with its own head; `model` has the same body and a new
# head for ten digits. To ask a tuned body about letters, its old head is put back.

# %%
base = jft.load("jft:letters_vit")
model = jft.load(
    "jft:letters_vit", class_names=splits["train"].class_names, key=jax.random.key(0)
)
old_head = jft.evals.set_head_aside(base.params, head="classifier/.*")
fields_fn = jft.data.make_image_fields(model.processor)
loss_fn = task.make_loss()
loader = jft.data.make_train_loader(
    splits["train"],
    global_batch_size=50,
    seed=0,
    fields_fn=fields_fn,
    augment=jft.data.get_augmentation("small_affine"),
)


def batches_of(examples):
    return jft.data.make_eval_batches(
        examples, global_batch_size=50, fields_fn=fields_fn
    )


def make_score(asked):
    eval_step = jft.train.make_eval_step(asked.apply_fn, loss_fn)

    def score(params, examples):
        evaluated = jft.evals.evaluate(eval_step, params, batches_of(examples))
        return jft.tasks.score(
            task, evaluated, examples, metric_names=["accuracy"]
        ).scores

    return score


score_digits, score_letters = make_score(model), make_score(base)


def letters_of(params):
    return score_letters(jft.evals.put_head_back(params, old_head), letters["measure"])


before = letters_of(model.params)["accuracy"]
before

# %% [markdown]
# ## One way to tune, with options
#
# All that differs between the methods is what moves, and what pulls it back.


# %%
def tune(model, labels, tx, prepare=lambda opt_state: opt_state):
    """Train; return the plain parameters, both tasks' records, and the operations."""

    def plain(params):
        return jft.fold(model, params=params).params

    state = jft.train.init_state(model.params, labels, tx=tx, key=jax.random.key(1))
    state = state._replace(opt_state=prepare(state.opt_state))
    step_fn = jft.train.make_train_step(model.apply_fn, loss_fn, tx, labels)
    hooks = [
        jft.train.evaluate_every(
            20,
            lambda m: score_digits(plain(m.state.params), splits["validation"]),
        ),
        jft.train.evaluate_every(
            20, lambda m: letters_of(plain(m.state.params)), split="source"
        ),
    ]
    result = jft.train.fit(
        state, step_fn, batches=loader.batches, num_steps=num_steps, hooks=hooks
    )
    operations = sum(p.step_flops * (p.stop - p.start) for p in result.phases)
    return plain(result.state.params), result.history, operations


def labels_of(model, rules):
    return jft.partition.label_params(model.params, rules)


def optimizer(labels, learning_rate, **options):
    return jft.optim.make_optimizer(
        labels,
        learning_rate=jft.optim.make_schedule(
            "cosine", learning_rate, num_steps=num_steps, warmup_steps=6
        ),
        weight_decay=0.05,
        clip_norm=1.0,
        # a new head has no start to be pulled to
        anchor_mask=lambda path, leaf: not path.startswith("classifier/"),
        **options,
    )


def tuned(labels, learning_rate, **options):
    return tune(model, labels, optimizer(labels, learning_rate, **options))


everything = labels_of(model, [(".*", "all")])
results = {"full": tuned(everything, 1e-3)}

# %% [markdown]
# **The head alone**: the body does not move, so nothing is forgotten.

# %%
head = labels_of(model, [("classifier/.*", "head"), (".*", "frozen")])
results["head"] = tuned(head, 1e-2)

# %% [markdown]
# **L2-SP** pulls every weight back to where it started. (The head has no such place, so
# it is left alone.)

# %%
results["l2_sp"] = tuned(everything, 1e-3, l2_sp=30.0)

# %% [markdown]
# **EWC** pulls each weight as hard as the letters need it: by the Fisher information of
# the letters' own model.

# %%
fisher = jft.train.diagonal_fisher(
    base.apply_fn,
    loss_fn,
    base.params,
    labels_of(base, [("classifier/.*", "frozen"), (".*", "body")]),
    batches_of(letters["learn"]),
    draw_fn=jft.train.DRAWS["softmax"],
    key=jax.random.key(2),
)
tx = optimizer(everything, 1e-3, ewc=1e3)
results["ewc"] = tune(
    model, everything, tx, lambda opt_state: jft.optim.with_fisher(opt_state, fisher)
)

# %% [markdown]
# **LoRA** learns thin factors beside each product; the base stays as it is, and the
# factors are folded in to ask about letters.

# %%
adapted = jft.adapt(model, adapters.Lora(rank=8), key=jax.random.key(3))
labels = adapters.label_adapted(
    adapted.params, labels_of(model, [(".*", "head")]), adapted.adapter
)
tx = jft.optim.make_optimizer(labels, learning_rate=3e-3, clip_norm=1.0)
results["lora"] = tune(adapted, labels, tx)

# %% [markdown]
# **WiSE-FT** trains nothing more: it takes weights halfway between the start and what
# full fine-tuning found.

# %%
new = [re.escape(path) for path in model.report.new]
halfway = interpolate(model.params, results["full"][0], 0.5, keep=new)
results["wise_ft"] = (halfway, [], results["full"][2])

# %% [markdown]
# ## What each learned and kept

# %%
whole = results["full"][2]


def row(params, history, operations):
    return {
        "test": {"mean": score_digits(params, splits["test"])["accuracy"], "sd": None},
        "source_after": {"mean": letters_of(params)["accuracy"], "sd": None},
        "source_before": {"mean": before, "sd": None},
        "cost": operations / whole,
    }


table = {name: row(*result) for name, result in results.items()}
for name, figures in table.items():
    print(
        f"{name:8} digits {figures['test']['mean']:.3f}   letters "
        f"{before:.3f} → {figures['source_after']['mean']:.3f}   operations "
        f"×{figures['cost']:.2f}"
    )

# %%
histories = {
    name: [history] if history else [] for name, (_, history, _) in results.items()
}
Image(jft.evals.plot_methods(histories, table, folder / "methods.png"))

# %% [markdown]
# Between the two ends of WiSE-FT lies a whole curve; choose its point by a validation
# split of either task, or of both.

# %%
curve = jft.evals.wise_ft_curve(
    model.params,
    results["full"][0],
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
    {
        "test": lambda params: score_digits(params, splits["validation"]),
        "source": letters_of,
    },
    keep=new,
)
Image(
    jft.evals.plot_wise_ft(
        curve, folder / "wise_ft.png", source_name="letters", target_name="digits"
    )
)

# %% [markdown]
# One of them leaves as an ordinary checkpoint of Hugging Face, like any other.

# %%
jft.save(folder / "export", model, params=results["lora"][0])
again = jft.load(folder / "export")
logits = again.apply_fn(
    again.params,
    {
        "pixel_values": np.stack(
            [fields_fn(splits["test"][i])["pixel_values"] for i in range(500)]
        )
    },
    key=None,
)
right = np.mean(logits.argmax(-1) == splits["test"].targets[:500])
print(f"exported and read again: {100 * right:.1f} % of 500 digits")
