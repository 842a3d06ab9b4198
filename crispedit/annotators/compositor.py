"""The compositor's annotator: looks at a photograph's light and room, and plans edits that its editor can carry out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from crispedit.compositor import colours, objects, scene
from crispedit.compositor.cutout import Cutout, cut_out
from crispedit.compositor.landscape import KINDS as LANDSCAPES
from crispedit.compositor.language import Words, a, pick, said, where
from crispedit.compositor.scene import Place, Scene
from crispedit.compositor.styles import STYLES
from crispedit.parts import Annotator
from crispedit.record import Image, Job, Refusal, Sample, seed_of

_PITCH = 16.0


class Compositor(Annotator):
    """Plans edits in all seven categories; `plan["compositor"]` is the plan's format."""

    def annotate(
        self, samples: Sequence[Sample], requests: Sequence[Sequence[str]]
    ) -> list[list[Job | Refusal]]:
        return [_Photograph(sample).jobs(wanted) for sample, wanted in zip(samples, requests, strict=True)]


class _Photograph:
    """One photograph and the jobs planned for it so far."""

    def __init__(self, sample: Sample) -> None:
        self.key = sample.key
        self.image: Image = sample.source
        self.scene: Scene | None = None
        self.cutout: Cutout | bool | None = False
        self.said: set[str] = set()

    def jobs(self, wanted: Sequence[str]) -> list[Job | Refusal]:
        out: list[Job | Refusal] = []
        counts: dict[str, int] = {}
        for category in wanted:
            counts[category] = counts.get(category, 0) + 1
            out.append(self._job(category, counts[category]))
        return out

    def _job(self, category: str, nth: int) -> Job | Refusal:
        plans = {
            "add": self._add, "remove": self._remove, "replace": self._replace, "color": self._color,
            "background": self._background, "style": self._style, "motion": self._motion,
        }  # fmt: skip
        if category not in plans:
            raise ValueError(f"the compositor cannot do {category!r}; choose from {', '.join(plans)}")
        if min(self.image.shape[:2]) < scene.SMALLEST_PX:
            return Refusal("no_room")
        if self.scene is None:
            self.scene = scene.study(self.image)
        for attempt in range(20):
            rng = np.random.Generator(np.random.PCG64(seed_of(self.key, f"{category} {nth} {attempt}")))
            planned = plans[category](rng, self.scene)
            if planned is None:
                return Refusal("no_room")
            plan, words = planned
            if words.instruction not in self.said:
                self.said.add(words.instruction)
                return Job(
                    self.key, category, words.instruction, words.source_caption, words.target_caption,
                    {"compositor": 1, "category": category, **plan},
                )  # fmt: skip
        return Refusal("no_words")

    def _thing(self, rng: np.random.Generator, but: str = "") -> dict[str, Any]:
        kind = pick(rng, [k for k in objects.KINDS if k != but])
        named = objects.KINDS[kind].colours
        return {
            "kind": kind,
            "colour": pick(rng, named) if named else "",
            "yaw": round(float(rng.uniform(-40, 40)), 1),
        }

    def _placed(self, rng: np.random.Generator, thing: dict[str, Any], in_scene: Scene) -> Place | None:
        kind = objects.KINDS[thing["kind"]]
        shape = objects.shape(thing["kind"])
        return scene.find_place(in_scene, rng, kind.stance == "air", 2 * shape.radius / shape.top, kind.sizes)

    def _add(self, rng: np.random.Generator, s: Scene) -> tuple[dict[str, Any], Words] | None:
        thing = self._thing(rng)
        place = self._placed(rng, thing, s)
        if place is None:
            return None
        name, at = _name(thing), _where(place, s)
        order = pick(
            rng,
            [
                "add {o} {w}",
                "put {o} {w}",
                "place {o} {w}",
                "insert {o} {w}",
                "include {o} {w} of the picture",
            ],
        )
        return (
            {"thing": thing, "place": asdict(place), "pitch": _PITCH},
            Words(
                said(rng, order.format(o=a(name), w=at)),
                "A photograph.",
                f"A photograph with {a(name)} {at}.",
            ),
        )

    def _remove(self, rng: np.random.Generator, s: Scene) -> tuple[dict[str, Any], Words] | None:
        thing = self._thing(rng)
        place = self._placed(rng, thing, s)
        if place is None:
            return None
        name, at = _name(thing), _where(place, s)
        order = pick(
            rng,
            [
                "remove the {o} {w}",
                "take away the {o} {w}",
                "erase the {o} {w}",
                "delete the {o} {w}",
                "get rid of the {o} {w}",
            ],
        )
        return (
            {"thing": thing, "place": asdict(place), "pitch": _PITCH},
            Words(
                said(rng, order.format(o=name, w=at)), f"A photograph with {a(name)} {at}.", "A photograph."
            ),
        )

    def _replace(self, rng: np.random.Generator, s: Scene) -> tuple[dict[str, Any], Words] | None:
        before, after = self._thing(rng), self._thing(rng)
        while (
            objects.floats(after["kind"]) != objects.floats(before["kind"]) or after["kind"] == before["kind"]
        ):
            after = self._thing(rng, before["kind"])
        place = self._placed(rng, before, s)
        if place is None:
            return None
        at = _where(place, s)
        order = pick(
            rng,
            [
                "replace the {o} {w} with {n}",
                "swap the {o} {w} for {n}",
                "turn the {o} {w} into {n}",
                "change the {o} {w} to {n}",
            ],
        )
        return (
            {"thing": before, "other": after, "place": asdict(place), "pitch": _PITCH},
            Words(
                said(rng, order.format(o=_name(before), n=a(_name(after)), w=at)),
                f"A photograph with {a(_name(before))} {at}.",
                f"A photograph with {a(_name(after))} {at}.",
            ),
        )

    def _color(self, rng: np.random.Generator, s: Scene) -> tuple[dict[str, Any], Words] | None:
        thing = self._thing(rng)
        while len(objects.KINDS[thing["kind"]].colours) < 2:
            thing = self._thing(rng)
        place = self._placed(rng, thing, s)
        if place is None:
            return None
        kind = objects.KINDS[thing["kind"]]
        other = {**thing, "colour": pick(rng, [c for c in kind.colours if c != thing["colour"]])}
        at = _where(place, s)
        order = pick(
            rng,
            [
                "make the {o} {w} {c}",
                "change the colour of the {o} {w} to {c}",
                "recolor the {o} {w} {c}",
                "paint the {o} {w} {c}",
            ],
        )
        return (
            {"thing": thing, "other": other, "place": asdict(place), "pitch": _PITCH},
            Words(
                said(rng, order.format(o=_name(thing), c=other["colour"], w=at)),
                f"A photograph with {a(_name(thing))} {at}.",
                f"A photograph with {a(_name(other))} {at}.",
            ),
        )

    def _background(self, rng: np.random.Generator, s: Scene) -> tuple[dict[str, Any], Words] | None:
        if self.cutout is False:
            self.cutout = cut_out(self.image)
        kind = pick(rng, LANDSCAPES)
        plan: dict[str, Any] = {"landscape": kind, "seed": int(rng.integers(2**31))}
        if isinstance(self.cutout, Cutout) and rng.random() < 0.5:
            name = f"{colours.name_of(self.cutout.pixels)} subject"
        else:
            thing = self._thing(rng)
            place = self._placed(rng, thing, s)
            if place is None:
                return None
            plan |= {"thing": thing, "place": asdict(place), "pitch": _PITCH}
            name = _name(thing)
        order = pick(
            rng,
            [
                "replace the background behind the {o} with a {k} scene",
                "change the background of the {o} to a {k} scene",
                "put the {o} in front of a {k} scene",
            ],
        )
        return plan, Words(
            said(rng, order.format(o=name, k=kind)),
            f"A photograph of {a(name)}.",
            f"{a(name).capitalize()} in front of a {kind} scene.",
        )

    def _style(self, rng: np.random.Generator, s: Scene) -> tuple[dict[str, Any], Words] | None:
        style = pick(rng, list(STYLES))
        order = pick(
            rng,
            [
                "turn this photo into {s}",
                "make it look like {s}",
                "render the image as {s}",
                "restyle the whole picture as {s}",
                "convert it to {s}",
            ],
        )
        return (
            {"style": style, "seed": int(rng.integers(2**31))},
            Words(said(rng, order.format(s=a(style))), "A photograph.", f"The same scene as {a(style)}."),
        )

    def _motion(self, rng: np.random.Generator, s: Scene) -> tuple[dict[str, Any], Words] | None:
        thing = self._thing(rng)
        place = self._placed(rng, thing, s)
        if place is None:
            return None
        far = float(rng.uniform(0.22, 0.4))
        direction = "right" if place.x < 0.5 else "left"
        to = Place(round(place.x + (far if direction == "right" else -far), 4), place.y, place.size)
        order = pick(
            rng, ["move the {o} to the {d}", "shift the {o} to the {d}", "slide the {o} over to the {d}"]
        )
        return (
            {"thing": thing, "place": asdict(place), "to": asdict(to), "pitch": _PITCH},
            Words(
                said(rng, order.format(o=_name(thing), d=direction)),
                f"A photograph with {a(_name(thing))} {_where(place, s)}.",
                f"A photograph with {a(_name(thing))} {_where(to, s)}.",
            ),
        )


def _name(thing: dict[str, Any]) -> str:
    return f"{thing['colour']} {objects.KINDS[thing['kind']].noun}".strip()


def _where(place: Place, s: Scene) -> str:
    return where(place.x, place.y - place.size * s.short / s.height / 2)
