# SPDX-License-Identifier: Apache-2.0
"""The argument of a config file: ``configs/digits.py:quicktest,recipe=full``."""

from types import SimpleNamespace
from typing import Any

from jft.types import InputError


def parse_arg(
    arg: str | None, **defaults: bool | int | float | str | tuple[str, ...]
) -> SimpleNamespace:
    """Parse the text behind the colon of ``--config=file.py:text``.

    Every config understands ``quicktest``, so it is added to ``defaults``.

    Args:
      arg: comma-separated ``name=value`` parts; a bare ``name`` is ``name=True``.
      **defaults: each argument's default, which also fixes its type; a tuple of
        strings lists the choices, the default first.

    Returns:
      One attribute an argument.

    Raises:
      InputError: if a name is unknown or a value does not parse; names are listed.

    Example:
      >>> parse_arg("quicktest,recipe=full", recipe=("staged", "full"), batch=32)
      namespace(quicktest=True, recipe='full', batch=32)
    """
    known: dict[str, Any] = {"quicktest": False, **defaults}
    values = {
        name: default[0] if isinstance(default, tuple) else default
        for name, default in known.items()
    }
    for part in (arg or "").split(","):
        name, given, text = part.strip().partition("=")
        if not name and not given:
            continue
        if name not in known:
            raise InputError(
                f"the config has no argument {name!r}; known: {', '.join(known)}. "
                "Write --config=file.py:name=value,name=value."
            )
        values[name] = _parse(name, text if given else "True", known[name])
    return SimpleNamespace(**values)


def _parse(name: str, text: str, default: Any) -> Any:
    if isinstance(default, tuple):
        if text in default:
            return text
        expected = f"one of {', '.join(default)}"
    elif isinstance(default, bool):
        if text in ("True", "False"):
            return text == "True"
        expected = "True or False"
    else:
        try:
            return type(default)(text)
        except ValueError:
            expected = f"a value of type {type(default).__name__}"
    raise InputError(f"the config's argument {name} is {text!r}; expected {expected}.")
