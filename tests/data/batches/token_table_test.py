# SPDX-License-Identifier: Apache-2.0
import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jft.data import Pad, TokenTable, tokenize
from jft.data.batches.ragged import open_rows
from jft.types import InputError
from tests.data.batches.token_rows import ClassFields, Lines, PairFields, StrideFields

ROOT = Path(__file__).parents[3]


@dataclasses.dataclass
class Counted(ClassFields):
    """Counts the examples that it has seen."""

    seen: int = 0
    fail_at: int | None = None

    def __call__(self, examples):
        assert len(examples) <= 1000
        self.seen += len(examples)
        if self.fail_at is not None and self.seen > self.fail_at:
            raise RuntimeError("a tokenizer that fails")
        return super().__call__(examples)


def make(tmp_path, examples=None, fields_fn=None):
    examples = Lines(2300) if examples is None else examples
    return tokenize(examples, fields_fn or ClassFields(), cache_dir=tmp_path)


def folder_of(tmp_path):
    (folder,) = (tmp_path / "tokens").iterdir()
    return folder


def test_rows_are_what_the_fields_function_makes(tmp_path):
    examples, fields_fn = Lines(2300), ClassFields()
    table = make(tmp_path, examples, fields_fn)
    assert len(table) == 2300
    assert table.examples is examples
    for i in (0, 1, 999, 1000, 2299):
        (expected,) = fields_fn([examples[i]])[0]
        assert list(table[i]) == list(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(table[i][name], value)
            assert table[i][name].dtype == np.int32
    lengths = [examples[i]["length"] for i in range(2300)]
    np.testing.assert_array_equal(table.lengths["input"], lengths)
    assert table.lengths.keys() == {"input"}
    assert table.padding == fields_fn.padding
    np.testing.assert_array_equal(table.example_of, np.arange(2300))
    with pytest.raises(IndexError):
        table[2300]


def test_read_gives_the_fields_of_the_model_after_a_change(tmp_path):
    table = make(tmp_path)
    assert list(table.read(5)) == ["input_ids", "attention_mask", "targets"]

    def change(row):
        assert "words" in row
        return {**row, "targets": row["targets"] + 10}

    changed = table.read(5, change)
    assert changed["targets"] == table[5]["targets"] + 10
    assert list(changed) == list(table.read(5))


def test_an_example_may_give_several_rows(tmp_path):
    examples = Lines(100)
    table = make(tmp_path, examples, StrideFields())
    ids = [table[i]["input_ids"] for i in range(len(table))]
    assert max(map(len, ids)) == 10
    assert len(table) > 150
    for i in range(100):
        joined = np.concatenate([ids[r] for r in np.flatnonzero(table.example_of == i)])
        assert len(joined) == examples[i]["length"]
        assert (joined // 100 == i + 1).all()
        assert (np.diff(joined) == 1).all()


def test_each_group_has_its_lengths(tmp_path):
    table = make(tmp_path, Lines(50), PairFields())
    for i in range(50):
        assert table.lengths["input"][i] == len(table[i]["input_ids"])
        assert table.lengths["target"][i] == len(table[i]["targets"])


def test_the_second_call_reads_what_the_first_has_kept(tmp_path):
    first, second = Counted(), Counted()
    make(tmp_path, fields_fn=first)
    table = make(tmp_path, fields_fn=second)
    assert (first.seen, second.seen) == (2300, 0)
    assert table[7]["number"] == 7


@pytest.mark.parametrize(
    "change",
    [
        {"examples": Lines(2299)},
        {"examples": Lines(2300, seed=1)},
        {"fields_fn": ClassFields(settings={"max_length": 42})},
        {"fields_fn": PairFields()},
    ],
)
def test_another_result_has_another_folder_and_repr(tmp_path, change):
    table, other = make(tmp_path), make(tmp_path, **change)
    assert repr(table) != repr(other)
    assert len(list((tmp_path / "tokens").iterdir())) == 2
    assert repr(table) == repr(make(tmp_path))


def test_padding_is_part_of_the_key(tmp_path):
    class OtherPad(ClassFields):
        @property
        def padding(self):
            return super().padding | {"input_ids": Pad(3)}

    OtherPad.__module__, OtherPad.__qualname__ = ClassFields.__module__, "ClassFields"
    assert repr(make(tmp_path)) != repr(make(tmp_path, fields_fn=OtherPad()))


def test_a_damaged_cache_is_written_anew(tmp_path):
    make(tmp_path)
    path = folder_of(tmp_path) / "input_ids.values"
    content = bytearray(path.read_bytes())
    content[1000] ^= 4
    path.write_bytes(content)
    table = make(tmp_path)
    (expected,) = ClassFields()([Lines(2300)[10]])[0]
    np.testing.assert_array_equal(table[10]["input_ids"], expected["input_ids"])
    assert open_rows(folder_of(tmp_path)) is not None


def test_what_fails_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError, match="that fails"):
        make(tmp_path, fields_fn=Counted(fail_at=1500))
    assert not list((tmp_path / "tokens").iterdir())
    again = Counted()
    make(tmp_path, fields_fn=again)
    assert again.seen == 2300


def test_a_half_written_folder_of_a_killed_process_is_not_used(tmp_path):
    make(tmp_path)
    folder = folder_of(tmp_path)
    (folder / "index.json").unlink()
    assert make(tmp_path)[3]["number"] == 3
    assert folder_of(tmp_path) == folder


@pytest.mark.parametrize("damaged", [False, True])
def test_two_processes_may_write_at_once(tmp_path, damaged):
    """The second begins and ends while the first is half through."""

    class Slow(ClassFields):
        inner = None

        def __call__(self, examples):
            if examples[0]["number"] == 1000:
                Slow.inner = tokenize(Lines(2300), ClassFields(), cache_dir=tmp_path)
            return super().__call__(examples)

    Slow.__module__, Slow.__qualname__ = ClassFields.__module__, "ClassFields"
    if damaged:
        make(tmp_path)
        (folder_of(tmp_path) / "index.json").write_text("{")
    outer = make(tmp_path, fields_fn=Slow())
    for table in (outer, Slow.inner, make(tmp_path)):
        np.testing.assert_array_equal(table.lengths["input"], outer.lengths["input"])
        np.testing.assert_array_equal(table[9]["words"], outer[9]["words"])
    assert folder_of(tmp_path).name == repr(outer).split(", ")[1][:-1]


def test_tables_pickle_as_a_path(tmp_path):
    table = make(tmp_path)
    pickled = pickle.dumps(table)
    assert len(pickled) < 2000
    copy = pickle.loads(pickled)
    assert repr(copy) == repr(table)
    np.testing.assert_array_equal(copy[5]["words"], table[5]["words"])


def test_tables_are_kept_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("JFT_CACHE", str(tmp_path / "here"))
    assert isinstance(tokenize(Lines(3), ClassFields()), TokenTable)
    assert folder_of(tmp_path / "here").is_dir()


class Wrong(ClassFields):
    def __init__(self, rows):
        super().__init__()
        self.rows = rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lambda e: [], "example lines.csv, line 2 gave no row; Wrong"),
        (
            lambda e: [{"input_ids": [1, 2], "attention_mask": [1]}],
            r"lines.csv, line 2 has fields of the lengths \{'input_ids': 2, 'att",
        ),
        (lambda e: [{"input_ids": [2**40]}], "expected whole numbers that fit int32"),
    ],
)
def test_bad_rows_are_refused(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        make(tmp_path, fields_fn=Wrong(rows))
    assert not list((tmp_path / "tokens").iterdir())


def test_a_list_an_example_is_expected(tmp_path):
    class Few(ClassFields):
        def __call__(self, examples):
            return super().__call__(examples[1:])

    with pytest.raises(InputError, match="rows of 999 examples out of 1000"):
        make(tmp_path, fields_fn=Few())
    with pytest.raises(InputError, match="holds no example"):
        make(tmp_path, Lines(0))


class Nameless:
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return Lines(3)[index]


def test_examples_that_do_not_say_what_they_are_are_refused(tmp_path):
    with pytest.raises(InputError, match="Nameless has no __repr__"):
        make(tmp_path, Nameless())
    assert len(make(tmp_path, [Lines(3)[i] for i in range(3)])) == 3


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "tokens").write_text("a file in the way")
    with pytest.raises(InputError, match=r"cannot be kept in .*tokens.*JFT_CACHE"):
        make(tmp_path)


MEASURE = """
import sys
import numpy as np
from jft.data import Pad, tokenize

def memory():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith("RssAnon"))

class Fields:
    settings, padding_side, host_fields = {}, "right", ()
    padding = {"input_ids": Pad(0)}
    ids = np.arange(8, dtype=np.int32)
    most = 0

    def __call__(self, examples):
        Fields.most = max(Fields.most, memory())
        return [[{"input_ids": self.ids[: 1 + i % 8], "targets": i}] for i in examples]

class Examples:
    def __init__(self, num):
        self.num = num
    def __len__(self):
        return self.num
    def __getitem__(self, index):
        return index
    def __repr__(self):
        return f"{self.num}"

def grown(num):
    Fields.most = 0
    table = tokenize(Examples(num), Fields(), cache_dir=sys.argv[1])
    sum(table[i]["targets"] for i in range(0, num, 50))
    return max(Fields.most, memory())

grown(3000)
few = grown(10_000)
print(grown(100_000) - few)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_rows(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    # KiB; 90,000 rows are 3,000 as offsets, lengths and positions alone
    assert int(done.stdout) < 500
