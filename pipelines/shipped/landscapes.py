"""Render landscapes into a folder of JPEGs, as free photographs for a build.

    python -m crispedit.pipelines.shipped.landscapes OUT --first 100 --count 300 --size 384 256

Number n is the landscape of seed n, whose kind the seed chooses too. Existing files are left alone.
"""

import argparse
from pathlib import Path

from crispedit import images
from crispedit.compositor.landscape import landscape
from crispedit.shards import journal


def render(folder: Path, first: int, count: int, width: int, height: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        path = folder / f"{seed:05d}.jpg"
        if not path.exists():
            with journal.replaced(path) as out:
                out.write(images.encode_jpeg(landscape(seed, width, height)))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--size", type=int, nargs=2, default=(1536, 1024), metavar=("WIDTH", "HEIGHT"))
    args = parser.parse_args(argv)
    render(args.out, args.first, args.count, *args.size)


if __name__ == "__main__":
    main()
