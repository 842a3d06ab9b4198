"""The compositor's editor: carries out its annotator's plans on the photograph, and knows the true mask of each edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crispedit.compositor import blend, colours, render, scene, styles
from crispedit.compositor.cutout import cut_out
from crispedit.compositor.landscape import landscape
from crispedit.compositor.scene import Place, Scene
from crispedit.parts import Editor
from crispedit.record import Edit, Image, Job, Mask, Refusal, seed_of


class Compositor(Editor):
    """Executes plans of the compositor's annotator. ValueError for a job without one."""

    def edit(
        self, sources: Sequence[Image], jobs: Sequence[Job], seeds: Sequence[int]
    ) -> list[Edit | Refusal]:
        return [_carry_out(image, job, seed) for image, job, seed in zip(sources, jobs, seeds, strict=True)]


def _carry_out(image: Image, job: Job, seed: int) -> Edit | Refusal:
    plan = job.plan
    if plan.get("compositor") != 1:
        raise ValueError(
            f"job {job.key} carries no plan for the compositor; annotate it with the compositor, or choose another editor"
        )
    category = plan["category"]
    if category == "style":
        return Edit(styles.restyle(image, plan["style"], plan["seed"]), np.ones(image.shape[:2], bool))
    noise = np.random.Generator(np.random.PCG64(seed_of(job.key, "grain"))).standard_normal(
        (256, 256), np.float32
    )
    studied = scene.study(image)

    def put(thing: Mapping[str, Any], on: Image, at: Mapping[str, float]) -> tuple[Image, Mask]:
        return _put(on, thing, Place(**at), studied, plan["pitch"], noise)

    if category == "background":
        return _background(image, plan, put)
    if category not in ("add", "remove", "replace", "color", "motion"):
        raise ValueError(f"job {job.key}: the compositor has no category {category!r}")
    first, mask = put(plan["thing"], image, plan["place"])
    if category == "add":
        return Edit(first, mask)
    if category == "remove":
        return Edit(image, mask, source=first)
    second, other = put(plan.get("other", plan["thing"]), image, plan.get("to", plan["place"]))
    return Edit(second, mask | other, source=first)


def _background(image: Image, plan: Mapping[str, Any], put: Any) -> Edit | Refusal:
    height, width = image.shape[:2]
    behind = landscape(plan["seed"], width, height, plan["landscape"])
    if "thing" in plan:
        first, mask = put(plan["thing"], image, plan["place"])
        second, mask = put(plan["thing"], behind, plan["place"])
        return Edit(second, np.ones_like(mask), source=first)
    cutout = cut_out(image)
    if cutout is None:
        return Refusal("no_subject")
    alpha = cutout.alpha[..., None]
    return Edit((image * alpha + behind * (1 - alpha) + 0.5).astype(np.uint8), cutout.alpha < 1)


def _put(
    on: Image,
    thing: Mapping[str, Any],
    place: Place,
    studied: Scene,
    pitch: float,
    noise: NDArray[np.float32],
) -> tuple[Image, Mask]:
    height_px = max(4, round(place.size * studied.short))
    colour = colours.NAMED.get(thing["colour"], (0.5, 0.5, 0.5))
    sprite = render.sprite(thing["kind"], colour, thing["yaw"], pitch, height_px, studied.light)
    return blend.set_in(on, sprite, place, studied, noise)
