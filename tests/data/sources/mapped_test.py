# SPDX-License-Identifier: Apache-2.0
"""The memory that a text file takes grows with its number of rows alone."""

import json
import subprocess
import sys

from jft.data.sources.mapped import HeldRecords, Records, record_text

# Of every kind, opens a small file, so that what is made once has been made, then a
# large one, and reads every row of both.
MEASURE = """
import json, sys
from jft.data import load_source

def anonymous():
    with open("/proc/self/status") as stream:
        line = next(line for line in stream if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024

measured = {}
for name in sys.argv[2:]:
    for size in ("small", "large"):
        before = anonymous()
        source = load_source(name, f"{sys.argv[1]}/{size}.{name}")
        for index in range(len(source)):
            row = source[index]
        measured[name] = [len(source), anonymous() - before]
print(json.dumps(measured))
"""
ROW = {
    "csv": b'"a long, long text: %s",1\n',
    "tsv": b"a long, long text: %s\t1\n",
    "jsonl": b'{"text": "a long, long text: %s", "targets": 1}\n',
    "conll": b"A O\nlong O\ntext%s O\n\n",
    "lines": b"a long, long text: %s\n",
}


def test_memory_grows_with_the_number_of_rows_alone(tmp_path):
    sizes = {}
    for name, row in ROW.items():
        num_rows = 30_000 if name == "csv" else 10_000
        for file, count in (("small", num_rows // 10), ("large", num_rows)):
            path = tmp_path / f"{file}.{name}"
            path.write_bytes(row % (b"x" * 2000) * count)
            sizes[name] = path.stat().st_size
    out = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), *ROW],
        capture_output=True,
        text=True,
        check=True,
    )
    for path in tmp_path.iterdir():
        path.unlink()
    assert sizes["csv"] > 60e6
    for name, (num_rows, grown) in json.loads(out.stdout).items():
        assert num_rows * 2000 < sizes[name] < num_rows * 2100
        assert grown < 2e6 + 24 * num_rows < sizes[name] / 8, name


def test_record_text_takes_one_line_end_off():
    assert record_text(b"a \n\n") == "a \n"
    assert record_text(b"a\r\n") == record_text(b"a\n") == record_text(b"a") == "a"


def test_held_records_are_records():
    records = HeldRecords([5], ["a.json, item 1"], content="x")
    assert isinstance(records, Records)
    assert (len(records), records[0], records.place(0)) == (1, 5, "a.json, item 1")
