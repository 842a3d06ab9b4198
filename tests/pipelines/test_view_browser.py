"""`crispedit view` in a real headless Chromium, as a person uses it: open, filter, sort, drag a bound, label by
keyboard, reload, compare; without an error in its console and without a serious violation of accessibility."""

from __future__ import annotations

import csv
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import make_run

from crispedit.compositor.landscape import landscape
from crispedit.pipelines import build, evaluate, view
from crispedit.pipelines.run import Run
from crispedit.pipelines.viewing import evaluation, snapshot
from crispedit.pipelines.viewing.guard import Guard
from crispedit.pipelines.viewing.labels import Labels
from crispedit.pipelines.viewing.server import Site, ViewedRun

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
uvicorn = pytest.importorskip("uvicorn")

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
# Debian's `chromium` is a shell script that closes the pipe which Playwright talks through.
BROWSERS = ("/usr/lib/chromium/chromium", *(shutil.which(n) for n in ("google-chrome", "chromium-browser", "chromium")))
STRICT = "filters.unchanged.bounds.changed_fraction.min=0.05"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Run:
    """A run in which a bound rejects about half of the pairs."""
    made = make_run(tmp_path_factory.mktemp("view") / "strict", photos, STRICT, "score.measure_everything=true")
    build.build(made)
    return made


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Run:
    """The same photographs under the recipe's own bounds."""
    made = make_run(tmp_path_factory.mktemp("view") / "loose", photos)
    build.build(made)
    return made


@contextmanager
def serving(site: Any) -> Iterator[str]:
    """The address of a site while the block runs."""
    listener = view.listening("127.0.0.1", 0)
    app = Guard(site.app(), "127.0.0.1", None)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="none"))
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    listener.close()


@pytest.fixture(scope="module")
def shown(run: Run, loose: Run) -> ViewedRun:
    """The run, compared with the other one."""
    return ViewedRun(view.taker(str(run.root)), Labels(run.root / "labels.csv"), view.taker(str(loose.root)))


@pytest.fixture(scope="module")
def address(shown: ViewedRun) -> Iterator[str]:
    """A server of the run."""
    with serving(Site(shown)) as at:
        yield at


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of an evaluation of two folders of results: a faint and a strong change of eight cases."""
    folder = tmp_path_factory.mktemp("evaluation")
    cell, rows = {}, []
    for number in range(8):
        image = landscape(number, 320, 240)
        cell["image"], cell["edited_image"] = image, landscape(50 + number, 320, 240)
        stored = {name: {"bytes": _png(picture), "path": None} for name, picture in cell.items()}
        task = ("add", "style")[number % 2]
        rows.append(stored | {"instruction": f"Change {number}", "task": task, "idx": number})
        rows[-1] |= {"input_caption": "a lake", "output_caption": "a hill"}
        for name, shift in (("faint", 10 + number), ("strong", 90 - 8 * number)):
            (folder / name).mkdir(exist_ok=True)
            (folder / name / f"{number}.png").write_bytes(_png(np.clip(image.astype(int) + shift, 0, 255)))
    (folder / "emu").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "emu" / "validation-00000-of-00001.parquet")
    editors = {name: {"results": folder / name} for name in ("faint", "strong")}
    of = evaluate.EvaluationRecipe(
        out=folder / "out", benchmarks={"emu_edit": {"path": folder / "emu"}}, editors=editors
    )
    evaluate.evaluate(of)
    with serving(evaluation.EvaluationSite(evaluation.EvaluationResults(folder / "out"))) as at:
        yield at


def _png(image: Any) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(image.astype(np.uint8), cv2.COLOR_RGB2BGR))[1].tobytes()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    path = next((name for name in BROWSERS if name and Path(name).exists()), None)
    if path is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=FLAGS, timeout=180_000)
        yield browser
        browser.close()


def until(true: Callable[[], bool]) -> None:
    """Wait for something to become true; asked from here, since the pages' policy forbids scripts that are text."""
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def page(chromium: Any, address: str) -> Iterator[Any]:
    """A new window of the run."""
    with window_of(chromium, address) as window:
        yield window


