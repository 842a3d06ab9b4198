"""A real open_clip model, tiny and untrained, in open_clip's own layouts: what the tests of CLIP's parts run."""

import json

import torch
from safetensors.torch import save_file

from crispedit import torchvision_ops

torchvision_ops.declare()

import open_clip  # noqa: E402

WIDTH = 32
CONFIG = {
    "embed_dim": WIDTH,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def save(folder, seed=0, **changes):
    """A folder that `local-dir:` loads, and beside it NAME.json for `open_clip.add_model_config`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = CONFIG | changes
    torch.manual_seed(seed)
    model = open_clip.model.CLIP(**config)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    preprocess = {
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    layout = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(layout))
    (folder.parent / f"{folder.name}.json").write_text(json.dumps(config))
    return folder
