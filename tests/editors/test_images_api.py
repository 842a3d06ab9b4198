"""The images_api editor against a real server on loopback: edits that lie on their source, and every way to fail."""

import base64
import pickle
import re
import sys
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny_pipelines
from images_server import Sent, b64, inverted, png, problem, serving, url
from PIL import Image as Pillow

from crispedit import addresses
from crispedit.compositor.landscape import landscape
from crispedit.editors.images_api import ImagesAPI
from crispedit.images import encode_jpeg
from crispedit.outcome import Transient, is_transient
from crispedit.pipelines.building.repairing import Repairing
from crispedit.pipelines.records import EDIT
from crispedit.pipelines.steps.edit import EditStage
from crispedit.recipe import Pool
from crispedit.record import Edit, Job, Refusal
from crispedit.shards import journal

KEY = "sk-very-secret"


def editor(server, **options):
    return ImagesAPI(model="tiny", base_url=server.url, **({"retries": 2, "timeout_s": 10} | options))


def job(instruction="invert it", **plan):
    return Job("photograph", "color", instruction, "", "", plan)


def edits(of, sources, jobs=None):
    return of.edit(sources, jobs or [job()] * len(sources), list(range(len(sources))))


def one(of, source, *jobs):
    (answer,) = edits(of, [source], jobs or None)
    return answer


@pytest.fixture(scope="module")
def photo():
    return landscape(1, 120, 90)


def test_a_server_that_runs_a_diffusers_pipeline_edits(tmp_path, photo):
    from diffusers import StableDiffusionInstructPix2PixPipeline

    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(tiny_pipelines.pix2pix(tmp_path))
    pipeline.set_progress_bar_config(disable=True)
    lock = threading.Lock()

    def edit(form):
        with lock:
            generator = torch.Generator().manual_seed(int(form.fields["seed"]))
            image = form.image.convert("RGB")
            made = pipeline(form.fields["prompt"], image, num_inference_steps=1, generator=generator)
        return b64(png(made.images[0]))

    with serving(edit) as server:
        made = editor(server, send_seed=True, multiple_px=8, extra={"quality": "low", "stream_it": False})
        made.load()
        first, second = edits(pickle.loads(pickle.dumps(made)), [photo, photo])
        assert first.edited.shape == photo.shape
        assert not np.array_equal(first.edited, second.edited)
        assert np.array_equal(one(made, photo).edited, first.edited)
    form = server.forms[0]
    assert form.fields["size"] == "120x96"
    assert (form.fields["model"], form.fields["n"], form.fields["quality"]) == ("tiny", "1", "low")
    assert form.fields["stream_it"] == "false"


@pytest.mark.parametrize("sizes", [(), ("96x96", "144x96", "96x144")])
def test_an_edit_lies_on_its_source_whatever_sizes_the_model_makes(photo, sizes):
    with serving() as server:
        answer = one(editor(server, sizes=sizes), photo)
    assert server.forms[0].fields["size"] == (sizes[1] if sizes else "128x96")
    assert answer.edited.shape == photo.shape
    off = np.abs(answer.edited.astype(int) - (255 - photo)).mean()
    assert off == 0 if not sizes else off < 6


def test_an_answer_of_the_canvas_aspect_is_scaled_and_of_another_an_error(photo):
    answers = iter([(256, 192), (192, 192), (640, 480)])
    with serving(lambda form: b64(png(form.image.convert("L").resize(next(answers))))) as server:
        made = editor(server, retries=0)
        assert one(made, photo).edited.shape == photo.shape
        assert "canvas of 128x96 with 192x192" in str(one(made, photo))
        assert "with 640x480" in str(one(made, photo))


def test_the_mask_is_transparent_where_the_plan_has_its_box(photo):
    with serving() as server:
        made = editor(server, masks=True)
        one(made, photo, job(box=[0.25, 0.5, 0.75, 1]))
        one(made, photo)
        wrong = one(made, photo, job(box=[0.5, 0, 0.25, 1]))
    mask = server.forms[0].mask
    assert mask.shape == (96, 128)
    assert mask[45:90, 30:90].all()
    assert mask.sum() == 45 * 60
    assert "mask" not in server.forms[1].files
    assert "plan.box" in str(wrong)
    assert len(server.forms) == 2


def test_requests_go_out_together_but_no_more_than_allowed(photo):
    three = threading.Barrier(3, timeout=60)

    def together(form):
        three.wait()
        return inverted(form)

    with serving(together) as server:
        made = editor(server, concurrency=3, timeout_s=60)
        assert all(isinstance(answer, Edit) for answer in edits(made, [photo] * 6))
    assert server.most_at_once == 3


def test_the_rate_is_kept(photo):
    with serving() as server:
        edits(editor(server, requests_per_minute=120), [photo] * 4)
    assert server.times[-1] - server.times[0] >= 3 * 0.5 - 0.5  # the first may be late, on a busy machine


def after(*failures):
    """A server that fails so first, and then edits."""
    left = list(failures)
    return lambda form: left.pop(0) if left else inverted(form)


