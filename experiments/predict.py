# SPDX-License-Identifier: Apache-2.0
"""Ask a run's best checkpoint, or an exported folder, about images or texts.

    python -m experiments.predict --model=…/export --images=photo.png --images=folder
    python -m experiments.predict --model=…/export --texts='so good' --texts='so bad'
    python -m experiments.predict --model=…/export --inputs=sentences.txt
    python -m experiments.predict --model=…/export --inputs=questions.jsonl
    python -m experiments.predict --model=base --adapter=law=…/adapter \
        --adapter=news=…/adapter --inputs=questions.jsonl

Writes one JSON object a line, in the order given: what was asked, and the answer: the
class and the probability of each, the tags of the words, the answer to the question,
the text that the model writes. A text is a line, or what stands under the task's names
in an object of a ``.jsonl`` file: ``text``, ``words``, ``question``, ``messages``, ….

Adapters are asked over the one base, without a merged model. What names one of them,
``{"text": "so good", "adapter": "law"}``, is answered by it, anything else by each of
them, a line each; the lines say by which.
"""

import dataclasses
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TextIO

import jax
from absl import flags

import jft
from experiments import feed, forward, keep, objective, run_config, writing
from experiments.predict_adapters import ADAPTER, choose_adapters, load_adapted
from experiments.predict_inputs import (
    ImageFiles,
    Row,
    by_column,
    find_images,
    make_rows,
    read_lines,
)
from jft import data, evals, processes, train
from jft.config import Config, new_flags, run_without_config
from jft.tasks import Task, get_task, task_of_head
from jft.types import InputError

FLAGS = new_flags()
keep.define_model_flags(FLAGS)
ADAPTERS = flags.DEFINE_multi_string(
    "adapter",
    [],
    "An adapter over --model: its folder or Hub id, or name=folder; repeat it.",
    FLAGS,
)
IMAGES = flags.DEFINE_multi_string("images", [], "Files, or folders of them.", FLAGS)
TEXTS = flags.DEFINE_multi_string("texts", [], "A text; repeat it.", FLAGS)
INPUTS = flags.DEFINE_string(
    "inputs",
    None,
    "File of one text a line, or of one object a line (.jsonl); - reads the standard "
    "input.",
    FLAGS,
)
PAIRS = flags.DEFINE_boolean(
    "pairs", False, "Each text is two, with a tab between them.", flag_values=FLAGS
)
MAX_LENGTH = flags.DEFINE_integer(
    "max_length", None, "Tokens a text; as in the run.", 1, flag_values=FLAGS
)
MAX_NEW_TOKENS = flags.DEFINE_integer(
    "max_new_tokens", None, "Tokens to write; as in the run.", 1, flag_values=FLAGS
)
OUTPUT = flags.DEFINE_string("output", None, "File to write; None prints.", FLAGS)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 64, "Examples at a time.", lower_bound=1, flag_values=FLAGS
)

LONGEST = 512  # tokens a text, where no run says how many


def main() -> None:
    """Write a line an example, in the order given."""
    images = [image for path in IMAGES.value for image in find_images(Path(path))]
    lines = [*TEXTS.value, *read_lines(INPUTS.value)]
    if not images and not lines:
        raise InputError(
            "nothing to ask about was given; name files or folders with --images, or "
            "give texts with --texts or --inputs."
        )
    train.keep_compiled()
    models, config = load_models()
    task = task_of(next(iter(models.values())), config)
    given = {"image": images, "text": lines}
    if [kind for kind in given if given[kind]] != [task.reads]:
        counts = ", ".join(f"{len(x)} {kind}s" for kind, x in given.items())
        raise InputError(f"the model reads {task.reads}s alone; {counts} were given.")
    if images:
        rows = [{"file": str(file)} for file in images]
    else:
        rows = make_rows(lines, task, pairs=PAIRS.value)
    chosen = [choose_adapters(line, list(models)) for line in images or lines]
    answers: dict[tuple[int, str], Mapping[str, Any]] = {}
    for name, model in models.items():
        mine = [i for i, names in enumerate(chosen) if name in names]
        said = answer_rows(task, model, [rows[i] for i in mine], config)
        answers |= {(i, name): one for i, one in zip(mine, said, strict=True)}
    with open_output(OUTPUT.value) as out:
        for i, row in enumerate(rows):
            for name in chosen[i]:
                by = {ADAPTER: name} if ADAPTERS.value else {}
                line = {**row, **by, **answers[i, name]}
                print(json.dumps(line, ensure_ascii=False), file=out, flush=True)


