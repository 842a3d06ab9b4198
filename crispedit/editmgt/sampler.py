"""The sampler: fills in masked tokens in K steps, and keeps the source's tokens outside the edited region.

MaskGIT decoding (arXiv 2202.04200) with classifier-free guidance and EditMGT's region hold (arXiv 2605.10859): at each
step, predicted tokens whose localisation score is below a threshold are replaced by the source's. Letters as in
`crispedit.editmgt.transformer`; here N counts codebook tokens, M unknown ones, and V codebook entries.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from crispedit.editmgt.localize import localisation
from crispedit.editmgt.masking import mask_count, masked_share, remask, temperatures
from crispedit.editmgt.noise import SeededNoise
from crispedit.editmgt.options import RELEASED, SamplingOptions, Speed
from crispedit.editmgt.transformer import Capture, Conditions, KeyValueCache, Transformer

CHUNK = 2**23  # logits processed at once: 32 MiB in fp32, for any batch and codebook


@dataclass(frozen=True)
class Shortcuts:
    """How often an approximate run recomputes what hardly changes between steps."""

    refresh: int  # steps between passes over all tokens; those in between compute only tokens that may change
    guidance: int  # steps between passes of the unconditional half; in between, guidance reuses the last difference
    fewest: int = 6  # steps of the smallest edit

    def steps(self, steps: int, share: float) -> int:
        """The number of steps to run, of `steps`, where this share of the tokens is unknown: sqrt(share) times them."""
        return min(steps, max(self.fewest, math.ceil(steps * math.sqrt(share))))


SHORTCUTS: Mapping[Speed, Shortcuts] = {
    "fast": Shortcuts(refresh=4, guidance=2),
    "faster": Shortcuts(refresh=9, guidance=3),
}


@dataclass(frozen=True)
class Sampled:
    """The state after the last step or, for `on_step`, after any."""

    tokens: Tensor  # [B, height, width]; before the end, the model's mask id where still unknown
    held: Tensor  # [B, height, width] bool: tokens that a hold kept from the source
    scores: Tensor | None  # [B, height, width] in [0, 1], the last localisation map; None if nothing was captured
    steps: int  # steps that were run; at the end fewer than `options.steps` if all tokens were known before


def choose(
    logits_of: Callable[[Tensor], Tensor],
    unknown_BN: Tensor,
    noise: SeededNoise,
    codebook: int,
    held_BN: Tensor | None = None,
    reference_BN: Tensor | None = None,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Draw a token at every unknown position, or take the reference's where held: ([M] tokens, [M] probabilities).

    `logits_of` gives [m, V] for m positions of the flattened [B, N]; it is called for unknown positions only, in
    chunks. A temperature below 1 favours likely tokens. The probability is the model's, at that temperature, for the
    token that was drawn or held.
    """
    noise.begin(codebook)
    unknown_M = unknown_BN.flatten().nonzero()[:, 0]
    tokens, probabilities = [], []
    for rows in unknown_M.split(max(1, CHUNK // codebook)):
        p_mV = (logits_of(rows).float() / temperature).softmax(-1)
        token = noise.pick(p_mV, rows)
        if held_BN is not None and reference_BN is not None:
            token = torch.where(held_BN.flatten()[rows], reference_BN.flatten()[rows], token)
        tokens.append(token)
        probabilities.append(p_mV.gather(1, token[:, None])[:, 0])
    return torch.cat(tokens), torch.cat(probabilities)


@torch.inference_mode()
def sample(
    model: Transformer,
    conditions: Conditions,
    tokens_BHW: Tensor,
    noise: SeededNoise,
    options: SamplingOptions = RELEASED,
    *,
    reference: Tensor | None = None,
    capture: Capture | None = None,
    fixed: Tensor | None = None,
    early_exit: bool = True,
    on_step: Callable[[Sampled], None] | None = None,
) -> Sampled:
    """Fill in the tokens that are `model.config.mask_id`; all others are known and never change.

    conditions: B entries if guidance is 1, else 2 B, the unconditional half first; they include the reference's
    strength. reference: [B, height, width] source tokens; required for a hold, as is `capture`. fixed: [B, height,
    width] bool, tokens that a mask makes known; they count as held. early_exit: finish a sample when all its unknown
    tokens would be held (the released code continues, since a later map could release them). ValueError if the
    conditions or the hold do not fit.
    """
    batch, height, width = tokens_BHW.shape
    count, codebook, mask_id = height * width, model.config.codebook_size, model.config.mask_id
    steps, hold, entries = options.steps, options.hold, batch * (1 if options.guidance == 1.0 else 2)
    if len(conditions.pooled) != entries:
        raise ValueError(f"conditions have {len(conditions.pooled)} entries; {entries} are needed")
    if hold and (capture is None or not capture.blocks):
        raise ValueError("a hold needs the attention of at least one block: name some to capture")
    if hold and reference is None:
        raise ValueError("a hold keeps tokens of a source image: give `reference`")

    tokens = tokens_BHW.flatten(1)
    reference_BN = tokens if reference is None else reference.flatten(1)
    held = torch.zeros_like(tokens, dtype=torch.bool) if fixed is None else fixed.flatten(1)
    start = (tokens == mask_id).sum(1) / count
    shortcuts = SHORTCUTS.get(options.speed)
    passes = _Passes(model, conditions, options, capture, shortcuts)
    scores: Tensor | None = None
    step = 0

    def state() -> Sampled:
        return Sampled(tokens.view_as(tokens_BHW), held.view_as(tokens_BHW), scores, step)

    while step < steps:
        unknown = tokens == mask_id
        left = unknown.sum(1)
        if not left.any():
            break
        logits_of, captured = passes(tokens.view_as(tokens_BHW), unknown, step)
        now_held = None
        if captured is not None:
            maps = localisation(captured, conditions.grid, (height, width), options.hold_peak)
            # A finished sample keeps its last map, even if the rest of its batch continues.
            scores = maps if scores is None else torch.where((left > 0)[:, None, None], maps, scores)
            now_held = scores.flatten(1) < hold if hold else None
        if now_held is not None:
            held = torch.where(unknown, now_held, held)
        if shortcuts is not None and now_held is not None:
            # Held tokens are fixed, not masked and held again at every step.
            tokens = torch.where(unknown & now_held, reference_BN, tokens)
            unknown, now_held = unknown & ~now_held, None
            left = unknown.sum(1)
            start = left / count
        if shortcuts is not None and step == 0:
            steps = shortcuts.steps(steps, float(start.max()))

        temperature = options.token_temperature
        drawn, probability = choose(logits_of, unknown, noise, codebook, now_held, reference_BN, temperature)
        tokens = tokens.masked_scatter(unknown, drawn)
        if step < steps - 1:
            again = mask_count(left, count, start, masked_share(step, steps, options.schedule))
            if early_exit and now_held is not None:
                again = again * (unknown & ~now_held).any(1)
            likelihood = probability.clamp(min=1e-20).log()
            confidence = torch.zeros_like(tokens, dtype=torch.float32).masked_scatter(unknown, likelihood)
            heat = temperatures(steps, options.temperature)[step].to(tokens.device)
            tokens = remask(tokens, confidence + heat * noise.gumbel(), unknown, again, mask_id)
        step += 1
        if on_step is not None:
            on_step(state())
    return state()


@dataclass
class _Passes:
    """The model's passes: over all tokens or, with shortcuts, over those that may have changed."""

    model: Transformer
    conditions: Conditions
    options: SamplingOptions
    capture: Capture | None
    shortcuts: Shortcuts | None
    cache: KeyValueCache = field(default_factory=KeyValueCache)
    changed: Tensor | None = None
    """Tokens that were unknown at the last pass of both halves: a superset of those that have changed since."""
    difference: Tensor | None = None
    """[B N, D] difference of the halves, which guidance scales, from their last joint pass; 0 for known tokens."""

    def __call__(
        self, tokens_BHW: Tensor, unknown_BN: Tensor, step: int
    ) -> tuple[Callable[[Tensor], Tensor], Tensor | None]:
        """A function from positions of the flattened [B, N] to their logits, and the captured scores."""
        conditions, guided, both, cache = self.conditions, self.options.guidance != 1.0, True, None
        if self.shortcuts is not None:
            cache = self.cache
            refreshes = step % self.shortcuts.refresh == 0
            both = refreshes or step % self.shortcuts.guidance == 0 or not guided
            cache.rows = slice(None) if both else slice(len(conditions.pooled) // 2, None)
            conditions = conditions.rows(cache.rows)
            cache.live = None if refreshes else self._live(tokens_BHW.shape).repeat(2 if both and guided else 1, 1)
            if both:
                self.changed = unknown_BN
        timestep = torch.full((len(conditions.pooled),), self.options.steps - 1 - step, device=tokens_BHW.device)
        # With shortcuts, the first map alone decides what is held: later ones turn to what is left to draw.
        capture = self.capture if self.shortcuts is None or step == 0 else None
        features, captured = self.model.encode(tokens_BHW, timestep, conditions, capture, cache)
        features = features.flatten(0, 2)
        if self.shortcuts is not None and both and guided:
            self.difference = features.new_zeros(tokens_BHW.numel(), features.shape[1], dtype=torch.float32)
        return partial(self._logits, features, both and guided), captured

    def _logits(self, features: Tensor, halves: bool, rows: Tensor) -> Tensor:
        """Guided logits of chosen positions. Guidance mixes the input of the last (linear) layer, which runs once.

        halves: the features are those of both, the unconditional half first.
        """
        head = self.model.mlm_layer
        hidden = head.hidden(features[rows])
        # fp32: guidance would multiply a bf16 rounding error of the difference.
        if halves:
            unconditional = hidden.float()
            conditional = head.hidden(features[rows + len(features) // 2]).float()
            if self.difference is not None:
                self.difference[rows] = conditional - unconditional
            hidden = torch.lerp(unconditional, conditional, self.options.guidance).type_as(hidden)
        elif self.difference is not None:
            hidden = (hidden.float() + (self.options.guidance - 1) * self.difference[rows]).type_as(hidden)
        return head.logits(hidden)

    def _live(self, shape: tuple[int, ...]) -> Tensor:
        """[B, n] positions inside the transformer that may have changed; n is the largest number in the batch."""
        assert self.changed is not None
        changed = self.changed.view(shape).float()
        stride = self.model.config.stride
        inner_BN = F.max_pool2d(changed[:, None], stride).flatten(1) if stride > 1 else changed.flatten(1)
        most = int(inner_BN.sum(1).max())
        return inner_BN.topk(most, dim=1).indices.sort(dim=1).values
