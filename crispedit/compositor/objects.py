"""The objects that the compositor can put into a photograph, by name: how each is said, coloured and sized."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from crispedit.compositor.render import Shape
from crispedit.compositor.shapes import BUILD

Stance = Literal["ground", "air"]


@dataclass(frozen=True)
class Kind:
    """What is known of an object without drawing it. `sizes` are heights as fractions of a photograph's short side.

    `noun` may say where the colour is ("donut with {colour} icing"); otherwise the colour goes before it.
    `colours` are the names that it is painted in; empty where its colours are its own (a soccer ball) and unsaid.
    `tint` is what the rest of them is, or all. `turns` says that turning it about the vertical shows; `front` names
    the part that points to the right when it is not turned.
    """

    noun: str
    stance: Stance
    sizes: tuple[float, float]
    colours: tuple[str, ...]
    turns: bool = False
    tint: str = ""
    front: str = ""


_BRIGHT = ("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink")
_ANY = (*_BRIGHT, "white", "black")
_CALM = ("red", "green", "blue", "brown", "black", "purple", "orange")

KINDS: dict[str, Kind] = {
    "beach_ball": Kind("beach ball", "ground", (0.17, 0.32), _BRIGHT, True),
    "basketball": Kind("basketball", "ground", (0.16, 0.28), (), tint="orange"),
    "soccer_ball": Kind("soccer ball", "ground", (0.15, 0.28), (), tint="white"),
    "tennis_ball": Kind("tennis ball", "ground", (0.12, 0.2), (), tint="yellow"),
    "yarn": Kind("ball of {colour} yarn", "ground", (0.15, 0.26), _BRIGHT),
    "apple": Kind("apple", "ground", (0.15, 0.26), ("red", "green", "yellow")),
    "orange": Kind("orange", "ground", (0.14, 0.24), (), tint="orange"),
    "pear": Kind("pear", "ground", (0.18, 0.3), ("green", "yellow", "red")),
    "pumpkin": Kind("pumpkin", "ground", (0.16, 0.28), ("orange", "white", "green", "yellow")),
    "mushroom": Kind("mushroom", "ground", (0.18, 0.32), ("red", "brown", "orange", "purple", "blue")),
    "cactus": Kind("potted cactus", "ground", (0.24, 0.4), (), tint="green"),
    "donut": Kind(
        "donut with {colour} icing",
        "ground",
        (0.09, 0.14),
        ("pink", "white", "turquoise"),
        tint="orange",
    ),
    "cupcake": Kind("cupcake", "ground", (0.18, 0.3), ("pink", "white", "turquoise", "yellow", "purple")),
    "mug": Kind("mug", "ground", (0.17, 0.28), _ANY, True, front="handle"),
    "teapot": Kind("teapot", "ground", (0.18, 0.3), _ANY, True, front="spout"),
    "vase": Kind("vase", "ground", (0.24, 0.4), _ANY),
    "bottle": Kind(
        "bottle", "ground", (0.28, 0.44), ("green", "blue", "red", "orange", "purple", "turquoise")
    ),
    "bucket": Kind("bucket", "ground", (0.18, 0.3), _ANY),
    "watering_can": Kind("watering can", "ground", (0.18, 0.3), _BRIGHT, True, front="spout"),
    "flower_pot": Kind(
        "daisy in a {colour} pot",
        "ground",
        (0.26, 0.42),
        ("orange", "white", "blue", "red", "yellow"),
        tint="white",
    ),
    "gift_box": Kind("gift box", "ground", (0.19, 0.32), _BRIGHT, True),
    "crate": Kind("wooden crate", "ground", (0.18, 0.3), (), True, tint="brown"),
    "suitcase": Kind("suitcase", "ground", (0.22, 0.36), _CALM, True),
    "book_stack": Kind("stack of books", "ground", (0.13, 0.22), (), True, tint="blue"),
    "barrel": Kind("barrel", "ground", (0.24, 0.38), ("brown", "red", "blue", "green")),
    "traffic_cone": Kind(
        "traffic cone", "ground", (0.22, 0.38), ("orange", "green", "blue", "pink", "yellow")
    ),
    "candle": Kind("candle", "ground", (0.2, 0.34), ("white", "red", "yellow", "pink", "green", "blue")),
    "lantern": Kind(
        "lantern", "ground", (0.22, 0.38), ("black", "red", "blue", "green", "white", "yellow"), True
    ),
    "top_hat": Kind("top hat", "ground", (0.14, 0.24), ("black", "purple", "red", "green", "blue", "white")),
    "straw_hat": Kind(
        "straw hat with a {colour} band",
        "ground",
        (0.09, 0.14),
        ("red", "blue", "green", "black", "purple"),
        tint="yellow",
    ),
    "cube": Kind("toy block", "ground", (0.15, 0.26), _BRIGHT, True),
    "pawn": Kind("chess pawn", "ground", (0.22, 0.38), ("white", "black", "brown", "red", "blue")),
    "trophy": Kind("golden trophy", "ground", (0.24, 0.4), (), True, tint="yellow"),
    "bell": Kind("golden bell", "ground", (0.17, 0.28), (), tint="yellow"),
    "snowman": Kind("snowman", "ground", (0.28, 0.44), (), True, tint="white"),
    "rubber_duck": Kind(
        "rubber duck",
        "ground",
        (0.18, 0.3),
        ("yellow", "pink", "turquoise", "green", "purple"),
        True,
        front="beak",
    ),
    "toy_car": Kind("toy car", "ground", (0.13, 0.2), _ANY, True, front="bonnet"),
    "balloon": Kind("balloon", "air", (0.26, 0.42), _BRIGHT),
    "heart_balloon": Kind(
        "heart-shaped balloon", "air", (0.24, 0.38), ("red", "pink", "purple", "blue", "orange"), True
    ),
    "star_balloon": Kind("star-shaped balloon", "air", (0.22, 0.36), _BRIGHT, True),
    "hot_air_balloon": Kind("hot-air balloon", "air", (0.22, 0.42), _BRIGHT),
    "paper_lantern": Kind("paper lantern", "air", (0.2, 0.34), ("red", "orange", "yellow", "pink", "white")),
    "kite": Kind("kite", "air", (0.24, 0.4), _BRIGHT, True),
    "butterfly": Kind(
        "butterfly", "air", (0.16, 0.3), ("orange", "yellow", "blue", "purple", "red", "turquoise"), True
    ),
}


def name(kind: str, colour: str) -> str:
    """What an object in a colour is called, without an article: "red mug", "soccer ball"."""
    noun = KINDS[kind].noun
    return noun.format(colour=colour) if "{" in noun else f"{colour} {noun}".strip()


def floats(kind: str) -> bool:
    """Whether it hangs in the air, so that it casts no shadow on the ground at its foot."""
    return KINDS[kind].stance == "air"


@lru_cache(maxsize=64)
def shape(kind: str) -> Shape:
    """The built object. ValueError for a name that is not in the library."""
    if kind not in BUILD:
        raise ValueError(f"there is no object {kind!r}; choose from {', '.join(KINDS)}")
    return BUILD[kind]()
