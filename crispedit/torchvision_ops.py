"""Makes torchvision importable without its compiled operators, by declaring the two that it looks up on import.

torchvision's wheels are built for CUDA; beside a CPU build of torch, `import torchvision` fails with "operator
torchvision::nms does not exist", and with it transformers, diffusers and open_clip, none of which need that operator
here. Import this module before them. It does nothing where torchvision works or is not installed.
"""

import importlib
import sys

import torch

_LIBRARY: torch.library.Library | None = None
"""Kept alive: the declarations live as long as it does."""


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
