"""The EditMGT pipeline: edits a photograph by an instruction, at the photograph's size."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from crispedit import torchvision_ops as torchvision_ops  # before diffusers and transformers
from crispedit import weights
from crispedit.editmgt.checkpoint import load_transformer, save_transformer
from crispedit.editmgt.connector import Resampler
from crispedit.editmgt.frame import mask_to_tokens, paste, resize, working_size
from crispedit.editmgt.localize import default_blocks
from crispedit.editmgt.masking import partly_masked
from crispedit.editmgt.noise import ReleasedNoise, SeededNoise
from crispedit.editmgt.options import RELEASED, SamplingOptions, sampling_options
from crispedit.editmgt.sampler import Sampled, sample
from crispedit.editmgt.text import LLM_TOKENS, TextEncoder
from crispedit.editmgt.transformer import Capture, Conditions, Transformer
from crispedit.editmgt.vq import VQ, rgb
from crispedit.record import Image, Mask

SCORE = 6.0  # the last micro-condition: an aesthetic score, always this in the released code

FOLDERS = {
    "transformer": ("transformer", "editmgt"),
    "vqvae": ("vqvae", "vae"),
    "text_encoder": ("text_encoder",),
    "tokenizer": ("tokenizer",),
    "llm_encoder": ("llm_encoder", "text_encoder_2"),
}
"""Folders of a checkpoint's parts; the first name is used for writing."""


@dataclass(frozen=True)
class Edited:
    image: Image  # [H, W, 3], at the source's size
    localisation: NDArray[np.float32]  # [rows, columns] of tokens, 0-1: the instruction's attention at the last step
    held: NDArray[np.bool_]  # [rows, columns] bool: tokens that a hold or the mask kept from the source
    steps: int  # steps that were run for its batch; fewer than `options.steps` after an early exit

    @property
    def held_fraction(self) -> float:
        """The share of held tokens, 0-1."""
        return float(self.held.mean())


@dataclass(frozen=True)
class _Task:
    """One edit to make. `pixels` is the source at the model's size."""

    source: Image
    pixels: Image
    instruction: str
    editable: NDArray[np.bool_]  # [rows, columns] of tokens
    seed: int


