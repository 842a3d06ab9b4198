"""A real ViT of transformers, tiny and untrained, in a folder: what the tests of DINO run."""

import torch
from transformers import ViTConfig, ViTModel

from crispedit import torchvision_ops as torchvision_ops

CONFIG = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def save(folder, seed=0):
    """The folder, which `crispedit.dino.load` takes."""
    torch.manual_seed(seed)
    ViTModel(ViTConfig(**CONFIG, image_size=224, patch_size=32)).save_pretrained(folder)
    return folder
