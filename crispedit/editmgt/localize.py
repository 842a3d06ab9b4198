"""Localisation: where in the image the instruction looks, from the transformer's own attention.

"Multi-layer attention consolidation" of EditMGT (arXiv 2605.10859): the attention of text tokens to image tokens,
averaged over blocks, heads and text tokens, rescaled to [0, 1] and smoothed. Only the sums are ever kept.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

FLAT = 0.45
"""The mean of a flat map: a hold of 0.4 keeps what has less than 0.9 of the mean score, such as the subject before a
new background."""


def text_to_image(q_CHLd: Tensor, k_CHTd: Tensor, rows_CL: Tensor) -> Tensor:
    """[C, N]: the attention of the L text queries to the N = T - L image keys, averaged over heads and text rows.

    Keys are text then image; the reference's are left out of the softmax, as released. `rows` weighs the text tokens
    and adds up to 1 per sample. The softmax is not normalised: each row's sum divides its weight instead. When
    sampling, one sample at a time, so that the largest buffer is [H, L, T] of one sample.
    """
    heads, length, d = q_CHLd.shape[1:]
    at_once = len(q_CHLd) if q_CHLd.requires_grad else 1
    maps = []
    for q, k, rows in zip(*(x.split(at_once) for x in (q_CHLd, k_CHTd, rows_CL)), strict=True):
        logits = ((q * d**-0.5) @ k.transpose(2, 3)).float()
        weights = (logits - logits.amax(-1, keepdim=True)).exp()
        rows_CHL = rows[:, None] / (weights.sum(-1) * heads)
        maps.append(torch.einsum("chl,chln->cn", rows_CHL, weights[..., length:]))
    return torch.cat(maps)


def default_blocks(blocks: int) -> tuple[int, ...]:
    """The blocks whose attention is read: 28-36 of the paper's 42, and the same share of any other depth."""
    first = min(round(blocks * 28 / 42), blocks - 1)
    return tuple(range(first, max(first + 1, round(blocks * 37 / 42))))


def rescale(scores_CN: Tensor) -> Tensor:
    """Each sample's scores to [0, 1]; a constant map becomes 0."""
    low, high = scores_CN.aminmax(dim=-1, keepdim=True)
    return (scores_CN - low) / (high - low + 1e-8)


def smooth(scores_Chw: Tensor) -> Tensor:
    """Adaptive smoothing of maps: flat places take their Gaussian mean, busy places and peaks keep themselves.

    Equal to the released one on its 32x32 and 64x64 maps; theirs treats any other size as a line, this as the image
    that it is. Gaussian sigma 1.5 and radius 6, variance over 5x5, both with the border mirrored about pixel edges.
    Peaks are what exceeds the 90th percentile. Each map's range is kept.
    """
    mean = _gaussian(scores_Chw)
    windows = _mirror(scores_Chw, 2).unfold(1, 5, 1).unfold(2, 5, 1)
    variance = windows.flatten(-2).var(-1, correction=0)
    weight = 1.0 - 0.7 * rescale(variance.flatten(1)).view_as(variance)
    out = weight * mean + (1.0 - weight) * scores_Chw
    peak = torch.quantile(scores_Chw.flatten(1), 0.9, dim=1)[:, None, None]
    out = torch.where(scores_Chw > peak, 0.7 * scores_Chw + 0.3 * out, out)

    low, high = (x[:, :, None] for x in scores_Chw.flatten(1).aminmax(dim=1, keepdim=True))
    out_low, out_high = (x[:, :, None] for x in out.flatten(1).aminmax(dim=1, keepdim=True))
    spread = torch.where(out_high > out_low, out_high - out_low, 1.0)
    return torch.where(out_high > out_low, low + (out - out_low) / spread * (high - low), out)


def upsample(scores_Chw: Tensor, size: tuple[int, int]) -> Tensor:
    """The maps at another size, bicubic; values may leave [0, 1] a little (`localisation` clamps them)."""
    if scores_Chw.shape[1:] == size:
        return scores_Chw
    return F.interpolate(scores_Chw[:, None], size, mode="bicubic", align_corners=False)[:, 0]


def localisation(scores_CN: Tensor, grid: tuple[int, int], size: tuple[int, int], peak: float = 0.0) -> Tensor:
    """Captured scores [C, N] on the transformer's grid -> map [C, *size] in [0, 1] on the tokens', 1 where it looks.

    A sample whose highest score is below `peak` times its mean looks at most of the image: its map is the scores over
    their mean, times `FLAT`, since their range would only show noise. 0: never, as released.
    """
    maps = smooth(rescale(scores_CN).unflatten(1, grid))
    mean_C1 = scores_CN.mean(1, keepdim=True)
    flat_C1 = scores_CN.amax(1, keepdim=True) < peak * mean_C1
    if flat_C1.any():
        maps = torch.where(flat_C1[..., None], (FLAT * scores_CN / mean_C1).unflatten(1, grid), maps)
    return upsample(maps, size).clamp(0.0, 1.0)


def _mirror(x_Chw: Tensor, radius: int) -> Tensor:
    """Border of `radius` mirrored about the pixels' edges (c b a | a b c), however small the map is.

    SciPy calls this "reflect" and NumPy "symmetric"; torch's "reflect" is another one.
    """
    for dim in (1, 2):
        n = x_Chw.shape[dim]
        index = torch.arange(-radius, n + radius, device=x_Chw.device) % (2 * n)
        x_Chw = x_Chw.index_select(dim, torch.minimum(index, 2 * n - 1 - index))
    return x_Chw


def _gaussian(x_Chw: Tensor, sigma: float = 1.5, radius: int = 6) -> Tensor:
    offsets = torch.arange(-radius, radius + 1, dtype=x_Chw.dtype, device=x_Chw.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    out = F.conv2d(_mirror(x_Chw, radius)[:, None], kernel.view(1, 1, -1, 1))
    return F.conv2d(out, kernel.view(1, 1, 1, -1))[:, 0]
