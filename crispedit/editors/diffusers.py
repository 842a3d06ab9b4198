"""Any editing pipeline of the diffusers library as an editor, by its class and a folder or hub repository.

The edit has the source's size and is aligned with it pixel by pixel, whatever sizes the model accepts:

1. the canvas is the size that the model sees. Without `area_px` it is the source's size, each side rounded up to
   `multiple_px`. With it, it is a size of about that area, its sides multiples of `multiple_px`, its aspect as close
   to the source's as possible, and one that pipelines which resize their input (Qwen's, LongCat's) do not change. A
   pipeline that knows a few sizes only (JoyImage's) gets the one nearest to the source's aspect;
2. the source is scaled by one factor to fit into the canvas (not at all without `area_px`), and the rest of the
   canvas, below and to the right, repeats it mirrored;
3. the mirrored part of the answer is cut off, and the rest is scaled back by the same factor.

So a photograph of 1024 pixels or more on its short side gives an edit of as many; `area_px` below the photograph's area
trades their sharpness for a size that the model was trained on.
"""

import importlib
import inspect
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image as Pillow
from pydantic import Field, PrivateAttr

from crispedit import weights
from crispedit.canvas import Canvas, Rule
from crispedit.parts import Edit, Editor, Image, Job, Refusal
from crispedit.recipe import Strict

ITEMWISE = ("FluxKontextPipeline", "StableDiffusionInstructPix2PixPipeline", "QwenImageEditPipeline")
"""Pipelines that edit a list of images with a list of prompts. Others (Flux2, QwenImageEditPlus) take several images as
references of one edit, so they are given one image at a time."""

SIZES = ("height", "width", "max_area", "_auto_resize", "output_resolution")
EACH = ("image", "prompt", "negative_prompt", "generator")
"""Arguments of a pipeline's call with one value per edit."""
OURS = {*EACH, *SIZES, "num_inference_steps", "guidance_scale", "output_type"}
"""Arguments of a pipeline's call that `call` may not set."""


class LoraFile(Strict):
    """A LoRA: a low-rank change of a model's weights."""

    path: str
    """A folder, a safetensors file, or a repository of the Hugging Face hub."""
    weight_name: str | None = None
    """The file to load, if there are several."""
    revision: str | None = None
    scale: float = 1.0

    def identity(self) -> dict[str, Any]:
        """The name and weights of a folder or file, or the name and revision of a hub repository."""
        options = self.model_dump(mode="json")
        path = Path(self.path)
        if not path.exists():
            return options
        file = path / self.weight_name if self.weight_name and path.is_dir() else path
        return options | {"path": path.resolve().name, "weights": weights.digest(file)}


class StepCache(Strict):
    """A step cache: steps whose blocks would change little are skipped. Faster, but with other pixels."""

    kind: Literal["first_block", "cache_dit"] = "first_block"
    """diffusers' own first-block cache, or the package cache-dit, which must be installed."""
    threshold: float = Field(0.1, gt=0)
    """The relative change of the first block's residual above which a step is computed."""


