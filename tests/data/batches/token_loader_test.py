# SPDX-License-Identifier: Apache-2.0
"""Batches of tokens are the table's rows, once an epoch, from any step or worker."""

import itertools

import numpy as np
import pytest

from jft.data import (
    IGNORED,
    make_eval_batches,
    make_text_fields,
    make_token_loader,
    make_train_loader,
    pack,
    tokenize,
)
from jft.data.batches.lengths import choose_lengths
from jft.data.batches.packing import num_rows_of
from jft.types import InputError
from tests.data.batches.token_rows import (
    MASKED,
    STEP,
    ClassFields,
    Lines,
    PairFields,
    StrideFields,
    TokenFields,
    mask_tokens,
)
from tests.tiny_tokenizer import WORDS, make_tokenizer

NUM = 101
BATCH = 12
FIELDS = {"class": ClassFields, "token": TokenFields, "pair": PairFields}
KINDS = {  # fields, batching, augment
    "pad": ("class", "pad", None),
    "length": ("class", "length", None),
    "pairs by length": ("pair", "length", None),
    "pack": ("token", "pack", None),
    "pack classes": ("class", "pack", None),
    "pad, masked": ("token", "pad", mask_tokens),
    "length, masked": ("token", "length", mask_tokens),
    "pack, masked": ("token", "pack", mask_tokens),
}
MAX_LENGTHS = {"input": 41, "target": 41}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    made = {
        name: tokenize(Lines(NUM), fields_fn(), cache_dir=folder)
        for name, fields_fn in FIELDS.items()
    }
    return {"folder": folder, **made}


@pytest.fixture
def make(tables):
    """A function that builds the loader of a kind."""

    def make(kind, **changes):
        fields, batching, augment = KINDS[kind]
        options = {
            "batching": batching,
            "global_batch_size": BATCH,
            "seed": 1,
            "max_lengths": MAX_LENGTHS,
            "num_lengths": 3,
            "augment": augment,
            "process_index": 0,
            "process_count": 1,
        }
        return make_token_loader(tables[fields], **{**options, **changes})

    return make


def take(loader, start, count):
    stream = loader.batches(start)
    batches = list(itertools.islice(stream, count))
    stream.close()
    return batches


def assert_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
            assert a[name].dtype == b[name].dtype


def steps(loader, epochs):
    return int(np.ceil(epochs * loader.steps_per_epoch))


