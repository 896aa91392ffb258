# SPDX-License-Identifier: Apache-2.0
"""Where prepared data are kept between runs."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$JFT_CACHE``, or ``~/.cache/jft``; deleting it is always safe."""
    return Path(os.environ.get("JFT_CACHE") or Path.home() / ".cache" / "jft")