def test_the_server_is_asked_again_when_it_says(photo):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    with serving(after(problem(429, "rate_limit", Retry_After="0.4"))) as server:
        assert isinstance(one(editor(server), photo), Edit)
    assert server.times[1] - server.times[0] >= 0.4
    with serving(after(problem(503, "busy", Retry_After=date))) as server:
        assert isinstance(one(editor(server), photo), Edit)
    assert len(server.forms) == 2


@pytest.mark.parametrize(
    "failure",
    [
        problem(500, "down"),
        Sent(b"<html>Bad gateway</html>", 502),
        Sent(hang_up=True),
        Sent(b'{"data": [', length=100_000),
        Sent(after_s=5),
    ],
    ids=["500", "502", "hang_up", "truncated", "stalled"],
)
def test_a_passing_failure_is_asked_again_and_is_transient_if_it_stays(photo, failure):
    with serving(after(failure)) as server:
        assert isinstance(one(editor(server, timeout_s=4), photo), Edit)
    assert len(server.forms) == 2
    with serving(lambda form: failure) as server:
        answer = one(editor(server, retries=1, timeout_s=0.5), photo)
    assert isinstance(answer, Transient)
    assert len(server.forms) == 2


@pytest.mark.parametrize("failure", [problem(429, "slow", Retry_After="3600"), problem(429, "insufficient_quota")])
def test_a_server_that_will_not_answer_soon_is_left_alone(photo, failure):
    with serving(lambda form: failure) as server:
        assert isinstance(one(editor(server), photo), Transient)
    assert len(server.forms) == 1


@pytest.mark.parametrize(
    "declined",
    [
        problem(400, "moderation_blocked"),
        problem(400, "content_policy_violation"),
        problem(403, None, "Your request was rejected by the safety system."),
        Sent(b'{"error": "Request Moderated"}', 422),
        Sent(b'{"detail": "blocked: PROHIBITED_CONTENT"}', 400),
    ],
)
def test_what_the_server_declines_to_make_is_a_refusal(photo, declined):
    with serving(lambda form: declined) as server:
        assert one(editor(server), photo) == Refusal("content_refused")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (problem(400, "unknown_parameter", "Unknown parameter: 'size'"), "answered 400: .*Unknown parameter"),
        (Sent(status=302, headers={"Location": "http://example.org"}), "answered 302"),
        (Sent(b"not json"), "holds no image: 'not json'"),
        (Sent(b'{"data": []}'), "holds no image"),
        (Sent(b'{"data": [{}]}'), "holds no image"),
        (Sent(b'{"data": [{"b64_json": "%%%"}]}'), "not base64"),
        (b64(b"not an image"), "cannot be decoded"),
        (b64(png(Pillow.effect_noise((128, 96), 50))[:5000]), "cannot be decoded"),
        (Sent(b" " * 2_000_000), "larger than max_answer_mb=1"),
    ],
    ids=["400", "302", "text", "none", "empty", "base64", "no_image", "half_image", "huge"],
)
def test_a_bad_answer_is_that_rows_error_and_asked_for_once(photo, answer, said):
    other = landscape(2, 64, 48)
    with serving(lambda form: answer if form.image.width == 128 else inverted(form)) as server:
        bad, good = edits(editor(server, max_answer_mb=1), [photo, other])
    assert isinstance(good, Edit)
    assert isinstance(bad, ValueError)
    assert not is_transient(bad)
    assert re.search(said, str(bad))
    assert len(server.forms) == 2


def test_an_image_behind_an_address(photo):
    data = png(Pillow.fromarray(photo))
    files = {
        "/a.png": Sent(data),
        "/moved": Sent(status=302, headers={"Location": "/a.png"}),
        "/round": Sent(status=302, headers={"Location": "/round"}),
        "/gone": Sent(status=404),
        "/huge": Sent(b"\0" * 1_100_000),
        "/cut": Sent(data[:100], length=len(data)),
    }
    with serving(lambda form: url(f"data:image/png;base64,{base64.b64encode(data).decode()}")) as server:
        assert np.array_equal(one(editor(server, multiple_px=30), photo).edited, photo)
    names = iter(["a.png", "moved", "round", "gone", "huge", "cut"])
    with serving(
        lambda form: url(f"{server.url[:-3]}/{next(names)}"), lambda path: files.get(path, Sent(b"{}"))
    ) as server:
        made = editor(server, private_urls=True, max_answer_mb=1, retries=1, multiple_px=30)
        assert np.array_equal(one(made, photo).edited, photo)
        assert np.array_equal(one(made, photo).edited, photo)
        for said in ("4 redirects", "answered 404", "larger than"):
            assert said in str(one(made, photo))
        assert isinstance(one(made, photo), Transient)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
def test_no_private_address_is_reached(photo, host):
    with serving(lambda form: url(f"http://{host}:{server.url.split(':')[-1][:-3]}/a.png")) as server:
        answer = one(editor(server, retries=0), photo)
    assert "private ones are not allowed" in str(answer)
    assert not server.got


