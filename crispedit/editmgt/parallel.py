"""One model on many processes: whole in each of them (DDP, by accelerate) or in shares (FSDP2, by torch itself).

accelerate offers FSDP2 on GPUs only; torch's own `fully_shard` is as short, and is the same on CPUs, where it is
tested.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from crispedit.editmgt.settings import Training
from crispedit.editmgt.transformer import Transformer


def distribute(model: Transformer, settings: Training, accelerator: Accelerator) -> nn.Module:
    """What to call in place of the model, which moves to the device and stays valid: its weights are those trained."""
    if settings.sharding == "none" or accelerator.num_processes == 1:
        wrapped: nn.Module = accelerator.prepare_model(model)
        return wrapped
    bf16 = torch.bfloat16 if settings.precision == "bf16" else None
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    model.to(accelerator.device)
    policy = MixedPrecisionPolicy(param_dtype=bf16, reduce_dtype=torch.float32)
    # Called twice, once for the reference before the blocks begin: shares of their own, whole until the backward pass.
    for modulation in model.modulations():
        fully_shard(modulation, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for block in [*model.transformer_blocks, *model.single_transformer_blocks]:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    # The root's inputs are not cast: timesteps and sizes in bf16 would be other timesteps and sizes.
    fully_shard(
        model, mesh=mesh, mp_policy=replace(policy, cast_forward_inputs=False, output_dtype=torch.float32)
    )
    return model


def synchronised(model: nn.Module, last: bool) -> AbstractContextManager[object]:
    """The context of a backward pass: gradients travel between processes at a step's last one only."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
    elif isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    return nullcontext()
