"""A build with models in every role, on Ray: chat, diffusers, CLIP, DINO, LAION's head and a judge that chooses, all
through the real libraries; tiny and untrained where weights are needed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_run

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny_clip
import tiny_pipelines
import tiny_vit
import tiny_vlm
from chat_server import serving

from crispedit.compositor.landscape import landscape
from crispedit.images import encode_jpeg
from crispedit.pipelines import audit, build, tables
from crispedit.pipelines.records import COMPARE
from crispedit.pipelines.run import Run
from crispedit.shards import journal

FACTS = {name: "no" for name in ("already_true", "contradictory", "ambiguous", "unsafe")}


def reply(asked):
    """A server that describes, writes, refines and checks; of style edits it says that they contradict themselves."""
    text = asked.text
    if "plan edits of it" in text:
        return json.dumps({"background": "hills", "objects": [], "caption": "Hills under a wide sky."})
    if "Phrase the instruction" in text or "weaknesses" in text:
        kind = next(c for c in ("color", "style") if f'"{c}"' in text)
        draft = {"instruction": f"Give it another {kind}.", "target_caption": f"Hills of another {kind}."}
        return json.dumps(draft | ({"critique": "none"} if "weaknesses" in text else {}))
    return json.dumps(FACTS | {"object_present": "yes"} | ({"contradictory": "yes"} if '"style"' in text else {}))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    head = folder / "head.pth"
    torch.save(torch.nn.Linear(tiny_clip.WIDTH, 1).state_dict(), head)
    made = {
        "clip": f"local-dir:{tiny_clip.save(folder / 'clip')}",
        "kontext": tiny_pipelines.kontext(folder / "kontext"),
        "pix2pix": tiny_pipelines.pix2pix(folder / "pix2pix"),
        "vit": tiny_vit.save(folder / "vit"),
        "head": head,
    }
    tiny_vlm.save(folder / "vlm")
    return {name: str(path) for name, path in made.items()} | {"vlm": str(folder / "vlm")}


def recipe(models: dict[str, str], chat: dict) -> list[str]:
    """Overrides of the small recipe. One editor has an actor; all others share one process a node of two CPUs, since to
    import the libraries costs more than all that is done with them here."""
    shared = {"gpus": 0, "cpus": 2, "batch": 4}
    edit = {"editor": "diffusers", "dtype": "float32", "steps": 1, "area_px": 9000}
    filters = {
        "resolution": {"bounds": {"short_side_px": {"min": 256}}},
        "clip": {"model": models["clip"]},
        "dino": {"model": models["vit"]},
        "aesthetic": {"head": models["head"], "model": models["clip"], "pretrained": "", "bounds": {"source": {}}},
        "judge": {
            "chat": {"backend": "transformers", "model": models["vlm"], "dtype": "float32", "max_tokens": 8},
            "facts": False,
            "rubric": False,
            "pool": shared,
        },
    }
    editors = {
        "kontext": edit
        | {"pipeline": "FluxKontextPipeline", "model": models["kontext"], "pool": {"gpus": 0, "actors": 1}},
        "pix2pix": edit
        | {"pipeline": "StableDiffusionInstructPix2PixPipeline", "model": models["pix2pix"], "pool": shared},
    }
    return [
        "engine.kind=ray",
        "curate.pool.cpus=2",
        "score.pool.cpus=2",
        "select.judge=true",
        f"categories={json.dumps({'color': 1, 'style': 1})}",
        f"annotate={json.dumps({'annotator': 'chat', 'chat': chat, 'pool': shared})}",
        f"edit={json.dumps({'editors': editors})}",
        f"filters={json.dumps(filters)}",
    ]


def candidates(run: Run) -> list[tuple]:
    return sorted(tables.connect(run).execute("SELECT key, editor, error, width, height FROM edit").fetchall())


def test_models_in_every_role_build_on_ray_and_what_they_reject_is_told(
    models: dict[str, str], tmp_path: Path, ray_nodes: None
):
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for seed in range(2):
        (photographs / f"{seed}.jpg").write_bytes(encode_jpeg(landscape(seed, 290, 260)))
    with serving(reply) as server:
        overrides = recipe(models, server.spec)
        run = make_run(tmp_path / "run", photographs, *overrides)
        build.build(run)
        counts = {(c.step, c.category): c for c in audit.audit(run).counts}
        assert counts["annotate", "color"].kept == 2
        assert counts["annotate", "style"].rejected == {"contradictory": 2}
        # An untrained judge talks rubbish: errors, not rejects. So the choice is left to the recipe's order.
        assert counts["compare", "color"].error == {"compare": 2}
        assert (counts["select", "color"].kept, counts["select", "color"].rejected) == (2, {"not_best": 2})
        made = candidates(run)
        assert [(editor, error, w, h) for _, editor, error, w, h in sorted(made, key=lambda row: row[1])] == [
            *[("kontext", None, 290, 260)] * 2,
            *[("pix2pix", None, 290, 260)] * 2,
        ]
        scores = (
            tables.connect(run)
            .execute('SELECT "clip.image", "clip.target", "dino.image", "aesthetic.edited" FROM score')
            .fetchall()
        )
        assert len(scores) == 4
        assert all(value is not None for known in scores for value in known)
        errors = [row["error"] for row in journal.read(run.folder("compare"), COMPARE).to_pylist()]
        assert len(errors) == 2
        assert all("the answer is no Best" in error or "cut off after" in error for error in errors)

        # The judge is policy's to leave out: nothing is measured or made again, and the pairs are packed.
        parts = [path.name for step in ("edit", "score") for path in journal.parts(run.folder(step))]
        leave = ("filters.judge=null", "select.judge=false")
        without = make_run(tmp_path / "run", photographs, *overrides, *leave)
        build.build(without)
        assert [p.name for step in ("edit", "score") for p in journal.parts(run.folder(step))] == parts
        report = audit.audit(without)
        assert report.pairs == {"color": 2}
        (color,) = (c for c in report.counts if (c.step, c.category) == ("select", "color"))
        assert color.rejected == {"not_best": 2}