@dataclass(eq=False, repr=False)
class EditMGTPipeline:
    """The transformer, the image tokenizer and the text encoders together. ValueError if they do not fit."""

    transformer: Transformer
    vq: VQ
    text: TextEncoder
    resolution: int = 1024  # the model works on images of about resolution x resolution pixels
    sampling: SamplingOptions = RELEASED  # default sampling options, stored in the checkpoint

    def __post_init__(self) -> None:
        read, drawn = self.vq.codebook_size, self.transformer.config.codebook_size
        if read != drawn:
            raise ValueError(
                f"the image tokenizer has {read} codes and the transformer {drawn}: they cannot be combined"
            )

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        llm: str | Path | None = None,
        device: torch.device | str = "auto",
        dtype: torch.dtype | str | None = None,
    ) -> EditMGTPipeline:
        """Load a folder in diffusers' layout, a model that ships ("editmgt-tiny"), or a repository of a hub.

        llm: the language model's folder or repository, for a checkpoint without one (Gemma-2 2B has its own licence).
        device: "auto" is the GPU if there is one. dtype: by default bfloat16 on a GPU, float32 elsewhere; the image
        tokenizer stays in fp32 (on a GPU with TF32 products). ValueError names what is missing.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        on_gpu = torch.device(device).type == "cuda"
        if on_gpu:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        dtype = dtype or ("bfloat16" if on_gpu else "float32")
        precision: torch.dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        root = weights.local(str(path)) or _download(str(path))
        transformer = load_transformer(_folder(root, "transformer"), device, precision)
        text = load_text(root, transformer.connector is not None, llm=llm, device=device, dtype=precision)
        index = _index(root)
        sampling = sampling_options(index.get("sampling", {}))
        return cls(transformer, load_vq(root, device), text, int(index.get("resolution", 1024)), sampling)

    def save_pretrained(self, path: str | Path) -> None:
        """Write every part and `model_index.json`; `from_pretrained` reads it back."""
        root = Path(path)
        folders = {part: root / names[0] for part, names in FOLDERS.items()}
        save_transformer(self.transformer, folders["transformer"])
        self.vq.model.save_pretrained(folders["vqvae"])
        self.text.clip.save_pretrained(folders["text_encoder"])
        self.text.clip_tokenizer.save_pretrained(folders["tokenizer"])
        index: dict[str, Any] = {
            "_class_name": "EditMGTPipeline",
            "transformer": ["crispedit.editmgt.transformer", "Transformer"],
            "vqvae": ["diffusers", "VQModel"],
            "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer": ["transformers", type(self.text.clip_tokenizer).__name__],
        }
        if self.text.llm is not None:
            self.text.llm.save_pretrained(folders["llm_encoder"])
            self.text.llm_tokenizer.save_pretrained(folders["llm_encoder"])
            index["llm_encoder"] = ["transformers", type(self.text.llm).__name__]
        index |= {"resolution": self.resolution, "llm_tokens": self.text.llm_tokens}
        index["sampling"] = self.sampling.model_dump(mode="json")
        (root / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")

    def __call__(
        self,
        image: Image | Sequence[Image],
        instruction: str | Sequence[str],
        sampling: SamplingOptions | None = None,
        *,
        mask: Mask | Sequence[Mask | None] | None = None,
        seed: int | Sequence[int] = 0,
        images_per_prompt: int = 1,
        start: float = 1.0,
        blocks: Sequence[int] | None = None,
        words: Sequence[str] | None = None,
        padding_rows: bool = True,
        size: tuple[int, int] | None = None,
        batch_size: int = 8,
        released_noise: bool = False,
        on_step: Callable[[Sampled], None] | None = None,
        progress: bool = False,
    ) -> list[Edited]:
        """Edit images. Returns `images_per_prompt` edits of each image, in order.

        An edit depends only on its own image, instruction, mask, options and seed.

        Args:
            image: [H, W, 3] uint8 RGB, or several of any sizes.
            instruction: one for all images, or one each.
            sampling: default `self.sampling`; `self.sampling.changed(hold=0.3)` changes one option.
            mask: [H, W] bool at the source's size, true where the image may change. With a hold, both apply.
            seed: one for all images, or one each; the n-th edit of an image uses seed + n.
            start: the share of the editable tokens that starts masked; the others keep the source's value.
            blocks: blocks whose attention localises the edit (default: the paper's 28-36 of 42, in proportion).
            words: localise by these words of the instruction only.
            padding_rows: count padding as text in the localisation, as released.
            size: the model's width and height in pixels, in place of the ones that follow from `resolution`.
            batch_size: maximum number of edits sampled at once; a batch has one size.
            released_noise: draw random numbers as the released code does, from one generator per batch. Then an edit
                depends on its batch too.
            on_step: called after every step.
            progress: show a progress bar.
        """
        options = self.sampling if sampling is None else sampling
        tasks = self._tasks(image, instruction, mask, seed, images_per_prompt, size)
        if not 0.0 < start <= 1.0:
            raise ValueError(f"start is {start}; it must lie in (0, 1]")
        batches, mask_id = _batches(tasks, batch_size), self.transformer.config.mask_id
        results: list[Edited | None] = [None] * len(tasks)
        bar = tqdm(total=options.steps * len(batches), disable=not progress, desc="edit", unit="step")

        def watch(now: Sampled) -> None:
            bar.update()
            if on_step is not None:
                on_step(now)

        for indices in batches:
            batch = [tasks[i] for i in indices]
            reference = self.vq.encode(rgb(np.stack([task.pixels for task in batch]), self._device))
            editable = torch.from_numpy(np.stack([task.editable for task in batch])).to(self._device)
            noise = SeededNoise([task.seed for task in batch], reference[0].numel(), self._device)
            if released_noise:
                generator = torch.Generator().manual_seed(batch[0].seed)
                noise = ReleasedNoise(generator, len(batch), reference[0].numel(), self._device)
            tokens = torch.full_like(reference, mask_id)
            if start < 1.0:
                tokens = partly_masked(reference, start, noise.uniform().view_as(reference), mask_id)
            out = sample(
                self.transformer,
                self._conditions(batch, reference, options),
                torch.where(editable, tokens, reference),  # outside a mask, tokens keep the source's value
                noise,
                options,
                reference=reference,
                capture=self._capture(batch, blocks, words, padding_rows),
                fixed=~editable,
                early_exit=not released_noise,
                on_step=watch,
            )
            maps = torch.zeros_like(out.held, dtype=torch.float32) if out.scores is None else out.scores
            for row, index in enumerate(indices):
                held = out.held[row].cpu().numpy()
                pixels = self.vq.decode(out.tokens[row : row + 1])[0]
                answer = _finish(tasks[index].source, pixels, held if options.paste_untouched else None)
                results[index] = Edited(answer, maps[row].float().cpu().numpy(), held, out.steps)
        bar.close()
        return [edited for edited in results if edited is not None]

    @property
    def _device(self) -> torch.device:
        return self.transformer.context_embedder.weight.device

    def _tasks(
        self,
        image: Image | Sequence[Image],
        instruction: str | Sequence[str],
        mask: Mask | Sequence[Mask | None] | None,
        seed: int | Sequence[int],
        images_per_prompt: int,
        size: tuple[int, int] | None,
    ) -> list[_Task]:
        images = [image] if isinstance(image, np.ndarray) else list(image)
        given = {"instructions": instruction, "masks": mask, "seeds": seed}
        instructions, masks, seeds = (_each(values, len(images), name) for name, values in given.items())
        if images_per_prompt < 1:
            raise ValueError(f"images_per_prompt is {images_per_prompt}; it must be at least 1")
        multiple = self.vq.pixels * self.transformer.config.stride
        tasks = []
        for number, (source, prompt, region, first) in enumerate(zip(images, instructions, masks, seeds, strict=True)):
            if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
                raise ValueError(f"image {number} is {source.dtype} {source.shape}; give [height, width, 3] uint8 RGB")
            if region is not None and region.shape != source.shape[:2]:
                raise ValueError(f"mask {number} is {region.shape} and its image {source.shape[:2]}: sizes differ")
            height, width = source.shape[:2]
            across, down = size or working_size(width, height, self.resolution, multiple)
            if across % multiple or down % multiple:
                raise ValueError(f"size is {across}x{down}; this model needs multiples of {multiple} pixels")
            grid = (down // self.vq.pixels, across // self.vq.pixels)
            editable = np.ones(grid, np.bool_)
            if region is not None:
                if not region.any():
                    raise ValueError("the mask is empty, so nothing may change")
                editable = mask_to_tokens(region.astype(np.bool_), *grid)
            pixels = resize(source, across, down)
            tasks += [_Task(source, pixels, prompt, editable, first + n) for n in range(images_per_prompt)]
        return tasks

    def _conditions(self, batch: Sequence[_Task], reference: Tensor, options: SamplingOptions) -> Conditions:
        guided = options.guidance != 1.0
        prompts = [task.instruction for task in batch]
        features = self.text.encode([options.negative] * len(batch) * guided + prompts)
        dtype = self.transformer.context_embedder.weight.dtype
        height, width = batch[0].pixels.shape[:2]
        micro = torch.tensor([[width, height, 0.0, 0.0, SCORE]] * len(features.pooled), device=self._device)
        grid, strength = (reference.shape[1], reference.shape[2]), options.reference_strength
        sequence, pooled = features.sequence.to(dtype), features.pooled.to(dtype)
        with torch.inference_mode():
            return self.transformer.condition(sequence, pooled, micro, grid, reference, strength)

    def _capture(
        self, batch: Sequence[_Task], blocks: Sequence[int] | None, words: Sequence[str] | None, padding_rows: bool
    ) -> Capture:
        count = self.transformer.config.blocks
        chosen = tuple(default_blocks(count) if blocks is None else blocks)
        if not chosen or not all(0 <= block < count for block in chosen):
            raise ValueError(f"blocks {list(chosen)} must name some of this model's 0 to {count - 1}")
        connector = self.transformer.connector
        if isinstance(connector, Resampler):
            if words or not padding_rows:
                raise ValueError("this model's connector mixes all tokens: `words` and `padding_rows` cannot be used")
            count = len(connector.latents)
            return Capture(chosen, torch.full((len(batch), count), 1.0 / count, device=self._device))
        rows = [self.text.rows(task.instruction, words, padding_rows) for task in batch]
        return Capture(chosen, torch.stack(rows).to(self._device))


def load_vq(root: Path, device: torch.device | str = "cpu") -> VQ:
    """The image tokenizer of a checkpoint's folder. ValueError if it is missing."""
    from diffusers import VQModel

    return VQ(VQModel.from_pretrained(_folder(root, "vqvae"), use_safetensors=True).to(device))


def load_text(
    root: Path,
    connected: bool = True,
    *,
    llm: str | Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> TextEncoder:
    """The text encoders of a checkpoint's folder. connected: load the language model too, from `llm` if it is given.

    ValueError names what is missing.
    """
    from transformers import AutoModel, AutoTokenizer, CLIPTextModelWithProjection

    options: dict[str, Any] = {"use_safetensors": True, "dtype": dtype}
    clip = CLIPTextModelWithProjection.from_pretrained(_folder(root, "text_encoder"), **options).to(device)
    tokenizer, language, language_tokenizer = AutoTokenizer.from_pretrained(_folder(root, "tokenizer")), None, None
    if connected:
        path = llm if llm is not None else _folder(root, "llm_encoder")
        language = AutoModel.from_pretrained(path, **options).to(device)
        language_tokenizer = AutoTokenizer.from_pretrained(path)
    llm_tokens = int(_index(root).get("llm_tokens", LLM_TOKENS))
    return TextEncoder(tokenizer, clip, language_tokenizer, language, llm_tokens=llm_tokens)


def _index(root: Path) -> dict[str, Any]:
    path = root / "model_index.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _each(values: Any, count: int, name: str) -> list[Any]:
    """One value per image, of one for all or one each."""
    if values is None or isinstance(values, str | int | np.ndarray):
        return [values] * count
    if len(values) != count:
        raise ValueError(f"{count} images but {len(values)} {name}")
    return list(values)


def _batches(tasks: Sequence[_Task], batch_size: int) -> list[list[int]]:
    """Indices of tasks that can be sampled together: same size, at most `batch_size`."""
    by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, task in enumerate(tasks):
        by_size[task.pixels.shape].append(index)
    return [group[i : i + batch_size] for group in by_size.values() for i in range(0, len(group), batch_size)]


def _finish(source: Image, pixels: Tensor, held: NDArray[np.bool_] | None) -> Image:
    """The edit as uint8 at the source's size; with `held`, the source's pixels are restored in those tokens."""
    array = (pixels.permute(1, 2, 0).float().cpu().numpy() * 255.0).round().astype(np.uint8)
    answer = resize(array, source.shape[1], source.shape[0])
    return answer if held is None else paste(source, answer, ~held)


def _folder(root: Path, part: str) -> Path:
    for name in FOLDERS[part]:
        if (root / name).is_dir():
            return root / name
    names = " or ".join(FOLDERS[part])
    hint = "; name a language model (llm=) instead" if part == "llm_encoder" else ""
    raise ValueError(f"{root} has no folder {names}{hint}")


def _download(repository: str) -> Path:
    """The local copy of a hub repository: configurations, tokenizers and safetensors, never code or pickles."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        patterns = ["*.json", "*.safetensors", "*.txt", "*.model"]
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except (HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError) as error:
        raise ValueError(f"{repository!r} is not a folder, and no repository of that name can be downloaded") from error
