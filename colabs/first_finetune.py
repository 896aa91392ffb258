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
# # A first fine-tune
#
# A small vision transformer has only ever seen *printed letters*. Here it learns to
# read *handwritten digits* from 10 examples of each, in under a minute, without a GPU.
# On the way you see what moves, from when on and how fast, and what the letters pay.
#
# One section a stage, in the order data flows:
# data → models → params → partition → optim → train → evals → export.

# %%
# In a fresh runtime, install jft first, from the folder where you put its repository:
# # %pip install -q /content/jft

# %%
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image

import jft

folder = Path("runs/first_finetune")  # pictures and the exported model go here
folder.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## data: what goes in?
#
# A source has rows in columns, as they come; examples are rows that were checked for a
# task, their classes found and numbered. The letters are rendered from the fonts that
# matplotlib ships; the digits are scikit-learn's, written by 43 people.

# %%
task = jft.tasks.get_task("image_classification")
letters_source = jft.data.load_source("letters", num_per_class=10, seed=1)
digits_source = jft.data.load_source("digits")
letters, digits = (
    jft.data.make_examples(source, task.columns)
    for source in (letters_source, digits_source)
)
for examples in (letters, digits):
    print(f"{len(examples):,} images of {' '.join(examples.class_names)}")


# %%
def show(examples, indices, titles):
    _, axes = plt.subplots(1, len(indices), figsize=(len(indices), 1.3))
    for ax, index, title in zip(axes, indices, titles, strict=True):
        ax.imshow(examples[index]["image"][..., 0], cmap="gray_r")
        ax.set_title(title, fontsize=9)
        ax.axis("off")
    plt.show()


def name(examples, index):
    return examples.class_names[examples.targets[index]]


for examples in (letters, digits):
    some = np.random.default_rng(0).choice(len(examples), 14, replace=False).tolist()
    show(examples, some, [name(examples, index) for index in some])

# %% [markdown]
# Ten digits of each class to learn from, twenty to choose the best moment by, the rest
# to test on: 1,497 that have no part in any decision.

# %%
sources = jft.data.split_source(
    digits_source,
    {"train": 10, "validation": 20, "test": "rest"},
    seed=0,
    per_class=True,
)
splits = {
    split: jft.data.make_examples(source, task.columns, class_names=digits.class_names)
    for split, source in sources.items()
}
{split: len(examples) for split, examples in splits.items()}

# %% [markdown]
# ## models and params: what computes, and with which numbers?
#
# `jft.load` reads the folder of a Hugging Face ViT, or a model that jft ships. New
# classes mean a new head, drawn from the key; everything else is the checkpoint's.

# %%
model = jft.load(
    "jft:letters_vit", class_names=digits.class_names, key=jax.random.key(0)
)
print("blocks:", model.num_layers)
print("drawn new:", model.report.new)

# %% [markdown]
# The parameters are nested dicts with the checkpoint's own names; "/" joins them to a
# path:

# %%
shapes = {path: leaf.shape for path, leaf in jft.paths.flatten(model.params).items()}
dict(list(shapes.items())[:6])

# %% [markdown]
# Preprocessing is the checkpoint's too. Training images are shuffled and slightly
# turned, shifted and scaled; the batch of step 17 is the same whenever you ask for it.

# %%
fields_fn = jft.data.make_image_fields(model.processor)
loader = jft.data.make_train_loader(
    splits["train"],
    global_batch_size=50,
    seed=0,
    fields_fn=fields_fn,
    augment=jft.data.get_augmentation("small_affine"),
)
{field: values.shape for field, values in next(loader.batches(17)).items()}

# %% [markdown]
# ## partition: which numbers move?
#
# Every parameter gets a label from the first rule that matches its whole path. Label a
# parameter `"frozen"` and it will have no gradient and no optimizer state. Here all may
# move, but not at once: the head from the start, then a layer more every 12 steps from
# the top down, each layer 0.75 times as fast as the one above it.

# %%
num_steps = 240
labels = jft.partition.label_params(
    model.params, [("classifier/.*", "head"), (".*", "backbone")]
)
open_at = jft.optim.top_down(model.num_layers, every=12)
multiplier = jft.optim.layer_multiplier(
    0.75, model.layer_index, num_layers=model.num_layers
)
print(
    jft.partition.describe(
        model.params,
        labels,
        layer_index=model.layer_index,
        multiplier=multiplier,
        open_at=open_at,
    )
)

# %% [markdown]
# ## optim: how do they move?
#
# One optax chain: clip, Adam's moments, decoupled weight decay, layer scale, schedule.

# %%
schedule = jft.optim.make_schedule("cosine", 2e-3, num_steps=num_steps, warmup_steps=12)
tx = jft.optim.make_optimizer(
    labels,
    learning_rate=schedule,
    weight_decay=0.05,
    clip_norm=1.0,
    multiplier=multiplier,
    layer_index=model.layer_index,
    open_at=open_at,
)

# %% [markdown]
# Between two openings what moves does not change: that is a phase.