def load_models() -> tuple[Mapping[str, jft.Pretrained], Config | None]:
    """The models that the flags name, by adapter, and the config of a run."""
    if not ADAPTERS.value:
        model, config = keep.load_trained(FLAGS)
        return {"": model}, config
    if FLAGS["model"].value is None:
        raise InputError(
            f"--adapter={ADAPTERS.value[0]} was given without --model; name the "
            "folder of its base. A run has its own adapter."
        )
    loaded = processes.together(
        lambda: load_adapted(FLAGS["model"].value, ADAPTERS.value)
    )
    return loaded.models, None


def answer_rows(
    task: Task, model: jft.Pretrained, rows: Sequence[Row], config: Config | None
) -> Sequence[Mapping[str, Any]]:
    """What a model says of what is asked, see `answer`."""
    if not rows:
        return []
    source: data.Source
    if task.reads == "image":
        source = ImageFiles([Path(row["file"]) for row in rows])
    else:
        source = data.ArraySource(by_column(rows))
    examples = data.make_examples(
        source,
        task.columns if task.has_classes else task.inputs,
        class_names=model.class_names if task.has_classes else None,
        need_targets=False,
    )
    with tempfile.TemporaryDirectory() as cache:  # nothing of what is asked stays
        settings = settings_of(task, model, config, cache=cache)
        return answer(task, model, examples, settings)


def task_of(model: jft.Pretrained, config: Config | None) -> Task:
    """The task of the run, or what a model with such a head is usually asked."""
    if config is not None:
        return get_task(config.data.task)
    if model.task == "causal_lm" and getattr(model.processor, "chat_template", None):
        return get_task("chat")
    return task_of_head(model.task, model.config.get("problem_type"))


def settings_of(
    task: Task, model: jft.Pretrained, config: Config | None, *, cache: str
) -> Config:
    """The settings of the run, or of a folder the usual ones."""
    if config is None:
        limits = [
            getattr(model.processor, "model_max_length", None),
            model.family.max_positions(model.module.config),
        ]
        most = min([LONGEST, *filter(None, limits)])
        config = run_config.usual(task.name, max_length=most)
    max_length = MAX_LENGTH.value or config.data.max_length
    settings = dataclasses.replace(
        config.data,
        max_length=max_length,
        global_batch_size=BATCH_SIZE.value,
        cache=cache,
    )
    generation = dict(config.evals.generation)
    if MAX_NEW_TOKENS.value is not None:
        generation["max_new_tokens"] = MAX_NEW_TOKENS.value
    asking = dataclasses.replace(config.evals, generation=generation)
    return dataclasses.replace(config, data=settings, evals=asking)


def answer(
    task: Task, model: jft.Pretrained, examples: data.Examples, config: Config
) -> list[Mapping[str, Any]]:
    """What the model says of each example, as a person reads it."""
    if task.make_prompt is not None:
        return [
            {"written": text}
            for text in writing.continue_texts(task, model, examples, config)
        ]
    table = feed.make_table(config.data, examples, model)
    batches = feed.make_eval_batches(config.data, table, model)
    if task.writes:
        predictions: Sequence[Any] = writing.write_all(model, batches, config)
    else:
        eval_step = train.make_eval_step(
            task.make_apply(model.apply_fn),
            objective.no_loss,
            predict=task.predict,
            chunks=forward.eval_chunks(config, model),
        )
        placed = map(jax.device_put, batches)
        evaluated = evals.evaluate(eval_step, model.params, placed)
        predictions = task.predictions(evaluated.rows, table)
    return [task.write_prediction(one, model.class_names) for one in predictions]


def open_output(path: str | None) -> AbstractContextManager[TextIO]:
    """The file to write, or the screen, which stays open."""
    if path is None:
        return nullcontext(sys.stdout)
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}; give a file that you may "
            "write with --output."
        ) from error


if __name__ == "__main__":
    run_without_config(main, flag_values=FLAGS)
