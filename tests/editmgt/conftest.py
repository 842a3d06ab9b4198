"""Golden tensors of the reference implementation, and the two small models that made them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from crispedit import torchvision_ops as torchvision_ops  # before the tests import diffusers or transformers
from crispedit.editmgt.transformer import Transformer, TransformerConfig

GOLDENS = Path(__file__).parent.parent / "goldens"


@pytest.fixture(scope="session")
def manifest() -> dict[str, Any]:
    return json.loads((GOLDENS / "manifest.json").read_text())


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Tensor]]:
    files: dict[str, dict[str, Tensor]] = {}

    def read(name: str) -> dict[str, Tensor]:
        if name not in files:
            files[name] = load_file(GOLDENS / f"{name}.safetensors")
        return files[name]

    return read


@pytest.fixture(scope="session")
def config() -> Callable[[str], TransformerConfig]:
    def make(variant: str) -> TransformerConfig:
        return TransformerConfig(
            num_layers=2,
            num_single_layers=4,
            attention_head_dim=32,
            num_attention_heads=2,
            joint_attention_dim=48,
            pooled_projection_dim=24,
            axes_dims_rope=(8, 12, 12),
            vocab_size=136,
            codebook_size=128,
            downsample=variant == "down",
        )

    return make


@pytest.fixture(scope="session")
def model(
    golden: Callable[[str], dict[str, Tensor]], config: Callable[[str], TransformerConfig]
) -> Callable[[str], Transformer]:
    """The golden model "down" (halves its grid) or "nodown"; shared, so leave its weights alone."""
    models: dict[str, Transformer] = {}

    def make(variant: str) -> Transformer:
        if variant not in models:
            with torch.inference_mode(False):
                models[variant] = Transformer(config(variant)).eval().requires_grad_(False)
                models[variant].load_state_dict(golden(f"weights_{variant}"))
        return models[variant]

    return make


def relative(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """These models are too small to share out; threads would only wait for each other on a busy machine."""
    torch.set_num_threads(1)
