# SPDX-License-Identifier: Apache-2.0
"""Record what transformers writes with GPT-2 of drawn weights, for each setting.

    python -m tests.evals.make_golden

Needs torch (the ``parity`` extra). The weights are drawn from the checkpoint's keys, so
the recording holds tokens and scores alone.
"""

import tempfile
from pathlib import Path

import numpy as np

from tests.evals import generate_peer as cases


def record() -> None:
    """Write the recording."""
    arrays = {}
    with tempfile.TemporaryDirectory() as folder:
        model, _ = cases.make_model("gpt2", "causal_lm", Path(folder))
        for name, settings in cases.SETTINGS.items():
            for width, num_new in cases.SIZES:
                batch = cases.make_prompts("causal_lm", width)
                settings = {**cases.BASE, **settings, "max_new_tokens": num_new}
                tokens, scores = cases.torch_generate(model, batch, settings)
                arrays[f"{name}.{width}.tokens"] = tokens.astype(np.int16)
                if scores is not None:
                    arrays[f"{name}.{width}.scores"] = scores
                print(f"{name:16} {width} {tokens.tolist()}")
    cases.GOLDEN.parent.mkdir(exist_ok=True)
    np.savez_compressed(cases.GOLDEN, **arrays)


if __name__ == "__main__":
    record()
