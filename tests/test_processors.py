"""What does not depend on the processor: a process without AVX and FMA gives the same bytes where docs/determinism.md
says so."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from bad_inputs import encode, photo
from image_corpus import corpus

from crispedit import machine

PROGRAM = """
import hashlib, sys
from pathlib import Path
from crispedit import images
from crispedit.annotators.compositor import CompositorAnnotator
from crispedit.normalise import Refused, normalise
from crispedit.record import Sample, source_key

for path in sorted(Path(sys.argv[1]).iterdir()):
    data = path.read_bytes()
    small = not path.name.startswith("photograph")
    try:
        found = normalise(data, max_pixels=10**6, max_short_side_px=20 if small else 300)
    except Refused as refused:
        print(path.name, refused)
        continue
    jpeg = images.encode_jpeg(found.image)
    print(path.name, hashlib.sha256(jpeg).hexdigest())
    if not small:
        categories = ["add", "remove", "replace", "color", "background", "style", "motion"]
        [jobs] = CompositorAnnotator().annotate([Sample(source_key(data), jpeg)], [categories])
        print(*jobs, sep="\\n")
"""
BARE = {
    "OPENCV_CPU_DISABLE": "AVX2,AVX,FP16",
    "OPENCV_IPP": "sse42",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
}
"""As on a processor of 2008: what OpenCV and numpy choose by the processor is switched off."""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="switches off what x86-64 has")
def test_sources_and_jobs_are_the_same_without_avx(tmp_path: Path):
    files = {name: made.data for name, made in corpus().items()}
    for number in range(3):
        files[f"photograph {number}.png"] = encode(photo(f"photograph {number}", 480, 360), "PNG")
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    path = os.pathsep.join(entry for entry in sys.path if entry)

    # Without what conftest sets for all tests: this processor's widest instructions against the bare ones.
    widest = {name: value for name, value in os.environ.items() if name not in machine.alike()}

    def output(**extra: str) -> list[str]:
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, env={**widest, "PYTHONPATH": path, **extra})
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().splitlines()

    here, bare = output(), output(**BARE)
    assert len(here) > 250
    assert here == bare
