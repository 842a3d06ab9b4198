"""The compositor, annotator and editor together: what an edit claims must hold for its pixels."""

from __future__ import annotations

import json
import pickle
from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crispedit import images
from crispedit.annotators.compositor import CompositorAnnotator
from crispedit.compositor import colours, cutout, objects, recolour
from crispedit.compositor.landscape import KINDS, landscape
from crispedit.compositor.render import Light
from crispedit.compositor.sprites import sprite
from crispedit.compositor.styles import STYLES, restyle
from crispedit.editors.compositor import CompositorEditor
from crispedit.record import Edit, Image, Job, Refusal, Sample, seed_of, source_key

CATEGORIES = ("add", "remove", "replace", "color", "background", "style", "motion")
LOCAL = ("add", "remove", "replace", "color", "motion")
PHOTOGRAPHS = ("meadow", "room", "desert")


def difference(a, b):
    """[H, W] largest absolute difference over the channels, 0-255."""
    return cv2.absdiff(a, b).max(-1)


def sample(picture: Image) -> Sample:
    jpeg = images.encode_jpeg(picture)
    return Sample(key=source_key(jpeg), source_jpeg=jpeg)


@cache
def photograph(kind: str, width: int = 480, height: int = 384) -> Sample:
    return sample(landscape(5, width, height, kind))


@cache
def edits(category: str) -> list[tuple[Sample, Job, Image, Edit]]:
    """Six edits of each photograph: (photograph, job, the pair's source, edit)."""
    out = []
    for kind in PHOTOGRAPHS:
        photo = photograph(kind)
        for job in CompositorAnnotator().annotate([photo], [[category] * 6])[0]:
            assert isinstance(job, Job), (kind, category, job)
            edit = CompositorEditor().edit([photo.source], [job], [seed_of(job.key)])[0]
            assert isinstance(edit, Edit)
            out.append((photo, job, photo.source if edit.source is None else edit.source, edit))
    return out


def middle(mask: np.ndarray) -> tuple[float, float]:
    """The centroid (x, y) of a mask as fractions."""
    y, x = np.nonzero(mask)
    return float(x.mean() / mask.shape[1]), float(y.mean() / mask.shape[0])


def drawn(photo: Sample, side: Image) -> np.ndarray:
    """Where a side of the pair strongly differs from the photograph: the object that was put in."""
    return difference(photo.source, side) > 24


# --- contracts


@pytest.mark.parametrize("category", CATEGORIES)
def test_same_edit_alone_and_in_any_batch(category):
    photos = [photograph(kind) for kind in PHOTOGRAPHS]
    together = CompositorAnnotator().annotate(photos, [[category, "add"], [category], [category] * 2])
    alone = CompositorAnnotator().annotate(photos[1:2], [[category]])
    assert together[1] == alone[0]
    jobs = [found[0] for found in together]
    seeds = [seed_of(job.key) for job in jobs]
    sources = [photo.source for photo in photos]
    batch = CompositorEditor().edit(sources, jobs, seeds)
    backwards = CompositorEditor().edit(sources[::-1], jobs[::-1], seeds[::-1])[::-1]
    for one, other in zip(batch, backwards, strict=True):
        assert np.array_equal(one.edited, other.edited)
        assert np.array_equal(one.mask, other.mask)
        assert (one.source is None) == (other.source is None)
        assert one.source is None or np.array_equal(one.source, other.source)


def test_parts_pickle_and_plans_are_json():
    annotator, editor = pickle.loads(pickle.dumps((CompositorAnnotator(), CompositorEditor())))
    photo = photograph("room")
    for job in annotator.annotate([photo], [CATEGORIES])[0]:
        again = Job(**{**vars(job), "plan": json.loads(json.dumps(job.plan))})
        one, other = (editor.edit([photo.source], [j], [7])[0] for j in (job, again))
        assert np.array_equal(one.edited, other.edited)


def test_editing_leaves_the_photograph_alone():
    photo = photograph("meadow")
    before = photo.source.copy()
    jobs = CompositorAnnotator().annotate([photo], [CATEGORIES])[0]
    CompositorEditor().edit([photo.source] * len(jobs), jobs, [1] * len(jobs))
    assert np.array_equal(photo.source, before)


def test_foreign_jobs_and_categories_are_refused():
    photo = photograph("room")
    with pytest.raises(ValueError, match="no plan of the compositor"):
        CompositorEditor().edit([photo.source], [Job(photo.key, "add", "Add a hat.", "A photo.", "A hat.")], [0])
    with pytest.raises(ValueError, match="cannot do 'relight'"):
        CompositorAnnotator().annotate([photo], [["relight"]])


