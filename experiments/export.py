# SPDX-License-Identifier: Apache-2.0
"""Write a run's best checkpoint, or a folder anew, as a Hugging Face folder.

    python -m experiments.export --workdir=runs/digits/20260101-120000 --to=digits-vit

With ``--model`` it changes the size of the files or the dtype of a folder. An adapter
is folded into its base; one that cannot be is written alone.
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
    model, dtype = keep.load_trained(FLAGS)[0], jnp.dtype(DTYPE.value)
    apart = model.adapter is not None and not model.adapter.foldable
    if not apart:
        model = jft.fold(model)
    params = train.cast_floating(model.params, dtype)
    if apart:
        written = jft.save_adapter(TO.value, model, params=params)
    else:
        size = MAX_SHARD_SIZE.value
        written = jft.save(TO.value, model, params=params, max_shard_size=size)
    for file in written:
        print(f"{file} ({file.stat().st_size:,} bytes)")


if __name__ == "__main__":
    run_without_config(main, flag_values=FLAGS)
