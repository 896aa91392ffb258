# SPDX-License-Identifier: Apache-2.0
"""A row for every task: eleven examples, a small model, and its metrics done slowly.

``slow`` goes through the examples one by one, unpadded, and calls the reference library
in its own way; what a task reports on any number of devices must be the same.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

import jft
from jft.data.batches.order import row_generator
from jft.tasks import Task, call_with_options, get_task
from tests.tiny_tokenizer import make_tokenizer

CHAT_TEMPLATE = (
    "{% for m in messages %}[SEP]{{ m['role'] }} {{ m['content'] }}[SEP]{% endfor %}"
    "{% if add_generation_prompt %}[SEP]assistant {% endif %}"
)
PIXELS = {"do_resize": False, "image_mean": [0.5], "image_std": [0.5]}
TEXTS = [
    "a film", "good", "bad plot", "great cast", "not a good film", "awful", "cast",
    "a great plot", "bad", "good cast good plot", "film",
]  # fmt: skip
NUM = len(TEXTS)
BERT = {
    "model_type": "bert",
    "vocab_size": 15,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}
LLAMA = {
    "model_type": "llama",
    "vocab_size": 15,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}
T5 = {
    "model_type": "t5",
    "vocab_size": 15,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 2,
    "pad_token_id": 0,
    "eos_token_id": 3,
    "decoder_start_token_id": 0,
}
VIT = {
    "model_type": "vit",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 1,
}

Slow = Callable[["Model", Any], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One task's part of the contract test."""

    columns: Mapping[str, Any]  # of NUM examples
    config: Mapping[str, Any]  # of the model
    slow: Slow  # (model, examples) -> metrics by name
    options: Mapping[str, Any] = field(default_factory=dict)  # of the fields
    loss_options: Mapping[str, Any] = field(default_factory=dict)
    generation: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Model:
    """A small model whose logits have a spread, and its task."""

    task: Task
    pretrained: jft.Pretrained
    fields: Any

    def rows(self, examples: Any) -> list[Any]:
        """The fields of each row of all examples, as an evaluation changes them."""
        if self.task.reads == "image":
            return [self.fields(example) for example in examples]
        rows = [row for rows in self.fields(examples) for row in rows]
        if self.task.make_augment is None:
            return rows
        change = self.task.make_augment(self.pretrained)
        return [change(row, row_generator(0, i)) for i, row in enumerate(rows)]

    def answer(self, row: Any) -> Any:
        """What the model answers to a row, alone, unpadded."""
        names = [*getattr(self.fields, "padding", {"pixel_values": 0})]
        batch = {name: row[name][None] for name in names if name in row}
        answer = self.forward(self.pretrained.params, batch)
        return jax.tree.map(lambda x: np.asarray(x)[0], answer)

    def logits(self, *examples: Any) -> list[Any]:
        """What the model answers to each row of each example."""
        return [self.answer(row) for row in self.rows(examples)]

    @functools.cached_property
    def forward(self) -> Any:
        """The model's forward, compiled."""
        apply_fn = self.task.make_apply(self.pretrained.apply_fn)
        return jax.jit(lambda params, batch: apply_fn(params, batch, key=None))


def make_model(row: Row, name: str, class_names: tuple[str, ...]) -> Model:
    """Draw the model of a row."""
    task = get_task(name)
    text = task.reads == "text"
    classes = {} if not class_names else {"class_names": class_names}
    if task.problem_type is not None:
        classes["problem_type"] = task.problem_type
    model = jft.init_model(
        row.config,
        key=jax.random.key(1),
        task=task.head,
        processor=(
            make_tokenizer(chat_template=CHAT_TEMPLATE, eos_token="[SEP]")
            if text
            else PIXELS
        ),
        **classes,
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: x + rng.normal(size=x.shape, scale=0.3).astype(np.float32),
        model.params,
    )
    model = model._replace(params=params)
    fields = call_with_options(
        task.make_fields, model, max_length=24, options=row.options, what="options"
    )
    return Model(task, model, fields)


