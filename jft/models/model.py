# SPDX-License-Identifier: Apache-2.0
"""What all models share: the call, its stages, and when the head answers."""

import abc
from typing import Any, ClassVar

from flax import linen as nn

from jft.models.packing import check_packed
from jft.models.stages import make_stages
from jft.types import Batch


class StagedModel(nn.Module):
    """A backbone with the head of a task; parameter paths are the checkpoint's keys."""

    config: Any
    task: str

    def num_layers(self) -> int:
        """The blocks, or what else is a stage between embeddings and head."""
        num_layers: int = self.config.num_hidden_layers
        return num_layers

    def num_encoder_layers(self) -> int:
        """How many of them, the first ones, an encoder has that a decoder reads."""
        return 0

    def num_read(self) -> int | None:
        """How many tokens the head reads, the first ones; None: all."""
        return None

    def prepare(self, batch: Batch) -> Batch:
        """Check the batch, and add what the family makes of it."""
        return batch

    @abc.abstractmethod
    def make_backbone(self) -> Any:
        """Make what maps ``(batch, hidden, stages, deterministic=…)`` to states."""

    @abc.abstractmethod
    def answer(
        self, x: Any, batch: Batch, backbone: Any, *, deterministic: bool
    ) -> Any:
        """What the head makes of the last hidden states, see `jft.models.heads`."""

    @nn.compact
    def __call__(
        self,
        batch: Batch,
        *,
        hidden: Any = None,
        start: int = 0,
        stop: int | None = None,
        deterministic: bool = True,
    ) -> Any:
        """Run the stages from boundary ``start`` to boundary ``stop``.

        ``h = f(batch, stop=k)`` then ``f(batch, hidden=h, start=k)`` is ``f(batch)``
        for every k, dropout included when both are given the same key.

        Args:
          batch: what the class says.
          hidden: for ``start`` above 0, what a call with ``stop=start`` returned.
          start: the first stage to run.
          stop: the stage to stop before; None runs the head.
          deterministic: False drops out, with the key ``rngs={"dropout": key}``.

        Returns:
          Hidden states at boundary ``stop``, ``[B, L, D]`` of one text or image, of the
          tokens that the head reads at the last boundary; or what the head answers.
        """
        batch = self.prepare(batch)
        stages = make_stages(
            start, stop, num_layers=self.num_layers(), num_read=self.num_read()
        )
        backbone = self.make_backbone()
        x = backbone(batch, hidden, stages, deterministic=deterministic)
        if not stages.head:
            return x
        return self.answer(x, batch, backbone, deterministic=deterministic)


class TextModel(StagedModel):
    """A model of one text.

    A batch has ``input_ids [B, L]``; optionally ``attention_mask`` (1 real, 0 padding),
    ``position_ids`` and, where the family has them, ``token_type_ids``, all ``[B, L]``.
    Positions count from the first slot, padding included, unless the family counts
    tokens. For packed rows see `jft.models.packing`, for a decoder's cache
    `jft.models.attention`.
    """

    heads_of_first_token: ClassVar[tuple[str, ...]] = ()  # they read no other

    def num_read(self) -> int | None:
        """One token for the heads that read no other than the first."""
        return 1 if self.task in self.heads_of_first_token else None

    def prepare(self, batch: Batch) -> Batch:
        """Refuse packed rows that the head cannot answer."""
        check_packed(batch, self.task, num_read=self.num_read())
        return batch
