# SPDX-License-Identifier: Apache-2.0
"""Classify image files with a run's best checkpoint or an exported folder.

    python -m experiments.predict --model=…/export --images=photo.png --images=folder

Writes one JSON object a line: the file, its class, and the probability of each class.
"""

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TextIO

import jax
import numpy as np
from absl import flags

from experiments import build, keep
from jft import data
from jft.config import new_flags, run_without_config
from jft.tasks import get_task
from jft.types import InputError

FLAGS = new_flags()
keep.define_model_flags(FLAGS)
IMAGES = flags.DEFINE_multi_string("images", [], "Files, or folders of them.", FLAGS)
OUTPUT = flags.DEFINE_string("output", None, "File to write; None prints.", FLAGS)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 64, "Images at a time.", lower_bound=1, flag_values=FLAGS
)


def main() -> None:
    """Write a line an image, in the order given."""
    files = [file for given in IMAGES.value for file in find_images(Path(given))]
    if not files:
        raise InputError("no images were given; name files or folders with --images.")
    model, _ = keep.load_trained(FLAGS)
    classes = model.class_names
    fields_fn, task = build.make_fields(model), get_task(build.TASK)
    forward = jax.jit(lambda params, batch: model.apply_fn(params, batch, key=None))
    with open_output(OUTPUT.value) as out:
        for start in range(0, len(files), BATCH_SIZE.value):
            chunk = files[start : start + BATCH_SIZE.value]
            images = [
                fields_fn({"image": data.read_image(file)})["pixel_values"]
                for file in chunk
            ]
            # one shape for all batches, so that the model is compiled once
            images += [np.zeros_like(images[0])] * (BATCH_SIZE.value - len(chunk))
            logits = forward(model.params, {"pixel_values": np.stack(images)})
            for file, row in zip(chunk, np.asarray(logits), strict=False):
                line = {"file": str(file)} | task.write_prediction(row, classes)
                print(json.dumps(line, ensure_ascii=False), file=out, flush=True)


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


def find_images(path: Path) -> list[Path]:
    """The file itself, or every image below the folder."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"there is no file or folder {path}; check --images.")
    return sorted(
        file for file in path.rglob("*") if file.suffix.lower() in data.IMAGE_SUFFIXES
    )


if __name__ == "__main__":
    run_without_config(main, flag_values=FLAGS)
