# SPDX-License-Identifier: Apache-2.0
"""An adapter's settings as PEFT's ``adapter_config.json``, and back.

A method that PEFT has not is written in the same form, with a ``peft_type`` of jft's.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from jft.params.adapters.adapter import Adapter
from jft.params.adapters.bottleneck import Bottleneck
from jft.params.adapters.ia3 import Ia3
from jft.params.adapters.lora import Lora, rank_of
from jft.params.adapters.peft_names import Names, task_type
from jft.params.adapters.peft_prompts import METHODS
from jft.params.adapters.peft_tensors import Stored
from jft.params.adapters.targets import pattern_value
from jft.params.adapters.tree import norms_of
from jft.params.adapters.tuning import BitFit, NormTuning
from jft.params.adapters.vera import Vera
from jft.types import InputError

AdapterT = TypeVar("AdapterT", bound=Adapter)

# options that change nothing of what a loaded adapter computes, or that tensors tell
_NEUTRAL = {
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "fan_in_fan_out",
    "inference_mode", "init_ia3_weights", "layers_pattern", "layers_to_transform",
    "loftq_config", "lora_dropout", "megatron_core", "modules_to_save", "peft_type",
    "peft_version", "qalora_group_size", "revision", "target_modules", "task_type",
}  # fmt: skip
_LORA = {
    "alpha_pattern", "bias", "init_lora_weights", "lora_alpha", "r", "rank_pattern",
    "use_dora", "use_rslora",
}  # fmt: skip
_VERA = {
    "d_initial", "init_weights", "projection_prng_key", "r", "save_projection",
    "vera_dropout",
}  # fmt: skip
_KNOWN = {
    "IA3": {"feedforward_modules"},
    "JFT_BITFIT": set(),
    "JFT_BOTTLENECK": {"nonlinearity", "placement", "reduction_factor"},
    "LN_TUNING": set(),
    "LORA": _LORA,
    "VERA": _VERA,
}
_TUNINGS = {method.peft_type: method for method in (BitFit, NormTuning)}
# initialisations that change the base's own numbers when PEFT loads the adapter
_CHANGES_BASE = ("corda", "loftq", "lora_ga", "olora", "pissa")


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
    if isinstance(adapter, BitFit | NormTuning):
        return common
    conv1d = names.family.conv1d
    common["fan_in_fan_out"] = any(
        re.fullmatch(conv1d, f"{path}/kernel") for path in adapted
    )
    if isinstance(adapter, Ia3):
        on_inputs = [path for path in adapted if adapter.on_inputs(path)]
        common["target_modules"] = sorted(names.modules[path] for path in adapted)
        feedforward = sorted(names.modules[path] for path in on_inputs)
        return {**common, "feedforward_modules": feedforward}
    if isinstance(adapter, Lora):
        return {**common, **_lora_settings(adapter, adapted, names)}
    if isinstance(adapter, Vera):
        return {
            **common,
            "d_initial": adapter.d_initial,
            "projection_prng_key": 0,  # what it would draw is saved instead
            "r": adapter.rank,
            "save_projection": True,
            "vera_dropout": adapter.dropout,
        }
    assert isinstance(adapter, Bottleneck)
    settings = {name: getattr(adapter, name) for name in _KNOWN["JFT_BOTTLENECK"]}
    return {**common, **settings}


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


def _lora_settings(
    adapter: Lora, adapted: Collection[str], names: Names
) -> dict[str, Any]:
    twice = 2 if adapter.init_method == "pissa" else 1  # the rank as it is written
    ranks = {
        p: twice * pattern_value(adapter.rank_pattern, p, adapter.rank) for p in adapted
    }
    rank = twice * adapter.rank
    alphas = {
        path: adapter.scale(path) * (math.sqrt(r) if adapter.rslora else r)
        for path, r in ranks.items()
    }
    alpha = adapter.alpha * (math.sqrt(twice) if adapter.rslora else twice)

    def differing(values: Mapping[str, Any], usual: Any) -> dict[str, Any]:
        return {
            names.modules[path]: value
            for path, value in sorted(values.items())
            if not math.isclose(value, usual)
        }

    return {
        "alpha_pattern": differing(alphas, alpha),
        "bias": adapter.bias,
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "lora_dropout": adapter.dropout,
        "r": rank,
        "rank_pattern": differing(ranks, rank),
        "use_dora": adapter.dora,
        "use_rslora": adapter.rslora,
    }


def from_peft_config(
    config: Mapping[str, Any], stored: Stored, names: Names
) -> Adapter:
    """Read PEFT's settings; which modules are adapted, and how wide, the tensors tell.

    Args:
      config: adapter_config.json.
      stored: the tensors that came with it.
      names: the model's.

    Raises:
      InputError: for a method or an option that jft has not.
    """
    kind = config.get("peft_type")
    if kind not in _KNOWN:
        raise InputError(
            f"adapter_config.json: peft_type is {kind!r}; jft reads "
            f"{sorted(_KNOWN.keys() | METHODS)}."
        )
    usual = {"bias": "none"} if kind == "VERA" else {}
    unknown = {
        name: value
        for name, value in config.items()
        if name not in _NEUTRAL | _KNOWN[kind]
        and value not in (None, False, [], {}, usual.get(name))
    }
    if unknown:
        raise InputError(
            f"adapter_config.json sets {unknown}, which jft has not; of a {kind} it "
            f"knows {sorted(_KNOWN[kind])}."
        )
    targets = tuple(stored.leaves_of)
    if kind == "LORA":
        return _read_lora(config, stored, names)
    also_train = tuple(map(re.escape, sorted(stored.trained)))
    if kind in _TUNINGS:
        return _without_moved(_TUNINGS[kind](), stored, names)
    if kind == "VERA":
        return Vera(
            rank=config.get("r", 256),
            targets=targets,
            dropout=config.get("vera_dropout", 0.0),
            d_initial=config.get("d_initial", 0.1),
            also_train=also_train,
        )
    if kind == "JFT_BOTTLENECK":
        settings = {name: config[name] for name in _KNOWN[kind] if name in config}
        return Bottleneck(**settings, also_train=also_train)
    feedforward = tuple(
        path
        for path in targets
        if _names_module(config.get("feedforward_modules"), names.modules[path])
    )
    return Ia3(targets=targets, feedforward=feedforward, also_train=also_train)


def _read_lora(config: Mapping[str, Any], stored: Stored, names: Names) -> Lora:
    start = str(config.get("init_lora_weights", True)).lower()
    if start.startswith(_CHANGES_BASE):
        raise InputError(
            f"adapter_config.json: init_lora_weights is {start!r}, which changes the "
            "base too; save it as a plain LoRA, with save_pretrained(…, "
            "path_initial_model_for_weight_conversion=…)."
        )
    targets = tuple(stored.leaves_of)
    rank, alpha = config.get("r", 8), float(config.get("lora_alpha", 8))
    pattern = config.get("alpha_pattern") or {}
    for what in ("rank_pattern", "alpha_pattern"):
        _check_pattern(
            what, config.get(what) or {}, [names.modules[p] for p in targets]
        )
    alphas = {
        path: float(_value_of(pattern, names.modules[path], alpha)) for path in targets
    }
    ranks = {path: rank_of(xs, rank) for path, xs in stored.leaves_of.items()}
    adapter = Lora(
        rank=rank,
        alpha=alpha,
        targets=targets,
        rank_pattern=tuple((p, r) for p, r in ranks.items() if r != rank),
        alpha_pattern=tuple((p, a) for p, a in alphas.items() if a != alpha),
        rslora=config.get("use_rslora", False),
        dora=config.get("use_dora", False),
        dropout=config.get("lora_dropout", 0.0),
        bias=config.get("bias", "none"),
    )
    return _without_moved(adapter, stored, names)


def _without_moved(adapter: AdapterT, stored: Stored, names: Names) -> AdapterT:
    """The settings with what came along and is not the method's own to move."""
    norms = norms_of(names.tensors)
    moves = functools.partial(adapter.moves, adapted=stored.leaves_of, norms=norms)
    rest = (path for path in sorted(stored.trained) if not moves(path))
    return dataclasses.replace(adapter, also_train=tuple(map(re.escape, rest)))


def _check_pattern(
    what: str, pattern: Mapping[str, Any], adapted: Collection[str]
) -> None:
    """Refuse a pattern that names no adapted module, as `check_patterns` does."""
    for key in pattern:
        if not any(_value_of({key: True}, name, False) for name in adapted):
            raise InputError(
                f"adapter_config.json: {what} has {key!r}, which is none of the "
                f"adapted modules, such as {min(adapted)!r}; correct it, or take it "
                "out of the file."
            )


def _names_module(named: Any, name: str) -> bool:
    """Whether PEFT's list of names, or its regex, picks the module of that name."""
    if isinstance(named, str):
        return re.fullmatch(named, name) is not None
    return any(name == x or name.endswith(f".{x}") for x in named or ())


def _value_of(pattern: Mapping[str, Any], name: str, default: Any) -> Any:
    """The value of the first of PEFT's patterns that names the module."""
    found = (v for k, v in pattern.items() if re.match(rf"(.*\.)?({k})$", name))
    return next(found, default)
