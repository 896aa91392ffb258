# SPDX-License-Identifier: Apache-2.0
"""What models of one text share: the call, its stages, and when the head answers."""

import abc
from typing import Any

import jax
from flax import linen as nn

from jft.models.packing import check_packed
from jft.models.stages import make_stages
from jft.types import Batch


class TextModel(nn.Module):
    """A backbone with the head of a task; parameter paths are the checkpoint's keys."""

    config: Any
    task: str

    @abc.abstractmethod
    def num_layers(self) -> int:
        """The blocks, or what else is a stage between embeddings and head."""

    def num_read(self) -> int | None:
        """How many tokens the head reads, the first ones; None: all."""
        return None

    @abc.abstractmethod
    def make_backbone(self) -> Any:
        """Make the module ``(batch, hidden, stages, deterministic=…) -> [B, L, D]``."""

    @abc.abstractmethod
    def answer(
        self, x: jax.Array, batch: Batch, backbone: Any, *, deterministic: bool
    ) -> Any:
        """What the head makes of ``[B, L, D]``, see `jft.models.heads`."""

    @nn.compact
    def __call__(
        self,
        batch: Batch,
        *,
        hidden: jax.Array | None = None,
        start: int = 0,
        stop: int | None = None,
        deterministic: bool = True,
    ) -> Any:
        """Run the stages from boundary ``start`` to boundary ``stop``.

        Args:
          batch: ``input_ids [B, L]``; optionally ``attention_mask`` (1 real, 0
            padding), ``position_ids`` and, where the family has them,
            ``token_type_ids``, all ``[B, L]``. Positions count from the first slot,
            padding included, unless the family counts tokens. For packed rows see
            `jft.models.packing`, for a decoder's cache `jft.models.attention`.
          hidden: for ``start`` above 0, what a call with ``stop=start`` returned.
          start: the first stage to run.
          stop: the stage to stop before; None runs the head.
          deterministic: False drops out, with the key ``rngs={"dropout": key}``.

        Returns:
          Hidden states ``[B, L, D]`` at boundary ``stop``, of the tokens that the head
          reads at the last one; or what the head answers.
        """
        check_packed(batch, self.task, num_read=self.num_read())
        stages = make_stages(
            start, stop, num_layers=self.num_layers(), num_read=self.num_read()
        )
        backbone = self.make_backbone()
        x = backbone(batch, hidden, stages, deterministic=deterministic)
        if not stages.head:
            return x
        return self.answer(x, batch, backbone, deterministic=deterministic)
