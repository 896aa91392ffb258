# SPDX-License-Identifier: Apache-2.0
"""Made reviews with every kind of feature; needs neither downloads nor TensorFlow."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

COUNTS = {"train": 40, "test": 10}
WORDS = ("fine", "dull")
LABELS = ("bad", "good", "never")
TAGS = ("O", "B-ADJ")


def make_row(number):
    """The row with that number, as it is given to the library."""
    image = io.BytesIO()
    Image.fromarray(np.full((2, 3, 3), number, np.uint8)).save(image, "PNG")
    image.seek(0)  # bytes of a file: encoding an array would need TensorFlow
    words = ["a", WORDS[number % 2], f"filmé{number}"][: 1 + number % 3]
    return {
        "id": number,
        "text": f"a {WORDS[number % 2]} filmé {number}",
        "label": -1 if number == 4 else 1 - number % 2,
        "level": number % 3,
        "score": number / 4,
        "flag": number % 5 == 0,
        "image": image,
        "box": np.arange(4, dtype=np.float32) + number,
        "grid": np.arange(4).reshape(2, 2) + number,
        "words": words,
        "tags": [int(word in WORDS) for word in words],
        "answers": [{"text": w, "answer_start": i} for i, w in enumerate(words[1:])],
        "translation": {"de": f"Film {number}", "en": f"film {number}"},
        "source": {"file": {"name": f"{number}.txt"}, "line": number},
    }


class Builder(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "The first."}  # noqa: RUF012

    def _info(self):
        kinds = tfds.features
        features = {
            "id": np.int64,
            "text": kinds.Text(),
            "label": kinds.ClassLabel(names=LABELS),
            "level": kinds.ClassLabel(num_classes=3),
            "score": np.float32,
            "flag": np.bool_,
            "image": kinds.Image(),
            "box": kinds.Tensor(shape=(4,), dtype=np.float32),
            "grid": kinds.Tensor(shape=(2, 2), dtype=np.int64),
            "words": kinds.Sequence(kinds.Text()),
            "tags": kinds.Sequence(kinds.ClassLabel(names=TAGS)),
            "answers": kinds.Sequence({"text": kinds.Text(), "answer_start": np.int32}),
            "translation": kinds.Translation(("de", "en")),
            "source": {"file": {"name": kinds.Text()}, "line": np.int64},
        }
        return self.dataset_info_from_configs(features=kinds.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in COUNTS}

    def _generate_examples(self, split):
        first = 100 * list(COUNTS).index(split)
        for number in range(first, first + COUNTS[split]):
            yield number, make_row(number)
