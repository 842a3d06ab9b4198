"""Photo-like scenes and pairs for the filter tests: fractal texture with shaded discs and boxes, all from a seed."""

import cv2
import numpy as np

from crispedit import images
from crispedit.record import Sample


def scene(seed: int, width: int = 640, height: int = 512) -> np.ndarray:
    """[height, width, 3]: a 1/f texture under forty shapes, with 1.5 levels of sensor noise. Sharp and colourful."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for cell in (256, 128, 64, 32, 16, 8, 4):
        grid = rng.standard_normal((height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        image += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * cell**0.7
    image = 125 + 35 * image / image.std()
    for _ in range(40):
        colour = tuple(float(c) for c in rng.uniform(30, 225, 3))
        x, y = int(rng.integers(width)), int(rng.integers(height))
        size = int(rng.integers(8, 40))
        if rng.random() < 0.5:
            cv2.circle(image, (x, y), size, colour, -1, cv2.LINE_AA)
        else:
            cv2.rectangle(image, (x, y), (x + size, y + size), colour, -1)
    return np.clip(image + rng.normal(0, 1.5, image.shape), 0, 255).astype(np.uint8)


def pair(
    source: np.ndarray,
    edited: np.ndarray,
    mask: np.ndarray | None = None,
    quality: int = 95,
    instruction: str | None = None,
) -> Sample:
    """The sample of a pair, with the edited image stored at a JPEG quality."""
    return Sample(
        key="pair",
        source_jpeg=images.encode_jpeg(source),
        edited_jpeg=images.encode_jpeg(edited, quality),
        mask_png=None if mask is None else images.encode_mask(mask),
        instruction=instruction,
    )


def with_object(source: np.ndarray, x: int, y: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The scene with a shaded red ball `side` pixels across, and the mask of it."""
    edited, mask = source.copy(), np.zeros(source.shape[:2], np.uint8)
    centre, radius = (x + side // 2, y + side // 2), side // 2
    cv2.circle(edited, centre, radius, (190, 40, 30), -1, cv2.LINE_AA)
    cv2.circle(
        edited, (centre[0] - radius // 3, centre[1] - radius // 3), radius // 4, (255, 170, 150), -1, cv2.LINE_AA
    )
    cv2.circle(mask, centre, radius, 1, -1)
    return edited, mask > 0


def shifted(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """The image moved by so many pixels, its border repeated."""
    return warped(image, np.array([[1, 0, x], [0, 1, y]], float))


def warped(image: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The image under a [2, 3] affine motion (old to new pixels), its border repeated."""
    size = (image.shape[1], image.shape[0])
    return cv2.warpAffine(image, affine, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def zoomed(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """The image magnified about its centre: what an editor that crops and stretches does."""
    height, width = image.shape[:2]
    return warped(image, np.array([[x, 0, (1 - x) * width / 2], [0, y, (1 - y) * height / 2]], float))


def verdicts(part, sample: Sample) -> list[str]:
    """The reasons, "score:side", for which the filter's default bounds reject the sample."""
    scores = part.measure([sample])[0]
    sides = {name: bound.verdict(scores[name]) for name, bound in part.bounds.items()}
    return [f"{name}:{side}" for name, side in sides.items() if side]
