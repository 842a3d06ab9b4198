"""How well the classifier reads instructions: accuracy and confusion matrix, on the labelled train and test rows.

Run `python -m benchmarks.classifier [--file FILE.csv]`; the file needs the columns split, category and instruction. The
default is `tests/data/instructions.csv`, whose split is described in `tests/test_classifier.py`.
"""

import argparse
import csv
import time
from collections import Counter
from pathlib import Path

from crispedit.classifier import CATEGORIES, classify

DEFAULT = Path(__file__).parent.parent / "tests/data/instructions.csv"


def report(split, rows):
    start = time.perf_counter()
    answers = [classify(row["instruction"]) for row in rows]
    ms = (time.perf_counter() - start) / len(rows) * 1000
    counts = Counter((row["category"], answer.category) for row, answer in zip(rows, answers, strict=True))
    right = sum(counts[category, category] for category in CATEGORIES)
    print(f"{split}: {right}/{len(rows)} = {right / len(rows):.1%}, {ms:.2f} ms an instruction")
    print(f"{'labelled':>12} | " + " ".join(f"{category:>10}" for category in CATEGORIES) + " |  recall")
    for category in CATEGORIES:
        row = [counts[category, answer] for answer in CATEGORIES]
        cells = " ".join(f"{count or '.':>10}" for count in row)
        print(f"{category:>12} | {cells} | {counts[category, category] / max(1, sum(row)):7.1%}")
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, default=DEFAULT)
    with parser.parse_args().file.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for split in sorted({row["split"] for row in rows}, reverse=True):
        report(split, [row for row in rows if row["split"] == split])


if __name__ == "__main__":
    main()
