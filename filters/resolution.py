"""Resolution: how many pixels a photograph, or both sides of a pair, have (of the file, before any
shrinking)."""

from crispedit import images
from crispedit.parts import Bound, Filter, Sample, Score


class Resolution(Filter):
    """Sides in pixels. A photograph is measured by its file's size (`Sample.original_*`), if known, because the stored
    image may be smaller; a pair by the smaller of its two images. Only headers are read."""

    scope = frozenset({"source", "pair"})
    scores = {"short_side_px": int, "long_side_px": int}
    # CrispEdit-2M: "short side >= 1024 px" of every image.
    bounds = {"short_side_px": Bound(min=1024)}
    cost = 0.01

    def measure_one(self, sample: Sample) -> dict[str, Score]:
        sizes = [images.jpeg_size(sample.source_jpeg)]
        if sample.original_width is not None and sample.original_height is not None:
            sizes = [(sample.original_width, sample.original_height)]
        if sample.edited_jpeg is not None:
            sizes.append(images.jpeg_size(sample.edited_jpeg))
        return {"short_side_px": min(min(size) for size in sizes), "long_side_px": min(max(size) for size in sizes)}
