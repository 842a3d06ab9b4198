"""The compositor's annotator: finds a photograph's light and free places, and plans edits for the compositor's
editor."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from crispedit.classifier import CATEGORIES
from crispedit.compositor import colours, cutout, objects, recolour, scene, styles
from crispedit.compositor.landscape import DARK, NAMES
from crispedit.compositor.language import Wording, a, filled, instruct, pick, sentence, showing, side, where
from crispedit.compositor.scene import Scene, Spot
from crispedit.parts import Annotator
from crispedit.record import Image, Job, Refusal, Sample, seed_of

Thing = dict[str, Any]
"""An object as a plan has it: kind, colour, yaw."""
Planned = tuple[dict[str, Any], Wording]
_IN_THE_AIR = ("meadow", "desert", "beach", "lake", "mountains", "snow", "sunset")
_ON_THE_GROUND = ("meadow", "desert", "beach", "mountains", "snow", "room")
LARGEST = 0.8
"""Height of the largest object, as a fraction of the photograph's short side."""
_SHIFTS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -0.8), "down": (0.0, 0.8)}


class CompositorAnnotator(Annotator):
    """Plans edits in all seven categories; `plan["compositor"]` is the plan's format, 1.

    If possible it edits the photograph's own content: turns its main colour, puts its subject before another
    background, repaints it. To remove, replace or move an object, it first inserts one.

    Refuses with "no_room" where nothing fits, and with "no_words" where every possible job has been written.
    """

    categories: ClassVar[tuple[str, ...] | None] = CATEGORIES

    def annotate(self, samples: Sequence[Sample], requests: Sequence[Sequence[str]]) -> list[list[Job | Refusal]]:
        return [_Photograph(sample).jobs(wanted) for sample, wanted in zip(samples, requests, strict=True)]


class _DoesNotFitError(Exception):
    """A draw that gives no plan; another one may."""


