"""Small benchmark folders in the published layouts, with generated pictures."""

import io
import json

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image as Pillow

from crispedit.compositor.landscape import landscape

WIDTH, HEIGHT = 96, 64


def picture(seed, width=WIDTH, height=HEIGHT):
    return landscape(seed, width, height)


def png(image):
    data = io.BytesIO()
    Pillow.fromarray(image).save(data, "PNG")
    return data.getvalue()


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(image))


def magicbrush(folder, turns=None):
    """`test.zip`, unpacked: sessions 30 (one turn) and 139 (three turns)."""
    sessions, captions = {}, {}
    for session, count in (turns or {"30": 1, "139": 3}).items():
        names = [f"{session}-input.png", *(f"{session}-output{k}.png" for k in range(1, count + 1))]
        for number, name in enumerate(names):
            write(folder / "images" / session / name, picture(int(session) + number))
        write(folder / "images" / session / f"{session}-mask1.png", picture(0))
        sessions[session] = [
            {"input": names[k], "output": names[k + 1], "mask": "", "instruction": f"edit {k + 1}"}
            for k in range(count)
        ]
        captions[session] = {name: f"a picture called {name}" for name in names}
    (folder / "edit_sessions.json").write_text(json.dumps(sessions))
    for name in ("local_descriptions.json", "global_descriptions.json"):
        (folder / name).write_text(json.dumps(captions))
    return folder


def cell(image):
    return {"bytes": png(image), "path": None}


def emu(folder, answers=True, count=5):
    """A split of emu_edit_test_set_generations, or of emu_edit_test_set; row groups of two, as large sets have many."""
    tasks = ("add", "style")
    table = [
        {
            "instruction": f"edit {n}",
            "image": cell(picture(n)),
            "task": tasks[n % 2],
            "split": "validation",
            "idx": 1000 + n,
            "hash": f"h{n}",
            "input_caption": "a lake",
            "output_caption": "a lake" if n == 0 else f"a hill number {n}",
        }
        | ({"edited_image": cell(picture(100 + n)), "model": "emu"} if answers else {})
        for n in range(count)
    ]
    (folder / "data").mkdir(parents=True)
    file = folder / "data" / "validation-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist(table), file, row_group_size=2)
    return folder


def anybench(folder, sizes=((96, 64), (96, 64))):
    """Two types; the files name themselves from the data set's root."""
    for kind in ("add", "style_change"):
        listed = []
        for number, size in enumerate(sizes):
            name = f"{kind}/input_img/{number:03d}.png"
            write(folder / name, picture(number))
            target = f"{kind}/edited_img/{number:03d}.png"
            write(folder / target, cv2.resize(picture(50 + number), size))
            listed.append(
                {"edit": f"edit {number}", "edited object": "it", "input": "a lake", "output": "a hill"}
                | {"edit_type": kind, "visual_input": None, "image_file": name, "edited_file": target}
            )
        (folder / kind / "edit_result.json").write_text(json.dumps(listed))
    return folder


def gedit(folder, suffix="parquet"):
    """Three groups, two languages; the raw source is larger than the source."""
    table = [
        {
            "task_type": group,
            "key": f"k{n}{language}",
            "instruction": f"edit {n}",
            "instruction_language": language,
            "input_image": cell(picture(n)),
            "input_image_raw": cell(picture(n, 2 * WIDTH, 2 * HEIGHT)),
            "Intersection_exist": n % 2 == 0,
        }
        for n, group in enumerate(("color_alter", "color_alter", "subject-add", "style_change"))
        for language in ("en", "cn")
    ]
    folder.mkdir(parents=True, exist_ok=True)
    rows = pa.Table.from_pylist(table)
    if suffix == "parquet":
        pq.write_table(rows, folder / "train-00000-of-00001.parquet")
    else:
        with pa.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), rows.schema) as stream:
            stream.write_table(rows)
    return folder


def vie_prompts(path):
    """A file like the published one: assignments of texts, and more that must not run."""
    path.write_text(
        'raise SystemExit("this file is data")\n'
        '_context_no_delimit = """CONTEXT"""\n'
        "_prompts_0shot_two_image_edit_rule = 'TWO IMAGES'\n"
        "_prompts_0shot_tie_rule_SC = 'SC of <instruction>'\n"
        "_prompts_0shot_rule_PQ = 'PQ'\n"
    )
    return path


