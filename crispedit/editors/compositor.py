"""The compositor's editor: carries out its annotator's plans on the photograph, with the true mask of each edit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit.compositor import colours, cutout, recolour, scene, styles
from crispedit.compositor.landscape import landscape
from crispedit.compositor.scene import Scene, Spot
from crispedit.compositor.sprites import set_in, sprite
from crispedit.parts import Editor
from crispedit.record import Edit, Image, Job, Mask, Refusal, seed_of


class CompositorEditor(Editor):
    """Executes plans of the compositor's annotator; the seed varies only the grain. ValueError without such a plan."""

    def edit(self, sources: Sequence[Image], jobs: Sequence[Job], seeds: Sequence[int]) -> list[Edit | Refusal]:
        return [_carry_out(image, job, seed) for image, job, seed in zip(sources, jobs, seeds, strict=True)]


def _carry_out(image: Image, job: Job, seed: int) -> Edit | Refusal:
    plan = job.plan
    if plan.get("compositor") != 1:
        raise ValueError(
            f"job {job.key} has no plan of the compositor: set annotate.annotator to compositor, "
            "or choose another editor"
        )
    category = plan["category"]
    if category == "style":
        return Edit(styles.restyle(image, plan["style"], plan["seed"]), np.ones(image.shape[:2], bool))
    if category == "color" and "tone" in plan:
        return Edit(*recolour.turn_tone(image, plan["tone"], plan["by"]))
    rng = np.random.Generator(np.random.PCG64(seed_of(job.key, f"grain {seed}")))
    stage = _Stage(image, scene.study(image), rng.standard_normal((256, 256), np.float32))
    if category == "background":
        return _background(stage, plan)
    if category not in ("add", "remove", "replace", "color", "motion"):
        raise ValueError(f"job {job.key}: the compositor has no category {category!r}")
    first, mask = stage.put(plan["thing"], plan["place"])
    if category == "add":
        return Edit(first, mask)
    if category == "remove":
        return Edit(image, mask, source=first)
    second, other = stage.put(plan["other"], plan.get("to", plan["place"]))
    if category in ("color", "motion"):
        return Edit(second, _changed(first, second), source=first)
    return Edit(second, mask | other, source=first)


def _changed(first: Image, second: Image) -> Mask:
    """Where two pictures differ, with pinholes of equal pixels closed."""
    differ = (first != second).any(axis=2).astype(np.uint8)
    return cv2.morphologyEx(differ, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)).astype(bool)


@dataclass(frozen=True)
class _Stage:
    """A photograph to insert objects into, with its scene and grain."""

    image: Image
    scene: Scene
    noise: NDArray[np.float32]

    def put(self, thing: Mapping[str, Any], place: Mapping[str, float], on: Image | None = None) -> tuple[Image, Mask]:
        """The photograph, or another picture of its size, with the object in it, and the pixels that may differ."""
        at = Spot(**place)
        colour = colours.NAMED.get(thing["colour"], colours.NAMED["gray"])
        height_px = max(4, round(at.size * self.scene.short))
        drawn = sprite(thing["kind"], colour, thing["yaw"], height_px, self.scene.light)
        return set_in(self.image if on is None else on, drawn, at, self.scene, self.noise)


def _background(stage: _Stage, plan: Mapping[str, Any]) -> Edit | Refusal:
    height, width = stage.image.shape[:2]
    # Backgrounds are a little out of focus, so they are drawn at two thirds of the size, in less than half the time.
    size = max(16, width * 2 // 3), max(16, height * 2 // 3)
    behind = landscape(plan["seed"], *size, plan["landscape"], plan["horizon"])
    behind = cv2.resize(behind, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = np.tile(stage.noise * np.float32(stage.scene.grain), (-(-height // 256), -(-width // 256)))
    behind = np.clip(behind + grain[:height, :width, None] + 0.5, 0, 255).astype(np.uint8)
    if "thing" in plan:
        first, _ = stage.put(plan["thing"], plan["place"])
        second, _ = stage.put(plan["thing"], plan["place"], on=behind)
        return Edit(second, _changed(first, second), source=first)
    subject = cutout.find(stage.image)
    if subject is None:
        return Refusal("no_subject")
    alpha = cutout.cut_out(stage.image, subject)
    return Edit(cutout.over(stage.image, alpha, behind), alpha < 1)
