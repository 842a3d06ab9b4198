"""Training on a Ray cluster: Ray Train starts the processes, each of which runs the same loop as under torchrun.

If a worker dies, the attempt ends, and the next one resumes from the last savepoint. All nodes must see the run's
folder and the shards.
"""

from typing import Any

from crispedit.pipelines import engine, train
from crispedit.pipelines.recipe import EngineSpec
from crispedit.pipelines.training.recipe import TrainRecipe
from crispedit.shards import storage

ATTEMPTS = 3
"""Attempts after the first."""


def train_on_ray(recipe: TrainRecipe) -> bool:
    """Train on Ray; returns whether the run is finished. ValueError if the recipe has no `ray` section."""
    if recipe.ray is None:
        raise ValueError("the recipe has no section `ray`")
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    cluster, data = recipe.ray, recipe.data
    places = {
        "shards": {storage.absolute(path): weight for path, weight in data.shards.items()},
        "held_out": storage.absolute(data.held_out) if isinstance(data.held_out, str) else data.held_out,
    }
    settled = recipe.model_copy(update={"run": recipe.run.absolute(), "data": data.model_copy(update=places)})
    settled.run.mkdir(parents=True, exist_ok=True)
    resources = {"CPU": cluster.cpus} | ({"GPU": cluster.gpus} if cluster.gpus else {})
    with engine.cluster(EngineSpec(address=cluster.address)):
        engine.check_room(f"ray.workers {cluster.workers}", cluster.workers, cluster.cpus, cluster.gpus)
        scaling = ScalingConfig(num_workers=cluster.workers, use_gpu=cluster.gpus > 0, resources_per_worker=resources)
        retries = FailureConfig(max_failures=ATTEMPTS)
        place = RunConfig(name="ray", storage_path=str(settled.run), failure_config=retries)
        settings = settled.model_dump(mode="json")
        TorchTrainer(_loop, train_loop_config=settings, scaling_config=scaling, run_config=place).fit()
    from crispedit.editmgt import savepoint

    return savepoint.read_state(savepoint.paths(settled.run / savepoint.FOLDER)[-1])["step"] >= recipe.steps


def _loop(recipe: dict[str, Any]) -> None:
    """What each worker runs."""
    train.train(TrainRecipe(**recipe))