def imgedit(folder):
    """Three items of two kinds, their images, and prompts."""
    items = {}
    for number, kind in enumerate(("adjust", "style", "adjust")):
        name = f"animal/{number:09d}.jpg"
        write(folder / name, picture(number))
        items[str(1082 + number)] = {"id": name, "prompt": f"edit {number}", "edit_type": kind}
    (folder / "basic_edit.json").write_text(json.dumps(items))
    named = {
        "adjust": ("Prompt Compliance", "Visual Seamlessness", "Physical & Detail Fidelity"),
        "style": ("Style Fidelity", "Content Preservation", "Rendering Quality"),
    }
    lines = {kind: "\n".join(f"{name}: A number from 1 to 5." for name in names) for kind, names in named.items()}
    prompts = {kind: f"Rate this {kind}: <edit_prompt>\n{lines[kind]}" for kind in named}
    (folder / "prompts.json").write_text(json.dumps(prompts))
    return folder


def gedit_v2(folder, count=4):
    """`metadata.jsonl` with sources, and two published editors' answers."""
    lines = []
    for number in range(count):
        key = f"subject_addition_{number:06d}"
        write(folder / "images" / "source" / f"{key}.png", picture(number))
        candidates = []
        for place, model in enumerate(("BAGEL", "FLUX1_Kontext_dev")):
            name = f"images/edited/{model}/{key}.png"
            write(folder / name, picture(50 + 10 * place + number))
            candidates.append({"model": model, "image": f"./{name}"})
        source = f"./images/source/{key}.png"
        task = ("subject_addition", "openset")[number % 2]
        lines.append(
            {"key": key, "task": task, "instruction": f"edit {number}.", "source_image": source}
            | {"candidates": candidates}
        )
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def edit_compass(folder):
    """Four tasks: one of style, one that reasons, one with drawn marks, one of several images; and the prompts."""
    tasks = {
        "Part1/Style_Transfer": {"IF": True, "IC": False, "URC": False, "WA": False, "VQ": True},
        "Part3/Temporal": {"IF": True, "IC": True, "URC": True, "WA": True, "VQ": True},
        "Part6/Complex_Paint_en": {"IF": True, "IC": True, "URC": True, "WA": False, "VQ": True},
        "Part5/Virtual_Try_On": {"IF": True, "IC": True, "URC": False, "WA": False, "VQ": True},
    }
    for place, (task, aspects) in enumerate(tasks.items()):
        items = []
        for number in range(2):
            name = f"{task}/EN/{number}.png"
            write(folder / name, picture(10 * place + number))
            write(folder / name.replace("EN", "image"), picture(90 + number))
            paint = {"edit_type": "Complex_paint"} if "Paint" in task else {}
            items.append(
                {"save_id": f"s{number}", "source_image": name, "prompt_en": f"edit {number}.", "prompt_cn": "x"}
                | {"hints": "it is noon" if "Temporal" in task else "", **aspects, **paint}
            )
        file = folder / task / f"{task.partition('/')[2]}.json"
        file.write_text(json.dumps(items))
    prompts = folder / "Prompt"
    prompts.mkdir()
    names = {
        "IF": "Instruction_Following",
        "WA": "World_Knowledge_Aware",
        "URC": "Unedited_Region_Consistency",
        "IC": "Identify_Consistecy",
        "VQ": "Visual_Quality",
    }
    for aspect, name in names.items():
        kinds = ("Single_image_prompt", "Complex_Instructions_Prompt", "Complex_painting_prompt")
        lines = [f'{kind} = """{aspect} {kind}"""' for kind in kinds]
        lines.append('first_stage_prompt = """What differs?"""')
        (prompts / f"{name}.py").write_text("\n".join(lines))
    return folder


def answer(case, edited, **more):
    """An answer to a case, its pictures read."""
    from crispedit.benchmark import Answer

    source = more.get("source", case.source.image() if case.source else np.zeros_like(edited))
    target = None if case.target is None else case.target.image()
    return Answer(case, source, edited, target, repeat=more.get("repeat", 0))
