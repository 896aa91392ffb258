# SPDX-License-Identifier: Apache-2.0
"""Data sets of a few rows, each in the format that a config of ``configs/`` reads.

All words are known to ``tests/tiny_tokenizer.py``, and what is asked can be learned.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

NEUTRAL = ["a", "film", "plot", "casts"]
SIGNS = {"negative": ["bad", "awful"], "positive": ["good", "great"]}


def sentences(count: int, *, seed: int) -> Iterator[tuple[str, str]]:
    """Sentences of different lengths, each with a word that says what it is."""
    rng = np.random.default_rng(seed)
    for row in range(count):
        name = list(SIGNS)[row % 2]
        words = rng.choice(NEUTRAL, rng.integers(2, 9)).tolist()
        words.insert(rng.integers(len(words) + 1), rng.choice(SIGNS[name]))
        yield " ".join(words), name


def write_reviews(folder: Path) -> Path:
    """A csv with columns of its own: ``subject`` and ``folder``."""
    rows = "".join(f"{text},{name}\n" for text, name in sentences(60, seed=1))
    (folder / "mails.csv").write_text(f"subject,folder\n{rows}")
    return folder / "mails.csv"


def write_shots(folder: Path) -> Path:
    """A tsv of texts and class ids, without a header."""
    ids = {name: i for i, name in enumerate(SIGNS)}
    rows = "".join(f"{text}\t{ids[name]}\n" for text, name in sentences(60, seed=2))
    (folder / "train.tsv").write_text(rows)
    return folder / "train.tsv"


def write_sst2(folder: Path) -> Path:
    """Three such files."""
    ids = {name: i for i, name in enumerate(SIGNS)}
    for seed, (split, count) in enumerate((("train", 64), ("dev", 16), ("test", 16))):
        rows = [f"{text}\t{ids[name]}\n" for text, name in sentences(count, seed=seed)]
        (folder / f"{split}.tsv").write_text("".join(rows))
    return folder


def write_tagged(folder: Path) -> Path:
    """A word and its tag a line: films are works, casts are groups of several words."""
    tags = {"film": "B-WORK", "casts": "B-ORG"}
    for seed, (split, count) in enumerate((("train", 40), ("dev", 12), ("test", 12))):
        lines = []
        for text, _ in sentences(count, seed=seed):
            lines += [f"en:{word}\t{tags.get(word, 'O')}\n" for word in text.split()]
            lines.append("\n")
        (folder / f"{split}.txt").write_text("".join(lines))
    return folder


def write_questions(folder: Path) -> Path:
    """SQuAD's JSON: twelve articles of two paragraphs, of which two are long."""
    rng = np.random.default_rng(0)
    articles = []
    for number in range(12):
        paragraphs = []
        for part in range(2):
            words = rng.choice(NEUTRAL, 8 if number else 60).tolist()
            words.insert(rng.integers(len(words)), "great")
            context = " ".join(words)
            answer = {"text": "great", "answer_start": context.index("great")}
            question = {
                "id": f"q{number}-{part}",
                "question": "good film",
                "answers": [answer],
            }
            paragraphs.append({"context": context, "qas": [question]})
        articles.append({"title": f"article {number}", "paragraphs": paragraphs})
    (folder / "questions.json").write_text(json.dumps({"data": articles}))
    return folder / "questions.json"


GERMAN = {"a": "ein", "film": "Film", "plot": "Stoff", "casts": "Stars", "bad": "übel",
          "awful": "arg", "good": "gut", "great": "toll"}  # fmt: skip


def write_translations(folder: Path) -> Path:
    """Two compressed files a split, a sentence a line."""
    counts = {"train": 40, "val": 8, "test_2016_flickr": 8}
    for seed, (split, count) in enumerate(counts.items()):
        english = [text for text, _ in sentences(count, seed=seed)]
        german = [" ".join(GERMAN[w] for w in text.split()) for text in english]
        for ending, lines in (("en", english), ("de", german)):
            content = "".join(f"{line}\n" for line in lines).encode()
            (folder / f"{split}.{ending}.gz").write_bytes(gzip.compress(content))
    return folder


def write_photos(folder: Path) -> Path:
    """JPEGs of mixed sizes in a folder a class; shirts are bright."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("validation", 4), ("test", 4)):
        for name, light in (("shirt", 128), ("skirt", 0)):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                size = (*rng.integers(10, 30, 2), 3)
                pixels = rng.integers(light, light + 128, size).astype(np.uint8)
                file = folder / split / name / f"{split}-{number}.jpg"
                Image.fromarray(pixels).save(file)
    return folder
