# SPDX-License-Identifier: Apache-2.0
"""Compiled programs are kept, so that the next start need not compile them again."""

import hashlib
import platform
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from jft.files import cache_folder

# compiling that takes less is not worth a file
MIN_COMPILE_SECONDS = 0.1
MAX_BYTES = 4 << 30  # of the folder; what was not used for longest goes first


def keep_compiled() -> Path:
    """Keep what jax compiles from here on in ``$JFT_CACHE/compiled``.

    A folder that was already chosen by ``JAX_COMPILATION_CACHE_DIR`` stays. Programs
    are found by jax's own key: their text, the compiler's version and flags, and the
    kind of device. Programs for the CPU use what the processor can do, so processors
    of unlike abilities that share a home directory have folders of their own.

    Returns:
      The folder.
    """
    chosen: str | None = jax.config.values["jax_compilation_cache_dir"]
    if chosen is not None:
        return Path(chosen)
    folder = cache_folder() / "compiled" / _processor()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    compilation_cache.reset_cache()  # else programs compiled before have settled it
    return folder


def _processor() -> str:
    """Name the abilities of this machine's processor, the same for the same ones."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not on Linux
        lines = []
    abilities = [line for line in lines if line.startswith(("flags", "Features"))]
    text = abilities[0] if abilities else platform.processor()
    digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    return f"{platform.machine()}-{digest}"
