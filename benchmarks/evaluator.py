"""Is the evaluator right? Its figures against formulas restated from the published definitions, and its intervals
against simulations whose truth is known.

    python -m benchmarks.evaluator [--runs 2000] [--json FILE]
    python -m benchmarks.evaluator --made DIR    # a complete evaluation in every published layout, with all outputs

The first table shows the largest difference of each figure on generated images and replies, which must be at most 1e-6;
the second how often a 95 % interval contains the truth, which must be in 93 to 97 % of the simulated evaluations.
`--made` needs the `dev` extra: it makes small sets of every layout, and a judge that answers on loopback.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from scipy import ndimage, optimize, stats

from crispedit import metrics, replies
from crispedit.benchmark import Case, Protocol
from crispedit.benchmarks import edit_compass, gedit, imgedit
from crispedit.compositor.landscape import landscape
from crispedit.measures import Models
from crispedit.pipelines.evaluation import scoreboard, statistics
from crispedit.pipelines.evaluation.runner import Outcome

ROOT = Path(__file__).parents[1]
EXACT, LOW, HIGH = 1e-6, 0.93, 0.97


# Formulas


def formulas():
    """{figure: largest difference from the formula as it is published}."""
    return pixels() | embeddings() | marks() | aggregates() | comparisons()


def pairs(count=6):
    rng = np.random.default_rng(0)
    for number in range(count):
        target = landscape(number, 96, 64)
        noise = np.clip(target + rng.normal(0, 20, target.shape), 0, 255).astype(np.uint8)
        yield noise if number % 2 else np.asarray(Pillow.fromarray(noise).resize((70, 50))), target


def tensor(image):
    """torchvision's ToTensor."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def pixels():
    found = Counter()
    for edited, target in pairs():
        fitted = np.asarray(Pillow.fromarray(edited).resize((target.shape[1], target.shape[0])))
        a, b = tensor(fitted), tensor(target)
        expected = {"l1": torch.nn.L1Loss()(a, b).item(), "l2": torch.nn.MSELoss()(a, b).item()}
        expected["psnr"] = -10 * math.log10(np.mean((fitted / 255.0 - target / 255.0) ** 2))
        expected["ssim"] = ssim(fitted / 255.0, target / 255.0)
        ours = metrics.resized(edited, target)
        for name, value in expected.items():
            found[name] = max(found[name], abs(getattr(metrics, name)(ours, target) - value))
    return dict(found)


def ssim(a, b):
    """Wang et al. 2004, equation 13, in double precision: a Gaussian window of 11 pixels, sigma 1.5."""

    def blur(image):
        return ndimage.gaussian_filter(image, (1.5, 1.5, 0), radius=(5, 5, 0), mode="mirror")

    x, y = blur(a), blur(b)
    xx, yy, xy = blur(a * a) - x * x, blur(b * b) - y * y, blur(a * b) - x * y
    c1, c2 = 0.01**2, 0.03**2
    return float(np.mean((2 * x * y + c1) * (2 * xy + c2) / ((x * x + y * y + c1) * (xx + yy + c2))))


def embeddings():
    """Cosines of vectors, against scipy's."""
    from scipy.spatial.distance import cosine

    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(8, 64, generator=generator), dim=1)
    found = Counter()
    for a, b, c, d in zip(vectors, vectors.roll(1, 0), vectors.roll(2, 0), vectors.roll(3, 0), strict=True):
        for name, x, y in (("clip_i, clip_t, dino", a, b), ("clip_dir", b - a, d - c)):
            expected = 1 - cosine(x.double().numpy(), y.double().numpy())
            found[name] = max(found[name], abs(metrics.cosine(x, y) - expected))
    return dict(found)