class _Photograph:
    """One photograph, with what was found in it and the jobs written so far."""

    def __init__(self, sample: Sample) -> None:
        self.key = sample.key
        self.image = sample.source
        self.instructions: set[str] = set()
        self.used: list[str] = []

    @cached_property
    def scene(self) -> Scene:
        return scene.study(self.image)

    @cached_property
    def small(self) -> Image:
        return scene.reduced(self.image)

    @cached_property
    def subject(self) -> str | None:
        """The name of the photograph's own subject, if there is one that can be cut out."""
        subject = cutout.find(self.image)
        return None if subject is None else f"{colours.name_of(subject.pixels)} subject"

    @cached_property
    def tone(self) -> recolour.Hue | None:
        return recolour.tone_of(self.small)

    @cached_property
    def turns(self) -> dict[str, float]:
        """The colours that the photograph's main colour can be turned to, with the degrees of each."""
        return {} if self.tone is None else recolour.reachable(self.small, self.tone)

    @cached_property
    def photo(self) -> str:
        """A description of the photograph that is true of its pixels."""
        light = float(self.small.mean())
        mood = "a dark" if light < 70 else "a bright" if light > 150 else "a"
        half = self.small.shape[0] // 2
        shades = {colours.name_of(self.small[:half]): None, colours.name_of(self.small[half:]): None}
        return f"{mood} photo in shades of {' and '.join(shades)}"

    def jobs(self, wanted: Sequence[str]) -> list[Job | Refusal]:
        return [self._job(category, wanted[:i].count(category)) for i, category in enumerate(wanted)]

    def _job(self, category: str, nth: int) -> Job | Refusal:
        if category not in CATEGORIES:
            raise ValueError(f"the compositor cannot do {category!r}; choose from {', '.join(CATEGORIES)}")
        reason = "no_room"
        for attempt in range(24 if min(self.image.shape[:2]) >= scene.SMALLEST_PX else 0):
            rng = np.random.Generator(np.random.PCG64(seed_of(self.key, f"{category} {nth} {attempt}")))
            try:
                plan, words = getattr(self, f"_{category}")(rng)
            except _DoesNotFitError:
                reason = "no_room"
                continue
            reason = "no_words"
            if words.instruction.lower() in self.instructions or words.source_caption == words.target_caption:
                continue
            self.instructions.add(words.instruction.lower())
            self.used += [plan[name]["kind"] for name in ("thing", "other") if name in plan]
            texts = words.instruction, words.source_caption, words.target_caption
            return Job(self.key, category, *texts, {"compositor": 1, "category": category, **plan})
        return Refusal(reason)

    # --- things and places

    def _least_used(self, rng: np.random.Generator, kinds: Sequence[str]) -> str:
        fewest = min(self.used.count(kind) for kind in kinds)
        return pick(rng, [kind for kind in kinds if self.used.count(kind) == fewest])

    def _thing(self, rng: np.random.Generator, paintable: bool = False, scale: float = 1.0) -> tuple[Thing, Spot]:
        """An object that stands out, and a free place for it: mostly a standing object where there is ground, else one
        that hangs in the air. `paintable` objects are named with their colour first. `scale` multiplies its size."""
        air = rng.random() < (0.2 if self.scene.ground else 0.5)
        kinds = [
            kind
            for kind, about in objects.KINDS.items()
            if about.air == air and not (paintable and (len(about.colours) < 2 or "{" in about.noun))
        ]
        kind = self._least_used(rng, kinds)
        about = objects.KINDS[kind]
        low, high = (min(scale * size, LARGEST) for size in about.sizes)
        place = scene.find_place(self.scene, rng, air, 2 * about.radius / about.top, (low, high))
        if place is None:
            raise _DoesNotFitError
        return self._painted(rng, kind, place), place

    def _painted(self, rng: np.random.Generator, kind: str, place: Spot) -> Thing:
        """The object in one of its colours that stands out from the background at the place."""
        about, behind = objects.KINDS[kind], scene.around(self.small, self.scene, place)
        visible = [c for c in about.colours or (about.tint,) if colours.apart(c, behind) > 42]
        if not visible or (about.tint and colours.apart(about.tint, behind) < 36):
            raise _DoesNotFitError
        return {"kind": kind, "colour": pick(rng, visible) if about.colours else "", "yaw": _yaw(rng, kind)}

    def _extent(self, kind: str, place: Spot) -> tuple[float, float]:
        """Half the width and the height of an object at a place, as fractions of the photograph's."""
        about, short = objects.KINDS[kind], self.scene.short
        half = about.radius / about.top * place.size * short / self.scene.width
        return half, place.size * short / self.scene.height

    def _where(self, rng: np.random.Generator, place: Spot) -> str:
        return where(rng, place.x, self._middle(place))

    def _middle(self, place: Spot) -> float:
        return place.y - place.size * self.scene.short / self.scene.height / 2

    def _check_fits(self, kind: str, place: Spot, lowest: float) -> None:
        half, high = self._extent(kind, place)
        if not half + 0.01 < place.x < 0.99 - half or place.y - high < 0.01 or place.y > lowest:
            raise _DoesNotFitError

    # --- the categories

    def _add(self, rng: np.random.Generator, act: str = "add") -> Planned:
        thing, place = self._thing(rng)
        name, at = _name(thing), self._where(rng, place)
        order = instruct(rng, act, the=f"the {name}", bare=name, new=a(name), where=at)
        [full] = showing(rng, self.photo, (a(name), at))
        empty = f"{sentence(self.photo)}."
        captions = (empty, full) if act == "add" else (full, empty)
        return {"thing": thing, "place": asdict(place)}, Wording(order, *captions)

    def _remove(self, rng: np.random.Generator) -> Planned:
        return self._add(rng, "remove")

    def _replace(self, rng: np.random.Generator) -> Planned:
        thing, place = self._thing(rng)
        old = objects.KINDS[thing["kind"]]
        kinds = [k for k, about in objects.KINDS.items() if about.air == old.air and k != thing["kind"]]
        kind = self._least_used(rng, kinds)
        to = replace(place, size=round(place.size * sum(objects.KINDS[kind].sizes) / sum(old.sizes), 4))
        if old.air:
            # A hanging object keeps its centre, a standing one its foot.
            low = (to.size - place.size) * self.scene.short / self.scene.height / 2
            to = replace(to, y=round(place.y + low, 4))
        self._check_fits(kind, to, lowest=0.97 if old.air else np.inf)
        if to.size > LARGEST:
            raise _DoesNotFitError
        other = self._painted(rng, kind, to)
        before, after, at = _name(thing), _name(other), self._where(rng, place)
        order = instruct(rng, "replace", the=f"the {before}", bare=before, new=a(after), where=at)
        captions = showing(rng, self.photo, (a(before), at), (a(after), at))
        plan = {"thing": thing, "place": asdict(place), "other": other, "to": asdict(to)}
        return plan, Wording(order, *captions)

    def _color(self, rng: np.random.Generator) -> Planned:
        if self.tone is not None and self.turns and rng.random() < 0.9:
            return self._turned_tone(rng, self.tone)
        thing, place = self._thing(rng, paintable=True)
        about, old = objects.KINDS[thing["kind"]], np.array(colours.NAMED[thing["colour"]]) * 255
        around = scene.around(self.small, self.scene, place)
        others = [c for c in about.colours if colours.apart(c, old) > 45 and colours.apart(c, around) > 30]
        if not others:
            raise _DoesNotFitError
        other = {**thing, "colour": pick(rng, others)}
        at, named = self._where(rng, place), pick(rng, [about.noun, _name(thing)])
        slots = {"colour": other["colour"], "old": thing["colour"], "where": at}
        order = instruct(rng, "color", the=f"the {named}", bare=named, **slots)
        captions = showing(rng, self.photo, (a(_name(thing)), at), (a(_name(other)), at))
        return {"thing": thing, "place": asdict(place), "other": other}, Wording(order, *captions)

    def _turned_tone(self, rng: np.random.Generator, tone: recolour.Hue) -> Planned:
        name = pick(rng, tuple(self.turns))
        order = instruct(rng, "tone", old=tone.name, colour=name)
        # The photo's own shades are not named: they change.
        caption = pick(rng, ["A photo with {} parts.", "A photo in which some areas are {}.", "A photo with {} in it."])
        words = Wording(order, caption.format(tone.name), caption.format(name))
        return {"tone": round(tone.angle, 1), "by": self.turns[name]}, words

    def _background(self, rng: np.random.Generator) -> Planned:
        plan: dict[str, Any] = {"seed": int(rng.integers(2**31))}
        if self.subject is not None and rng.random() < 0.95:
            name, kinds = self.subject, tuple(NAMES)
            plan["horizon"] = round(float(rng.uniform(0.45, 0.6)), 3)
        else:
            # What keeps its place before a new background is the picture's subject, so it is large.
            thing, place = self._thing(rng, scale=1.4)
            plan |= {"thing": thing, "place": asdict(place)}
            name, air = _name(thing), objects.KINDS[thing["kind"]].air
            kinds = _IN_THE_AIR if air else _ON_THE_GROUND
            # The ground begins some way below the horizon, so that nothing stands in the sea.
            foot = place.y - 0.25 * self._extent(thing["kind"], place)[1]
            level = rng.uniform(0.55, 0.72) if air else np.clip(foot - rng.uniform(0.15, 0.25), 0.2, 0.6)
            plan["horizon"] = round(float(level), 3)
        # An object lit by day looks pasted into a night scene, and vice versa.
        dark = float(self.small.mean()) < 70
        fitting = [kind for kind in kinds if (kind in DARK) == dark]
        plan["landscape"] = pick(rng, fitting or kinds)
        setting = pick(rng, NAMES[plan["landscape"]])
        order = instruct(rng, "background", the=f"the {name}", bare=name, new=setting)
        before = pick(rng, ["{Photo} with {what}.", "{What} in {photo}."])
        after = pick(rng, ["{What} in front of {new}.", "{What} with {new} in the background."])
        slots = {"photo": self.photo, "what": a(name), "new": setting}
        return plan, Wording(order, filled(before, **slots), filled(after, **slots))

    def _style(self, rng: np.random.Generator) -> Planned:
        style = self._least_used(rng, tuple(styles.STYLES))
        self.used.append(style)
        name = pick(rng, styles.NAMES[style])
        after = pick(rng, ["{New} of the same scene.", "The same scene as {new}.", "The picture redone as {new}."])
        words = Wording(instruct(rng, "style", new=name), f"{sentence(self.photo)}.", filled(after, new=name))
        return {"style": style, "seed": int(rng.integers(2**31))}, words

    def _motion(self, rng: np.random.Generator) -> Planned:
        thing, place = self._thing(rng)
        about, name, at = objects.KINDS[thing["kind"]], _name(thing), self._where(rng, place)
        acts = ["left", "right", "bigger", "smaller", *(["up", "down"] if about.air else [])]
        acts += ["face"] * 3 if about.front else ["turn"] * 2 if about.turns else []
        act = pick(rng, acts)
        order, to, other, slots = act, place, thing, {}
        before = after = a(name)
        there = at
        if act in _SHIFTS:
            across, down = (float(rng.uniform(0.2, 0.45)) * part for part in _SHIFTS[act])
            to = replace(place, x=round(place.x + across, 4), y=round(place.y + down, 4))
            if side(to.x, self._middle(to)) == side(place.x, self._middle(place)):
                raise _DoesNotFitError
            ways = [act] if about.air and down else [f"to the {act}", f"towards the {act}", f"over to the {act}"]
            order, slots, there = "move", {"to": pick(rng, ways)}, self._where(rng, to)
        elif act in ("bigger", "smaller"):
            scale = float(rng.uniform(1.4, 1.75) if act == "bigger" else rng.uniform(0.5, 0.68))
            low = self._extent(thing["kind"], place)[1] * (scale - 1) / 2 if about.air else 0.0
            to = Spot(place.x, round(place.y + low, 4), round(place.size * scale, 4))
            after = f"a {'large' if act == 'bigger' else 'small'} {name}"
        elif act == "face":
            ways = ["right", "left"] if np.cos(np.radians(thing["yaw"])) > 0 else ["left", "right"]
            before, after = (f"{a(name)} with its {about.front} pointing {way}" for way in ways)
            slots, other = ({"front": about.front, "to": ways[1]}, {**thing, "yaw": round(180.0 - thing["yaw"], 1)})
        else:
            # Away from the front: turned the other way, a symmetrical object would look the same.
            turned = thing["yaw"] + float(np.sign(thing["yaw"]) * rng.uniform(36, 50))
            other, after = {**thing, "yaw": round(turned, 1)}, f"{a(name)} seen from another side"
        self._check_fits(thing["kind"], to, lowest=0.98 if about.air or self.scene.ground else 1.04)
        instruction = instruct(rng, order, the=f"the {name}", bare=name, where=at, **slots)
        captions = showing(rng, self.photo, (before, at), (after, there))
        plan = {"thing": thing, "place": asdict(place), "other": other, "to": asdict(to), "act": act}
        return plan, Wording(instruction, *captions)


def _yaw(rng: np.random.Generator, kind: str) -> float:
    """An angle that shows an object well: boxes cornerwise, objects with a front turned halfway to the viewer."""
    one_way = float(rng.choice([-1.0, 1.0]))
    if objects.KINDS[kind].front:
        return round(one_way * float(rng.uniform(5, 38)) + (180.0 if rng.random() < 0.5 else 0.0), 1)
    return round(one_way * float(rng.uniform(16, 40)), 1)


def _name(thing: Thing) -> str:
    return objects.name(thing["kind"], thing["colour"])
