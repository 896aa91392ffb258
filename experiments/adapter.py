# SPDX-License-Identifier: Apache-2.0
"""What a config adds to its model: the adapter, and how it leaves again."""

import dataclasses

import jax

import jft
from configs import common
from jft.config import AdapterConfig, Config, resolve
from jft.params import adapters
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
    """The method with those of the settings that it has; others' are refused."""
    if config.method is not None and config.method not in adapters.ADAPTERS:
        raise InputError(
            f"adapter.method is {config.method!r}; expected None or one of "
            f"{sorted(adapters.ADAPTERS)}."
        )
    _check_settings(config)
    if config.method is None:
        return None
    names = _settings_of(config.method)
    return adapters.ADAPTERS[config.method](
        **{name: getattr(config, name) for name in names}
    )


def _settings_of(method: str) -> set[str]:
    return {field.name for field in dataclasses.fields(adapters.ADAPTERS[method])}


def _check_settings(config: AdapterConfig) -> None:
    """Refuse what would be read by no method, or by another one."""
    usual = resolve(common.base_config()).adapter
    known = set() if config.method is None else _settings_of(config.method)
    for field in dataclasses.fields(config):
        name = field.name
        given, default = getattr(config, name), getattr(usual, name)
        if name in known | {"method"} or given == default:
            continue
        methods = [m for m in sorted(adapters.ADAPTERS) if name in _settings_of(m)]
        raise InputError(
            f"adapter.{name} is {given!r}, but adapter.method is {config.method!r}, "
            f"which has no such setting; set adapter.method to one of {methods}, or "
            f"leave adapter.{name} at {default!r}."
        )