# --- metrics, done slowly -------------------------------------------------------------
def classified(model: Model, examples: Any) -> Mapping[str, float]:
    from sklearn.metrics import accuracy_score, f1_score

    logits = model.logits(*(examples[i] for i in range(len(examples))))
    guesses = [int(np.argmax(x)) for x in logits]
    truth = [int(examples[i]["targets"]) for i in range(len(examples))]
    return {
        "accuracy": accuracy_score(truth, guesses),
        "macro_f1": f1_score(truth, guesses, average="macro"),
    }


def multilabel(model: Model, examples: Any) -> Mapping[str, float]:
    from sklearn.metrics import accuracy_score, f1_score

    logits = model.logits(*(examples[i] for i in range(len(examples))))
    guesses = np.stack(logits) > 0
    truth = np.stack([examples[i]["targets"] for i in range(len(examples))]) > 0
    return {
        "micro_f1": f1_score(truth, guesses, average="micro", zero_division=0),
        "macro_f1": f1_score(truth, guesses, average="macro", zero_division=0),
        "subset_accuracy": accuracy_score(truth, guesses),
    }


def regressed(model: Model, examples: Any) -> Mapping[str, float]:
    from scipy.stats import pearsonr, spearmanr

    values = [x[0] for x in model.logits(*(examples[i] for i in range(len(examples))))]
    truth = [float(examples[i]["targets"]) for i in range(len(examples))]
    error = np.subtract(np.asarray(values, np.float64), truth)
    return {
        "pearson": pearsonr(truth, values).statistic,
        "spearman": spearmanr(truth, values).statistic,
        "rmse": np.sqrt(np.mean(error**2)),
    }


def tagged(model: Model, examples: Any) -> Mapping[str, float]:
    from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score

    names, truth, guesses = examples.class_names, [], []
    for i in range(len(examples)):
        example = examples[i]
        (logits,) = model.logits(example)
        encoded = model.pretrained.processor(
            example["words"], is_split_into_words=True, truncation=True, max_length=24
        )
        tags, seen = {}, set()
        for position, word in enumerate(encoded.word_ids()):
            if word is not None and word not in seen:
                seen.add(word)
                tags[word] = names[int(logits[position].argmax())]
        guesses.append([tags.get(w, "O") for w in range(len(example["words"]))])
        truth.append([names[tag] for tag in example["targets"]])
    return {
        "entity_f1": f1_score(truth, guesses),
        "entity_precision": precision_score(truth, guesses),
        "entity_recall": recall_score(truth, guesses),
        "token_accuracy": accuracy_score(truth, guesses),
    }


def answered(model: Model, examples: Any) -> Mapping[str, float]:
    exact, overlap = [], []
    for i in range(len(examples)):
        example = examples[i]
        best = (-np.inf, "")
        rows = model.fields([example])[0]
        for row, logits in zip(rows, model.logits(example), strict=True):
            starts, ends = row["offset_start"], row["offset_end"]
            for s in range(len(starts)):
                for e in range(s, min(s + 30, len(starts))):
                    if starts[s] >= 0 and starts[e] >= 0:
                        text = example["context"][starts[s] : ends[e]]
                        best = max(best, (logits[s, 0] + logits[e, 1], text))
        guess, truth = best[1].split(), example["answers"]["text"][0].split()
        guess, truth = ([w for w in x if w != "a"] for x in (guess, truth))
        exact.append(guess == truth)
        common = sum(min(guess.count(w), truth.count(w)) for w in set(guess))
        overlap.append(2 * common / (len(guess) + len(truth)))
    return {"exact_match": np.mean(exact), "f1": np.mean(overlap)}


def predicted_words(model: Model, examples: Any) -> Mapping[str, float]:
    nats, right, asked = 0.0, 0, 0
    for row in model.rows([examples[i] for i in range(len(examples))]):
        for logits, target in zip(
            model.answer(row).astype(np.float64), row["targets"], strict=True
        ):
            if target >= 0:
                nats += np.log(np.exp(logits).sum()) - logits[target]
                right += int(logits.argmax() == target)
                asked += 1
    return {"perplexity": np.exp(nats / asked), "token_accuracy": right / asked}


