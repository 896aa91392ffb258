# SPDX-License-Identifier: Apache-2.0
"""From an example to the fields of a batch, as ``preprocessor_config.json`` says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jft.data.fields.targets import example_name, target_fields
from jft.data.sources.source import Example
from jft.types import InputError

# Pillow's and Hugging Face's numbers of the filters; 2 is ViT's default.
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}
# Steps of other processors, refused when on rather than left out in silence.
OTHER_STEPS = ("do_center_crop", "do_pad", "do_reduce_labels")


@dataclass(frozen=True, kw_only=True)
class ImageFields:
    """``example -> {pixel_values, targets, index}``; made by `make_image_fields`."""

    size: tuple[int, int] | None  # (height, width); None keeps the image's own
    resample: int  # a key of RESAMPLE
    scale: np.ndarray  # float32 [channels] or [1]
    shift: np.ndarray  # the same; pixel_values = image * scale + shift
    num_channels: int | None  # None takes any
    num_classes: int | None  # None leaves the check to the source

    def __call__(self, example: Example) -> dict[str, np.ndarray]:
        """Prepare one example; ``image`` is uint8 [height, width, channels]."""
        image = self._resize(self._channels(example))
        fields = {"pixel_values": image * self.scale + self.shift}
        return fields | target_fields(example, num_classes=self.num_classes)

    def _channels(self, example: Example) -> np.ndarray:
        image = np.asarray(example["image"])
        channels = image.shape[-1]
        if self.num_channels in (None, channels):
            return image
        if channels == 1:  # grey among photographs
            return np.repeat(image, self.num_channels, axis=-1)
        raise InputError(
            f"example {example_name(example)} has {channels} channels; the processor "
            f"normalises {self.num_channels}. Convert the image, or give image_mean "
            "and image_std one value a channel."
        )

    def _resize(self, image: np.ndarray) -> np.ndarray:
        if self.size is None or image.shape[:2] == self.size:
            return image
        from PIL import Image

        grey = image.shape[-1] == 1
        picture = Image.fromarray(image[..., 0] if grey else image)
        height, width = self.size
        resized = picture.resize((width, height), Image.Resampling(self.resample))
        return np.asarray(resized).reshape(height, width, -1)


def make_image_fields(
    processor_config: Mapping[str, Any], *, num_classes: int | None = None
) -> ImageFields:
    """Read a Hugging Face ViT processor's configuration.

    The result equals ``ViTImageProcessorPil`` up to rounding of float32, channels
    last, except that a grey image is repeated where three channels are normalised.
    Absent keys have that class's defaults. As one multiplication and addition:
    ``(image * rescale_factor - mean) / std``.

    Args:
      processor_config: the content of ``preprocessor_config.json``.
      num_classes: targets must lie below; None leaves that check to the source.

    Returns:
      A picklable ``example -> {"pixel_values": float32 [height, width, channels],
      "targets": int32, "index": int32}``, the latter two where the example has them.

    Raises:
      InputError: for a step or value this does not know, by its key.

    Example:
      >>> config = {"do_resize": False, "do_normalize": False, "rescale_factor": 0.5}
      >>> fields_fn = make_image_fields(config)
      >>> fields_fn({"image": np.full((1, 1, 1), 51, np.uint8)})["pixel_values"]
      array([[[25.5]]], dtype=float32)
    """
    config = processor_config
    other = [key for key in OTHER_STEPS if config.get(key)]
    if other:
        raise InputError(
            f"preprocessor_config.json turns on {other}, which jft does not do. Turn "
            "it off, or prepare pixel_values with a function of your own."
        )
    resample = config.get("resample", 2)
    if resample not in RESAMPLE:
        raise InputError(
            f"preprocessor_config.json has resample {resample!r}; expected one of "
            f"{RESAMPLE}."
        )
    normalize = config.get("do_normalize", True)
    mean = _per_channel(config, "image_mean") if normalize else np.zeros(1)
    std = _per_channel(config, "image_std") if normalize else np.ones(1)
    if len(mean) != len(std) or not std.all():
        raise InputError(
            f"preprocessor_config.json has image_mean {mean.tolist()} and image_std "
            f"{std.tolist()}; expected one value a channel each, image_std not 0."
        )
    do_rescale = config.get("do_rescale", True)
    factor = config.get("rescale_factor", 1 / 255) if do_rescale else 1.0
    channels = len(mean) if normalize else None
    return ImageFields(
        size=_size(config) if config.get("do_resize", True) else None,
        resample=resample,
        scale=np.asarray(factor / std, np.float32),
        shift=np.asarray(-mean / std, np.float32),
        num_channels=3 if config.get("do_convert_rgb") else channels,
        num_classes=num_classes,
    )


def _per_channel(config: Mapping[str, Any], key: str) -> np.ndarray:
    return np.atleast_1d(np.asarray(config.get(key, (0.5, 0.5, 0.5)), np.float64))


def _size(config: Mapping[str, Any]) -> tuple[int, int]:
    size = config.get("size", {"height": 224, "width": 224})
    if isinstance(size, int):
        return size, size
    if set(size) != {"height", "width"}:
        raise InputError(
            f"preprocessor_config.json has size {size!r}; expected a whole number or "
            '{"height": …, "width": …}.'
        )
    return int(size["height"]), int(size["width"])
