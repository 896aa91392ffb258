# SPDX-License-Identifier: Apache-2.0
"""From a large file to the first batch: memory holds a few bytes a row, no text."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FEW, MANY = 20_000, 100_000
LETTERS = 200  # of each text
BYTES = 150  # a row that memory may grow by: borders, targets, lengths; not the text

# Prints how much more memory the first batch of many rows took than that of few, at
# its most. What is made once has been made by then: two small files go before.
MEASURE = """
import sys
import threading
import time
from jft import data
from tests.tiny_tokenizer import make_tokenizer

COLUMNS = {"text": "sentence", "targets": "label"}
FIELDS = data.Column("text", "text"), data.Column("targets", "class")

class Memory(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True)
        self.most, self.ended = 0, False

    def run(self):
        while not self.ended:
            with open("/proc/self/status") as status:
                now = next(x for x in status if x.startswith("RssAnon"))
            self.most = max(self.most, int(now.split()[1]) * 1024)
            time.sleep(0.005)

def write(num_rows):
    path = f"{sys.argv[1]}/{num_rows}.csv"
    with open(path, "w") as file:
        file.write("sentence,label\\n")
        for i in range(num_rows):
            label = "good" if i % 2 else "bad"
            file.write(f'"a film, {i:0>%LETTERS%}",{label}\\n')
    return path

def most(num_rows):
    path, memory = write(num_rows), Memory()
    memory.start()
    source = data.select_columns(data.load_source("csv", path), COLUMNS)
    examples = data.make_examples(source, FIELDS)
    fields_fn = data.make_text_fields(make_tokenizer(), max_length=8)
    table = data.tokenize(examples, fields_fn, show_progress=False)
    loader = data.make_token_loader(
        table,
        batching="length",
        global_batch_size=32,
        seed=0,
        max_lengths={"input": 8},
    )
    stream = loader.batches()
    batch = next(stream)
    stream.close()
    memory.ended = True
    memory.join()
    assert len(table) == num_rows and batch["input_ids"].shape == (32, 8)
    return memory.most

few = max(map(most, (1000, 1001, int(sys.argv[2]))))
print(most(int(sys.argv[3])) - few)
""".replace("%LETTERS%", str(LETTERS))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_file(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), str(FEW), str(MANY)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={
            **os.environ,
            "JFT_CACHE": str(tmp_path / "cache"),
            "PYTHONPATH": str(ROOT),
            # what is freed goes back to the system, so that what is held is seen
            "MALLOC_MMAP_THRESHOLD_": "65536",
            "MALLOC_TRIM_THRESHOLD_": "65536",
            "MALLOC_ARENA_MAX": "1",
            "TOKENIZERS_PARALLELISM": "false",  # threads have buffers of their own
        },
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < BYTES * (MANY - FEW)
