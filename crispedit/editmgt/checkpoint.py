"""Checkpoints of the transformer in diffusers' layout: a folder of `config.json` and safetensors.

Reads the released `editmgt/` and Meissonic's `transformer/` folders, in one file or several. Only safetensors are
read, so a checkpoint cannot run code.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from crispedit.editmgt.connector import ConnectorType
from crispedit.editmgt.transformer import Transformer, TransformerConfig

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
CONNECTORS = {
    "latents": "qformer",
    "projector.4.weight": "fmlp",
    "projector.2.weight": "mlp",
    "projector.weight": "linear",
}
"""The type of a connector by a weight that it has; the first one counts."""


def save_transformer(model: Transformer, folder: Path, max_shard_size: str = "5GB") -> None:
    """Write the folder; beyond `max_shard_size` the weights go into several files with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    pattern = "diffusion_pytorch_model{suffix}.safetensors"
    save_torch_state_dict(model.state_dict(), folder, filename_pattern=pattern, max_shard_size=max_shard_size)
    config = model.config.model_dump(mode="json")
    config |= {"_class_name": "Transformer2DModel", "upsample": config["downsample"]}
    config |= {"patch_size": 1, "in_channels": 64, "guidance_embeds": False}
    # The released code builds a connector only where the configuration says that there is a language model.
    config["text_encoder_architecture"] = "CLIP" if model.connector is None else "CLIP_Gemma2"
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def load_transformer(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Transformer:
    """The model in a folder, in eval mode. ValueError names the file, key, shape or value that is wrong."""
    state = read_weights(folder)
    config = read_config(folder, state)
    with torch.device("meta"):
        model = Transformer(config)
    expected = model.state_dict()
    wrong = [f"{name} is missing" for name in expected if name not in state]
    for name, value in state.items():
        if name not in expected:
            wrong.append(f"{name} is not part of the model")
        elif value.shape != expected[name].shape:
            wrong.append(f"{name} has shape {tuple(value.shape)}, expected {tuple(expected[name].shape)}")
        elif not value.isfinite().all():
            wrong.append(f"{name} holds numbers that are not finite")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{folder} does not fit its {CONFIG}: {'; '.join(wrong[:3])}{more}")
    model.load_state_dict({name: value.to(device=device, dtype=dtype) for name, value in state.items()}, assign=True)
    return model.eval().requires_grad_(False)


def with_connector(model: Transformer, kind: ConnectorType, text_dim: int, seed: int = 0) -> Transformer:
    """Meissonic with a new connector from a language model of width `text_dim`: the start of training EditMGT.

    ValueError if the model has a connector, or if no connector fits it.
    """
    config = model.config
    if model.connector is not None:
        raise ValueError(f"the model has a connector already ({config.connector_type})")
    if config.joint_attention_dim != config.dim:
        raise ValueError(f"the model reads text {config.joint_attention_dim} wide, and a connector gives {config.dim}")
    grown = Transformer(config.model_copy(update={"connector_type": kind, "joint_attention_dim": text_dim}))
    grown.initialize(torch.Generator().manual_seed(seed))
    grown.load_state_dict(model.state_dict(), strict=False)
    return grown.eval().requires_grad_(False)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, by name. ValueError names a file that is missing or unreadable."""
    names = [WEIGHTS]
    if (folder / INDEX).is_file():
        names = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
    state: dict[str, Tensor] = {}
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"{folder / INDEX} names {name!r}, which is not a file beside it")
        if not (folder / name).is_file():
            names_there = ", ".join(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "no folder"
            raise ValueError(
                f"{folder / name} does not exist (the folder has: {names_there}); weights must be safetensors"
            )
        try:
            state |= load_file(folder / name)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{folder / name} cannot be read: {error}") from None
    return state


def read_config(folder: Path, state: Mapping[str, Tensor]) -> TransformerConfig:
    """The configuration in `config.json`, with the connector read from the weights.

    Released configurations contradict their weights about the connector, and do not give the width of its input.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    given: dict[str, Any] = json.loads(path.read_text())
    if given.get("guidance_embeds"):
        raise ValueError(f"{path}: guidance_embeds is not part of EditMGT or Meissonic")
    if given.get("upsample", given.get("downsample")) != given.get("downsample"):
        raise ValueError(f"{path}: downsample and upsample must be equal")
    known = {name: given[name] for name in TransformerConfig.model_fields if name in given}
    known["connector_type"] = next((kind for name, kind in CONNECTORS.items() if f"connector.{name}" in state), "none")
    for name in ("proj_in.weight", "projector.0.weight", "projector.weight"):
        if f"connector.{name}" in state:
            known["joint_attention_dim"] = state[f"connector.{name}"].shape[1]
    return TransformerConfig(**known)
