"""Low-rank adapters on the transformer, by peft: added, saved in peft's layout, merged."""

from pathlib import Path
from typing import Any

from crispedit import torchvision_ops as torchvision_ops  # before peft, which loads transformers
from crispedit.editmgt.settings import Lora
from crispedit.editmgt.transformer import Transformer

# isort: split
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file


def add_lora(model: Transformer, lora: Lora, seed: int = 0) -> Transformer:
    """The model with fresh adapters, the only trainable weights. They start as the identity.

    ValueError if a target names no layer.
    """
    targets = list(lora.targets)
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets)
    names = [name for name, _ in model.named_modules()]
    for target in lora.targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise ValueError(f"lora.targets: no layer's name ends in {target!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return inject_adapter_in_model(config, model)


def save_lora(model: Transformer, folder: Path) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json`, as peft does."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous().cpu() for name, value in get_peft_model_state_dict(model).items()}
    save_file(state, folder / "adapter_model.safetensors")
    configs: Any = model.peft_config
    configs["default"].save_pretrained(str(folder))


def merge_lora(model: Transformer) -> Transformer:
    """The model with its adapters merged into the weights."""
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())
    del model.peft_config
    return model