def marks():
    """VIEScore's, ImgEdit's and Edit-Compass' arithmetic on every pair of marks."""
    found = Counter()
    case = Case("Part3/x/1", "edit", None, group="x", protocols=("p",))
    for success in range(11):
        for restraint in range(11):
            quality = [(success + 3) % 11, (restraint + 7) % 11]
            text = json.dumps({"score": [success, restraint]})
            scored = gedit.marks(replies.viescore(text), quality)
            sc, pq = min(success, restraint), min(quality)
            expected = {"SC": sc, "PQ": pq, "O": math.sqrt(sc * pq)}
            expected["balance"] = stats.hmean([success, restraint]) if min(success, restraint) else 0.0
            for name, value in expected.items():
                found[name] = max(found[name], abs(scored[name] - value))
    official = imgedit.ImgEdit.model_construct(protocol="imgedit-basic-official", prompts=Path("x"), path=Path("x"))
    for a in range(1, 6):
        for b in range(1, 6):
            lines = f"Brief reasoning: x\nA: {a}\nB: {b}\nC: {min(a, b)}"
            value = official.marks(case, [replies.published_lines(lines)])["mean"]
            found["ImgEdit mean"] = max(found["ImgEdit mean"], abs(value - round((a + b + min(a, b)) / 3, 2)))
            known = {"IF": float(a), "WA": float(b), "IC": 3.0, "VQ": 4.0}
            overall = edit_compass.overall_mark(known, case)["overall"]
            expected = 1.0 if min(known.values()) <= 1 else ((a + b) / 2) ** 0.5 * 3**0.3 * 4**0.2
            found["Edit-Compass overall"] = max(found["Edit-Compass overall"], abs(overall - expected))
    return dict(found)


def aggregates():
    """Means of cases and of groups, without black answers, as the published scripts add them up."""
    rng = np.random.default_rng(1)
    values, black = rng.random(60), rng.random(60) < 0.2
    names = [f"kind {n % 7}" for n in range(60)]
    outcomes = [
        Outcome(
            Case(str(n), "edit", None, group=names[n], protocols=("p",)),
            black=bool(black[n]),
            values={"p": {"m": float(v)}},
        )
        for n, v in enumerate(values)
    ]

    def figure(**options):
        protocol = Protocol("p", {"m": "higher"}, "m", **options)
        return scoreboard.protocol_board("p", protocol, {"e": outcomes}, Models(), 0.95)["rows"]["e"]["metrics"]["m"][
            "mean"
        ]

    by_group = np.mean([np.mean([v for v, n in zip(values, names, strict=True) if n == name]) for name in set(names)])
    return {
        "mean of cases": abs(figure() - values.mean()),
        "mean of groups": abs(figure(by_group=True) - by_group),
        "mean without black answers": abs(figure(drops_black=True) - values[~black].mean()),
    }


def comparisons():
    """Strengths by another optimiser, Holm's correction by its definition, the interval by matrix algebra."""
    matches = simulated_matches(np.random.default_rng(2), [0.6, 0.0, -0.6], cases=40)
    ours = statistics.strengths(matches, draws=2)
    players = sorted(ours)
    counts = Counter((m.dimension, m.first, m.second, m.outcome) for m in matches)
    dimensions = sorted({m.dimension for m in matches})
    played = Counter(m.dimension for m in matches)

    def loss(free):
        strength = dict(zip(players, free[: len(players)], strict=True))
        tie = dict(zip(dimensions, free[len(players) :], strict=True))
        total = 0.5 * sum(s * s for s in strength.values())
        for (dimension, first, second, outcome), count in counts.items():
            a, b = math.exp(strength[first]), math.exp(strength[second])
            t = 2 * math.exp(tie[dimension]) * math.sqrt(a * b)
            weight = np.mean(list(played.values())) / played[dimension]
            total -= weight * count * math.log({"first": a, "second": b, "tie": t}[outcome] / (a + b + t))
        return total

    best = optimize.minimize(loss, np.zeros(len(players) + len(dimensions)), method="BFGS", options={"gtol": 1e-9})
    theta = best.x[: len(players)] - best.x[: len(players)].mean()
    strength = max(abs((ours[p].elo - 1000) * math.log(10) / 400 - t) for p, t in zip(players, theta, strict=True))

    p = [0.04, 0.001, 0.03, 0.5]
    order = sorted(p)
    holm = [max(min(1, (len(p) - k) * order[k]) for k in range(order.index(value) + 1)) for value in p]
    correction = max(abs(a - b) for a, b in zip(statistics.holm(p), holm, strict=True))

    rng = np.random.default_rng(3)
    families = np.repeat(np.arange(8), rng.integers(1, 5, 8))
    values = rng.normal(size=8)[families] + rng.normal(size=len(families))
    found = statistics.mean(values, families.astype(str))
    low, high = bell_mccaffrey(values, families)
    return {
        "strengths (of theta)": strength,
        "Holm's p": correction,
        "interval of CR2": max(abs(found.low - low), abs(found.high - high)),
    }


