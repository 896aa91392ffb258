# SPDX-License-Identifier: Apache-2.0
"""Record what torch answers for every head of the table's families.

    python -m tests.models.make_golden            # all
    python -m tests.models.make_golden bert gpt2  # some

Needs torch (the ``parity`` extra). A file holds the config, the batch, and for each
task torch's outputs and a digest of the keys and shapes that transformers writes; the
weights are drawn from the keys, by ``peer.draw``.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from jft.models import MODELS
from tests.models import peer
from tests.models.table import TABLE


def record(model_type: str) -> None:
    """Write the recording of one family."""
    row = TABLE[model_type]
    batch = peer.make_batch(row, row.config)
    arrays = {f"batch.{name}": array for name, array in batch.items()}
    arrays["config"] = np.asarray(str(dict(row.config)))
    for task in MODELS[model_type].heads:
        config = peer.full_config(model_type, row, task)
        with tempfile.TemporaryDirectory() as folder:
            shapes = peer.write_folder(
                Path(folder), model_type, config, task, row.scales
            )
            model = peer.read_torch(folder, model_type, task)
            batch = peer.make_batch(row, config, task)
            outputs = peer.torch_forward(model, task, batch).detach().numpy()
        arrays[f"{task}.outputs"] = outputs
        arrays[f"{task}.keys"] = np.asarray(peer.key_hash(shapes))
        real = peer.real_positions(task, batch)
        print(f"{model_type:12} {task:24} spread {peer.spread(outputs, real):.2f}")
    np.savez_compressed(peer.golden_file(model_type), **arrays)


if __name__ == "__main__":
    for name in sys.argv[1:] or TABLE:
        record(name)
