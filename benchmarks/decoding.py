"""Decoding image files: libvips, as `crispedit.normalise` uses it, beside Pillow and OpenCV, in time and memory.

    python -m benchmarks.decoding [PHOTO.jpg ...] [--json FILE]

Each photograph (a generated one of 12 megapixels, or those given) in six encodings; the best of five, in CPU time of
one thread. Memory is the peak of a separate process, above its imports.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = """
import os, sys, time
from pathlib import Path
os.environ["VIPS_CONCURRENCY"] = "1"
sys.path.insert(0, sys.argv[1])
name, data = sys.argv[2], open(sys.argv[3], "rb").read()
import io, cv2, numpy as np
from PIL import Image
Image.MAX_IMAGE_PIXELS = None
from crispedit.normalise import normalise
cv2.setNumThreads(1)
how = {
    "normalise": lambda: normalise(data, max_pixels=10**9, max_short_side_px=None).image,
    "pillow": lambda: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")),
    "opencv": lambda: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR),
}[name]
def peak():  # what getrusage tells begins with the parent's
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
before = peak()
times = []
for _ in range(5):
    start = time.process_time()
    how()
    times.append(time.process_time() - start)
print(min(times), (peak() - before) / 1024)
"""
DECODERS = ("normalise", "pillow", "opencv")


def photograph() -> Image.Image:
    """12 megapixels of soft colours and grain."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (30, 40, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (4000, 3000), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    return Image.fromarray(np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8))


def encodings(picture: Image.Image) -> dict[str, bytes]:
    def saved(format: str, **options: object) -> bytes:
        out = io.BytesIO()
        picture.save(out, format, **options)
        return out.getvalue()

    return {
        "jpeg": saved("JPEG", quality=92),
        "progressive jpeg": saved("JPEG", quality=92, progressive=True),
        "png": saved("PNG", compress_level=1),
        "webp": saved("WEBP", quality=90, method=0),
        "tiff": saved("TIFF"),
        "tiff lzw": saved("TIFF", compression="tiff_lzw"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="*", type=Path)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    pictures = [Image.open(path).convert("RGB") for path in args.photos] or [photograph()]
    file = Path(os.environ.get("TMPDIR", "/tmp")) / f"decoding-{os.getpid()}"
    rows: dict[str, dict[str, list[float]]] = {}
    for picture in pictures:
        for name, data in encodings(picture).items():
            file.write_bytes(data)
            for decoder in DECODERS:
                command = [sys.executable, "-c", PROGRAM, str(ROOT), decoder, str(file)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                seconds, mb = map(float, done.stdout.split())
                total = rows.setdefault(name, {}).setdefault(decoder, [0.0, 0.0])
                total[0] += seconds * 1000 / len(pictures)
                total[1] = max(total[1], mb)
    file.unlink()
    print(f"{'':18}" + "".join(f"{decoder:>20}" for decoder in DECODERS) + f"{'pillow / normalise':>22}")
    for name, found in rows.items():
        cells = "".join(f"{found[d][0]:9.0f} ms {found[d][1]:5.0f} MB" for d in DECODERS)
        print(f"{name:18}{cells}{found['pillow'][0] / found['normalise'][0]:22.2f}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
