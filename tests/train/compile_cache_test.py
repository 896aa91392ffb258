# SPDX-License-Identifier: Apache-2.0
"""A second start finds the compiled program; unlike processors share none."""

import os
import subprocess
import sys
from pathlib import Path

from jft.train import compile_cache

# prints where programs are kept, and how many were found there and how many were not
SCRIPT = """
import jax, jax.numpy as jnp
from jft import train

counts = {"hits": 0, "misses": 0}
def count(event, **_):
    name = event.rpartition("cache_")[2]
    if name in counts:
        counts[name] += 1
jax.monitoring.register_event_listener(count)

float(jax.jit(lambda x: x + 1)(1.0))  # compiled before, kept nowhere
folder = train.keep_compiled()
def deep(x):
    for i in range(40):
        x = jnp.tanh(x @ x) + i
    return x.sum()
step = jax.jit(jax.grad(deep), donate_argnums=0).lower(jnp.ones((32, 32))).compile()
assert step.cost_analysis()["flops"] > 1e6 and step.memory_analysis() is not None
print(folder, counts["hits"], counts["misses"], float(step(jnp.ones((32, 32))).sum()))
"""


def run_script(**environment):
    kept = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=kept | environment,
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
        text=True,
    )
    folder, hits, misses, value = done.stdout.split()
    return Path(folder), int(hits), int(misses), value


def test_the_second_start_finds_the_program(tmp_path):
    folder, hits, misses, value = run_script(JFT_CACHE=str(tmp_path))
    assert folder.parent == tmp_path / "compiled"
    assert hits == 0
    assert misses >= 1
    assert any(folder.iterdir())
    again = run_script(JFT_CACHE=str(tmp_path))
    assert again[:2] == (folder, 1)
    assert again[3] == value


def test_a_folder_already_chosen_stays(tmp_path):
    chosen = str(tmp_path / "mine")
    assert run_script(JAX_COMPILATION_CACHE_DIR=chosen)[0] == Path(chosen)


def test_unlike_processors_have_folders_of_their_own(monkeypatch):
    names = []
    for flags in ("fpu avx2", "fpu avx2 avx512f", "fpu avx2"):
        text = f"processor : 0\nflags : {flags}\n"
        monkeypatch.setattr(Path, "read_text", lambda path, text=text: text)
        names.append(compile_cache._processor())
    assert names[0] == names[2] != names[1]
