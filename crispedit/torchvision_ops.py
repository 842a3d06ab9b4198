"""torchvision without its compiled half: declares the two operators that it looks up when it is imported.

torchvision's wheels are built for CUDA; beside a CPU build of torch, `import torchvision` fails with "operator
torchvision::nms does not exist", and with it transformers, diffusers and open_clip, none of which need that operator
here. Import this module before them. Where torchvision works, it does nothing; where it is not installed, neither.
"""

from __future__ import annotations

import importlib
import sys

import torch

_LIBRARY: torch.library.Library | None = None
"""Kept: the declarations go when it does."""


def declare() -> None:
    """Make `import torchvision` work, once. Calling one of the operators still fails, as it has no code to run."""
    global _LIBRARY
    try:
        importlib.import_module("torchvision")
    except ImportError:
        return
    except RuntimeError as error:
        if _LIBRARY is not None or "torchvision::nms does not exist" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        _LIBRARY = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            _LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")


declare()
