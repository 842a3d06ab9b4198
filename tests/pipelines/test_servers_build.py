"""A build with an images server and a managed chat server, on two Ray nodes, whose chat server is killed twice: it
finishes, loses nothing, and comes to the bytes of an undisturbed build in one process, also when it is resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import lose_rows, make_run

sys.path.insert(0, str(Path(__file__).parents[1]))
import images_server
import tiny_pipelines
import tiny_vlm
from PIL import Image as Pillow

from crispedit.compositor.landscape import landscape
from crispedit.images import encode_jpeg
from crispedit.pipelines import audit, build, tables
from crispedit.pipelines.run import Run

SHARED = Path(__file__).parents[3] / "shared" / "photos"
GUIDED = Path(__file__).parents[1] / "guided_vlm.py"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    if SHARED.is_dir():
        for path in sorted(SHARED.glob("*.jpg"))[:2]:
            shutil.copy(path, folder)
    else:
        for seed in range(2):
            (folder / f"{seed}.jpg").write_bytes(encode_jpeg(landscape(seed, 384, 288)))
    return folder


def editing(pipeline: object) -> Callable[[images_server.Form], images_server.Sent]:
    """What an untrained pipeline draws, faintly, over a source that lies 4 px to the right and is 12 levels brighter:
    what repairs are for."""
    lock = threading.Lock()

    def edit(form: images_server.Form) -> images_server.Sent:
        source = form.image.convert("RGB")
        with lock:
            generator = torch.Generator().manual_seed(int(form.fields["seed"]))
            drawn = pipeline(form.fields["prompt"], source, num_inference_steps=1, generator=generator).images[0]
        moved = np.roll(np.asarray(source, np.float32), 4, axis=1) + 12
        mixed = 0.96 * moved + 0.04 * np.asarray(drawn.resize(source.size), np.float32)
        return images_server.b64(images_server.png(Pillow.fromarray(mixed.clip(0, 255).astype(np.uint8))))

    return edit


def recipe(images: str, serve: str, model: Path, *more: str) -> list[str]:
    chat = {"backend": "openai", "model": str(model), "serve": serve, "max_side_px": 112, "start_s": 120}
    judge = {"chat": chat, "facts": False, "pool": {"gpus": 0, "actors": 1, "cpus": 0.5, "batch": 2}}
    editor = {
        "editor": "images_api",
        "model": "tiny",
        "base_url": images,
        "send_seed": True,
        "multiple_px": 8,
        "seeds": 2,
        "price_per_image": 0.01,
        "pool": {"actors": 1, "cpus": 0.5},
    }
    lenient = {
        "resolution": {"bounds": {"short_side_px": {"min": 64}}},
        "alignment": {"bounds": {"displacement_px": {}}},
        "duplicate": {},
        "judge": judge,
    }
    return [
        "categories={color: 1, style: 1}",
        "curate.max_short_side_px=128",
        "curate.filters={resolution: {bounds: {short_side_px: {min: 64}}}}",
        "select={judge: true, best: {judge.naturalness: 1}}",
        f"edit={json.dumps({'repair': True, 'repair_drift': True, 'editors': {'api': editor}})}",
        f"filters={json.dumps(lenient)}",
        *more,
    ]


def kill_twice(folder: Path, killed: list[int], stop: threading.Event) -> None:
    """Kill two chat servers, each after its first answers."""
    while len(killed) < 2 and not stop.is_set():
        for file in folder.glob("pid-*"):
            pid = int(file.name.removeprefix("pid-"))
            if pid not in killed and file.stat().st_size >= 3 and len(killed) < 2:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
        time.sleep(0.005)


def shards(run: Run) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in sorted(Path(run.shards).glob("*.tar"))}
    assert found
    return found


def test_a_chat_server_that_is_killed_twice_costs_no_row_and_no_byte(
    photographs: Path, tmp_path: Path, ray_nodes: None, monkeypatch: pytest.MonkeyPatch
):
    from diffusers import StableDiffusionInstructPix2PixPipeline

    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(tiny_pipelines.pix2pix(tmp_path / "pix2pix"))
    pipeline.set_progress_bar_config(disable=True)
    model, pids = tiny_vlm.save(tmp_path / "vlm"), tmp_path / "pids"
    pids.mkdir()
    root = Path(__file__).parents[2]
    serve = f"env PYTHONPATH={root} OMP_NUM_THREADS=1 {sys.executable} {GUIDED} {{port}} {model} {pids}"
    killed: list[int] = []
    stop = threading.Event()
    killer = threading.Thread(target=kill_twice, args=(pids, killed, stop))
    with images_server.serving(editing(pipeline)) as images:
        run = make_run(
            tmp_path / "run", photographs, *recipe(images.url, serve, model, "engine.kind=ray", "engine.attempts=2")
        )
        killer.start()
        try:
            build.build(run)
        finally:
            stop.set()
            killer.join()
        assert len(killed) == 2
        report = audit.audit(run)
        assert not report.errors
        lines = {(line.step, line.category): line for line in report.counts}
        assert lines["edit", "color"].kept == lines["edit", "color"].rows > 0
        assert lines["score: judge", "style"].kept == lines["score: judge", "style"].rows > 0
        assert sum(line.rows for line in report.counts if line.step == "compare") > 0
        assert report.repaired["realigned"] > 0
        assert report.restored > 0
        [worth] = [line for line in report.editors if line.category == "color"]
        assert worth.cost_per_kept == pytest.approx(0.01 * worth.candidates / worth.kept)
        tokens = tables.connect(run).execute('SELECT min("judge.input_tokens") FROM score').fetchall()[0][0]
        assert tokens > 0

        whole = make_run(tmp_path / "whole", photographs, *recipe(images.url, serve, model))
        build.build(whole)
        assert shards(whole) == shards(run)

        cut = Path(shutil.copytree(run.root, tmp_path / "cut"))
        lose_rows(cut / "edit" / "wave-000000", lambda row: row["seed"] == 1)
        lose_rows(cut / "score" / "wave-000000", lambda row: row["key"] < "8")
        shutil.rmtree(cut / "shards")
        resumed = make_run(cut, photographs, *recipe(images.url, serve, model))
        build.build(resumed)
        assert shards(resumed) == shards(run)
    deadline = time.monotonic() + 120  # no server is left
    left = [int(file.name.removeprefix("pid-")) for file in pids.glob("pid-*")]
    while left and time.monotonic() < deadline:
        left = [pid for pid in left if Path(f"/proc/{pid}").exists()]
        time.sleep(0.1)
    assert not left