def written(model: Model, examples: Any) -> Mapping[str, float]:
    import sacrebleu

    from jft.evals import generate

    tokenizer, texts = model.pretrained.processor, []
    for i in range(len(examples)):
        row = model.fields([examples[i]])[0][0]
        batch = {name: row[name][None] for name in ("input_ids", "attention_mask")}
        made = generate(model.pretrained, batch, **ROWS[model.task.name].generation)
        kept = made.tokens[0][: made.lengths[0]]
        texts.append(tokenizer.decode(kept, skip_special_tokens=True))
    truth = [[examples[i]["target_text"] for i in range(len(examples))]]
    return {
        "bleu": sacrebleu.corpus_bleu(texts, truth).score,
        "chrf": sacrebleu.corpus_chrf(texts, truth).score,
    }


def similar(model: Model, examples: Any) -> Mapping[str, float]:
    from scipy.stats import pearsonr, spearmanr

    tokenizer, cosines = model.pretrained.processor, []
    forward = jax.jit(lambda p, b: model.pretrained.apply_fn(p, b, key=None))
    for i in range(len(examples)):
        means = []
        for name in ("text", "text_pair"):
            batch = dict(tokenizer([examples[i][name]], return_tensors="np"))
            hidden = forward(model.pretrained.params, batch)
            means.append(np.asarray(hidden["last_hidden_state"])[0].mean(0))
        a, b = (x / np.linalg.norm(x) for x in means)
        cosines.append(a @ b)
    truth = [float(examples[i]["targets"]) for i in range(len(examples))]
    return {
        "pearson": pearsonr(truth, cosines).statistic,
        "spearman": spearmanr(truth, cosines).statistic,
    }


# --- the table ------------------------------------------------------------------------
RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (8, 8, 1)).astype(np.uint8) for _ in TEXTS]
CLASSES = ["x", "y", "z", "x", "y", "z", "x", "y", "z", "x", "y"]
SETS = [["x"], [], ["y", "z"], ["x", "y"], ["z"], ["x"], [], ["y"], ["z"], ["x"], ["y"]]
NUMBERS = RNG.normal(size=NUM).round(3).tolist()
WORDS = [text.split() for text in TEXTS]
TAGS = [
    [("B-X" if w in ("film", "plot") else "I-X" if w == "cast" else "O") for w in words]
    for words in WORDS
]
CONTEXTS = [f"{text} not films {text} awful plot great" for text in TEXTS]
ANSWERS = [
    {"text": [text.split()[-1]], "answer_start": [context.index(text.split()[-1])]}
    for text, context in zip(TEXTS, CONTEXTS, strict=True)
]
MESSAGES = [
    [{"role": "user", "content": text}, {"role": "assistant", "content": TEXTS[-i]}]
    for i, text in enumerate(TEXTS)
]

ROWS: Mapping[str, Row] = {
    "causal_lm": Row(columns={"text": TEXTS}, config=LLAMA, slow=predicted_words),
    "chat": Row(columns={"messages": MESSAGES}, config=LLAMA, slow=predicted_words),
    "image_classification": Row(
        columns={"image": IMAGES, "targets": CLASSES}, config=VIT, slow=classified
    ),
    "image_multilabel_classification": Row(
        columns={"image": IMAGES, "targets": SETS}, config=VIT, slow=multilabel
    ),
    "masked_lm": Row(columns={"text": TEXTS}, config=BERT, slow=predicted_words),
    "question_answering": Row(
        columns={"question": TEXTS, "context": CONTEXTS, "answers": ANSWERS},
        config=BERT,
        slow=answered,
        options={"stride": 4, "max_question_length": 8},
    ),
    "sentence_similarity": Row(
        columns={"text": TEXTS, "text_pair": TEXTS[::-1], "targets": NUMBERS},
        config=BERT,
        slow=similar,
    ),
    "sequence_to_sequence": Row(
        columns={"text": TEXTS, "target_text": TEXTS[::-1]},
        config=T5,
        slow=written,
        generation={"method": "greedy", "max_new_tokens": 6},
    ),
    "text_classification": Row(
        columns={"text": TEXTS, "text_pair": TEXTS[::-1], "targets": CLASSES},
        config=BERT,
        slow=classified,
    ),
    "text_multilabel_classification": Row(
        columns={"text": TEXTS, "targets": SETS}, config=BERT, slow=multilabel
    ),
    "text_regression": Row(
        columns={"text": TEXTS, "targets": NUMBERS}, config=BERT, slow=regressed
    ),
    "token_classification": Row(
        columns={"words": WORDS, "targets": TAGS}, config=BERT, slow=tagged
    ),
}
