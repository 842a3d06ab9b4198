"""Connectors equal the reference's; the resampler, which has no golden, at least does what it is for."""

from __future__ import annotations

import pytest
import torch

from crispedit.editmgt.connector import Resampler, make_connector
from editmgt.conftest import relative


@pytest.mark.parametrize("kind", ["linear", "mlp", "fmlp"])
def test_projectors(golden, kind):
    t = golden("connectors")
    connector = make_connector(kind, 48, 64)
    connector.load_state_dict(
        {k.removeprefix(f"{kind}."): v for k, v in t.items() if k.startswith(f"{kind}.projector")}
    )
    assert relative(connector(t["in"], torch.zeros(2)), t[f"{kind}.out"]) < 5e-6


def test_resampler_reads_text_and_time_at_any_width():
    """Released: the width must be 1024, and the time is truncated to an integer."""
    torch.manual_seed(0)
    connector = Resampler(48, 64, latents=16)
    text = torch.randn(2, 5, 48)
    out = connector(text, torch.tensor([3.25, 3.25]))
    assert out.shape == (2, 16, 64)
    assert not torch.allclose(out[0], out[1])
    assert not torch.allclose(out, connector(text, torch.tensor([3.75, 3.75])))


def test_none_is_meissonic():
    assert make_connector("none", 48, 64) is None
