"""The observer: measures a model during training, by its loss and sample edits on held-out pairs."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor

from crispedit.editmgt.examples import Examples
from crispedit.editmgt.noise import SeededNoise
from crispedit.editmgt.objective import losses, masked_batch
from crispedit.editmgt.options import SamplingOptions
from crispedit.editmgt.sampler import sample
from crispedit.editmgt.settings import Objective, Watch
from crispedit.editmgt.text import TextFeatures
from crispedit.editmgt.transformer import Transformer
from crispedit.editmgt.vq import VQ
from crispedit.record import seed_of

GUIDANCE = 3.0
MARGIN_PX = 4
DRAWS = 8  # masks per held-out pair, over which its loss is averaged; the same at every step


class Observer:
    """Measures a model and writes `samples/step-*.png` into the run's folder.

    batches: each with examples of one size. held_out: whether the pairs are not trained on; only then
    they are measured.
    A sheet has a row for each of the first `watch.samples` pairs: source, target, and the model's edit, all decoded by
    the image tokenizer.
    """

    def __init__(
        self, run: Path, vq: VQ, batches: Sequence[Examples], empty: TextFeatures, watch: Watch, held_out: bool
    ) -> None:
        self.run, self.vq, self.batches, self.empty = run, vq, batches, empty
        self.watch, self.held_out = watch, held_out

    @torch.no_grad()
    def __call__(self, model: Transformer, step: int) -> tuple[Mapping[str, float], NDArray[np.uint8] | None]:
        """Measurements on held-out pairs, and a sheet of sample edits.

        held_out_loss: the mean loss, with the same masks at every step. edit_l1_inside, copy_l1_inside: mean absolute
        distance (0 to 1) from the target inside the mask, of the model's edit and of the source. edit_l1_outside: of
        the edit from the source, outside the mask.
        """
        device = next(model.parameters()).device
        batches = [batch.to(device) for batch in self.batches]
        empty = self.empty.to(device)
        samples = (row for batch in batches for row in self._rows(model, batch, empty))
        rows = list(islice(samples, self.watch.samples))
        sheet = None
        if rows:
            sheet = _sheet([images for images, _ in rows])
            path = self.run / "samples" / f"step-{step:08d}.png"
            path.parent.mkdir(exist_ok=True)
            Pillow.fromarray(sheet).save(path)
        if not self.held_out:
            return {}, sheet
        objective, mask_id = Objective(drop_text=0), model.config.mask_id
        masked = (
            masked_batch(batch, empty, objective, mask_id, -1, draw) for batch in batches for draw in range(DRAWS)
        )
        loss = torch.cat([losses(model, batch)[0] for batch in masked]).mean()
        return {"held_out_loss": float(loss)} | _distances(rows), sheet

    def _rows(self, model: Transformer, batch: Examples, empty: TextFeatures) -> Iterator[tuple[Tensor, Tensor]]:
        """For each pair, its source, target and edit [3, 3, H, W] in [0, 1], and its mask [H, W]."""
        count = len(batch)
        assert batch.source is not None
        sequence = torch.cat([empty.sequence.expand(count, -1, -1).to(batch.sequence), batch.sequence])
        pooled = torch.cat([empty.pooled.expand(count, -1).to(batch.pooled), batch.pooled])
        grid = (batch.source.shape[1], batch.source.shape[2])
        conditions = model.condition(sequence, pooled, batch.micro.repeat(2, 1), grid, batch.source)
        masked = torch.full_like(batch.source, model.config.mask_id)
        seeds = [seed_of(key, "sample") for key in batch.keys]
        noise = SeededNoise(seeds, batch.source[0].numel(), batch.source.device)
        options = SamplingOptions(steps=self.watch.sampling_steps, guidance=GUIDANCE)
        out = sample(model, conditions, masked, noise, options)
        decoded = [self.vq.decode(tokens).cpu() for tokens in (batch.source, batch.edited, out.tokens)]
        masks = batch.region.cpu().repeat_interleave(self.vq.pixels, 1).repeat_interleave(self.vq.pixels, 2)
        yield from zip(torch.stack(decoded, 1), masks, strict=True)


def _distances(rows: Sequence[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Means over pairs with a mask; `edit_l1_outside` over those whose mask is not the whole image."""
    distances: dict[str, list[float]] = {"edit_l1_inside": [], "copy_l1_inside": [], "edit_l1_outside": []}
    for (source, target, edit), mask in rows:
        if mask.any():
            distances["edit_l1_inside"].append(float((edit - target).abs()[:, mask].mean()))
            distances["copy_l1_inside"].append(float((source - target).abs()[:, mask].mean()))
        if mask.any() and not mask.all():
            distances["edit_l1_outside"].append(float((edit - source).abs()[:, ~mask].mean()))
    return {name: sum(values) / len(values) for name, values in distances.items() if values}


def _sheet(rows: Sequence[Tensor]) -> NDArray[np.uint8]:
    """Rows of images, stacked, and padded to the widest row."""
    lines = [F.pad(row, (0, MARGIN_PX, 0, MARGIN_PX)).permute(2, 0, 3, 1).flatten(1, 2) for row in rows]
    width = max(line.shape[1] for line in lines)
    sheet = torch.cat([F.pad(line, (0, 0, 0, width - line.shape[1])) for line in lines])
    return (sheet * 255.0).round().byte().numpy()
