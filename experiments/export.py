# SPDX-License-Identifier: Apache-2.0
"""Write a run's best checkpoint, or a folder anew, as a Hugging Face folder.

    python -m experiments.export --workdir=runs/digits/20260101-120000 --to=digits-vit

With ``--model`` it changes the size of the files or the dtype of a folder. An adapter
is folded into its base.
"""

import jax.numpy as jnp
from absl import flags

import jft
from experiments import keep
from jft import train
from jft.config import new_flags, run_without_config
from jft.types import InputError

FLAGS = new_flags()
keep.define_model_flags(FLAGS)
TO = flags.DEFINE_string("to", None, "Folder to write.", FLAGS)
MAX_SHARD_SIZE = flags.DEFINE_string("max_shard_size", "5GB", "Of one file.", FLAGS)
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Dtype.", FLAGS)


def main() -> None:
    """Write the folder and say what is in it."""
    if TO.value is None:
        raise InputError("--to is missing; name the folder to write.")
    model = jft.fold(keep.load_trained(FLAGS)[0])
    written = jft.save(
        TO.value,
        model,
        params=train.cast_floating(model.params, jnp.dtype(DTYPE.value)),
        max_shard_size=MAX_SHARD_SIZE.value,
    )
    for file in written:
        print(f"{file} ({file.stat().st_size:,} bytes)")


if __name__ == "__main__":
    run_without_config(main, flag_values=FLAGS)