@pytest.mark.parametrize("kind", KINDS)
def test_every_epoch_has_every_row_once(make, kind):
    loader = make(kind)
    num_rows = round(loader.steps_per_epoch * BATCH)
    index = [batch["index"] for batch in take(loader, 0, steps(loader, 3))]
    stream = np.concatenate(index)
    epochs = [stream[e * num_rows : (e + 1) * num_rows].tolist() for e in range(3)]
    assert all(sorted(epoch) == list(range(num_rows)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("kind", ["pad", "length", "pairs by length"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_batches_hold_the_rows_of_the_table(make, tables, tmp_path, kind, side):
    fields, batching, _ = KINDS[kind]
    table = tables[fields]
    if side == "left":
        fields_fn = FIELDS[fields](padding_side="left")
        table = tokenize(Lines(NUM), fields_fn, cache_dir=tmp_path)
    loader = make_token_loader(
        table,
        batching=batching,
        global_batch_size=BATCH,
        seed=1,
        max_lengths=MAX_LENGTHS,
    )
    for batch in take(loader, 0, steps(loader, 2)):
        assert batch.keys() == {*table.model_fields, "index", "loss_mask"}
        assert batch["loss_mask"].tolist() == [1] * BATCH
        assert batch["index"].dtype == np.int32
        for i, row in enumerate(batch["index"]):
            for name, value in table.read(int(row)).items():
                found = batch[name][i]
                if name in table.padding:
                    size, total = len(value), len(found)
                    first = 0 if side == "right" else total - size
                    inside = slice(first, first + size)
                    rest = np.delete(found, np.arange(total)[inside])
                    assert (rest == table.padding[name].value).all()
                    found = found[inside]
                np.testing.assert_array_equal(found, value)


def test_packed_batches_hold_the_tokens_and_targets_of_the_table(make, tables):
    loader = make("pack")
    tokens = []
    per_token = ("input_ids", "targets", "position_ids", "segment_ids")
    for batch in take(loader, 0, steps(loader, 1)):
        assert batch.keys() == {*per_token, "index", "loss_mask"}
        assert {batch[name].shape for name in per_token} == {(BATCH, 41)}
        real = batch["segment_ids"] > 0
        assert (batch["targets"][real] == -batch["input_ids"][real]).all()
        assert (batch["targets"][~real] == IGNORED).all()
        assert (batch["input_ids"][~real] == 1).all()
        assert not batch["position_ids"][~real].any()
        assert (batch["position_ids"] == batch["input_ids"] % STEP)[real].all()
        for row, index in enumerate(batch["index"]):
            tokens.append((int(index), batch["input_ids"][row][real[row]]))
    once = dict(tokens)  # the last batch begins the next epoch
    found = np.sort(np.concatenate(list(once.values())))
    table = tables["token"]
    expected = np.concatenate([table[i]["input_ids"] for i in range(NUM)])
    np.testing.assert_array_equal(found, np.sort(expected))


@pytest.mark.parametrize("process_count", [1, 3])
def test_examples_that_share_rows_are_those_of_the_table(make, tables, process_count):
    options = {"process_count": process_count, "rows_multiple": 2}
    loaders = [
        make("pack classes", process_index=p, **options) for p in range(process_count)
    ]
    targets = tables["class"].column("targets")
    for step in (0, 1, steps(loaders[0], 3)):
        parts = [loader.pipeline[step] for loader in loaders]
        tokens = parts[0]["input_ids"].size  # `shard_batch` counts over all processes
        for process, part in enumerate(parts):
            part["first_tokens"] = part["first_tokens"] + process * tokens
        whole = {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}
        index = loaders[0].plan.order.rows(step)
        np.testing.assert_array_equal(whole["index"], index)
        np.testing.assert_array_equal(whole["targets"], targets[index])
        assert whole["loss_mask"].tolist() == [1] * BATCH
        flat = {
            n: whole[n].ravel() for n in ("input_ids", "segment_ids", "position_ids")
        }
        used = np.zeros(flat["input_ids"].shape, bool)
        rows, length = whole["input_ids"].shape
        assert {part["input_ids"].shape for part in parts} == {
            (rows // process_count, length)
        }
        assert rows // process_count % 2 == 0
        for row, first in zip(whole["index"], whole["first_tokens"], strict=True):
            ids = tables["class"][int(row)]["input_ids"]
            span = slice(first, first + len(ids))
            np.testing.assert_array_equal(flat["input_ids"][span], ids)
            np.testing.assert_array_equal(flat["position_ids"][span], range(len(ids)))
            assert first // length == (first + len(ids) - 1) // length
            here = whole["segment_ids"][first // length] == flat["segment_ids"][first]
            assert here.sum() == len(ids)  # no other example of the row has its number
            assert flat["segment_ids"][first] > 0
            used[span] = True
        assert (flat["input_ids"][~used] == 1).all()
        assert not flat["segment_ids"][~used].any()


def test_shared_rows_hold_any_batch_and_leave_little_padding(make, tables):
    loader, padded = make("pack classes"), make("length")
    sizes = tables["class"].lengths["input"]
    length = loader.shapes[0]["input"]
    assert length == 40  # the longest has 40
    most = np.sort(sizes)[-BATCH:]
    assert loader.shapes[-1]["rows"] >= num_rows_of(
        most, length=length, block_size=BATCH
    )
    assert len(loader.shapes) <= 4  # three chosen, and the one that holds any batch
    share, of_lengths = (made.padding(40)["share"] for made in (loader, padded))
    assert share < 0.6 * of_lengths
    one = make("pack classes", num_lengths=1)  # all batches are about as long
    assert one.padding(40)["share"] < share + 0.1
    counts = [shape["batches"] for shape in loader.padding(40)["shapes"]]
    assert sum(counts) == 40
    sizes = [len(batch["input_ids"]) for batch in take(loader, 0, steps(loader, 1))]
    assert len(loader.largest()["input_ids"]) == max(sizes)


class Texts:
    """Sentences of 1 to 12 words, and pairs of them."""

    def __len__(self):
        return 30

    def __repr__(self):
        return "Texts()"

    def __getitem__(self, index):
        generator = np.random.default_rng(index)
        words = [WORDS[i] for i in generator.integers(len(WORDS), size=2 + index % 9)]
        return {"text": " ".join(words[:-1]), "text_pair": words[-1], "targets": 1}


@pytest.mark.parametrize("side", ["right", "left"])
def test_batches_of_texts_are_those_of_the_tokenizer(tmp_path, side):
    tokenizer = make_tokenizer(padding_side=side)
    fields_fn = make_text_fields(tokenizer, max_length=32)
    table = tokenize(Texts(), fields_fn, cache_dir=tmp_path)
    assert repr(tokenize(Texts(), fields_fn, cache_dir=tmp_path)) == repr(table)
    shapes = choose_lengths(table.lengths, global_batch_size=5, num_lengths=3)
    loader = make_train_loader(
        table, global_batch_size=5, seed=0, group_by_length=True, shapes=shapes
    )
    found = set()
    for batch in take(loader, 0, 12):
        examples = [Texts()[i] for i in batch["index"]]
        length = batch["input_ids"].shape[1]
        expected = tokenizer(
            [example["text"] for example in examples],
            [example["text_pair"] for example in examples],
            padding="max_length",
            max_length=length,
            return_tensors="np",
        )
        for name, values in expected.items():
            np.testing.assert_array_equal(batch[name], values)
        assert batch["targets"].tolist() == [1] * 5
        assert batch.keys() == {*expected, "targets", "index", "loss_mask"}
        found.add(length)
    assert len(found) == len(shapes) > 1


def test_a_change_may_add_a_field_that_the_table_has_not(tables):
    """As masks do, which are drawn together with what they ask for."""

    def ask(row, generator):
        targets = np.where(generator.random(len(row["input_ids"])) < 0.5, 5, IGNORED)
        return {**row, "targets": targets.astype(np.int32)}

    class Unasked(TokenFields):
        def rows(self, example):
            (row,) = super().rows(example)
            return [{n: x for n, x in row.items() if n != "targets"}]

    table = tokenize(Lines(NUM), Unasked(), cache_dir=tables["folder"])
    assert "targets" not in table.fields
    for batching in ("pad", "length", "pack"):
        loader = make_token_loader(
            table,
            batching=batching,
            global_batch_size=4,
            seed=0,
            max_lengths=MAX_LENGTHS,
            augment=ask,
        )
        for batch in take(loader, 0, 3):
            real = batch.get("attention_mask", batch.get("segment_ids")) > 0
            assert batch["targets"].shape == batch["input_ids"].shape
            assert set(batch["targets"][real].tolist()) == {5, IGNORED}
            assert set(batch["targets"][~real].tolist()) <= {IGNORED}
    batches = list(make_eval_batches(table, global_batch_size=4, augment=ask))
    assert (batches[-1]["targets"][1:] == IGNORED).all()  # of the blank rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", [1, 8, 9, 13, 40])
def test_resume_anywhere_continues_the_stream(make, kind, start):
    """Steps 8 and 9 are about the end of the first epoch, 13 in the second."""
    unbroken = take(make(kind), 0, start + 4)[start:]
    again = make(kind)
    assert_same(take(again, again.check_state(make(kind).state(start)), 4), unbroken)


@pytest.mark.parametrize("kind", ["length, masked", "pack, masked"])
def test_workers_do_not_change_the_stream(make, kind):
    assert_same(take(make(kind), 3, 8), take(make(kind, num_workers=2), 3, 8))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "pack classes"])
@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_each_global_batch_and_agree_on_its_shape(
    make, kind, process_count
):
    whole = take(make(kind), 0, 20)
    shards = [
        take(make(kind, process_index=p, process_count=process_count), 0, 20)
        for p in range(process_count)
    ]
    joined = [
        {name: np.concatenate([shard[name] for shard in row]) for name in row[0]}
        for row in zip(*shards, strict=True)
    ]
    assert_same(joined, whole)


@pytest.mark.parametrize("kind", KINDS)
def test_grain_iterators_restore_at_every_element(make, kind):
    import grain

    pipeline = make(kind).pipeline[5:12].to_iter_dataset()
    grain.experimental.assert_equal_output_after_checkpoint(pipeline)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_counted_as_it_comes(make, tables, kind):
    loader = make(kind)
    table = tables[KINDS[kind][0]]
    for num in (1, 30):
        real, total, shapes = 0, 0, []
        for batch in take(loader, 0, num):
            names = [name for name in table.padding if name in batch]
            found = {table.padding[n].group: batch[n].shape[1] for n in names}
            shapes.append(found)
            rows = len(batch["input_ids"])
            total += rows * sum(found.values())
            if "first_tokens" in batch:
                shapes[-1] = found | {"rows": rows}
            if "segment_ids" in batch:
                real += int((batch["segment_ids"] > 0).sum())
            else:
                of = table.lengths.values()
                real += sum(int(lengths[batch["index"]].sum()) for lengths in of)
        counted = loader.padding(num)
        assert counted["real_tokens"] == real
        assert counted["all_tokens"] == total
        assert counted["share"] == pytest.approx(1 - real / total)
        expected = [{"lengths": s, "batches": shapes.count(s)} for s in loader.shapes]
        assert counted["shapes"] == expected
        assert sum(x["batches"] for x in expected) == num
    assert loader.padding() == loader.padding(steps(loader, 1))


def test_groups_of_length_and_packing_save_padding(make):
    share = {
        kind: make(kind).padding(30)["share"] for kind in ("pad", "length", "pack")
    }
    assert share["pad"] > 0.6
    assert share["length"] < 0.4  # of 12 rows, in lengths that are multiples of 8
    assert share["pack"] < 0.1
    assert len(make("length").shapes) == 3
    assert make("pad").shapes == ({"input": 41},)


@pytest.mark.parametrize("kind", ["pad, masked", "length, masked", "pack, masked"])
def test_random_changes_differ_between_epochs_and_not_between_runs(make, kind):
    loader, plain = make(kind), make(kind, augment=None)
    num = steps(loader, 3)
    batches, raw = take(loader, 0, num), take(plain, 0, num)
    seen = {}
    masked = []
    for batch, before in zip(batches, raw, strict=True):
        np.testing.assert_array_equal(batch["index"], before["index"])
        np.testing.assert_array_equal(batch["targets"], before["targets"])
        changed = batch["input_ids"] != before["input_ids"]
        assert (batch["input_ids"][changed] == MASKED).all()
        masked.append(changed[before["targets"] != IGNORED])
        for index, row in zip(batch["index"], changed, strict=True):
            seen.setdefault(int(index), []).append(tuple(np.flatnonzero(row)))
    assert 0.17 < np.concatenate(masked).mean() < 0.23
    assert np.mean([len(set(x)) > 1 for x in seen.values()]) > 0.5
    assert_same(batches, take(make(kind), 0, num))
    other = take(make(kind, seed=2), 0, 1)[0]
    assert (other["index"] != batches[0]["index"]).any()


def test_a_change_that_makes_a_row_longer_than_its_batch_is_refused(make):
    def double(row, generator):
        return {**row, "input_ids": np.tile(row["input_ids"], 2)}

    with pytest.raises(InputError, match="does not fit its batch"):
        take(make("pad, masked", augment=double), 0, 9)


def test_the_state_knows_the_stream(make, tables):
    loader = make("length")
    state = loader.state(5)
    assert loader.settings["max_length"] == 41  # the fields function's
    for changes, name in [
        ({"seed": 3}, "seed"),
        ({"num_lengths": 2}, "shapes"),
        ({"batching": "pad"}, "group_by_length"),
    ]:
        with pytest.raises(InputError, match=name):
            make("length", **changes).check_state(state)
    with pytest.raises(InputError, match="'source'"):
        make("pack").check_state(state)
    import json

    assert json.loads(json.dumps(state)) == state


def test_rows_are_counted_not_examples(tmp_path):
    table = tokenize(Lines(NUM), StrideFields(), cache_dir=tmp_path)
    loader = make_train_loader(table, global_batch_size=4, seed=0)
    assert loader.steps_per_epoch == len(table) / 4
    assert loader.shapes == ({"input": 10},)


def test_shapes_need_no_grouping(tables):
    table = tables["class"]
    shapes = choose_lengths(table.lengths, global_batch_size=2, num_lengths=4)
    loader = make_train_loader(table, global_batch_size=2, seed=0, shapes=shapes)
    found = [x["input_ids"].shape[1] for x in take(loader, 0, 40)]
    assert set(found) == {shape["input"] for shape in shapes}


def test_options_of_another_kind_of_source_are_refused(make, tables):
    table = tables["token"]
    feed = {"global_batch_size": 2, "seed": 0}
    with pytest.raises(InputError, match="leave fields_fn out"):
        make_train_loader(table, fields_fn=dict, **feed)
    with pytest.raises(InputError, match="give one"):
        make_train_loader(Lines(3), **feed)
    for option in ({"group_by_length": True}, {"shapes": [{"input": 3}]}):
        with pytest.raises(InputError, match="options of rows of tokens"):
            make_train_loader(Lines(3), fields_fn=dict, **option, **feed)
    packed = pack(table, length=41, seed=0)
    with pytest.raises(InputError, match="leave shapes at None"):
        make_train_loader(packed, shapes=[{"input": 50}], **feed)
    with pytest.raises(InputError, match=r"'bin'; expected one of .*'pack'"):
        make("pad", batching="bin")
    with pytest.raises(InputError, match="longest rows"):
        make("pad", max_lengths={"input": 20})
