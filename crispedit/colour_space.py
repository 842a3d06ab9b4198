"""Colour spaces that a file declares without an ICC profile, turned into ICC profiles.

EXIF marks Adobe RGB with two numbers; a PNG gives gamma and primaries (gAMA, cHRM) or code points (cICP). Each becomes
a small ICC profile, so that one function converts them all.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isclose
from typing import Any

import numpy as np
from numpy.typing import NDArray

Xy = tuple[float, float]
"""CIE 1931 chromaticity."""

D65: Xy = (0.3127, 0.3290)
BT709: tuple[Xy, ...] = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE: tuple[Xy, ...] = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
P3: tuple[Xy, ...] = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
BT2020: tuple[Xy, ...] = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))

Curve = tuple[float, ...]
"""Parameters of an ICC parametric curve from values to light: either a gamma, or g, a, b, c, d of `(aX + b)^g` for X >=
d and `cX` below."""
LINEAR: Curve = (1.0,)
SRGB_CURVE: Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
BT709_CURVE: Curve = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)


@dataclass(frozen=True)
class Space:
    """A declared colour space, with its name in notes."""

    name: str
    profile: bytes
    """Its ICC profile."""


def adobe_rgb() -> Space:
    return Space("adobe_rgb", profile(ADOBE, D65, (563 / 256,)))


# H.273, as in a PNG's cICP chunk.
_PRIMARIES = {
    1: (BT709, D65),
    5: (((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)), D65),
    6: (((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)), D65),
    9: (BT2020, D65),
    11: (P3, (0.314, 0.351)),
    12: (P3, D65),
}
_TRANSFERS: dict[int, Curve] = {
    **dict.fromkeys((1, 6, 14, 15), BT709_CURVE),
    4: (2.2,),
    5: (2.8,),
    8: LINEAR,
    13: SRGB_CURVE,
}
HDR = (16, 18)
"""Transfer functions of high dynamic range: PQ and HLG."""


def of_code_points(primaries: int, transfer: int) -> Space | None:
    """The space of H.273's code points; None for those that are not known."""
    if primaries not in _PRIMARIES or transfer not in _TRANSFERS:
        return None
    colours, white = _PRIMARIES[primaries]
    return Space(f"cicp_{primaries}_{transfer}", profile(colours, white, _TRANSFERS[transfer]))


def of_gamma(gamma: float | None, chromaticities: Sequence[float] | None) -> Space | None:
    """The space of a PNG's gAMA (the exponent of encoding, 0.45455 for sRGB) and cHRM (x and y of white, red, green,
    blue); None where they say sRGB. ValueError for impossible numbers.

    The PNG standard tells sRGB files to carry a gamma of 1/2.2, so that is read as the sRGB curve.
    """
    curve = SRGB_CURVE
    if gamma is not None and abs(gamma - 1 / 2.2) > 0.005:
        if not 0.05 <= gamma <= 20:
            raise ValueError(f"no gamma: {gamma}")
        curve = (1 / gamma,)
    srgb = [*D65, *(n for xy in BT709 for n in xy)]
    numbers = list(chromaticities or srgb)
    white, *colours = zip(numbers[::2], numbers[1::2], strict=True)
    is_srgb = all(isclose(n, known, abs_tol=0.003) for n, known in zip(numbers, srgb, strict=True))
    if is_srgb and curve is SRGB_CURVE:
        return None
    return Space("gamma" if is_srgb else "primaries", profile(tuple(colours), white, curve))


_D50 = np.array([96422, 100_000, 82491], object) * Fraction(1, 100_000)
_BRADFORD = np.array([[8951, 2664, -1614], [-7502, 17135, 367], [389, -685, 10296]], object) * Fraction(1, 10_000)


def profile(primaries: Sequence[Xy], white: Xy, curve: Curve) -> bytes:
    """An ICC display profile of these primaries, white point and curve, for all three channels.

    Adapted to D50 with Bradford's matrix. Computed in fractions, so that every processor makes the same bytes.
    ValueError if the primaries span no space.
    """

    def xyz(xy: Xy) -> list[Fraction]:
        x, y = (Fraction(n).limit_denominator(10**6) for n in xy)
        if y <= 0:
            raise ValueError(f"no chromaticity: {xy}")
        return [x / y, Fraction(1), (1 - x - y) / y]

    columns, white_xyz = np.transpose([xyz(xy) for xy in primaries]), np.array(xyz(white))
    light = columns * (_inverse(columns) @ white_xyz)
    scale = (_BRADFORD @ _D50) / (_BRADFORD @ white_xyz)
    adapted = _inverse(_BRADFORD) @ (_BRADFORD * scale[:, None]) @ light

    def numbers(values: Iterable[Any]) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    para = b"para" + bytes(4) + struct.pack(">HH", 3 if len(curve) == 5 else 0, 0) + numbers(curve)
    d50 = numbers(_D50)
    tags = {b"wtpt": b"XYZ " + bytes(4) + d50}
    for channel, column in zip(b"rgb", adapted.T, strict=True):
        tags[bytes([channel]) + b"XYZ"] = b"XYZ " + bytes(4) + numbers(column)
        tags[bytes([channel]) + b"TRC"] = para
    offset = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    header = struct.pack(">I4xI4s4s4s", offset + len(body), 0x04200000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + d50
    return header + bytes(128 - len(header)) + table + body


def _inverse(m: NDArray[np.object_]) -> NDArray[np.object_]:
    """The inverse of a 3 x 3 matrix: its adjugate over its determinant."""
    adjugate = np.transpose([np.cross(m[1], m[2]), np.cross(m[2], m[0]), np.cross(m[0], m[1])])
    determinant = m[0] @ adjugate[:, 0]
    if not determinant:
        raise ValueError("the primaries lie on a line")
    return adjugate / determinant
