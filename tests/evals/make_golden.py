# SPDX-License-Identifier: Apache-2.0
"""Record what transformers writes with tiny models of drawn weights.

    python -m tests.evals.make_golden

Needs torch (the ``parity`` extra). The weights are drawn from the checkpoint's keys, so
the recording holds tokens and scores alone.
"""

import itertools
import tempfile
from pathlib import Path

import numpy as np

from tests.evals import generate_peer as cases


def record() -> None:
    """Write the recording."""
    arrays = {}
    for (model_type, task), names in cases.RECORDED.items():
        config, _ = cases.make_config(model_type, task)
        with tempfile.TemporaryDirectory() as folder:
            model, _ = cases.make_models(model_type, task, Path(folder))
        for name, (width, num_new) in itertools.product(names, cases.SIZES):
            settings = cases.make_settings(name, config, num_new)
            batch = cases.make_prompts(task, width)
            tokens, scores = cases.torch_generate(model, batch, settings)
            arrays[f"{model_type}.{name}.{width}.tokens"] = tokens.astype(np.int16)
            if scores is not None:
                arrays[f"{model_type}.{name}.{width}.scores"] = scores
            print(f"{model_type:5} {name:16} {width} {tokens.tolist()}")
    cases.GOLDEN.parent.mkdir(exist_ok=True)
    np.savez_compressed(cases.GOLDEN, **arrays)


if __name__ == "__main__":
    record()
