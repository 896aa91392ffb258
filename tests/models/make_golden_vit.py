# SPDX-License-Identifier: Apache-2.0
"""Record what torch's ViT answers, for machines without torch (a few kB).

Run: python tests/models/make_golden_vit.py
"""

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "golden_vit"
CONFIG = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "image_size": [6, 4],
    "patch_size": [3, 2],
    "num_channels": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "id2label": {0: "a", 1: "b", 2: "c"},
    "label2id": {"a": 0, "b": 1, "c": 2},
}


def make_torch_vit(config, *, seed=0):
    """Make a torch ViT whose parts all show in its logits of spread one."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(seed)
    model = ViTForImageClassification(ViTConfig(**config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
        spread = torch_logits(model, make_images(config)).std()
        model.classifier.weight.div_(float(spread))
        model.classifier.bias.div_(float(spread))
    return model


def make_images(config, *, num=5):
    """Make random images, ``[B, height, width, channels]``."""
    size = config["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    shape = (num, height, width, config["num_channels"])
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def torch_logits(model, images):
    """Run the torch model on channels-last images."""
    import torch

    with torch.no_grad():
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        return model(pixel_values=pixels).logits.numpy()


if __name__ == "__main__":
    model = make_torch_vit(CONFIG)
    model.save_pretrained(FOLDER)
    images = make_images(CONFIG)
    np.savez(FOLDER / "expected.npz", images=images, logits=torch_logits(model, images))
