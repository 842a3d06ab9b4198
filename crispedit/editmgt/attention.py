"""Attention over [text, image, reference] with one bias between the reference and the rest."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(q_BHSd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, reference: int, strength: float) -> Tensor:
    """softmax(q k^T / sqrt(d) + E) v, [B, H, S, d], where the last `reference` keys belong to the reference image.

    E is ln(strength) between the reference and everything else, in both directions, and 0 elsewhere (paper,
    "attention bias"). The queries are either all tokens (S = T, in the order of the keys) or all but the
    reference's. E is never built as an [S, T] matrix, so the fast kernels stay eligible.
    """
    if strength == 1.0 or reference == 0:
        if q_BHSd.requires_grad and not q_BHSd.is_cuda and torch.is_autocast_enabled("cpu"):
            return attend_by_products(q_BHSd, k_BHTd, v_BHTd)
        return F.scaled_dot_product_attention(q_BHSd, k_BHTd, v_BHTd)
    if q_BHSd.is_cuda:
        way = attend_by_parts if _flash_takes(q_BHSd) else attend_by_channel
        return way(q_BHSd, k_BHTd, v_BHTd, reference, strength)
    return attend_by_rows(q_BHSd, k_BHTd, v_BHTd, reference, strength)


def attend_by_products(q_BHSd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor) -> Tensor:
    """Attention as two matrix products: on the CPU in bf16, the flash kernel takes four times as long backward."""
    weights = torch.softmax(q_BHSd * q_BHSd.shape[-1] ** -0.5 @ k_BHTd.transpose(-1, -2), -1)
    return weights @ v_BHTd


def attend_by_rows(q_BHSd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, reference: int, strength: float) -> Tensor:
    """`attend` in two calls, each with one bias per key that all its queries share (a stride of 0, no memory).

    A softmax ignores what is added to a whole row, so for the reference's own queries "+ln s on the rest" is the
    same as "-ln s on the reference". On the CPU this costs nothing over attention without a bias.
    """
    rest = k_BHTd.shape[2] - reference
    bias_T = q_BHSd.new_zeros(k_BHTd.shape[2])
    bias_T[rest:] = math.log(strength)
    outputs = []
    for q, row in ((q_BHSd[:, :, :rest], bias_T), (q_BHSd[:, :, rest:], -bias_T)):
        if q.shape[2]:
            mask = row.expand(q.shape[2], -1)
            outputs.append(F.scaled_dot_product_attention(q, k_BHTd, v_BHTd, attn_mask=mask))
    return torch.cat(outputs, 2)


def attend_by_parts(q_BHSd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, reference: int, strength: float) -> Tensor:
    """`attend` in two calls of a flash kernel, over the reference's keys and over the others, without padded heads.

    The two results are merged by their log-sum-exp (lse). E adds ln s to the reference's for queries of the rest. For
    queries of the reference it adds ln s to the others', which is the same as -ln s on the reference's own.
    """
    rest = k_BHTd.shape[2] - reference
    others, others_lse_BHS = _flash(q_BHSd, k_BHTd[:, :, :rest], v_BHTd[:, :, :rest])
    own, own_lse_BHS = _flash(q_BHSd, k_BHTd[:, :, rest:], v_BHTd[:, :, rest:])
    sign_S = torch.ones_like(own_lse_BHS[0, 0])
    sign_S[rest:] = -1.0
    share_BHS1 = torch.sigmoid(own_lse_BHS + math.log(strength) * sign_S - others_lse_BHS)[..., None]
    return (others + (own - others) * share_BHS1).type_as(q_BHSd)  # merged in fp32, the type of the lse


def _flash(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention, and each query's log-sum-exp [B, H, S], which the public function does not return."""
    aten = torch.ops.aten
    kernel = aten._scaled_dot_product_flash_attention if q.is_cuda else aten._scaled_dot_product_flash_attention_for_cpu
    out, lse, *_ = kernel(q, k, v)
    return out, lse


def _flash_takes(q: Tensor) -> bool:
    """Whether the flash kernel takes these queries and the device has it; its log-sum-exp has no gradient."""
    fits = q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] % 8 == 0 and q.shape[-1] <= 256
    return fits and not q.requires_grad and _has_flash()


@torch.compiler.assume_constant_result  # torch.compile cannot trace the query of the device
def _has_flash() -> bool:
    return torch.backends.cuda.is_flash_attention_available() and torch.cuda.get_device_capability() >= (8, 0)


def attend_by_channel(q_BHSd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, reference: int, strength: float) -> Tensor:
    """`attend` in one call without a mask and with a gradient: E is encoded in an extra channel of q and k.

    With sigma = -1 on the reference and +1 elsewhere, -(ln s / 2) sigma_i sigma_j is +ln s / 2 across and -ln s / 2
    within: E minus a constant, which the softmax ignores. Eight channels are added, since kernels want multiples of 8.
    """
    d, rest = q_BHSd.shape[-1], k_BHTd.shape[2] - reference
    sigma_T = q_BHSd.new_ones(k_BHTd.shape[2])
    sigma_T[rest:] = -1.0
    q = F.pad(q_BHSd, (0, 8))
    k = F.pad(k_BHTd, (0, 8))
    q[..., d] = sigma_T[: q.shape[2]]
    k[..., d] = -0.5 * math.log(strength) * math.sqrt(d) * sigma_T
    out = F.scaled_dot_product_attention(q, k, F.pad(v_BHTd, (0, 8)), scale=1.0 / math.sqrt(d))
    return out[..., :d]
