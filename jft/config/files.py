# SPDX-License-Identifier: Apache-2.0
"""Config files: Python with ``get_config(arg=None)``, building a locked ConfigDict."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jft.config.durations import duration_keys
from jft.types import InputError


def make_config_dict(values: Mapping[str, Any]) -> Any:
    """Return a locked ``ml_collections.ConfigDict``: attribute access, no new keys."""
    from ml_collections import ConfigDict

    return ConfigDict(values).lock()


def set_duration(section: Any, **duration: int | float) -> None:
    """Replace a duration of a ConfigDict section, whatever its unit was.

    Args:
      section: a section of a config, changed in place.
      **duration: one key with its amount, for example ``num_steps=100``.

    Raises:
      InputError: if the section has no duration of that name.

    Example:
      >>> train = make_config_dict({"num_epochs": 3})
      >>> set_duration(train, num_steps=100)
      >>> train.to_dict()
      {'num_steps': 100}
    """
    ((key, amount),) = duration.items()
    present = [k for k in duration_keys(key.rpartition("_")[0]) if k in section]
    if not present:
        raise InputError(
            f"the section has no duration {key}; it has {', '.join(sorted(section))}."
        )
    with section.unlocked():
        for other in present:
            del section[other]
        section[key] = amount


def load_config_file(spec: str) -> tuple[str, dict[str, Any]]:
    """Run a config file.

    Args:
      spec: ``path.py`` or ``path.py:arg``; the part behind the first colon is handed
        to ``get_config``.

    Returns:
      ``(the file's name without .py, its config as nested dicts)``.

    Raises:
      InputError: if the file is absent, is no Python, has no ``get_config``, or fails.
    """
    name, has_arg, arg = spec.partition(":")
    path = Path(name)
    if path.suffix != ".py" or not path.is_file():
        raise InputError(
            f"--config={spec} names no config file: {path.absolute()} is not a .py "
            "file that exists. Give a path such as configs/digits.py or "
            "configs/digits.py:quicktest."
        )
    module_spec = importlib.util.spec_from_file_location(f"{path.stem}_config", path)
    assert module_spec is not None, path
    assert module_spec.loader is not None, path
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        config = module.get_config(arg) if has_arg else module.get_config()
        return path.stem, config.to_dict()
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the config file {path} failed with {type(error).__name__}: {error}. "
            "Mend it, or see the traceback with --debug."
        ) from error