def bell_mccaffrey(values, families, level=0.95):
    """CR2 and its degrees of freedom for a mean, as in Bell and McCaffrey (2002), by full matrices."""
    n = len(values)
    x = np.ones((n, 1))
    hat = x @ np.linalg.inv(x.T @ x) @ x.T
    residual = values - values.mean()
    columns, variance = [], 0.0
    for family in np.unique(families):
        inside = families == family
        block = np.eye(inside.sum()) - hat[np.ix_(inside, inside)]
        power = np.linalg.eigh(block)
        root = power.eigenvectors @ np.diag(power.eigenvalues**-0.5) @ power.eigenvectors.T
        weight = root @ x[inside] / n
        variance += float((weight.T @ residual[inside])[0] ** 2)
        columns.append((np.eye(n) - hat)[:, inside] @ weight[:, 0])
    g = np.stack(columns, axis=1)
    eigen = np.linalg.eigvalsh(g.T @ g)
    df = eigen.sum() ** 2 / (eigen**2).sum()
    reach = stats.t.ppf((1 + level) / 2, df) * math.sqrt(variance)
    return values.mean() - reach, values.mean() + reach


# Coverage


def coverage(runs):
    """{design: share of simulated evaluations whose 95 % interval contains the truth}."""
    rng = np.random.default_rng(4)
    designs = {
        "5 families of 1 to 3 turns": families(rng, 5),
        "7 families of 1 to 3 turns": families(rng, 7),
        "10 families of 1 to 3 turns": families(rng, 10),
        "8 cases, marks of 0 to 10": judged(rng, 8),
        "11 groups of 2 cases": groups(rng, 11, 2),
        "11 groups of 5 cases": groups(rng, 11, 5),
        "11 groups of 1 case": groups(rng, 11, 1),
        "9 groups, one of them of 1 case": groups(rng, 9, 3, single=True),
        "10 cases, 2 seeds, 2 judgements": repeated(rng, 10),
        "difference of two editors, 10 cases": paired(rng, 10),
    }
    found = {name: float(np.mean([simulate() for _ in range(runs)])) for name, simulate in designs.items()}
    few = max(100, runs // 10)  # every one of these fits 60 models
    found["strengths of 3 editors, 40 cases"] = float(np.mean([strength_covered(rng) for _ in range(few)]))
    return found


def holds(truth, values, families, groups=None):
    found = statistics.mean(values, [str(f) for f in families], groups)
    return found.low <= truth <= found.high


def families(rng, count):
    def simulate():
        place = np.repeat(np.arange(count), rng.integers(1, 4, count))
        return holds(0, rng.normal(size=count)[place] + rng.normal(size=len(place)), place)

    return simulate


def judged(rng, count):
    def mark(size):
        return np.clip(np.round(rng.normal(6, 2, size)), 0, 10)

    truth = mark(1_000_000).mean()
    return lambda: holds(truth, mark(count), range(count))


def groups(rng, count, each, single=False):
    """Fixed kinds of different difficulty and spread; kinds of one case are themselves drawn."""
    levels, spreads = rng.normal(0, 2, count), rng.uniform(0.7, 1.3, count)
    sizes = [1 if single and n == 0 else each for n in range(count)]

    def simulate():
        centre = rng.normal(0, 2, count) if each == 1 else levels
        place = np.repeat(np.arange(count), sizes)
        values = centre[place] + spreads[place] * rng.normal(size=len(place))
        truth = 0 if each == 1 else levels.mean()
        return holds(truth, values, range(len(place)), [str(p) for p in place])

    return simulate


def repeated(rng, count):
    def simulate():
        case = rng.normal(size=(count, 1, 1))
        cells = case + rng.normal(0, 0.7, (count, 2, 1)) + rng.normal(0, 0.5, (count, 2, 2))
        return holds(0, cells.mean(axis=(1, 2)), range(count))

    return simulate


def paired(rng, count):
    def simulate():
        case = rng.normal(0, 3, count)
        ours, theirs = case + 0.5 + rng.normal(size=count), case + rng.normal(size=count)
        return holds(0.5, ours - theirs, range(count))

    return simulate


def simulated_matches(rng, strengths, cases):
    """Matches of Davidson's model in two dimensions, one of which ties more often; some cases favour an editor."""
    found = []
    for case in range(cases):
        for dimension, tie in (("following", 0.3), ("quality", 0.8)):
            for a in range(len(strengths)):
                for b in range(a):
                    x, y = math.exp(strengths[a]), math.exp(strengths[b])
                    share = np.array([x, y, 2 * tie * math.sqrt(x * y)])
                    outcome = ("first", "second", "tie")[rng.choice(3, p=share / share.sum())]
                    found.append(statistics.PairwiseResult(str(case), dimension, f"e{a}", f"e{b}", outcome))
    return found


def strength_covered(rng):
    truth = [0.5, 0.0, -0.5]
    found = statistics.strengths(simulated_matches(rng, truth, 40), draws=60, seed=int(rng.integers(1 << 31)))
    expected = 1000 + truth[0] * 400 / math.log(10)
    return found["e0"].low <= expected <= found["e0"].high


# Made evaluations


def made(out):
    """{layout: the result of a complete evaluation} of three editors by two seeds: folders of results in each published
    layout, measured with tiny models and a judge on loopback."""
    sys.path[:0] = [str(ROOT / "tests" / "benchmarks"), str(ROOT / "tests")]
    import published_sets as sets
    import tiny_clip
    import tiny_vit
    from chat_server import serving

    from crispedit.benchmark import Benchmark
    from crispedit.pipelines import evaluate

    clip = {"model": f"local-dir:{tiny_clip.save(out / 'models' / 'clip')}"}
    models = {"clip": clip, "clip_large": clip, "dino": {"model": str(tiny_vit.save(out / "models" / "vit"))}}
    layouts = {
        "magicbrush": {"path": sets.magicbrush(out / "sets/magicbrush", {str(n): 1 + n % 3 for n in range(1, 6)})},
        "emu_edit": {"path": sets.emu(out / "sets/emu_edit")},
        "anybench": {"path": sets.anybench(out / "sets/anybench")},
        "gedit": {
            "path": sets.gedit(out / "sets/gedit"),
            "prompts": sets.vie_prompts(out / "sets/vie_prompts.py"),
            "protocol": "gedit-official",
        },
        "imgedit": {"path": sets.imgedit(out / "sets/imgedit"), "protocol": "imgedit-basic-official"},
        "gedit_v2": {"path": sets.gedit_v2(out / "sets/gedit_v2")},
        "edit_compass": {"path": sets.edit_compass(out / "sets/edit_compass")},
    }
    layouts["imgedit"]["prompts"] = layouts["imgedit"]["path"] / "prompts.json"
    layouts["edit_compass"]["prompts"] = layouts["edit_compass"]["path"] / "Prompt"
    found = {}
    with serving(judge) as server:
        for name, options in layouts.items():
            cases = evaluate.parts.make(evaluate.benchmark_folder, name, Benchmark, options).cases()
            editors = {}
            for editor, level in (("faint", 10), ("middling", 40), ("strong", 80)):
                folders = [out / "answers" / name / editor / f"seed-{seed}" for seed in range(2)]
                for seed, folder in enumerate(folders):
                    answered(cases, folder, level, seed)
                editors[editor] = {"results": [str(folder) for folder in folders]}
            recipe = evaluate.EvaluationRecipe(
                out=out / "evaluations" / name,
                benchmarks={name: options},
                editors=editors,
                models=models | {"judge": server.spec},
                judgements=2 if name in ("gedit", "imgedit") else 1,
                price={"prompt_per_million": 2.0, "answer_per_million": 8.0},
                humans=people(out / f"people-{name}.csv", cases),
            )
            found[name] = evaluate.evaluate(recipe)
    return found


def answered(cases, folder, level, seed):
    """A folder of results in the benchmark's own names: the source, coarser the higher the level; one is missing."""
    rng = np.random.default_rng(seed)
    for number, case in enumerate(cases):
        if number == 2 and level == 80:
            continue
        source = (case.source or cases[0].source).image()
        image = np.clip(source + rng.normal(0, level, source.shape), 0, 255).astype(np.uint8)
        file = folder / f"{case.result or case.id}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(image).save(file)


def people(file, cases):
    """Made preferences: people like what was changed least, but for one case."""
    lines = ["case,first,second,winner,category"]
    for number, case in enumerate(cases):
        lines.append(f"{case.id},faint,strong,{'strong' if number == 1 else 'faint'},{case.group}")
        lines.append(f"{case.id},middling,faint,faint,{case.group}")
    file.write_text("\n".join(lines) + "\n")
    return file


def judge(asked):
    """Replies in the format that the question asks for; marks follow the size of the picture's data: noise is large."""
    from base64 import b64decode

    if asked.is_hello:
        return '{"ready": true}'
    sizes = [len(b64decode(url.partition(",")[2])) for url in asked.images]
    noise = sizes[-1] / sizes[0] if len(sizes) > 1 else sizes[-1] / 6000
    if "Image A" in asked.text:
        winner = "Tie" if abs(sizes[1] - sizes[2]) < 100 else "Image A" if sizes[1] < sizes[2] else "Image B"
        return json.dumps({"reasoning": "the cleaner one", "winner": winner})
    if "A number from 1 to 5" in asked.text:
        mark = max(1, min(5, round(6 - noise)))
        names = [line.partition(":")[0] for line in asked.text.splitlines() if "A number from" in line]
        return "\n".join(["Brief reasoning: looked at.", *(f"{name}: {mark}" for name in names)])
    if "_prompt" in asked.text or "What differs?" in asked.text:
        return f'### RESULT ### ["noise"]\n{{"reasoning": "x", "score": {max(1, min(5, round(6 - noise)))}}}'
    mark = max(0, min(10, round(11 - 2 * noise)))
    return json.dumps({"reasoning": "looked at", "score": [mark, max(0, mark - 1)]})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000, help="simulated evaluations of each design")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--made", type=Path, metavar="DIR")
    args = parser.parse_args()
    if args.made is not None:
        for name, found in made(args.made).items():
            print(f"{name}: {args.made / 'evaluations' / name}/results.md {'; '.join(found.problems)}")
        return 0
    differences, shares = formulas(), coverage(args.runs)
    print("| figure | largest difference |\n|---|---|")
    for name, value in differences.items():
        print(f"| {name} | {value:.1e} |")
    print(f"\n| design ({args.runs} simulations) | intervals of 95 % that hold the truth |\n|---|---|")
    for name, value in shares.items():
        print(f"| {name} | {value:.1%} |")
    wrong = [n for n, v in differences.items() if v > EXACT] + [n for n, v in shares.items() if not LOW <= v <= HIGH]
    covered = f"coverage {min(shares.values()):.1%} to {max(shares.values()):.1%}"
    print(f"\nlargest difference {max(differences.values()):.1e}; {covered}")
    if args.json is not None:
        args.json.write_text(json.dumps({"differences": differences, "coverage": shares}, indent=1) + "\n")
    print("all within bounds" if not wrong else f"out of bounds: {', '.join(wrong)}")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
