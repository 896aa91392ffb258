# SPDX-License-Identifier: Apache-2.0
"""Strict JAX, four CPU devices, no network, and the fixtures many tests share."""

import atexit
import contextlib
import gc
import importlib.metadata
import itertools
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's second thread would but wait
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers and their children share it
    os.environ["JFT_CACHE"] = tempfile.mkdtemp(prefix="jft-tests-")
    atexit.register(shutil.rmtree, os.environ["JFT_CACHE"], ignore_errors=True)
# most time goes into compiling: what one test has compiled another need not compile
# again, and few programs run for long enough to be worth LLVM's slower passes
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones may end at
    # a flag that they no longer know; a third of the time that compiling takes else
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
    )
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{os.environ['JFT_CACHE']}/jax")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from tests import type_checks

jaxtyping.jaxtyped = type_checks.checked  # before jft is imported

from jft.models import get_family, make_apply_fn  # noqa: E402
from jft.params import init_params  # noqa: E402

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")  # GPUs round to TF32 else


@pytest.fixture(autouse=True, scope="session")
def _no_network():
    """Any connection beyond this machine is an error of the test."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
            raise RuntimeError(f"a test tried to reach {address}")
        return connect(self, address)

    socket.socket.connect = guarded
    yield
    socket.socket.connect = connect


FILES_BETWEEN_CLEARINGS = 20  # most of the suite, on two workers, fills it

_files_done = itertools.count(1)


@pytest.fixture(autouse=True, scope="module")
def _room_for_programs():
    """jit keeps 8192 programs a process; when full it keeps no new one, nor counts it.

    Small arrays' operations are programs too, one a shape.
    """
    yield
    if next(_files_done) % FILES_BETWEEN_CLEARINGS == 0:
        jax.clear_caches()


def pytest_collection_finish() -> None:
    """Garbage is looked for less often, and not in what was imported, which stays."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets, or a skip that says what is missing."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("JFT_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"real data sets are absent: {folder} (set JFT_DATA)")
    return folder


@pytest.fixture
def no_implicit_transfer(monkeypatch) -> Callable[[], AbstractContextManager[None]]:
    """A context in which only ``device_put`` and ``device_get`` move arrays.

    jax's own guard lets a CPU's arrays be read, so reading is guarded here.
    """
    array, device_get, asked = type(jnp.zeros(())), jax.device_get, []

    def explicit(tree: Any) -> Any:
        asked.append(tree)
        try:
            return device_get(tree)
        finally:
            asked.pop()

    def checked(read: Callable[..., Any]) -> Callable[..., Any]:
        def reading(self: Any, *args: Any, **options: Any) -> Any:
            assert asked, "an array was read without jax.device_get"
            return read(self, *args, **options)

        return reading

    @contextlib.contextmanager
    def guard() -> Iterator[None]:
        with jax.transfer_guard("disallow"), monkeypatch.context() as patch:
            patch.setattr(jax, "device_get", explicit)
            for name in ("__array__", "__bool__", "__float__", "__index__", "__int__"):
                patch.setattr(array, name, checked(getattr(array, name)))
            yield

    return guard


class TinyModel(NamedTuple):
    """A two-block ViT of the real family: everything a training test needs."""

    apply_fn: Any
    params: Any  # float32
    layer_index: Any
    num_layers: int

    def batch(self, size: int, *, seed: int = 0, ragged: int = 0) -> dict[str, Any]:
        """Random images; the last ``ragged`` rows are padding."""
        rng = np.random.default_rng(seed)
        return {
            "pixel_values": rng.normal(size=(size, 8, 8, 1)).astype(np.float32),
            "targets": rng.integers(0, 5, size).astype(np.int32),
            "loss_mask": (np.arange(size) < size - ragged).astype(np.float32),
        }


def build_tiny_vit(**changes: Any) -> TinyModel:
    """Build the tiny ViT, its weights scaled until its logits have a spread."""
    config = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 8,
        "patch_size": 4,
        "num_channels": 1,
        "id2label": {str(i): str(i) for i in range(5)},
        **changes,
    }
    family = get_family("vit")
    config = family.config_from_dict(config)
    module = family.make_module(config, "image_classification")
    params = init_params(
        family, config, task="image_classification", key=jax.random.key(0)
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: x + rng.normal(size=x.shape, scale=0.2).astype(np.float32), params
    )
    return TinyModel(
        make_apply_fn(module),
        params,
        family.layer_index(config),
        family.num_layers(config),
    )


@pytest.fixture(scope="session")
def make_tiny_vit() -> Callable[..., TinyModel]:
    return build_tiny_vit


@pytest.fixture(scope="session")
def tiny_vit() -> TinyModel:
    return build_tiny_vit()
