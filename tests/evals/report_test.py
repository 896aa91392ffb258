# SPDX-License-Identifier: Apache-2.0
"""Metrics are on disk at once, and a resumed file equals an unbroken one."""

import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jft.evals import MetricLog, write_summary

HISTORY = [
    {"step": 10, "split": "train", "loss": 1.25},
    {"step": 10, "split": "validation", "loss": 1.5, "accuracy": np.float32(0.1)},
    {"step": 20, "split": "train", "loss": math.nan},
]


def read_lines(workdir):
    return [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]


def read_events(workdir):
    from tensorboardX.event_file_writer import EventsWriter  # noqa: F401 - same format
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted((workdir / "tensorboard").glob("events*")):
        data, at = path.read_bytes(), 0
        while at < len(data):  # TFRecord: length, its checksum, payload, its checksum
            size = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + size])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            at += 16 + size
    return found


def test_a_line_is_on_disk_as_soon_as_written(tmp_path):
    with MetricLog(tmp_path) as log:
        for count, record in enumerate(HISTORY, start=1):
            log.write(record)
            assert len(read_lines(tmp_path)) == count
    assert read_lines(tmp_path) == [
        {"step": 10, "split": "train", "loss": 1.25},
        {
            "step": 10,
            "split": "validation",
            "loss": 1.5,
            "accuracy": 0.10000000149011612,
        },
        {"step": 20, "split": "train", "loss": None},
    ]


def test_events_hold_every_number(tmp_path):
    with MetricLog(tmp_path) as log:
        for record in HISTORY[:2]:
            log.write(record)
    assert read_events(tmp_path) == [
        ("train/loss", 10, 1.25),
        ("validation/loss", 10, 1.5),
        ("validation/accuracy", 10, np.float32(0.1)),
    ]


def test_a_resumed_file_equals_an_unbroken_one(tmp_path):
    unbroken, resumed = tmp_path / "unbroken", tmp_path / "resumed"
    for workdir in (unbroken, resumed):
        workdir.mkdir()
        with MetricLog(workdir) as log:
            for record in HISTORY:
                log.write(record)
    with (resumed / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "spl')  # a line cut off by a kill
    for events in list((resumed / "tensorboard").iterdir()):
        events.rename(f"{events}.earlier")  # the new file's name has the clock in it
    with MetricLog(resumed, HISTORY[:2]) as log:  # a checkpoint from before step 20
        log.write(HISTORY[2])
    files = [workdir / "metrics.jsonl" for workdir in (resumed, unbroken)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert [e[:2] for e in read_events(resumed)] == [
        e[:2] for e in read_events(unbroken)
    ]


def test_summary_is_strict_json(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text("old")
    summary = {
        "test": {"accuracy": np.float32(0.5), "loss": float("inf")},
        "steps": np.int64(7),
        "targets": jnp.arange(2),
        "export": Path("a/b"),
        "phases": ({"start": 0, "stop": None},),
        "finished": True,
        2: "ü",
    }
    write_summary(path, summary)

    def refuse(text):
        raise AssertionError(text)

    assert json.loads(path.read_text("utf-8"), parse_constant=refuse) == {
        "test": {"accuracy": 0.5, "loss": None},
        "steps": 7,
        "targets": [0, 1],
        "export": "a/b",
        "phases": [{"start": 0, "stop": None}],
        "finished": True,
        "2": "ü",
    }
    assert list(tmp_path.iterdir()) == [path]


def test_a_summary_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_summary(path, {"bad": {1 + 2j}})
    assert path.read_text() == "old"