class Diffusers(Editor):
    """Edits with `pipeline(image, instruction)`. Noise is drawn on the CPU from each edit's own seed, so it depends
    neither on the batch nor on the machine; rounding on a GPU may. A picture that the pipeline's own safety checker
    blackens is refused as `unsafe`."""

    gpus: ClassVar[float] = 1.0
    incidental: ClassVar[frozenset[str]] = frozenset({"device", "batch_size", "offload", "compile"})

    pipeline: str
    """A class of diffusers, such as FluxKontextPipeline; or `package.module.Class` of another package, which must be
    installed wherever this runs: to name one is to let its code run."""
    model: str
    """A folder in diffusers' layout, or a repository of the Hugging Face hub."""
    revision: str | None = None
    """Revision of the repository; a commit pins the weights."""
    steps: int = Field(28, ge=1)
    guidance: float | None = None
    """`guidance_scale`; null: the pipeline's own."""
    negative: str | None = None
    """The negative prompt. Qwen's `true_cfg_scale` needs one; " " is enough."""
    call: dict[str, Any] = {}
    """Other arguments of the pipeline's call, such as `true_cfg_scale` or `image_guidance_scale`."""
    area_px: int | None = Field(None, ge=256)
    """Approximate area of the canvas; null: the source's own size. Qwen-Image-Edit was trained on 1048576."""
    multiple_px: int | None = Field(None, ge=1)
    """The canvas' sides are multiples of this; null: of what the pipeline requires. Qwen-Image-Edit rounds to 32."""
    dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16"
    storage: Literal["float8"] | None = None
    """Store the transformer's weights in 8 bits and widen each layer when it runs: half the memory, other rounding."""
    quantize: Literal["int8", "float8", "nf4"] | None = None
    """Quantize the transformer's matrices: less memory, other rounding. "int8" and "float8" (fast on GPUs from Ada and
    Hopper on) have one scale per row, by torchao; LoRAs are fused first. "nf4" has 4 bits, by bitsandbytes, and is
    loaded that way, so it takes no LoRAs."""
    loras: tuple[LoraFile, ...] = ()
    """Fused into the weights on loading, in order."""
    scheduler: dict[str, Any] = {}
    """Changes of the scheduler's configuration, which few-step LoRAs ask for, such as `shift_terminal: null`."""
    cache: StepCache | None = None
    variant: str | None = None
    """Variant of the weight files: "fp16" reads *.fp16.safetensors."""
    offload: Literal["none", "model", "sequential"] = "none"
    """Keep on the GPU only the component ("model") or layer ("sequential") that runs: less memory, more time."""
    compile: bool = False
    """Compile the transformer's repeated blocks, which pays off for few canvas sizes."""
    device: str = "auto"
    """"auto" is the GPU if there is one, else the CPU."""
    batch_size: int = Field(1, ge=1)
    """Edits of one canvas size made at once; halved for the rest of the call if memory runs out."""

    _pipeline: Any = PrivateAttr(None)

    @property
    def loaded(self) -> Any:
        """The loaded pipeline of diffusers; None before `load`."""
        return self._pipeline

    def check(self) -> None:
        if all(find_spec(package) for package in ("torch", "diffusers")):  # else they may be on the machine that edits
            self._check_call(pipeline_class(self.pipeline))

    def load(self) -> None:
        import torch

        cls = pipeline_class(self.pipeline)
        self._check_call(cls)
        device = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        if self.offload != "none" and device == "cpu":
            raise ValueError(f"diffusers: offload={self.offload!r} needs a GPU, and this machine has none")
        if self.quantize == "nf4" and device == "cpu":
            raise ValueError("diffusers: quantize='nf4' needs a GPU, and this machine has none: set another kind")
        four_bits = self._four_bits() if self.quantize == "nf4" else None
        given = _given(revision=self.revision, variant=self.variant, quantization_config=four_bits)
        # Safetensors only: other formats can run code as they load.
        loaded = cls.from_pretrained(self.model, dtype=getattr(torch, self.dtype), use_safetensors=True, **given)
        loaded.set_progress_bar_config(disable=True)
        if self.multiple_px is None and not (hasattr(loaded, "image_processor") or _buckets(loaded)):
            raise ValueError(f"diffusers: {self.pipeline} does not say which sizes it takes: set multiple_px")
        self._change(loaded)
        if self.offload == "model":
            loaded.enable_model_cpu_offload(device=device)
        elif self.offload == "sequential":
            loaded.enable_sequential_cpu_offload(device=device)
        else:
            loaded.to(device)
        if self.compile:
            _core(loaded).compile_repeated_blocks()
        self._pipeline = loaded

    def _change(self, pipeline: Any) -> None:
        """Apply scheduler changes, LoRAs, storage type, quantization and step cache, in this order."""
        import torch

        if self.scheduler:
            known = set(inspect.signature(type(pipeline.scheduler).__init__).parameters) - {"self"}
            if strange := sorted(self.scheduler.keys() - known):
                raise ValueError(
                    f"diffusers: scheduler.{strange[0]} is not an option of "
                    f"{type(pipeline.scheduler).__name__}; choose from {', '.join(sorted(known))}"
                )
            pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, **self.scheduler)
        for lora in self.loras:
            given = _given(weight_name=lora.weight_name, revision=lora.revision)
            pipeline.load_lora_weights(lora.path, use_safetensors=True, **given)
            pipeline.fuse_lora(lora_scale=lora.scale)
            pipeline.unload_lora_weights()
        if self.storage is not None:
            _core(pipeline).enable_layerwise_casting(torch.float8_e4m3fn, getattr(torch, self.dtype))
        if self.quantize in ("int8", "float8"):
            from torchao import quantization

            config = {"int8": "Int8WeightOnlyConfig", "float8": "Float8WeightOnlyConfig"}[self.quantize]
            quantization.quantize_(_core(pipeline), getattr(quantization, config)())
        if self.cache is not None and self.cache.kind == "first_block":
            from diffusers import FirstBlockCacheConfig

            _core(pipeline).enable_cache(FirstBlockCacheConfig(threshold=self.cache.threshold))
        elif self.cache is not None:
            import cache_dit

            blocks = {"Fn_compute_blocks": 1, "Bn_compute_blocks": 0}
            config = cache_dit.DBCacheConfig(**blocks, residual_diff_threshold=self.cache.threshold)
            cache_dit.enable_cache(pipeline, cache_config=config)

    def _four_bits(self) -> Any:
        """diffusers' own configuration of a transformer in bitsandbytes' 4 bits."""
        from diffusers import PipelineQuantizationConfig

        if find_spec("bitsandbytes") is None:
            raise ValueError("diffusers: quantize=nf4 needs bitsandbytes: pip install 'crispedit[faster]'")
        options = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": self.dtype}
        return PipelineQuantizationConfig("bitsandbytes_4bit", options, ["transformer"])

    def identity(self) -> dict[str, Any]:
        """The options that change pixels, with the name and weights of a folder, or the name and revision of a hub
        repository."""
        identity = super().identity()
        identity["options"]["loras"] = [lora.identity() for lora in self.loras]
        # Left out when unused, so that older candidates keep their keys.
        for name in ("quantize", "loras", "scheduler", "cache"):
            if not identity["options"][name]:
                del identity["options"][name]
        folder = Path(self.model)
        if not folder.is_dir():
            return identity
        identity["options"]["model"] = folder.resolve().name
        return identity | {"weights": weights.digest(folder)}

    def edit(self, sources: Sequence[Image], jobs: Sequence[Job], seeds: Sequence[int]) -> list[Edit | Refusal]:
        if self._pipeline is None:
            self.load()
        canvases = [self._canvas(source.shape[1], source.shape[0]) for source in sources]
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, canvas in enumerate(canvases):
            alike[canvas.width, canvas.height].append(index)
        answers: dict[int, Edit | Refusal] = {}
        at_once = self.batch_size
        for indices in alike.values():
            while indices:
                batch, rest = indices[:at_once], indices[at_once:]
                images = [canvases[i].put(sources[i]) for i in batch]
                drawn = self._draw(images, [jobs[i].instruction for i in batch], [seeds[i] for i in batch])
                if drawn is None:
                    at_once = len(batch) // 2
                    continue
                for i, picture in zip(batch, drawn, strict=True):
                    answers[i] = picture if isinstance(picture, Refusal) else Edit(canvases[i].take(picture))
                indices = rest
        return [answers[index] for index in range(len(sources))]

    def _canvas(self, width: int, height: int) -> Canvas:
        pipeline = self._pipeline
        if buckets := _buckets(pipeline):
            down, across = buckets.get_default_height_width(None, height, width)
            return Canvas.within(width, height, across, down)
        multiple = self.multiple_px or pipeline.image_processor.config.vae_scale_factor
        return Canvas.of(width, height, multiple, self.area_px, _rule(type(pipeline)))

    def _draw(
        self, images: Sequence[Image], prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[Image | Refusal] | None:
        """The pipeline's answers for canvases of one size; None if memory ran out for several at once."""
        import torch

        height, width = images[0].shape[:2]
        each: dict[str, list[Any]] = {
            "image": [Pillow.fromarray(image) for image in images],
            "prompt": list(prompts),
            "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
        }
        if self.negative is not None:
            each["negative_prompt"] = [self.negative] * len(images)
        accepted = inspect.signature(type(self._pipeline).__call__).parameters
        # Stops FLUX.1 Kontext from changing the source's aspect and the edit's area.
        # Stops Qwen-Image-2.1 from scaling every source to one megapixel.
        side = round((self.area_px or height * width) ** 0.5)
        sizes = dict(zip(SIZES, (height, width, height * width, False, side), strict=True))
        try:
            answer = self._pipeline(
                **{name: values if len(images) > 1 else values[0] for name, values in each.items()},
                **{name: value for name, value in sizes.items() if name in accepted},
                **_given(guidance_scale=self.guidance),
                **self.call,
                num_inference_steps=self.steps,
                output_type="pil",
            )
        except torch.OutOfMemoryError:
            if len(images) == 1:
                raise
            answer = None
        if answer is None:  # outside the handler, whose traceback keeps the tensors alive
            torch.cuda.empty_cache()
            return None
        unsafe = getattr(answer, "nsfw_content_detected", None) or [False] * len(images)
        return [
            Refusal("unsafe") if flag else _pixels(picture, width, height)
            for picture, flag in zip(answer.images, unsafe, strict=True)
        ]

    def _check_call(self, cls: type[Any]) -> None:
        """ValueError for options that this pipeline cannot carry out."""
        for problem in self._problems(cls):
            raise ValueError(f"diffusers: {problem}")

    def _problems(self, cls: type[Any]) -> Iterator[str]:
        name, call = self.pipeline, self.call
        accepted = set(inspect.signature(cls.__call__).parameters) - {"self"}
        if missing := [argument for argument in ("image", "prompt") if argument not in accepted]:
            yield f"{name} cannot edit images: its call has no {' and no '.join(missing)}"
        choices = ", ".join(sorted(accepted - OURS))
        for argument in [given for given in call if given not in accepted - OURS]:
            yield f"call.{argument} is not an argument of {name} that can be set here; choose from {choices}"
        if self.negative is not None and "negative_prompt" not in accepted:
            yield f"{name} takes no negative prompt; drop negative={self.negative!r}"
        if self.guidance is not None and "guidance_scale" not in accepted:
            others = ", ".join(sorted(argument for argument in accepted if "cfg" in argument or "guidance" in argument))
            instead = f", or set call.{others}" if others else ""
            yield f"{name} takes no guidance; drop guidance={self.guidance:g}{instead}"
        scale = call.get("true_cfg_scale")
        if isinstance(scale, int | float) and scale > 1 and self.negative is None and "negative_prompt" in accepted:
            yield f'{name} ignores call.true_cfg_scale without a negative prompt: set negative (" " is enough)'
        if self.area_px is None and _rule(cls) is not None and "height" not in accepted:
            example = "such as 1048576 for LongCat"
            yield f"{name} chooses the size of its images itself: set area_px to the area it uses, {example}"
        if self.loras and not hasattr(cls, "load_lora_weights"):
            yield f"{name} cannot load LoRAs; drop loras"
        if self.cache is not None and self.cache.kind == "first_block" and (why := _no_cache(cls)):
            instead = "drop cache, or set cache.kind=cache_dit"
            yield f"{name} does not work with the first-block cache: {why}; {instead}"
        if self.storage is not None and self.quantize is not None:
            yield "storage and quantize both reduce the weights' bits: set one of them"
        if self.quantize == "nf4" and self.loras:
            yield "quantize='nf4' cannot fuse LoRAs: set 'int8' or 'float8', or drop loras"
        if self.quantize == "nf4" and "transformer" not in inspect.signature(cls.__init__).parameters:
            yield f"{name} has no transformer to load in 4 bits: drop quantize"
        if self.batch_size > 1 and not any(base.__name__ in ITEMWISE for base in cls.__mro__):
            instead = f"batches work with {', '.join(ITEMWISE)}"
            yield f"{name} takes several images as references of one edit, so batch_size is 1; {instead}"


def _given(**options: Any) -> dict[str, Any]:
    """The options that are set."""
    return {name: value for name, value in options.items() if value is not None}


def pipeline_class(name: str) -> type[Any]:
    """The pipeline class of that name: diffusers' own, or `package.module.Class`. ValueError if there is no such
    class."""
    from crispedit import torchvision_ops

    torchvision_ops.declare()  # before diffusers
    from diffusers import DiffusionPipeline

    package, _, last = name.rpartition(".")
    package = package or "diffusers"
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise ValueError(
            f"diffusers: {package}, the package of {name}, cannot be imported ({error}): install it here and on every "
            "node, or name a class of diffusers"
        ) from None
    if (cls := getattr(module, last, None)) is None:
        version = getattr(module, "__version__", "the installed version")
        raise ValueError(
            f"diffusers: {package} ({version}) has no {last}: name one that it has, or package.module.Class of another "
            "package"
        )
    if not (inspect.isclass(cls) and issubclass(cls, DiffusionPipeline)):
        raise ValueError(
            f"diffusers: {name} is not a pipeline class, such as FluxKontextPipeline, QwenImageEditPlusPipeline, "
            "StableDiffusionInstructPix2PixPipeline, or package.Class of another package"
        )
    return cls


def _buckets(pipeline: Any) -> Any:
    """The image processor of a pipeline with fixed sizes, or None."""
    processor = getattr(pipeline, "vae_image_processor", None)
    return processor if processor is not None and "basesize" in processor.config else None


def _no_cache(cls: type[Any]) -> str | None:
    """Why diffusers' own first-block cache fails on a pipeline; None if it does not."""
    from diffusers.hooks._helpers import TransformerBlockRegistry

    if "cache_context" not in inspect.unwrap(cls.__call__).__code__.co_names:
        return "its call names no cache context"
    network = getattr(inspect.signature(cls.__init__).parameters.get("transformer"), "annotation", None)
    blocks = getattr(network, "_repeated_blocks", [])
    if len(blocks) != 1:
        return "its transformer mixes kinds of blocks, which the cache confuses"
    try:
        TransformerBlockRegistry.get(getattr(sys.modules[network.__module__], blocks[0]))
    except ValueError:
        return f"the cache does not know {blocks[0]}"
    return None


def _rule(cls: type[Any]) -> Rule | None:
    """How a pipeline chooses a size for an area and aspect, if it does: Qwen's round, LongCat's round up."""
    for base in cls.__mro__:
        if rule := getattr(sys.modules[base.__module__], "calculate_dimensions", None):
            return rule
    return None


def _core(pipeline: Any) -> Any:
    """The network that runs at every step."""
    return getattr(pipeline, "transformer", None) or pipeline.unet


def _pixels(picture: Pillow.Image, width: int, height: int) -> Image:
    """[height, width, 3] of a pipeline's answer. ValueError for another size."""
    if picture.size != (width, height):
        across, down = picture.size
        raise ValueError(
            f"the pipeline answered a canvas of {width}x{height} with {across}x{down}: set area_px and multiple_px to "
            "sizes that it keeps"
        )
    return np.asarray(picture.convert("RGB"))