@settings(max_examples=12)
@given(st.integers(16, 260), st.integers(16, 260), st.integers(0, 1000), st.sampled_from(CATEGORIES))
def test_any_size_gives_an_edit_of_that_size_or_a_refusal(width, height, seed, category):
    photo = sample(landscape(seed, width, height))
    answer = CompositorAnnotator().annotate([photo], [[category]])[0][0]
    if isinstance(answer, Refusal):
        assert answer.reason in ("no_room", "no_words")
        return
    assert min(width, height) >= 48
    edit = CompositorEditor().edit([photo.source], [answer], [seed])[0]
    assert edit.edited.shape == photo.source.shape
    assert edit.edited.dtype == np.uint8
    assert edit.mask.shape == photo.source.shape[:2]


def test_flat_and_tiny_pictures():
    flat = sample(np.full((300, 300, 3), 128, np.uint8))
    jobs = CompositorAnnotator().annotate([flat], [CATEGORIES])[0]
    assert all(isinstance(job, Job) for job in jobs)
    tiny = sample(np.full((40, 300, 3), 128, np.uint8))
    assert CompositorAnnotator().annotate([tiny], [CATEGORIES])[0] == [Refusal("no_room")] * 7


# --- what is said


def test_no_two_instructions_of_a_photograph_read_alike():
    for kind in PHOTOGRAPHS[:2]:
        jobs = CompositorAnnotator().annotate([photograph(kind)], [list(CATEGORIES) * 10])[0]
        orders = [job.instruction.lower() for job in jobs if isinstance(job, Job)]
        assert len(orders) >= 66
        assert len(set(orders)) == len(orders)


def test_wordings_are_many():
    photos = [photograph(kind) for kind in KINDS]
    jobs = [j for found in CompositorAnnotator().annotate(photos, [list(CATEGORIES) * 6] * len(photos)) for j in found]
    made = [job for job in jobs if isinstance(job, Job)]
    assert len({job.instruction for job in made}) > 0.95 * len(made)
    # Without objects, colours and places the frames of the sentences still differ.
    nouns = {word for kind in objects.KINDS.values() for word in kind.noun.split()} | set(colours.NAMED)
    frames = {" ".join(w for w in job.instruction.lower().split() if w.strip(".?,") not in nouns) for job in made}
    assert len(frames) > 300
    assert not any("{" in text for j in made for text in (j.instruction, j.source_caption, j.target_caption))


@pytest.mark.parametrize("category", LOCAL)
def test_instruction_names_object_and_colour(category):
    for _, job, _, _ in edits(category):
        if "thing" not in job.plan:
            continue
        thing = job.plan["thing"]
        name = objects.name(thing["kind"], thing["colour"])
        text = job.instruction.lower()
        noun = objects.KINDS[thing["kind"]].noun
        assert (name in text) if category != "color" else (noun in text)
        if category == "replace":
            assert objects.name(job.plan["other"]["kind"], job.plan["other"]["colour"]) in text
        if category == "color":
            assert job.plan["other"]["colour"] in text
            assert name in job.source_caption.lower()
            assert objects.name(thing["kind"], job.plan["other"]["colour"]) in job.target_caption.lower()


@pytest.mark.parametrize("category", ["add", "remove"])
def test_place_in_words_is_the_place_in_pixels(category):
    said = 0
    for _, job, source, edit in edits(category):
        x, y = middle(difference(source, edit.edited) > 24)
        thing = job.plan["thing"]
        text = job.instruction.lower().replace(objects.name(thing["kind"], thing["colour"]), "it")
        said += any(word in text for word in ("left", "right", "top", "bottom", "upper", "lower"))
        assert "left" not in text or x < 0.5
        assert "right" not in text or x > 0.5
        assert not any(word in text for word in ("top", "upper")) or y < 0.5
        assert not any(word in text for word in ("bottom", "lower", "down low")) or y > 0.5
    assert said > 8


# --- what is drawn


@pytest.mark.parametrize("category", LOCAL)
def test_outside_the_mask_nothing_changes_and_inside_much_does(category):
    for _, job, source, edit in edits(category):
        change = difference(source, edit.edited)
        assert not change[~edit.mask].any(), job.instruction
        share = edit.mask.mean()
        assert 0.003 < share < (0.75 if "tone" in job.plan else 0.45), job.instruction
        assert (change[edit.mask] > 12).mean() > 0.15, job.instruction


