"""Every recipe and cluster file that ships loads, and says what it means to."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipelines import engine, recipe
from pipelines.run import Run
from pipelines.steps import annotate, curate, edit, score

CONFIGS = Path(__file__).parents[2] / "configs"
BUILDS = sorted(path.stem for path in CONFIGS.glob("*.yaml") if "source" in yaml.safe_load(path.read_text()))


def load(name: str) -> Run:
    return Run(recipe.load(name))


@pytest.mark.parametrize("name", [name for name in BUILDS if name != "calibrate"])
def test_a_recipe_that_ships_loads_by_its_name(name: str):
    made = load(name)
    assert made.recipe.pair_cascade.filters
    assert made.recipe_fingerprint


def test_the_papers_recipe_has_its_sizes():
    quotas = {name: spec.quota for name, spec in load("crispedit-2m").recipe.categories.items()}
    assert quotas == {
        "add": 300_000,
        "remove": 300_000,
        "replace": 300_000,
        "color": 500_000,
        "background": 200_000,
        "style": 400_000,
        "motion": 34_000,
    }


@pytest.mark.parametrize(
    ("name", "cluster"),
    [
        ("crispedit-2m", {"CPU": 2 * 96.0, "GPU": 16.0, "memory": 2 * 900.0 * 2**30}),
        ("small-gpu", {"CPU": 8.0, "GPU": 1.0, "memory": 48.0 * 2**30}),
    ],
)
def test_the_gpu_recipes_can_be_scheduled_and_leave_no_gpu_idle(name: str, cluster: dict[str, float]):
    run = load(name)
    for step, module in {"curate": curate, "annotate": annotate, "edit": edit, "score": score}.items():
        stages = module.stages(run)
        actors = engine.placement(step, stages, cluster)
        pools = [
            (n, s.gpus if s.pool.gpus is None else s.pool.gpus) for n, s in zip(actors, stages, strict=True)
        ]
        held = sum(n * gpus for n, gpus in pools)
        assert held <= cluster["GPU"]
        if any(gpus for _, gpus in pools):
            assert held > 0.7 * cluster["GPU"]
        with pytest.raises(ValueError, match="cannot be scheduled"):
            engine.placement(step, stages, cluster | {"CPU": 0.5})


@pytest.mark.parametrize("path", sorted((CONFIGS / "cluster").glob("*.yaml")), ids=lambda path: path.stem)
def test_cluster_files_are_yaml_that_say_how_they_are_used(path: Path):
    text = path.read_text()
    assert list(yaml.safe_load_all(text))
    assert text.startswith("# ")
