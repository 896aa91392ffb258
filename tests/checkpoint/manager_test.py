# SPDX-License-Identifier: Apache-2.0
"""A checkpoint comes back bit for bit or is refused; half a save is never listed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jft.checkpoint import CheckpointError, Checkpoints, tree_digest


@pytest.mark.parametrize("asynchronous", [True, False])
def test_round_trip_is_bitwise(tmp_path, example, asynchronous):
    state = example.make_state(3)
    state["trainable"]["head"]["w"] *= jnp.nan
    history = [{"step": 1, "split": "train", "loss": 1 / 3}]
    with Checkpoints(tmp_path / "c", asynchronous=asynchronous) as checkpoints:
        checkpoints.save(
            7,
            state,
            data_state={"next_step": 7},
            history=history,
            manifest=example.manifest,
            best_value=0.5,
        )
        history.append({"step": 2})
    restored = Checkpoints(tmp_path / "c").restore(
        7, example.abstract(state), expect=example.manifest
    )
    example.assert_bitwise(restored.arrays, state)
    assert restored.data_state == {"next_step": 7}
    assert restored.history == [{"step": 1, "split": "train", "loss": 1 / 3}]
    assert (restored.manifest.step, restored.manifest.best_value) == (7, 0.5)
    assert restored.manifest.open_groups == ("3", "4")
    assert restored.skipped == ()


def test_arrays_may_be_donated_at_once(tmp_path, example):
    state = {"w": jnp.arange(1 << 18, dtype=jnp.float32)}
    before = np.array(state["w"])
    overwrite = jax.jit(
        lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0
    )
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, data_state={}, history=[], manifest=example.manifest)
        result = overwrite(state)
        assert state["w"].is_deleted()
    restored = checkpoints.restore(1, result, expect=example.manifest)
    np.testing.assert_array_equal(restored.arrays["w"], before)


def test_restored_arrays_are_donatable_and_placed_as_asked(tmp_path, example):
    mesh = Mesh(np.array(jax.devices()), ("fsdp",))
    sharded = NamedSharding(mesh, PartitionSpec("fsdp"))
    state = {
        "count": jnp.asarray(1),
        "w": jax.device_put(jnp.arange(4096.0), sharded),
    }
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, data_state={}, history=[], manifest=example.manifest)
    restored = checkpoints.restore(1, state, expect=example.manifest).arrays
    assert restored["w"].sharding == sharded
    assert not restored["count"].committed  # or it could not meet the mesh below
    step = jax.jit(lambda s: {"count": s["count"] + 1, "w": -s["w"]}, donate_argnums=0)
    step(restored)  # "donated buffers were not usable" would be an error here
    assert restored["w"].is_deleted()
    whole = {k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in state.items()}
    elsewhere = checkpoints.restore(1, whole, expect=example.manifest).arrays
    example.assert_bitwise(elsewhere, jax.device_get(state))


def test_part_reads_only_its_leaves(tmp_path, example):
    with Checkpoints(tmp_path) as checkpoints:
        example.save(checkpoints, 1)
    state = example.make_state(1)
    restored = checkpoints.restore(
        1, example.abstract(state["trainable"]), expect=None, part="trainable"
    )
    example.assert_bitwise(restored.arrays, state["trainable"])


def test_keeps_last_best_and_every(tmp_path, example):
    values = {1: 0.3, 2: 0.9, 3: 0.5, 4: None, 5: 0.9, 6: float("nan"), 7: 0.1, 8: 0.2}
    with Checkpoints(tmp_path, keep_last=2, keep_best=1, keep_every=4) as checkpoints:
        for step, value in values.items():
            example.save(checkpoints, step, best_value=value)
        checkpoints.wait()
        assert checkpoints.steps() == [2, 4, 7, 8]
    again = Checkpoints(tmp_path)
    assert (again.latest_step(), again.best_step()) == (8, 2)
    assert Checkpoints(tmp_path, best_mode="min").best_step() == 7
    assert {p.name for p in tmp_path.iterdir()} == {
        f"{step:08d}" for step in (2, 4, 7, 8)
    }


def test_a_save_replaces_its_step_and_voids_the_later_ones(tmp_path, example):
    with Checkpoints(tmp_path, keep_last=9) as checkpoints:
        for step in (1, 2, 3):
            example.save(checkpoints, step, best_value=float(step))
        state = example.make_state(99)
        checkpoints.save(2, state, data_state={}, history=[], manifest=example.manifest)
    assert checkpoints.steps() == [1, 2]
    restored = checkpoints.restore(2, state, expect=example.manifest)
    example.assert_bitwise(restored.arrays, state)


def test_reading_changes_nothing(tmp_path, example):
    absent = Checkpoints(tmp_path / "none")
    assert (absent.steps(), absent.latest_step(), absent.best_step()) == (
        [],
        None,
        None,
    )
    assert not absent.directory.exists()
    unfinished = tmp_path / ".00000003.tmp"
    for name in (unfinished.name, "00000004", "5", "x"):
        (tmp_path / name).mkdir()
    (tmp_path / "5" / "SHA256SUMS").touch()  # of another tool: our names have 8 digits
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == []
        assert unfinished.exists()
        example.save(checkpoints, 6)
    assert checkpoints.steps() == [6]
    assert not unfinished.exists()


def test_what_a_kill_left_goes_though_nothing_is_saved(tmp_path, example):
    with Checkpoints(tmp_path) as checkpoints:
        example.save(checkpoints, 1)
    for name in (".00000003.tmp", ".00000002.deleted.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").touch()
    Checkpoints(tmp_path).tidy()
    assert [x.name for x in tmp_path.iterdir()] == ["00000001"]


def test_a_failed_save_surfaces_and_is_never_listed(tmp_path, example, monkeypatch):
    from orbax.checkpoint import v1 as ocp

    checkpoints = Checkpoints(tmp_path)
    example.save(checkpoints, 1)
    checkpoints.wait()

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ocp, "save", full_disk)
        example.save(checkpoints, 2)
        with pytest.raises(CheckpointError, match=r"No space left.*finished step is 1"):
            example.save(checkpoints, 3)
    assert checkpoints.steps() == [1]
    example.save(checkpoints, 4)
    checkpoints.close()
    assert checkpoints.steps() == [1, 4]


def test_a_failed_last_save_surfaces_on_close(tmp_path, example, monkeypatch):
    monkeypatch.setattr("jft.checkpoint.sums.seal", lambda folder: 1 / 0)
    with pytest.raises(CheckpointError, match="ZeroDivisionError"):  # noqa: SIM117
        with Checkpoints(tmp_path) as checkpoints:
            example.save(checkpoints, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("base_digest", "d" * 64, r"base differs.*'vit'.*dddddddddddd.*bbbbbbbbbbbb"),
        (
            "labels",
            {"body/w": "frozen", "head/w": "x"},
            "head/w is 'x' here, 'head' in",
        ),
        ("labels", {"head/w": "head"}, "body/w is None here, 'frozen' in"),
        ("config_digest", "e" * 64, "configuration differs"),
    ],
)
def test_another_run_is_refused(tmp_path, example, field, value, match):
    with Checkpoints(tmp_path) as checkpoints:
        example.save(checkpoints, 0)
        example.save(checkpoints, 1)
    other = dataclasses.replace(example.manifest, **{field: value})
    abstract = example.abstract(example.make_state())
    with pytest.raises(CheckpointError, match=match):
        checkpoints.restore(1, abstract, expect=other)
    with pytest.raises(CheckpointError, match=r"^checkpoint .*1 does not fit"):
        checkpoints.restore_latest(abstract, expect=other, on_corrupt="fall_back")
    moved = dataclasses.replace(example.manifest, base="elsewhere/vit")
    assert checkpoints.restore(1, abstract, expect=moved).manifest.base == "vit"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda s: s.pop("ema"), r"not asked for: \['ema/head.w'\]"),
        (lambda s: s.update(more=s["step"]), r"missing in it: \['more'\]"),
        (
            lambda s: s.update(key=jax.ShapeDtypeStruct((4,), "uint32")),
            r"key: needs uint32\[4\], checkpoint has uint32\[2\]",
        ),
        (
            lambda s: s.update(step=jax.ShapeDtypeStruct((), "int16")),
            r"step: needs int16\[\], checkpoint has int32\[\]",
        ),
    ],
)
def test_another_tree_is_refused(tmp_path, example, change, match):
    with Checkpoints(tmp_path) as checkpoints:
        example.save(checkpoints, 1)
    abstract = example.abstract(example.make_state())
    change(abstract)
    with pytest.raises(CheckpointError, match=match):
        checkpoints.restore(1, abstract, expect=example.manifest)


def test_other_bad_input(tmp_path, example):
    with pytest.raises(CheckpointError, match="keep_last is 0"):
        Checkpoints(tmp_path, keep_last=0)
    Checkpoints(tmp_path, keep_last=1)  # enough to resume
    checkpoints = Checkpoints(tmp_path / "c")
    with pytest.raises(
        CheckpointError, match=r"no finished checkpoint of step 3.*\[\]"
    ):
        checkpoints.restore(3, {}, expect=None)
    with pytest.raises(CheckpointError, match="no step was ever finished"):
        checkpoints.restore_latest({}, expect=example.manifest)
    for arrays, match in [
        ({"key": jax.random.key(0)}, "key is a typed key"),
        ({"a": {"b": jnp.ones(1)}, "a/b": jnp.ones(1)}, "contains a '/'"),
        ({"step": 3}, "step is a int, not an array"),
    ]:
        with pytest.raises(CheckpointError, match=match):
            checkpoints.save(
                1, arrays, data_state={}, history=[], manifest=example.manifest
            )
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot write checkpoints to"):
        example.save(Checkpoints(tmp_path / "file"), 1)


def test_float64_is_never_rounded_in_silence(tmp_path, example):
    state = {"w": np.ones(2)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, data_state={}, history=[], manifest=example.manifest)
    with pytest.raises(CheckpointError, match="jax_enable_x64"):
        checkpoints.restore(1, state, expect=example.manifest)
    with jax.enable_x64(True):
        restored = checkpoints.restore(1, state, expect=example.manifest)
    assert restored.arrays["w"].dtype == np.float64


def test_tree_digest_sees_every_change():
    tree = {"a": jnp.zeros((2, 3)), "b": None}
    same = {"a": np.zeros((2, 3), np.float32)}
    assert tree_digest(tree) == tree_digest(same)
    others = [
        {"c": same["a"]},
        {"a": same["a"].T},
        {"a": same["a"].astype(np.int32)},
        {"a": same["a"] + np.float32(1e-45)},
        {**same, "b": np.zeros(1)},
    ]
    assert len({tree_digest(x) for x in [tree, *others]}) == 6
