# SPDX-License-Identifier: Apache-2.0
"""A family's module with something around its forward that it knows nothing of."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WrappedModule:
    """What a forward asks of a module besides ``apply``, which subclasses have."""

    module: Any  # the linen module, or another that is wrapped

    @property
    def config(self) -> Any:
        """The module's config."""
        return self.module.config

    @property
    def task(self) -> str:
        """What the module's head answers."""
        return self.module.task


def unwrapped(module: Any) -> Any:
    """The linen module, whatever is around it."""
    while isinstance(module, WrappedModule):
        module = module.module
    return module
