# SPDX-License-Identifier: Apache-2.0
"""An adapter's settings as PEFT's ``adapter_config.json``, and back.

A method that PEFT has not is written in the same form, with a ``peft_type`` of jft's.
"""

import dataclasses
import functools
import re
from collections.abc import Collection, Mapping
from typing import Any

from jft.params.adapters.adapter import Adapter, Stored
from jft.params.adapters.peft_names import Names, task_type
from jft.params.adapters.tree import norms_of
from jft.types import InputError

# options that change nothing of what a loaded adapter computes, or that tensors tell
_NEUTRAL = {
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "fan_in_fan_out",
    "inference_mode", "init_ia3_weights", "layers_pattern", "layers_to_transform",
    "loftq_config", "megatron_core", "modules_to_save", "peft_type",
    "peft_version", "qalora_group_size", "revision", "target_modules", "task_type",
}  # fmt: skip


def to_peft_config(
    adapter: Adapter,
    *,
    adapted: Collection[str],
    saved: Collection[str],
    names: Names,
    task: str,
    base_model: str | None,
) -> dict[str, Any]:
    """Say in PEFT's words what an adapter is.

    Args:
      adapter: the method, neither a prompt nor a prefix.
      adapted: the modules that it adapts, or norms that it tunes.
      saved: the modules of the base that are kept with it.
      names: the model's.
      task: the model's.
      base_model: the name or folder of the base, for PEFT's ``AutoPeftModel``.

    Returns:
      The dict that becomes adapter_config.json.
    """
    common = {
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "modules_to_save": sorted(names.modules[path] for path in saved) or None,
        "peft_type": adapter.peft_type,
        "target_modules": short_names(adapted, names),
        "task_type": task_type(task),
    }
    if adapter.endings:
        conv1d = names.family.conv1d
        turned = any(re.fullmatch(conv1d, f"{path}/kernel") for path in adapted)
        common["fan_in_fan_out"] = turned
    return {**common, **adapter.peft_options(adapted, names)}


def short_names(adapted: Collection[str], names: Names) -> list[str]:
    """The last parts of the modules' names, where they name these and no others."""
    full = sorted(names.modules[path] for path in adapted)
    short = sorted({name.rpartition(".")[2] for name in full})
    every = {
        ".".join(parts[: i + 1])
        for name in names.modules.values()
        for parts in [name.split(".")]
        for i in range(len(parts))
    }
    named = sorted(name for name in every if name.rpartition(".")[2] in short)
    return short if named == full else full


def check_peft_config(method: type[Adapter], config: Mapping[str, Any]) -> None:
    """Refuse options of an adapter_config.json that the method has not."""
    unknown = {
        name: value
        for name, value in config.items()
        if name not in _NEUTRAL | {*method.known}
        and value not in (None, False, [], {}, "none")
    }
    if unknown:
        raise InputError(
            f"adapter_config.json sets {unknown}, which jft has not; of a "
            f"{method.peft_type} it knows {sorted(method.known)}."
        )


def from_peft_config(
    method: type[Adapter], config: Mapping[str, Any], stored: Stored, names: Names
) -> Adapter:
    """Read PEFT's settings; which modules are adapted, and how wide, the tensors tell.

    Args:
      method: the class of its peft_type.
      config: adapter_config.json.
      stored: the tensors that came with it.
      names: the model's.
    """
    adapter = method.from_peft(config, stored, names)
    norms = norms_of(names.tensors)
    moves = functools.partial(adapter.moves, adapted=stored.leaves_of, norms=norms)
    rest = (path for path in sorted(stored.trained) if not moves(path))
    return dataclasses.replace(adapter, also_train=tuple(map(re.escape, rest)))