@contextmanager
def window_of(chromium: Any, address: str) -> Iterator[Any]:
    """A new window, which must end without an error in its console or an answer that failed."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, base_url=address)
    context.set_default_timeout(120_000)
    window, wrong = context.new_page(), []
    window.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    window.on("pageerror", lambda error: wrong.append(str(error)))
    window.on(
        "response", lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None
    )
    window.on(
        "request", lambda asked: wrong.append(asked.url) if not asked.url.startswith((address, "data:")) else None
    )
    yield window
    context.close()
    assert wrong == []


def test_filter_search_and_sort(page: Any, run: Run):
    page.goto("/")
    total = int(page.locator(".funnel b").nth(2).inner_text())
    page.get_by_role("link", name="Pairs", exact=True).click()
    page.wait_for_selector("#grid [data-pair]")
    assert page.locator("#grid [data-pair]").count() == min(total, 48)
    page.locator(".facet a", has_text="rejected").first.click()
    page.wait_for_url("**outcome=rejected**")
    page.wait_for_selector(".chosen a")
    outcomes = page.locator("#grid .chip.rejected")
    assert 0 < outcomes.count() == page.locator("#grid [data-pair]").count() < total
    page.select_option("#sort", "unchanged.changed_fraction")
    page.wait_for_url("**sort=unchanged**")
    page.locator("#grid a.shots").first.click()
    page.wait_for_selector(".stage")
    page.wait_for_load_state()  # only then are keys heard
    changed = page.locator(".scores", has=page.get_by_role("link", name="changed_fraction", exact=True))
    first = changed.locator("dd").first.inner_text()
    page.keyboard.press("j")
    page.wait_for_selector("a[rel=prev]")
    second = changed.locator("dd").first.inner_text()
    assert float(first) <= float(second)
    page.goto("/pairs?q=nothing+says+this")
    assert page.get_by_text("No pair matches").is_visible()


def test_full_size_slider_blink_and_overlay(page: Any):
    page.goto("/pairs?outcome=kept")
    page.locator("#grid a.shots").first.click()
    page.wait_for_selector(".stage")
    page.wait_for_load_state()  # only then are keys heard
    page.keyboard.press("2")
    page.locator(".stage input[type=range]").fill("25")
    assert page.locator(".stage figure.edited").evaluate("e => e.style.clipPath") == "inset(0px 0px 0px 25%)"
    page.keyboard.press("4")
    overlay = page.locator(".stage .overlay img")
    until(lambda: overlay.evaluate("e => e.naturalWidth") > 0)
    assert overlay.is_visible()
    page.keyboard.press(" ")
    assert page.locator(".stage").get_attribute("data-look") == "blink"


def test_a_dragged_bound_shows_what_would_be_kept(page: Any, run: Run):
    page.goto("/bounds?score=unchanged.changed_fraction")
    page.wait_for_selector("#what-if tr.total")
    total = page.locator("#what-if tr.total td")
    before = int(total.nth(2).inner_text())
    handle = page.locator(".handle[data-side=min]")
    box, chart = handle.locator("circle").bounding_box(), page.locator(".chart.wide").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(chart["x"] + 12, box["y"] + 40, steps=6)
    page.mouse.up()
    page.wait_for_selector("#override")
    until(lambda: "…" not in page.locator("tr.total .exact").inner_text())
    after, exact = int(total.nth(3).inner_text()), int(page.locator("tr.total .exact").inner_text())
    assert after > before
    assert before < exact <= after
    assert page.locator("#override").inner_text().startswith("'filters.unchanged.bounds.changed_fraction={min: 0.")
    assert page.locator(".across .mini").count() > 0
    address = page.url  # the moved bound is in the address: a reload keeps it
    page.reload()
    page.wait_for_selector("#override")
    assert page.url == address
    moved, current = handle.locator("text").bounding_box(), page.locator(".chart.wide .ghost text").bounding_box()
    assert current["y"] >= moved["y"] + moved["height"] - 2  # neither label covers the other, however near the lines
    handle.focus()
    value = float(handle.get_attribute("data-value"))
    page.keyboard.press("ArrowRight")
    until(lambda: float(handle.get_attribute("data-value")) > value)
    page.get_by_role("link", name="Pairs that flip").click()
    page.wait_for_selector("#grid [data-pair]")
    assert page.locator("#grid .chip.kept").count() == page.locator("#grid [data-pair]").count() > 0


def test_ten_labels_by_keyboard_survive_a_reload(page: Any, run: Run):
    page.goto("/label")
    keys = []
    for number in range(10):
        key = page.locator(".look").get_attribute("data-pair")
        keys.append(key)
        if number % 3 == 2:
            page.keyboard.press("b")
            page.keyboard.press("3")
        else:
            page.keyboard.press("u" if number == 0 else "g")
        until(lambda known=key: page.locator(".look").get_attribute("data-pair") != known)
    page.reload()
    assert page.locator("#labelled").inner_text() == "10"
    assert page.locator("#agreement").inner_text().endswith("%")
    with (run.root / "labels.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["key"] for row in rows] == keys
    assert len(set(keys)) == 10
    assert [row["verdict"] for row in rows] == [
        "unsure",
        "good",
        "bad",
        "good",
        "good",
        "bad",
        "good",
        "good",
        "bad",
        "good",
    ]
    assert rows[2]["reason"] == "leaks"
    page.keyboard.press("z")
    until(lambda: page.locator("#labelled").inner_text() == "9")
    page.goto("/pairs?label=bad")
    assert page.locator("#grid .chip.bad").count() == page.locator("#grid [data-pair]").count() == 3


def test_two_runs_are_compared(page: Any):
    page.goto("/compare?flip=gained")
    cards = page.locator("#grid [data-pair]")
    assert cards.count() == int(page.locator("tr.total td").nth(2).inner_text()) > 0
    assert page.locator("#grid .why").first.inner_text() == "unchanged.changed_fraction below 0.05"


def test_the_page_tells_of_new_results(page: Any, run: Run, shown: ViewedRun):
    page.goto("/pairs")
    shown.snapshot.seconds = 0.0  # a run that is read slowly is read rarely, and a busy machine reads all slowly
    time.sleep(3.1)
    (run.root / "recipe.yaml").touch()  # as a build that begins
    page.wait_for_selector(".news")
    page.locator(".news").click()
    page.wait_for_selector("#grid [data-pair]")


def test_an_evaluation_is_looked_at(chromium: Any, evaluated: str):
    with window_of(chromium, evaluated) as page:
        page.goto("/")
        page.locator("section.card", has_text="emu-source").get_by_role("link", name="Look at the cases").click()
        page.wait_for_selector(".case")
        assert page.locator(".case").count() == 8
        assert page.locator(".case").first.locator("figure").count() == 4  # source, two editors, target
        page.select_option("select[name=group]", "style")
        page.wait_for_url("**group=style**")
        until(lambda: page.locator(".case").count() == 4)
        page.select_option("select[name=order]", "apart")
        page.wait_for_selector("select[name=against]")
        shown = page.locator(".case h2 a").all_inner_texts()
        assert shown == ["Change 1", "Change 3", "Change 5", "Change 7"]  # their shifts differ ever less
        image = page.locator(".case img").first
        until(lambda: image.evaluate("e => e.naturalWidth") > 0)
        page.locator(".case h2 a").first.click()
        page.wait_for_selector(".candidates article")
        page.wait_for_load_state()  # only then are keys heard
        assert page.locator(".candidates article").count() == 2
        page.keyboard.press("j")
        page.wait_for_selector("h1:has-text('Change 3')")


def test_a_phone_cuts_off_no_count_name_or_section(chromium: Any, address: str):
    with window_of(chromium, address) as page:
        page.set_viewport_size({"width": 400, "height": 860})
        page.goto("/")
        reason, count = (page.locator(f".heat tr:nth-child(2) td:nth-child({n})").bounding_box() for n in (1, 2))
        assert reason["x"] + reason["width"] <= count["x"] + 1 < count["x"] + count["width"] < 400
        page.locator("#content .mini").first.click()
        page.wait_for_selector(".scores")
        assert page.locator(".scores dt").evaluate_all("names => names.every(n => n.scrollWidth <= n.clientWidth)")
        page.goto("/jobs")
        section = page.locator("nav a[aria-current]").bounding_box()
        assert section["x"] + section["width"] <= 400


@pytest.mark.parametrize("width", [1440, 400])
def test_an_evaluation_is_accessible(chromium: Any, evaluated: str, width: int):
    look_for_violations(chromium, evaluated, width, ["/", "/cases?order=apart", "/cases/one?case=1"])


@pytest.mark.parametrize("width", [1440, 400])
def test_no_serious_violation_of_accessibility(chromium: Any, address: str, run: Run, width: int):
    with snapshot.of_run(run.root) as seen:
        pair = f"/pair/{seen.one('SELECT key FROM pair WHERE edited IS NOT NULL')}"
    report = (run.folder("audit") / "report.html").as_uri()
    if not (run.folder("audit") / "report.html").exists():
        from crispedit.pipelines import audit
        from crispedit.pipelines.viewing import report as page_of

        page_of.write(run, audit.audit(run))
    paths = ["/", "/pairs", pair, "/bounds", "/label?blind=0", "/compare", "/photographs", "/jobs", report]
    look_for_violations(chromium, address, width, paths)


def look_for_violations(chromium: Any, address: str, width: int, paths: list[str]) -> None:
    """All rules on the light page; then those that depend on colours on the dark one."""
    axe = pytest.importorskip("axe_core_python.sync_playwright", reason="axe-core-python is not installed").Axe()
    context = chromium.new_context(viewport={"width": width, "height": 900}, base_url=address, bypass_csp=True)
    window = context.new_page()
    for path in paths:
        window.emulate_media(color_scheme="light")
        window.goto(path)
        window.wait_for_load_state("networkidle")
        assert serious(axe.run(window, options=VIOLATIONS)) == [], path
        assert window.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is wider than the window"
        window.emulate_media(color_scheme="dark")
        colours = VIOLATIONS | {"runOnly": ["cat.color"]}
        assert serious(axe.run(window, options=colours)) == [], f"{path}, dark"


VIOLATIONS = {"resultTypes": ["violations"]}


def serious(answer: dict[str, Any]) -> list[tuple[str, Any]]:
    """The rules that a page violates seriously, with some of the elements."""
    return [
        (violation["id"], [node["target"] for node in violation["nodes"][:3]])
        for violation in answer["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
