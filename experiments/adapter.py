# SPDX-License-Identifier: Apache-2.0
"""What a config adds to its model: the adapter, and how it leaves again."""

import dataclasses
from typing import Any

import jax

import jft
from jft.config import AdapterConfig, Config
from jft.params import adapters
from jft.tasks import call_with_options
from jft.types import InputError


def add_adapter(
    config: Config, model: jft.Pretrained, *, key: jax.Array
) -> jft.Pretrained:
    """Put the config's adapter on the model, if it names one."""
    adapter = make_adapter(config.adapter)
    if adapter is None:
        return model
    adapted = jft.adapt(model, adapter, key=key)
    if config.export.enabled and exported_as(config, adapted) != "apart":
        jft.check_foldable(adapted)  # not only when the run is over
    return adapted


def exported_as(config: Config, model: jft.Pretrained) -> str:
    """How a run's model leaves: "folded", "apart", or "both".

    A model without an adapter is one whole. Of a method that cannot be folded "both" is
    "apart".
    """
    adapter, kind = model.adapter, config.export.adapter
    if adapter is None:
        return "folded"
    return "apart" if kind == "both" and not adapter.foldable else kind


def make_adapter(config: AdapterConfig) -> adapters.Adapter | None:
    """The method with its options; what another method has is refused."""
    if config.method is None:
        for field in dataclasses.fields(config):
            _check_unset(config, field.name)
        return None
    method = adapters.ADAPTERS.get(config.method)
    if method is None:
        raise InputError(
            f"adapter.method is {config.method!r}; expected None or one of "
            f"{sorted(adapters.ADAPTERS)}."
        )
    given: dict[str, Any] = {"also_train": config.also_train}
    if issubclass(method, adapters.Targeted):
        given["targets"] = config.targets
    else:
        _check_unset(config, "targets")
    return call_with_options(
        method,
        options=config.options,
        what="adapter.options",
        taker=f"the adapter.method {config.method!r}",
        **given,
    )


def _check_unset(config: AdapterConfig, name: str) -> None:
    """Refuse a setting that the method has not."""
    given, default = getattr(config, name), getattr(AdapterConfig(), name)
    if given != default:
        raise InputError(
            f"adapter.{name} is {given!r}, but adapter.method is {config.method!r}, "
            f"which has no such setting; set another adapter.method, or leave "
            f"adapter.{name} at {default!r}."
        )
