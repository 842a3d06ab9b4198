"""One model on many processes: replicated (DDP, by accelerate) or sharded (FSDP2, by torch).

accelerate offers FSDP2 on GPUs only; torch's `fully_shard` also works on CPUs, where the tests run.
"""

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
    """The module to call in training. The model moves to the device and keeps the trained weights."""
    if settings.sharding == "none" or accelerator.num_processes == 1:
        return accelerator.prepare_model(model)
    bf16 = torch.bfloat16 if settings.precision == "bf16" else None
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    model.to(accelerator.device)
    policy = MixedPrecisionPolicy(param_dtype=bf16, reduce_dtype=torch.float32)
    # Modulations run twice, first for the reference before the blocks, so they are not resharded before the backward
    # pass.
    for modulation in model.modulations():
        fully_shard(modulation, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for block in [*model.transformer_blocks, *model.single_transformer_blocks]:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    # The root's inputs are not cast: bf16 would change timesteps and sizes.
    fully_shard(model, mesh=mesh, mp_policy=replace(policy, cast_forward_inputs=False, output_dtype=torch.float32))
    return model


def synchronised(model: nn.Module, last: bool) -> AbstractContextManager[object]:
    """The context of a backward pass: gradients are synchronised only in the last one of a step."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
    elif isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    return nullcontext()
