"""Every recipe and cluster file that ships loads, and says what it means to."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from crispedit.pipelines import engine, recipe, steps
from crispedit.pipelines.run import Run

CONFIGS = Path(__file__).parents[2] / "configs"
BUILDS = sorted(path.stem for path in CONFIGS.glob("*.yaml") if "source" in yaml.safe_load(path.read_text()))


def load(name: str) -> Run:
    return Run(recipe.load(name))


@pytest.mark.parametrize("name", [name for name in BUILDS if name != "calibrate"])
def test_a_recipe_that_ships_loads_by_its_name(name: str):
    made = load(name)
    assert made.recipe.pair_cascade.filters
    assert steps.fingerprint(made)


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
    for step in steps.of(run):
        stages = step.stages
        actors = engine.placement(step.name, stages, cluster)
        pools = [(n, s.gpus if s.pool.gpus is None else s.pool.gpus) for n, s in zip(actors, stages, strict=True)]
        held = sum(n * gpus for n, gpus in pools)
        assert held <= cluster["GPU"]
        if any(gpus for _, gpus in pools):
            assert held > 0.7 * cluster["GPU"]
        with pytest.raises(ValueError, match="cannot be scheduled"):
            engine.placement(step.name, stages, cluster | {"CPU": 0.5})


@pytest.mark.parametrize("name", ["aws", "machines"])
def test_rays_own_check_takes_the_launcher_files(name: str):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((CONFIGS / "cluster" / f"{name}.yaml").read_text())
    validate_config(prepare_config(copy.deepcopy(config)))
    with pytest.raises(Exception, match="no_such_key"):
        validate_config(prepare_config(config | {"no_such_key": 1}))


def test_the_rayjob_starts_the_recipe_on_nodes_of_the_launchers_shape():
    job = yaml.safe_load((CONFIGS / "cluster" / "rayjob.yaml").read_text())["spec"]
    script, name = job["entrypoint"].split()[1:3]
    assert (CONFIGS.parent / Path(script).relative_to("/app")).is_file()
    assert load(name).recipe.run == Path("runs/crispedit-2m")
    (workers,) = job["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    launcher = yaml.safe_load((CONFIGS / "cluster" / "aws.yaml").read_text())
    assert workers["groupName"] == "h100x8"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert workers["replicas"] == launcher["available_node_types"]["h100x8"]["min_workers"] == 2
    (head,) = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert {mount["name"] for mount in head["volumeMounts"]} <= {
        volume["name"] for volume in job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"]
    }
