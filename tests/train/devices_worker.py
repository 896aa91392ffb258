# SPDX-License-Identifier: Apache-2.0
"""One step of one batch over 1, 2, 4 and 8 devices; `sharding_test` starts it."""

import sys

import jax
import numpy as np
import optax

from tests.conftest import build_tiny_vit  # settles how strict jax is, too
from tests.train.sharding_test import train


def main(file):
    """Keep of each number of devices the loss and every gradient."""
    jax.config.update("jax_num_cpu_devices", 8)
    model, found = build_tiny_vit(), {}
    for count in (1, 2, 4, 8):
        trained = train(
            model,
            "data",
            num_steps=1,
            optimizer=optax.trace(decay=0.9),
            devices=jax.devices()[:count],
        )
        found |= {f"{count} {path}": x for path, x in trained.traces.items()}
        found[f"{count} loss"] = np.asarray(trained.losses)
    np.savez(file, **found)


if __name__ == "__main__":
    main(sys.argv[1])
