"""Sampling equals the reference, token for token, on its chains and whole loops; and what must hold beyond it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crispedit.editmgt import sampler
from crispedit.editmgt.localize import rescale, smooth, upsample
from crispedit.editmgt.masking import mask_count, masked_share, remask, temperatures
from crispedit.editmgt.noise import ReleasedNoise, SeededNoise
from crispedit.editmgt.options import RELEASED, SamplingOptions
from crispedit.editmgt.sampler import choose, sample
from crispedit.editmgt.transformer import Capture
from editmgt.conftest import relative

MASK = 135


class StoredNoise:
    """The draws that the reference made, as stored with its outputs: no random generator has to agree."""

    def __init__(self, multinomial, gumbel):
        self._multinomial, self._gumbel = multinomial, gumbel

    def begin(self, codebook):
        pass

    def pick(self, probabilities, rows):
        return self._multinomial[rows]

    def gumbel(self):
        return self._gumbel


@pytest.mark.parametrize("draws", ["stored", "seeded"])
@pytest.mark.parametrize("case", ["plain", "local", "up4096", "batch2"])
def test_scheduler_chains(golden, manifest, case, draws):
    c = manifest["scheduler_cases"][case]
    t = golden("scheduler")
    batch, n, steps = c["B"], c["H"] * c["W"], c["num_inference_steps"]
    temperature = c["temperature"]
    heat = temperatures(steps, tuple(map(float, temperature)) if isinstance(temperature, list) else temperature)
    start = torch.full((batch,), c["starting_mask_ratio"])
    seeded = ReleasedNoise(torch.Generator().manual_seed(c["generator_seed"]), batch, n, "cpu")
    held, reference = None, None
    if c["local_guidance"]:
        side = int(t[f"{case}.scores"].shape[1] ** 0.5)
        maps = t[f"{case}.scores"].view(batch, side, side)
        held = upsample(maps, (c["H"], c["W"])).flatten(1) < c["local_guidance"]
        reference = t[f"{case}.ref"].flatten(1)
    for timestep in c["timesteps_run"]:
        key = f"{case}.t{timestep}"
        step = steps - 1 - timestep
        tokens = t[f"{key}.sample"].flatten(1)
        logits = t[f"{c['logits_stored_under']}.t{timestep}.logits"].permute(0, 2, 3, 1).flatten(0, 2)
        noise = StoredNoise(t[f"{key}.multinomial"], t.get(f"{key}.gumbel")) if draws == "stored" else seeded
        unknown = tokens == c["mask_token_id"]
        drawn, probability = choose(logits.__getitem__, unknown, noise, c["codebook"], held, reference)
        tokens = tokens.masked_scatter(unknown, drawn)
        assert torch.equal(tokens.view_as(t[f"{key}.pred_original"]), t[f"{key}.pred_original"])
        if timestep:
            selected = t[f"{key}.selected_probs"][unknown]
            assert torch.allclose(probability, selected, rtol=1e-5)
            share = masked_share(step, steps, c["masking_schedule"])
            count = mask_count(unknown.sum(1), n, start, share)
            assert torch.equal(count, t[f"{key}.mask_len"][:, 0].long())
            confidence = torch.zeros(batch, n).masked_scatter(unknown, probability.clamp(min=1e-20).log())
            confidence += heat[step] * noise.gumbel()
            tokens = remask(tokens, confidence, unknown, count, c["mask_token_id"])
        assert torch.equal(tokens.view_as(t[f"{key}.prev_sample"]), t[f"{key}.prev_sample"])


def golden_loop(golden, manifest, model, name):
    c, t = manifest["loops"][name], golden("loops")
    net = model("down" if c["height"] == 1024 else "nodown")
    reference = t[f"{name}.ref_tokens"].long()
    micro = torch.tensor([[c["height"], c["width"], 0, 0, 6.0]] * 2)
    text, pooled = t[f"{name}.encoder_hidden_states"], t[f"{name}.prompt_embeds"]
    with torch.inference_mode():
        conditions = net.condition(text, pooled, micro, reference.shape[1:], reference, c["reference_strength"])
    blocks = c["attention_enable_blocks"]
    capture = Capture(tuple(blocks), torch.full((1, 256), 1 / 256)) if blocks else None
    return c, net, conditions, reference, capture


@pytest.mark.parametrize("name", ["px1024_plain", "px1024_local", "px512_plain", "px512_local"])
def test_whole_loops(golden, manifest, model, name):
    """Every token of every step. The guided logits, of which a stride is stored, to 2e-5 of the largest."""
    c, net, conditions, reference, capture = golden_loop(golden, manifest, model, name)
    t = golden("loops")
    stride = 4

    def compare(progress):
        expected = t[f"{name}.step{progress.steps - 1}.prev_sample"]
        assert torch.equal(progress.tokens, expected.long()), progress.steps

    noise = ReleasedNoise(torch.Generator().manual_seed(c["generator_seed"]), 1, reference[0].numel(), "cpu")
    out = sample(
        net,
        conditions,
        torch.full_like(reference, MASK),
        noise,
        SamplingOptions(steps=c["steps"], guidance=c["guidance_scale"], hold=c["local_guidance"]),
        reference=reference,
        capture=capture,
        early_exit=False,
        on_step=compare,
    )
    assert torch.equal(out.tokens, t[f"{name}.final_tokens"].long())
    kept = (out.tokens == reference).float().mean().item()
    assert kept == pytest.approx(c["fraction_final_equal_reference"])
    assert out.held.float().mean() <= kept

    for step in range(c["steps"]):
        tokens = t[f"{name}.step{step}.latents_in"].long()
        with torch.inference_mode():
            time = torch.full((2,), c["steps"] - 1 - step)
            features, scores = net.encode(tokens, time, conditions, capture)
            uncond, cond = net.mlm_layer.logits(net.mlm_layer.hidden(features))
        logits = (uncond + c["guidance_scale"] * (cond - uncond)).permute(2, 0, 1)[None]
        stored = t[f"{name}.step{step}.logits"]
        assert relative(logits[:, ::16, ::stride, ::stride], stored) < 2e-5
        if scores is not None:
            maps = smooth(rescale(scores).unflatten(1, conditions.grid)).flatten(1)
            assert (maps - t[f"{name}.step{step}.local_scores"]).abs().max() < 1e-4


@pytest.fixture(scope="module")
def scene(golden, model):
    """Three different samples for the "nodown" model on a 6x8 grid: a function that samples some of them."""
    net, t = model("nodown"), golden("loops")
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(3, 20, 48, generator=generator)
    pooled = torch.randn(3, 24, generator=generator)
    empty = t["px512_plain.encoder_hidden_states"][:1, :20]
    reference = torch.randint(0, 128, (3, 6, 8), generator=generator)

    def run(which=(0, 1, 2), seeds=(10, 11, 12), tokens=None, guidance=3.0, capture=False, strength=1.1, **options):
        which = list(which)
        n = len(which)
        seeds = [seeds[i] for i in which] if len(seeds) == 3 else list(seeds)
        micro = torch.tensor([[128.0, 96, 0, 0, 6]]).repeat(n, 1)
        sequence, summary = text[which], pooled[which]
        if guidance != 1:
            sequence = torch.cat([empty.repeat(n, 1, 1), sequence])
            summary = torch.cat([torch.zeros(n, 24), summary])
            micro = micro.repeat(2, 1)
        with torch.inference_mode():
            conditions = net.condition(sequence, summary, micro, (6, 8), reference[which], strength)
        given = {name: options.pop(name) for name in SamplingOptions.model_fields if name in options}
        if capture or given.get("hold"):
            options["capture"] = Capture((3, 4), torch.full((n, 20), 1 / 20))
        return sample(
            net,
            conditions,
            torch.full_like(reference[which], MASK) if tokens is None else tokens,
            SeededNoise(seeds, 48, "cpu"),
            RELEASED.model_copy(update={"steps": 5, "guidance": guidance} | given),
            reference=reference[which],
            **options,
        )

    run.reference = reference
    run.net = net
    return run


def test_a_sample_does_not_depend_on_its_batch(scene):
    """Released: the noise of a batch is one stream, and local guidance crashes on a batch or without guidance."""
    for guidance in (1.0, 3.0):
        together = scene(hold=0.4, guidance=guidance)
        for i in range(3):
            alone = scene(which=[i], hold=0.4, guidance=guidance)
            assert torch.equal(alone.tokens[0], together.tokens[i])
            assert torch.equal(alone.held[0], together.held[i])
            assert torch.allclose(alone.scores[0], together.scores[i], atol=1e-5)
        reversed_ = scene(which=[2, 1, 0], hold=0.4, guidance=guidance)
        assert torch.equal(reversed_.tokens.flip(0), together.tokens)


def test_seeds(scene):
    one, two = scene(which=[0], seeds=[1]), scene(which=[0], seeds=[2])
    assert not torch.equal(one.tokens, two.tokens)
    assert torch.equal(one.tokens, scene(which=[0], seeds=[1]).tokens)
    assert (one.tokens != MASK).all()


@given(seed=st.integers(0, 99), share=st.floats(0, 1), hold=st.sampled_from([0.0, 0.5]), steps=st.integers(1, 6))
@settings(max_examples=20)
def test_known_tokens_never_change_and_counts_follow(scene, seed, share, hold, steps):
    generator = torch.Generator().manual_seed(seed)
    fixed = torch.rand(3, 6, 8, generator=generator) < share
    source = scene.reference
    tokens = torch.where(fixed, source, MASK)
    left = [(tokens == MASK).flatten(1).sum(1)]

    def check(progress):
        masked = progress.tokens == MASK
        assert torch.equal(progress.tokens[fixed], source[fixed])
        now = masked.flatten(1).sum(1)
        assert (now <= left[-1]).all()
        if not hold and progress.steps < steps:
            start = left[0] / 48
            expected = mask_count(left[-1], 48, start, masked_share(progress.steps - 1, steps))
            assert torch.equal(now, torch.where(left[-1] > 0, expected, 0))
        left.append(now)

    out = scene(tokens=tokens, fixed=fixed, hold=hold, steps=steps, on_step=check, capture=True)
    assert (out.tokens != MASK).all()
    assert torch.equal(out.tokens[out.held], source[out.held])
    assert (out.held >= fixed).all()
    assert 0 <= out.scores.min() <= out.scores.max() <= 1 if out.scores is not None else fixed.all()


def test_holding_everything_returns_the_source_at_once(scene):
    """A threshold above every score: all is held, so that nothing is left to decide after the first step."""
    out = scene(hold=1.5, steps=5)
    assert torch.equal(out.tokens, scene.reference)
    assert out.steps == 1
    assert out.held.all()
    late = scene(hold=1.5, steps=5, early_exit=False)
    assert torch.equal(late.tokens, scene.reference)
    assert late.steps == 5


def test_nothing_unknown_takes_no_step(scene):
    out = scene(tokens=scene.reference.clone(), steps=5)
    assert out.steps == 0
    assert torch.equal(out.tokens, scene.reference)


def test_the_source_is_not_written_to(scene):
    """Released: starting from a mask image overwrites half of the reference with mask tokens."""
    before = scene.reference.clone()
    tokens = torch.full_like(before, MASK)
    scene(tokens=tokens, hold=0.4)
    assert torch.equal(scene.reference, before)
    assert (tokens == MASK).all()


def test_only_unknown_places_are_asked_for(golden):
    unknown = torch.zeros(2, 9, dtype=torch.bool)
    unknown[0, 3] = unknown[1, 7] = unknown[1, 8] = True
    asked = []

    def logits(rows):
        asked.extend(rows.tolist())
        return torch.zeros(len(rows), 16)

    tokens, probability = choose(logits, unknown, SeededNoise([0, 1], 9, "cpu"), 16)
    assert asked == [3, 16, 17]
    assert tokens.shape == (3,)
    assert torch.allclose(probability, torch.full((3,), 1 / 16))


@pytest.mark.parametrize("speed", ["fast", "faster"])
@pytest.mark.parametrize("hold", [0.0, 0.4])
def test_approximate_speeds_decide_everything_and_compute_less(scene, speed: str, hold: float):
    exact = scene(steps=8, hold=hold)
    quick = scene(steps=8, hold=hold, speed=speed)
    assert (quick.tokens != MASK).all()
    assert quick.held.any() == (hold > 0)
    assert torch.equal(quick.tokens[quick.held], scene.reference[quick.held])
    assert quick.tokens.shape == exact.tokens.shape


def test_with_shortcuts_the_first_map_alone_decides_what_is_held(scene):
    steps = []
    out = scene(steps=12, hold=0.4, speed="fast", on_step=steps.append)
    first = steps[0].scores
    assert all(torch.equal(step.scores, first) for step in steps)
    assert torch.equal(out.held, first < 0.4)


def test_shortcuts_of_one_step_are_exact(scene, monkeypatch: pytest.MonkeyPatch):
    """Refreshed at every step, a run computes all that an exact run does."""
    monkeypatch.setitem(sampler.SHORTCUTS, "fast", sampler.Shortcuts(refresh=1, guidance=1))
    assert torch.equal(scene(steps=6, speed="fast").tokens, scene(steps=6).tokens)


@pytest.mark.parametrize(("columns", "steps"), [(None, 18), (2, 9)])
def test_an_approximate_run_takes_fewer_steps_for_a_small_edit(scene, columns: int | None, steps: int):
    tokens = scene.reference.clone()
    tokens[..., :columns] = MASK
    out = scene(tokens=tokens, steps=18, speed="fast")
    assert out.steps == steps
    assert (out.tokens != MASK).all()
    assert scene(tokens=tokens, steps=18).steps == 18


def test_known_tokens_stay_under_shortcuts(scene):
    tokens = scene.reference.clone()
    tokens[:, :3, :5] = MASK
    out = scene(tokens=tokens.clone(), steps=6, speed="faster")
    known = tokens != MASK
    assert torch.equal(out.tokens[known], scene.reference[known])
    assert (out.tokens != MASK).all()


def test_guidance_of_one_is_the_condition_alone(scene):
    guided = scene(guidance=1.0 + 1e-6)
    plain = scene(guidance=1.0)
    assert (guided.tokens == plain.tokens).float().mean() > 0.95


def test_refuses_a_hold_that_could_not_work(scene, golden, manifest, model):
    """Released: local guidance without capture blocks does nothing and says nothing; in T2I it crashes."""
    _, net, conditions, reference, _ = golden_loop(golden, manifest, model, "px512_plain")
    tokens, noise = torch.full_like(reference, MASK), SeededNoise([0], 1024, "cpu")
    with pytest.raises(ValueError, match="at least one block"):
        sample(net, conditions, tokens, noise, SamplingOptions(hold=0.3), reference=reference)
    capture = Capture((3,), torch.full((1, 256), 1 / 256))
    with pytest.raises(ValueError, match="source image"):
        sample(net, conditions, tokens, noise, SamplingOptions(hold=0.3), capture=capture)
    with pytest.raises(ValueError, match="1 are needed"):
        sample(net, conditions, tokens, noise, SamplingOptions(guidance=1.0))


def test_a_low_token_temperature_takes_the_likely():
    logits = torch.randn(1000, 16, generator=torch.Generator().manual_seed(0))
    unknown = torch.ones(1, 1000, dtype=torch.bool)

    def likeliest(temperature: float) -> float:
        drawn, _ = choose(logits.__getitem__, unknown, SeededNoise([0], 1000, "cpu"), 16, temperature=temperature)
        return (drawn == logits.argmax(-1)).float().mean().item()

    assert likeliest(1.0) < 0.5
    assert likeliest(0.01) > 0.95