def test_a_redirect_to_a_private_address_is_not_followed(photo, monkeypatch):
    """The first address stands for a public one; where it redirects to is checked by itself."""
    monkeypatch.setattr(addresses, "is_public", lambda ip: ip == "127.0.0.1")
    moved = Sent(status=302, headers={"Location": "http://127.0.0.2:1/secret"})
    with serving(lambda form: url(f"{server.url}/a.png"), lambda path: moved) as server:
        answer = one(editor(server, retries=0), photo)
    assert "127.0.0.2 is not a public address" in str(answer)
    for scheme in ("file:///etc/passwd", "ftp://example.org/a.png"):
        with serving(lambda form, scheme=scheme: url(scheme)) as server:
            assert "has no web address" in str(one(editor(server, retries=0), photo))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("::ffff:10.0.0.1", False),
        ("::", False),
    ],
)
def test_public_addresses(address, public):
    assert addresses.is_public(address) is public


def test_the_key_comes_from_the_environment_and_stays_there(photo, monkeypatch):
    def edit(form):
        return problem(400, "odd", f"wrong: {form.headers['Authorization']}")

    with serving(edit, lambda path: Sent(status=401)) as server:
        made = editor(server, api_key_env="IMAGES_KEY", retries=0)
        monkeypatch.delenv("IMAGES_KEY", raising=False)
        with pytest.raises(ValueError, match="set the environment variable IMAGES_KEY"):
            made.load()
        monkeypatch.setenv("IMAGES_KEY", KEY)
        with pytest.raises(ValueError, match="refuses the key: it answered 401"):
            made.load()
        answer = one(made, photo)
        assert server.forms[0].headers["Authorization"] == f"Bearer {KEY}"
        assert "Bearer [key]" in str(answer)
        for stored in (str(answer), str(made.identity()), repr(made), str(pickle.dumps(made))):
            assert KEY not in stored
    with serving(lambda form: url(f"{server.url}/a.png")) as server:
        one(editor(server, api_key_env="IMAGES_KEY", private_urls=True), photo)
        assert [headers["Authorization"] for _, headers in server.got] == [None]
    with serving() as server:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        one(editor(server), photo)  # no variable named: no key for another's server
        assert server.forms[0].headers["Authorization"] is None
    with pytest.raises(ValidationError, match="credentials"):
        ImagesAPI(model="m", base_url="https://me:secret@example.org/v1")
    with pytest.raises(ValidationError, match="set by the editor itself"):
        ImagesAPI(model="m", extra={"prompt": "x"})


def test_a_server_that_is_away_stops_the_run_before_it_begins():
    with serving() as server:
        pass
    with pytest.raises(ValueError, match="does not answer: Client"):
        editor(server).load()


def test_the_rows_of_a_run_hold_each_edits_cost_refusal_or_error(tmp_path, photo):
    store = journal.Table(
        pa.schema([("key", pa.string()), ("image", pa.binary())]), key="key", blobs={"image": "image.jpg"}
    )
    [written] = journal.commit(tmp_path, store, [{"key": "a", "image": encode_jpeg(photo)}])
    answers = {
        "sell": inverted,
        "decline": lambda form: problem(400, "moderation_blocked"),
        "fail": lambda form: problem(503, "busy"),
        "break": lambda form: Sent(b"{}"),
    }
    rows = [
        {
            "key": word,
            "source_key": "s",
            "category": "color",
            "instruction": word,
            "plan": "{}",
            "image": written["image"],
        }
        | {"source_caption": "", "target_caption": ""}
        for word in answers
    ]
    with serving(lambda form: answers[form.fields["prompt"]](form)) as server:
        made = editor(server, price_per_image=0.04, retries=0)
        done = EditStage(made, tmp_path, Pool(), "edit:api", Repairing()).process(rows)
    told = [(row.get("cost"), row.get("refusal"), row.get("transient")) for row in done]
    assert told == [(0.04, None, None), (None, "content_refused", None), (None, None, True), (None, None, False)]
    assert len(server.forms) == 4
    assert "cost" in EDIT.schema.names


def test_the_cost_of_an_edit(photo):
    tokens = {"usage": {"input_tokens": 1000, "output_tokens": 2000}}
    plain = b64(png(Pillow.fromarray(photo).resize((128, 96))))
    counted = b64(png(Pillow.fromarray(photo).resize((128, 96))), **tokens)
    told = Sent(plain.body, headers={"x-litellm-response-cost": "0.031"})
    by_token = dict(price_per_million_input=5, price_per_million_output=40)
    for sent, prices, cost in (
        (plain, {}, None),
        (plain, {"price_per_image": 0.04}, 0.04),
        (plain, by_token, None),
        (counted, by_token, 0.085),
        (told, {"price_per_image": 0.04}, 0.031),
    ):
        with serving(lambda form, sent=sent: sent) as server:
            made = editor(server, **prices)
            assert one(made, photo).cost == pytest.approx(cost)
            assert made.identity() == editor(server, concurrency=1).identity()
