"""The compositor's annotator: looks at a photograph's light and room, and plans edits that its editor carries out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from crispedit.classifier import CATEGORIES
from crispedit.compositor import colours, cutout, language, objects, recolour, scene
from crispedit.compositor.language import SETTINGS, Words, a, instruct, pick, showing, showing_both, where
from crispedit.compositor.scene import Place, Scene
from crispedit.compositor.styles import STYLES
from crispedit.parts import Annotator
from crispedit.record import Image, Job, Refusal, Sample, seed_of

Planned = tuple[dict[str, Any], Words]
_SOLID = ("meadow", "desert", "beach", "mountains", "snow", "forest", "garden", "room", "bricks", "night")
_OPEN = ("meadow", "desert", "beach", "mountains", "snow", "forest", "lake", "sunset", "city", "night")
_DARK = frozenset({"sunset", "night", "city"})
"""Settings at nightfall; the rest are by day."""

_AFTER = {
    "bigger": "a large {name}",
    "smaller": "a small {name}",
    "closer": "{a} close to the camera",
    "farther": "{a} further away",
    "turn": "{a} seen from another side",
}
"""How a thing is captioned once it has been moved in place."""


class Compositor(Annotator):
    """Plans edits in all seven categories; `plan["compositor"]` is the plan's format, 1.

    Refuses with "no_room" where nothing fits, "no_subject" where there is nothing to edit, and "no_words" where all
    that could be asked of the photograph has been.
    """

    categories: ClassVar[tuple[str, ...] | None] = CATEGORIES

    def annotate(
        self, samples: Sequence[Sample], requests: Sequence[Sequence[str]]
    ) -> list[list[Job | Refusal]]:
        return [_Photograph(sample).jobs(wanted) for sample, wanted in zip(samples, requests, strict=True)]


class _Photograph:
    """One photograph, what has been seen in it, and what has been said and put into it so far."""

    def __init__(self, sample: Sample) -> None:
        self.key = sample.key
        self.image = sample.source
        self.said: set[str] = set()
        self.used: list[str] = []

    @cached_property
    def scene(self) -> Scene:
        return scene.study(self.image)

    @cached_property
    def small(self) -> Image:
        return scene.reduced(self.image)

    @cached_property
    def subject(self) -> str | None:
        """What the photograph's own subject is called, if it has one that can be cut out."""
        found = cutout.find(self.image)
        return None if found is None else f"{colours.name_of(found.pixels)} subject"

    @cached_property
    def tone(self) -> recolour.Tone | None:
        return recolour.tone_of(self.small)

    @cached_property
    def photo(self) -> str:
        """The photograph in words that hold for its pixels."""
        light = float(self.small.mean())
        mood = "a dark" if light < 70 else "a bright" if light > 150 else "a"
        half = self.small.shape[0] // 2
        upper, lower = colours.name_of(self.small[:half]), colours.name_of(self.small[half:])
        kind = "photo" if self.scene.ground else "close-up photo"
        shades = f"{upper} and {lower}" if upper != lower else upper
        return f"{mood} {kind} in shades of {shades}"

    def jobs(self, wanted: Sequence[str]) -> list[Job | Refusal]:
        counts: dict[str, int] = {}
        out: list[Job | Refusal] = []
        for category in wanted:
            counts[category] = counts.get(category, 0) + 1
            out.append(self._job(category, counts[category]))
        return out

    def _job(self, category: str, nth: int) -> Job | Refusal:
        planners = {
            "add": self._add,
            "remove": self._remove,
            "replace": self._replace,
            "color": self._color,
            "background": self._background,
            "style": self._style,
            "motion": self._motion,
        }
        if category not in planners:
            raise ValueError(f"the compositor cannot do {category!r}; choose from {', '.join(planners)}")
        if min(self.image.shape[:2]) < scene.SMALLEST_PX:
            return Refusal("no_room")
        planned = None
        for attempt in range(24):
            rng = np.random.Generator(np.random.PCG64(seed_of(self.key, f"{category} {nth} {attempt}")))
            planned = planners[category](rng)
            if planned is None or planned[1].instruction.lower() in self.said:
                continue
            plan, words = planned
            self.said.add(words.instruction.lower())
            self.used += [plan[name]["kind"] for name in ("thing", "other") if name in plan]
            return Job(
                source_key=self.key,
                category=category,
                instruction=words.instruction,
                source_caption=words.source_caption,
                target_caption=words.target_caption,
                plan={"compositor": 1, "category": category, **plan},
            )
        return Refusal("no_room" if planned is None else "no_words")

    # --- things and places

    def _thing(self, rng: np.random.Generator, kinds: Sequence[str]) -> tuple[dict[str, Any], Place] | None:
        """An object of one of the kinds that stands out where there is room for it, and that place."""
        fewest = min(self.used.count(kind) for kind in kinds)
        kind = pick(rng, [kind for kind in kinds if self.used.count(kind) == fewest])
        about = objects.KINDS[kind]
        shape = objects.shape(kind)
        place = scene.find_place(
            self.scene, rng, objects.floats(kind), 2 * shape.radius / shape.top, about.sizes
        )
        if place is None:
            return None
        standing_out = self._standing_out(kind, place)
        if not standing_out:
            return None
        return {
            "kind": kind,
            "colour": pick(rng, standing_out) if about.colours else "",
            "yaw": _yaw(rng, kind),
        }, place

    def _standing_out(self, kind: str, place: Place) -> list[str]:
        """The colours of a kind of object that can be told from what lies behind the place."""
        about, behind = objects.KINDS[kind], scene.around(self.small, self.scene, place)
        if about.tint and colours.apart(about.tint, behind) < 36:
            return []
        return [c for c in about.colours or (about.tint,) if colours.apart(c, behind) > 42]

    def _kinds(self, rng: np.random.Generator) -> list[str]:
        """What suits the photograph: mostly what stands where there is ground, and what hangs in the air elsewhere."""
        air = rng.random() < (0.2 if self.scene.ground else 0.5)
        return [kind for kind in objects.KINDS if objects.floats(kind) == air]

    def _where(self, rng: np.random.Generator, place: Place) -> str:
        return where(rng, place.x, _middle(place, self.scene))

    # --- the categories

    def _add(self, rng: np.random.Generator) -> Planned | None:
        found = self._thing(rng, self._kinds(rng))
        if found is None:
            return None
        thing, place = found
        name, at = _name(thing), self._where(rng, place)
        order = instruct(rng, "add", new=a(name), where=at)
        full, bare = showing(rng, self.photo, a(name), at)
        return {"thing": thing, "place": asdict(place)}, Words(order, bare, full)

    def _remove(self, rng: np.random.Generator) -> Planned | None:
        found = self._thing(rng, self._kinds(rng))
        if found is None:
            return None
        thing, place = found
        name, at = _name(thing), self._where(rng, place)
        order = instruct(rng, "remove", the=f"the {name}", bare=name, where=at)
        full, bare = showing(rng, self.photo, a(name), at)
        return {"thing": thing, "place": asdict(place)}, Words(order, full, bare)

    def _replace(self, rng: np.random.Generator) -> Planned | None:
        found = self._thing(rng, self._kinds(rng))
        if found is None:
            return None
        thing, place = found
        floats = objects.floats(thing["kind"])
        kinds = [k for k in objects.KINDS if objects.floats(k) == floats and k != thing["kind"]]
        fewest = min(self.used.count(kind) for kind in kinds)
        kind = pick(rng, [kind for kind in kinds if self.used.count(kind) == fewest])
        about, shape = objects.KINDS[kind], objects.shape(kind)
        scale = sum(about.sizes) / sum(objects.KINDS[thing["kind"]].sizes)
        there = replace(place, size=round(place.size * scale, 4))
        half = there.size * self.scene.short / self.scene.width * shape.radius / shape.top
        out = self._standing_out(kind, there)
        if not out or not half + 0.01 < there.x < 0.99 - half or there.size > 0.5:
            return None
        if floats:
            # What hangs keeps its middle, what stands keeps its foot.
            low = place.y + (there.size - place.size) * self.scene.short / self.scene.height / 2
            there = replace(there, y=round(low, 4))
        if there.y - there.size * self.scene.short / self.scene.height < 0.01 or (floats and there.y > 0.97):
            return None
        other = {"kind": kind, "colour": pick(rng, out) if about.colours else "", "yaw": _yaw(rng, kind)}
        before, after, at = _name(thing), _name(other), self._where(rng, place)
        order = instruct(rng, "replace", the=f"the {before}", bare=before, new=a(after), where=at)
        captions = showing_both(rng, self.photo, (a(before), at), (a(after), at))
        plan = {"thing": thing, "place": asdict(place), "other": other, "to": asdict(there)}
        return plan, Words(order, *captions)

    def _color(self, rng: np.random.Generator) -> Planned | None:
        if self.tone is not None and rng.random() < 0.4:
            return self._turned_tone(rng, self.tone)
        kinds = [
            k
            for k in self._kinds(rng)
            if len(objects.KINDS[k].colours) > 1 and "{" not in objects.KINDS[k].noun
        ]
        found = self._thing(rng, kinds)
        if found is None:
            return None
        thing, place = found
        own = np.array(colours.NAMED[thing["colour"]]) * 255
        around = scene.around(self.small, self.scene, place)
        others = [
            c
            for c in objects.KINDS[thing["kind"]].colours
            if colours.apart(c, own) > 45 and colours.apart(c, around) > 30
        ]
        if not others:
            return None
        other = {**thing, "colour": pick(rng, others)}
        at, noun = self._where(rng, place), objects.KINDS[thing["kind"]].noun
        named = pick(rng, [noun, f"{thing['colour']} {noun}"])
        order = instruct(
            rng,
            "color",
            the=f"the {named}",
            where=at,
            colour=other["colour"],
            old=thing["colour"],
            bare=named,
        )
        if thing["colour"] not in order and noun == named and rng.random() < 0.5:
            order = order.replace(f"the {noun}", f"the {thing['colour']} {noun}", 1)
        captions = showing_both(rng, self.photo, (a(_name(thing)), at), (a(_name(other)), at))
        return {"thing": thing, "place": asdict(place), "other": other}, Words(order, *captions)

    def _turned_tone(self, rng: np.random.Generator, tone: recolour.Tone) -> Planned | None:
        name = pick(rng, recolour.TARGETS)
        by = recolour.turn_to(tone, name)
        if abs(by) < 55 or recolour.turned_name(self.small, tone, by) != name:
            return None
        order = instruct(rng, "tone", old=tone.name, colour=name)
        before, after = pick(
            rng,
            [
                ("with {} parts", "with {} parts"),
                ("in which some areas are {}", "in which those areas are {}"),
                ("with a lot of {} in it", "with a lot of {} in it"),
            ],
        )
        # The photo's own shades are not named here: they are what changes.
        kind = "A photo" if self.scene.ground else "A close-up photo"
        captions = f"{kind} {before.format(tone.name)}.", f"{kind} {after.format(name)}."
        return {"tone": round(tone.angle, 1), "by": by}, Words(order, *captions)

    def _background(self, rng: np.random.Generator) -> Planned | None:
        plan: dict[str, Any] = {"seed": int(rng.integers(2**31))}
        if rng.random() < 0.6 and self.subject is not None:
            name, kinds = self.subject, tuple(SETTINGS)
            plan["horizon"] = round(float(rng.uniform(0.45, 0.6)), 3)
        else:
            found = self._thing(rng, self._kinds(rng))
            if found is None:
                return None
            thing, place = found
            plan |= {"thing": thing, "place": asdict(place)}
            name = _name(thing)
            kinds = _OPEN if objects.floats(thing["kind"]) else _SOLID
            if objects.floats(thing["kind"]):
                plan["horizon"] = round(float(rng.uniform(0.55, 0.72)), 3)
            else:
                foot = place.y - 0.25 * place.size * self.scene.short / self.scene.height
                plan["horizon"] = round(float(np.clip(foot - rng.uniform(0.05, 0.2), 0.25, 0.6)), 3)
        # An object lit by day looks pasted into the night, and the other way round.
        dark = float(self.small.mean()) < 70
        fitting = [k for k in kinds if (k in _DARK) == dark]
        kind = pick(rng, fitting if fitting and rng.random() < 0.9 else kinds)
        if kind == "beach" and "thing" in plan and not objects.floats(plan["thing"]["kind"]):
            # The sand begins some way below the horizon, by the focal length; nothing shall stand in the sea.
            sand = 0.27 * max(self.scene.width, self.scene.height) / self.scene.height
            plan["horizon"] = round(min(plan["horizon"], plan["place"]["y"] - sand), 3)
            if plan["horizon"] < 0.15:
                return None
        plan["landscape"] = kind
        setting = pick(rng, SETTINGS[kind])
        order = instruct(rng, "background", the=f"the {name}", bare=name, new=setting)
        before = pick(rng, ["{Photo} with {what}.", "{What} in {photo}."]).format(
            photo=self.photo,
            Photo=language.sentence(self.photo),
            what=a(name),
            What=language.sentence(a(name)),
        )
        after = pick(rng, ["{} in front of {}.", "{} with {} in the background.", "{}; behind it, {}."])
        return plan, Words(order, before, after.format(language.sentence(a(name)), setting))

    def _style(self, rng: np.random.Generator) -> Planned | None:
        style = pick(
            rng, [s for s in STYLES if self.used.count(s) == min(self.used.count(t) for t in STYLES)]
        )
        self.used.append(style)
        said = pick(rng, STYLES[style].names)
        order = instruct(rng, "style", new=said)
        after = pick(
            rng, ["{New} of the same scene.", "The same scene as {new}.", "The picture redone as {new}."]
        )
        return (
            {"style": style, "seed": int(rng.integers(2**31))},
            Words(
                order,
                language.sentence(self.photo) + ".",
                after.format(new=said, New=language.sentence(said)),
            ),
        )

    def _motion(self, rng: np.random.Generator) -> Planned | None:
        found = self._thing(rng, self._kinds(rng))
        if found is None:
            return None
        thing, place = found
        about, shape = objects.KINDS[thing["kind"]], objects.shape(thing["kind"])
        name, s = _name(thing), self.scene
        tall = place.size * s.short / s.height
        half = place.size * s.short / s.width * shape.radius / shape.top
        acts = ["left", "right", "bigger", "smaller"]
        acts += ["up", "down"] if objects.floats(thing["kind"]) else ["closer", "farther"] if s.ground else []
        acts += ["face"] * 3 if about.front else ["turn"] * 2 if about.turns else []
        act = pick(rng, acts)
        to, other, at, slots = place, thing, self._where(rng, place), {}
        if act in ("left", "right", "up", "down"):
            far = float(rng.uniform(0.2, 0.45))
            shift = {"left": (-far, 0), "right": (far, 0), "up": (0, -far * 0.8), "down": (0, far * 0.8)}[act]
            to = replace(place, x=round(place.x + shift[0], 4), y=round(place.y + shift[1], 4))
            slots = {
                "to": pick(rng, [act] if act in ("up", "down") else [f"to the {act}", f"towards the {act}"])
            }
            if act in ("left", "right"):
                slots = {"to": pick(rng, [f"to the {act}", f"towards the {act}", f"over to the {act}"])}
        elif act in ("bigger", "smaller"):
            scale = float(rng.uniform(1.4, 1.75) if act == "bigger" else rng.uniform(0.5, 0.68))
            to = replace(place, size=round(place.size * scale, 4))
            if objects.floats(thing["kind"]):
                to = replace(to, y=round(place.y + tall * (scale - 1) / 2, 4))
        elif act in ("closer", "farther"):
            # On flat ground the size goes with the distance below the horizon.
            below = place.y - s.horizon
            scale = float(rng.uniform(1.25, 1.6) if act == "closer" else rng.uniform(0.5, 0.75))
            to = Place(place.x, round(s.horizon + below * scale, 4), round(place.size * scale, 4))
        elif act == "face":
            facing = "right" if np.cos(np.radians(thing["yaw"])) > 0 else "left"
            slots = {"front": about.front, "to": "left" if facing == "right" else "right"}
            other = {**thing, "yaw": round(180.0 - thing["yaw"], 1)}
        else:
            # Away from the front: the other way, what is symmetrical would look the same again.
            other = {
                **thing,
                "yaw": round(thing["yaw"] + float(np.sign(thing["yaw"]) * rng.uniform(36, 50)), 1),
            }
        high, wide = to.size * s.short / s.height, half * to.size / place.size
        grounded = objects.floats(thing["kind"]) or s.ground
        if not wide + 0.01 < to.x < 0.99 - wide or to.y - high < 0.01 or to.y > (0.98 if grounded else 1.04):
            return None
        if act in ("farther", "closer") and to.y < s.horizon + 0.06:
            return None
        moves = {"left": "move", "right": "move", "up": "move", "down": "move"}
        order = instruct(rng, moves.get(act, act), the=f"the {name}", bare=name, where=at, **slots)
        if act == "face":
            before, after = (
                f"{a(name)} with its {about.front} pointing {way}" for way in (facing, slots["to"])
            )
        else:
            before, after = a(name), _AFTER.get(act, "{a}").format(a=a(name), name=name)
        there = self._where(rng, to) if act in ("left", "right", "up", "down", "closer", "farther") else at
        captions = showing_both(rng, self.photo, (before, at), (after, there))
        plan = {"thing": thing, "place": asdict(place), "other": other, "to": asdict(to), "act": act}
        return plan, Words(order, *captions)


def _yaw(rng: np.random.Generator, kind: str) -> float:
    """An angle that shows an object well: boxes cornerwise, what has a front turned about halfway to us."""
    side = float(rng.choice([-1.0, 1.0]))
    if objects.KINDS[kind].front:
        return round(side * float(rng.uniform(5, 38)) + (180.0 if rng.random() < 0.5 else 0.0), 1)
    return round(side * float(rng.uniform(16, 40)), 1)


def _name(thing: dict[str, Any]) -> str:
    return objects.name(thing["kind"], thing["colour"])


def _middle(place: Place, s: Scene) -> float:
    return place.y - place.size * s.short / s.height / 2