def test_remove_is_the_inverse_of_add():
    for photo, job, source, edit in edits("remove"):
        as_add = Job(**{**vars(job), "plan": {**job.plan, "category": "add"}})
        added = CompositorEditor().edit([photo.source], [as_add], [seed_of(job.key)])[0]
        # Another category is another job, so only the grain may differ.
        assert np.array_equal(edit.edited, photo.source)
        assert np.array_equal(added.mask, edit.mask)
        assert int(difference(added.edited, source).max()) <= 2 * 8


def test_color_keeps_the_shading():
    for photo, job, source, edit in edits("color"):
        if "tone" in job.plan:
            lightness = [
                cv2.cvtColor(side.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 0][edit.mask]
                for side in (source, edit.edited)
            ]
            assert np.median(np.abs(lightness[0] - lightness[1])) < 4
        else:
            gray = [images.gray(side).astype(float) for side in (source, edit.edited)]
            inside = cv2.erode(edit.mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
            if inside.sum() > 400:
                assert np.corrcoef(gray[0][inside], gray[1][inside])[0, 1] > 0.2, job.instruction
        assert photo is not None


def test_painted_colours_look_as_they_are_called():
    """The rendered object's saturated pixels have the hue of its colour's name."""
    right, seen = 0, 0
    for photo, job, source, _ in edits("remove"):
        colour = job.plan["thing"]["colour"]
        if colour in ("", "white", "black", "gray", "brown"):
            continue
        inside = source[drawn(photo, source)]
        hsv = cv2.cvtColor(inside[None], cv2.COLOR_RGB2HSV)[0]
        vivid = inside[hsv[:, 1] > 90]
        own = np.array(colours.NAMED[colour]) * 255
        seen += 1
        right += colours.name_of(vivid) == colour or (
            colours.apart(colour, vivid) < colours.apart("gray", vivid)
            and np.linalg.norm(own - vivid.mean(axis=0)) < 150
        )
    assert seen > 5
    assert right >= 0.8 * seen


def test_motion_goes_where_it_is_said_to():
    acts = set()
    for photo, job, source, edit in edits("motion") + more_motion():
        (x0, y0), (x1, y1) = middle(drawn(photo, source)), middle(drawn(photo, edit.edited))
        act = job.plan["act"]
        acts.add(act)
        areas = drawn(photo, source).sum(), drawn(photo, edit.edited).sum()
        if act in ("left", "right"):
            assert act in job.instruction.lower()
            assert (x1 - x0) * (1 if act == "right" else -1) > 0.1
        elif act in ("up", "down"):
            assert act in job.instruction.lower()
            assert (y1 - y0) * (1 if act == "down" else -1) > 0.08
        elif act in ("bigger", "closer"):
            assert areas[1] > 1.25 * areas[0]
        elif act in ("smaller", "farther"):
            assert areas[1] < 0.8 * areas[0]
        elif act == "face":
            front = objects.KINDS[job.plan["thing"]["kind"]].front
            assert front in job.instruction
    assert len(acts) >= 6


@cache
def more_motion() -> list[tuple[Sample, Job, Image, Edit]]:
    photo = photograph("beach")
    jobs = [job for job in CompositorAnnotator().annotate([photo], [["motion"] * 14])[0] if isinstance(job, Job)]
    found = CompositorEditor().edit([photo.source] * len(jobs), jobs, [3] * len(jobs))
    return [(photo, job, edit.source, edit) for job, edit in zip(jobs, found, strict=True)]


def test_background_keeps_the_subject_and_changes_the_rest():
    for _, job, source, edit in edits("background"):
        assert edit.mask.mean() > 0.3
        change = difference(source, edit.edited)
        assert not change[~edit.mask].any()
        assert (~edit.mask).sum() > 300, job.instruction
        assert (change[edit.mask] > 12).mean() > 0.5


def test_a_subject_that_stands_out_is_cut_out_and_kept():
    photo = landscape(3, 480, 384, "meadow")
    y, x = np.mgrid[0:384, 0:480]
    ball = (x - 230) ** 2 + (y - 210) ** 2 < 85**2
    texture = 40 * np.sin(x / 3.0) * np.sin(y / 3.5)
    picture = cv2.GaussianBlur(photo, (0, 0), 9)
    picture[ball] = np.clip(np.array([225, 60, 40]) + texture[ball][:, None], 0, 255).astype(np.uint8)
    found = cutout.find(picture)
    assert found is not None
    alpha = cutout.cut_out(picture, found)
    assert ((alpha > 0.5) == ball).mean() > 0.98
    assert colours.name_of(found.pixels) == "red"
    assert cutout.find(cv2.GaussianBlur(photo, (0, 0), 9)) is None


def test_style_changes_everything_and_moves_nothing():
    photo = photograph("meadow").source
    outputs = {}
    for style in STYLES:
        painted = restyle(photo, style, 11)
        assert painted.shape == photo.shape
        assert np.array_equal(painted, restyle(photo, style, 11))
        change = difference(photo, painted)
        assert change.mean() > 6, style
        # The large light and dark areas stay where they were (or are inverted, as in neon).
        small = [
            cv2.resize(images.gray(side), (24, 19), interpolation=cv2.INTER_AREA).ravel() for side in (photo, painted)
        ]
        assert abs(np.corrcoef(small[0], small[1])[0, 1]) > 0.2, style
        outputs[style] = painted
    names = list(outputs)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert difference(outputs[one], outputs[other]).mean() > 4, (one, other)
    with pytest.raises(ValueError, match="no style 'fresco'"):
        restyle(photo, "fresco", 0)


def test_tone_turns_to_the_named_colour():
    red = cv2.cvtColor(images.gray(landscape(2, 480, 384, "snow")), cv2.COLOR_GRAY2RGB)
    cv2.circle(red, (240, 200), 90, (200, 40, 35), -1)
    tone = recolour.tone_of(red)
    assert tone is not None
    assert tone.name == "red"
    reached = recolour.reachable(red, tone)
    assert len(reached) >= 2  # at this lightness
    assert "red" not in reached
    for name, by in reached.items():
        turned, mask = recolour.turn_tone(red, tone.angle, by)
        assert np.array_equal(turned[~mask], red[~mask])
        assert colours.name_of(turned[150:250, 200:280]) == name
    assert recolour.tone_of(cv2.cvtColor(images.gray(red), cv2.COLOR_GRAY2RGB)) is None


# --- objects and landscapes


@pytest.mark.parametrize("kind", objects.KINDS)
def test_every_object_is_drawn_whole(kind):
    light = Light((0.4, 0.8, 0.45), (0.8, 0.8, 0.75), (0.4, 0.42, 0.5), (0.2, 0.2, 0.18))
    colour = (objects.KINDS[kind].colours or ("gray",))[0]
    drawn_ = sprite(kind, colours.NAMED[colour], 25.0, 64, light)
    assert drawn_.alpha.max() == 1
    # Nothing is cut off at the sprite's border.
    assert max(drawn_.alpha[0].max(), drawn_.alpha[:, 0].max(), drawn_.alpha[:, -1].max()) < 0.5
    assert np.isfinite(drawn_.rgb).all()
    assert drawn_.shade.any() == (not objects.KINDS[kind].air)
    tall = np.nonzero(drawn_.alpha.max(axis=1) > 0.5)[0]
    assert 0.75 * 64 < tall[-1] - tall[0] < 1.65 * 64


def test_landscapes_differ_and_repeat():
    small = [
        cv2.resize(landscape(seed, 320, 256), (16, 13), interpolation=cv2.INTER_AREA).astype(int) for seed in range(10)
    ]
    assert np.array_equal(landscape(4, 320, 256), landscape(4, 320, 256))
    for i in range(10):
        for j in range(i):
            assert np.abs(small[i] - small[j]).mean() > 8
    with pytest.raises(ValueError, match="no landscape 'mars'"):
        landscape(0, 64, 64, "mars")
    with pytest.raises(ValueError, match="too small"):
        landscape(0, 8, 64)


@pytest.mark.parametrize("kind", KINDS)
def test_landscapes_have_detail_up_to_the_pixel(kind):
    """Halving and doubling a landscape loses detail beyond its sensor noise; doing so again to the result does not."""
    gray = images.gray(landscape(1, 512, 384, kind)).astype(np.float32)
    half = cv2.resize(gray, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    soft = cv2.resize(half, (512, 384), interpolation=cv2.INTER_CUBIC)
    lost = float(np.abs(gray - soft).mean())
    again = cv2.resize(
        cv2.resize(soft, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), (512, 384), interpolation=cv2.INTER_CUBIC
    )
    assert lost > 1.3
    assert lost > 2 * float(np.abs(soft - again).mean())
