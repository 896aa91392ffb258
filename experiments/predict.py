# SPDX-License-Identifier: Apache-2.0
"""Classify images or texts with a run's best checkpoint or an exported folder.

    python -m experiments.predict --model=…/export --images=photo.png --images=folder
    python -m experiments.predict --model=…/export --texts='so good' --texts='so bad'
    python -m experiments.predict --model=…/export --inputs=sentences.txt

Writes one JSON object a line, in the order given: the file or the text, its class, and
the probability of each class.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np
from absl import flags

import jft
from experiments import keep
from jft import data
from jft.config import Config, new_flags, run_without_config
from jft.tasks import task_of_head
from jft.types import Batch, InputError

FLAGS = new_flags()
keep.define_model_flags(FLAGS)
IMAGES = flags.DEFINE_multi_string("images", [], "Files, or folders of them.", FLAGS)
TEXTS = flags.DEFINE_multi_string("texts", [], "A text; repeat it.", FLAGS)
INPUTS = flags.DEFINE_string(
    "inputs", None, "File of one text a line; - reads the standard input.", FLAGS
)
PAIRS = flags.DEFINE_boolean(
    "pairs", False, "Each text is two, with a tab between them.", flag_values=FLAGS
)
MAX_LENGTH = flags.DEFINE_integer(
    "max_length", None, "Tokens a text; as in the run.", 1, flag_values=FLAGS
)
OUTPUT = flags.DEFINE_string("output", None, "File to write; None prints.", FLAGS)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 64, "Examples at a time.", lower_bound=1, flag_values=FLAGS
)

LONGEST = 512  # tokens a text, where no run says how many
Example = dict[str, Any]  # {"file"} of an image, or {"text"} and perhaps {"text_pair"}


def main() -> None:
    """Write a line an example, in the order given."""
    given = {
        "image": [image for path in IMAGES.value for image in find_images(Path(path))],
        "text": [make_text(text) for text in [*TEXTS.value, *read_lines(INPUTS.value)]],
    }
    if not any(given.values()):
        raise InputError(
            "nothing to classify was given; name files or folders with --images, or "
            "give texts with --texts or --inputs."
        )
    model, config = keep.load_trained(FLAGS)
    task = task_of_head(model.task)
    if [kind for kind in given if given[kind]] != [task.input]:
        counts = ", ".join(f"{len(x)} {kind}s" for kind, x in given.items())
        raise InputError(f"the model reads {task.input}s alone; {counts} were given.")
    fields_fn = task.make_fields(
        model.processor,
        num_classes=len(model.class_names),
        max_length=find_max_length(model, config),
    )
    forward = jax.jit(lambda params, batch: model.apply_fn(params, batch, key=None))
    examples = given[task.input]
    with open_output(OUTPUT.value) as out:
        for start in range(0, len(examples), BATCH_SIZE.value):
            chunk = examples[start : start + BATCH_SIZE.value]
            batch = make_batch([fields_fn(load(example)) for example in chunk])
            logits = np.asarray(forward(model.params, batch), np.float32)
            for example, row in zip(chunk, logits, strict=False):
                line = example | task.write_prediction(row, model.class_names)
                print(json.dumps(line, ensure_ascii=False), file=out, flush=True)


def find_images(path: Path) -> list[Example]:
    """The file itself, or every image below the folder."""
    if not path.exists():
        raise InputError(f"there is no file or folder {path}; check --images.")
    below = sorted(path.rglob("*")) if path.is_dir() else [path]
    named = [file for file in below if file.suffix.lower() in data.IMAGE_SUFFIXES]
    return [{"file": str(file)} for file in (named if path.is_dir() else below)]


def read_lines(path: str | None) -> list[str]:
    """The lines of a file of texts, or of the standard input."""
    if path is None:
        return []
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--inputs={path} cannot be read: {error}. Give a UTF-8 file of one text a "
            "line."
        ) from error
    return text.removesuffix("\n").split("\n")


def make_text(text: str) -> Example:
    """An example of one text, or of two."""
    parts = text.split("\t") if PAIRS.value else [text]
    if not all(part.strip() for part in parts) or len(parts) != 1 + PAIRS.value:
        expected = "two texts with a tab between" if PAIRS.value else "a text"
        raise InputError(
            f"{text!r} was given to classify; expected {expected}. Correct --texts or "
            "--inputs."
        )
    return dict(zip(("text", "text_pair"), parts, strict=False))


def find_max_length(model: jft.Pretrained, config: Config | None) -> int:
    """As many tokens as the run had, or, of a folder, as the model can take."""
    if MAX_LENGTH.value is not None:
        return int(MAX_LENGTH.value)
    if config is not None:
        return config.data.max_length
    return min(getattr(model.processor, "model_max_length", LONGEST), LONGEST)


def load(example: Example) -> Example:
    """What the task's fields are made of."""
    if "file" in example:
        return {"image": data.read_image(example["file"])}
    return example


def make_batch(rows: Iterable[Mapping[str, np.ndarray]]) -> Batch:
    """Stack rows to one of few shapes, so that the model is compiled once for each."""
    rows = list(rows)
    rows += rows[-1:] * (BATCH_SIZE.value - len(rows))
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    text = "attention_mask" in batch
    return data.trim_padding(batch, multiple=32) if text else batch


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