# %%
phases = jft.train.phases(open_at, num_steps)
by_layer = {
    model.layer_index(path): multiplier(path) for path in jft.paths.flatten(labels)
}
rates = jft.evals.learning_rates(schedule, by_layer, phases)
Image(
    jft.evals.plot_learning_rates(
        rates, folder / "learning_rates.png", num_layers=model.num_layers
    )
)

# %% [markdown]
# ## train: one step, many steps
#
# A step is a pure function, `step_fn(state, batch) -> (state, metrics)`. It is compiled
# once a phase, and no backward pass runs below the lowest open layer.

# %%
loss_fn = task.make_loss()  # cross-entropy, without label smoothing and the like
step_fn = jft.train.make_train_step(
    model.apply_fn,
    loss_fn,
    tx,
    labels,
    group_of=model.layer_index,
    metric_fns=task.train_metrics,
)
state = jft.train.init_state(model.params, labels, tx=tx, key=jax.random.key(1))

# %% [markdown]
# How good is it, on digits, and with its old head back in place on letters?


# %%
def make_score(model):
    eval_step = jft.train.make_eval_step(model.apply_fn, loss_fn)

    def score(params, examples):
        batches = jft.data.make_eval_batches(
            examples, global_batch_size=50, fields_fn=fields_fn
        )
        evaluated = jft.evals.evaluate(eval_step, params, batches)
        return jft.tasks.score(task, evaluated, examples, metric_names=["accuracy"])

    return score


base = jft.load("jft:letters_vit")
old_head = jft.evals.set_head_aside(base.params, head="classifier/.*")
score_digits, score_base = make_score(model), make_score(base)


def score_letters(params):
    return score_base(jft.evals.put_head_back(params, old_head), letters)


before = score_letters(model.params).scores
before["accuracy"]

# %% [markdown]
# `fit` only takes steps. All else is done by hooks, functions that see each step's
# outcome; what they record is a list of dicts.

# %%
best = {}


def keep_best(moment):
    # copies, since the next step takes over the state's memory
    copies = jax.tree.map(lambda x: x.copy(), moment.state.params)
    best.update(step=moment.step, params=copies)


hooks = [
    jft.train.log_metrics(6),
    jft.train.evaluate_every(
        12, lambda m: score_digits(m.state.params, splits["validation"]).scores
    ),
    jft.train.evaluate_every(
        12, lambda m: score_letters(m.state.params).scores, split="source"
    ),
    jft.train.save_best("accuracy", mode="max", save=keep_best),
]
with jft.train.ProgressBar(examples_per_step=50, metric="accuracy") as bar:
    result = jft.train.fit(
        state,
        step_fn,
        batches=loader.batches,
        num_steps=num_steps,
        open_groups_at=jft.train.groups_at(phases),
        hooks=[*hooks, bar],
        history=[{"step": 0, "split": "source", **before}],
    )
best["step"], result.history[-2]

# %% [markdown]
# What each phase trained, and what a step of it cost: fewer layers, less work.

# %%
for report in result.phases:
    print(
        f"steps {report.start:3} to {report.stop:3}: {report.trainable_params:7,} "
        f"parameters, {report.step_flops / 1e6:4.0f} million operations a step"
    )

# %% [markdown]
# ## evals: is it any good?

# %%
openings = jft.evals.opening_names(phases, num_layers=model.num_layers)
Image(
    jft.evals.plot_curves(
        result.history,
        folder / "curves.png",
        opening_steps=openings,
        best_step=best["step"],
    )
)

# %% [markdown]
# What is learned and what is lost, step by step:

# %%
Image(
    jft.evals.plot_forgetting(
        result.history,
        folder / "forgetting.png",
        source_name="letters",
        target_name="digits",
        opening_steps=openings,
    )
)

# %% [markdown]
# The test split is looked at once, with the parameters that validation chose.

# %%
test = score_digits(best["params"], splits["test"])
predicted = test.predictions.argmax(-1)  # of the logits
Image(
    jft.evals.plot_confusion(
        test.references, predicted, model.class_names, folder / "confusion.png"
    )
)

# %% [markdown]
# Some of its mistakes, as "true → predicted":

# %%
wrong = np.flatnonzero(predicted != test.references)[:14].tolist()
said = [
    f"{model.class_names[test.references[i]]} → {model.class_names[predicted[i]]}"
    for i in wrong
]
show(splits["test"], wrong, said)

# %% [markdown]
# ## export: how does it leave?
#
# As a Hugging Face folder. `transformers.ViTForImageClassification.from_pretrained`
# reads it, and so does `jft.load`.

# %%
written = jft.save(folder / "export", model, params=best["params"])
[file.name for file in written]

# %%
again = jft.load(folder / "export")
loaded = score_digits(again.params, splits["test"])
assert (loaded.predictions == test.predictions).all()
print(f"{loaded.scores['accuracy']:.1%} of {loaded.num_examples:,} digits, as before")

# %% [markdown]
# ## Where to go from here
#
# - Freeze the backbone: the rules `[("classifier/.*", "head"), (".*", "frozen")]`, no
#   `open_at`, and no `open_groups_at`.
# - Everything at once: leave out `open_at`, `open_groups_at` and `multiplier`.
# - `python -m experiments.finetune --config=configs/digits.py` does all of this from a
#   config file, and resumes after an interruption where it stopped.
