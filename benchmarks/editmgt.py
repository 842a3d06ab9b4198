"""How fast EditMGT samples: against a straightforward loop on the same weights, and against the clock.

CPU (default): two small models in fp32, one that halves its 64x64 tokens and one that takes 32x32 as they are. Timed in
turn, several rounds, in one process: the loop as the released code is described to run it, written here from the
specification; ours with the same draws, whose tokens are compared; ours with its own noise, plain and with capture and
hold; and the approximate speeds, `fast` and `faster`.

    python -m benchmarks.editmgt [--rounds 3] [--steps 16] [--released FILE.py]

FILE.py, if given, is a second implementation of the released loop, timed in the same rounds: it defines
`make(state_dict, config)`, which returns a function of (conditions as a dict, steps, seed) that returns the tokens.

GPU: the released dimensions, random weights in bf16, 1024x1024, 36 steps, guidance, strength 1.1, nine blocks.

    python -m benchmarks.editmgt --device cuda --preset editmgt-1b [--compile] [--batch 1 8]
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from crispedit.editmgt.embeddings import sinusoid
from crispedit.editmgt.localize import default_blocks, rescale, smooth, upsample
from crispedit.editmgt.masking import mask_count, masked_share, temperatures
from crispedit.editmgt.meter import training_flops
from crispedit.editmgt.noise import ReleasedNoise, SeededNoise
from crispedit.editmgt.options import SamplingOptions
from crispedit.editmgt.preset import fresh_vq, read_preset
from crispedit.editmgt.sampler import sample
from crispedit.editmgt.transformer import Capture, Transformer, TransformerConfig

TEXT, GUIDANCE, STRENGTH, HOLD = 256, 6.0, 1.1, 0.3
SMALL = {
    "num_layers": 4,
    "num_single_layers": 8,
    "attention_head_dim": 64,
    "num_attention_heads": 4,
    "joint_attention_dim": 288,
    "pooled_projection_dim": 256,
    "axes_dims_rope": (8, 28, 28),
}
LOOP = "straightforward loop, capture and hold"
SAME_DRAWS = "ours, capture and hold, released noise"
FULL = "ours, capture and hold"
PLAIN = "ours, plain"
CASES = {
    "32x32 tokens": (TransformerConfig(**SMALL, downsample=False), 32),
    "64x64 tokens, halved": (TransformerConfig(**SMALL, downsample=True), 64),
}


def make_model(config: TransformerConfig) -> Transformer:
    """Random weights that are not at the identity, so that streams and steps influence each other."""
    torch.manual_seed(0)
    model = Transformer(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 and "norm" in name and name.endswith("weight"):
            continue
        torch.nn.init.normal_(parameter, std=0.02 if parameter.ndim == 1 else 1.0 / math.sqrt(parameter[0].numel()))
    return model.eval().requires_grad_(False)


def make_inputs(config: TransformerConfig, side: int, batch: int = 1, device="cpu", dtype=torch.float32):
    """Everything a loop is given: [unconditional; conditional] text, and reference tokens in coherent patches."""
    generator = torch.Generator().manual_seed(1)
    patches = torch.randint(0, config.codebook_size, (batch, side // 4, side // 4), generator=generator)
    pixels = 16 * side
    tensors = {
        "text": torch.randn(2 * batch, TEXT, config.joint_attention_dim, generator=generator).to(dtype),
        "pooled": torch.randn(2 * batch, config.pooled_projection_dim, generator=generator).to(dtype),
        "micro": torch.tensor([pixels, pixels, 0.0, 0.0, 6.0]).expand(2 * batch, -1),
        "reference": patches.repeat_interleave(4, 1).repeat_interleave(4, 2),
    }
    return {name: value.to(device) for name, value in tensors.items()}


# --- The loop as the released code runs it, from the specification ------------------------------------------------


class Straightforward:
    """One forward at a time, nothing kept between steps: the arithmetic of the specification, stream by stream."""

    def __init__(self, model: Transformer, blocks: tuple[int, ...]) -> None:
        self.m, self.blocks = model, blocks
        self.w = model.state_dict()
        self.heads = model.config.num_attention_heads

    def linear(self, name, x):
        return F.linear(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"))

    def mlp(self, name, x):
        return self.linear(f"{name}.linear_2", F.silu(self.linear(f"{name}.linear_1", x)))

    def rms(self, name, x):
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return x * self.w[f"{name}.weight"]

    wave = staticmethod(sinusoid)  # the same frequencies to the last bit, so that tokens can be compared

    def rope(self, ids):
        cos, sin = [], []
        for axis, width in enumerate(self.m.config.axes_dims_rope):
            frequency = 1.0 / 10000 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
            angle = torch.outer(ids[:, axis].double(), frequency)
            cos.append(angle.cos().repeat_interleave(2, 1).float())
            sin.append(angle.sin().repeat_interleave(2, 1).float())
        return torch.cat(cos, -1), torch.cat(sin, -1)

    def conv(self, name, x, **options):
        return F.conv2d(x, self.w[f"{name}.weight"], **options)

    def norm2d(self, name, x):
        return self.rms(name, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def stem(self, tokens):
        x = F.embedding(tokens, self.w["embed.embeddings.weight"])
        x = self.conv("embed.conv", self.rms("embed.layer_norm", x).permute(0, 3, 1, 2))
        if self.m.config.downsample:
            x = self.conv("down_block.downsample.conv", self.norm2d("down_block.downsample.norm", x), stride=2)
        side = x.shape[-1]
        x = x.flatten(2).transpose(1, 2)
        return self.linear("project_to_hidden", self.rms("project_to_hidden_norm", x)), side

    def head(self, x, side):
        x = self.linear("project_from_hidden", self.rms("project_from_hidden_norm", x))
        x = x.transpose(1, 2).unflatten(2, (side, side))
        if self.m.config.downsample:
            x = self.norm2d("up_block.upsample.norm", x)
            x = F.conv_transpose2d(x, self.w["up_block.upsample.conv.weight"], stride=2)
        x = self.norm2d("mlm_layer.layer_norm", self.conv("mlm_layer.conv1", x))
        return self.conv("mlm_layer.conv2", x)

    def split(self, x):
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    @staticmethod
    def rotate(x, rope):
        cos, sin = rope
        even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
        return (x * cos + torch.stack([-odd, even], -1).flatten(-2) * sin).type_as(x)

    def attention(self, q, k, v, text, image, block):
        total = q.shape[2]
        bias = torch.zeros(total, total)
        bias[: text + image, text + image :] = math.log(STRENGTH)
        bias[text + image :, : text + image] = math.log(STRENGTH)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        if block in self.blocks:
            weights = ((q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5 + bias).softmax(-1)
            rest = text + image
            own = ((q[:, :, :rest] @ k[:, :, :rest].transpose(-2, -1)) * q.shape[-1] ** -0.5).softmax(-1)
            maps = [
                weights[:, :, text:rest, :text],
                weights[:, :, rest:, :text],
                weights[:, :, rest:, text:rest],
                weights[:, :, text:rest, rest:],
                own[:, :, :text, text:],
            ]
            self.maps.append([part.cpu() for part in maps])
        return out.transpose(1, 2).flatten(2)

    @staticmethod
    def norm(x, shift, scale):
        return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]

    def forward(self, tokens, timestep, given):
        """Logits [2, codebook, side, side] and, if blocks are captured, scores [1, N]."""
        self.maps = []
        text = self.linear("connector.projector", given["text"])
        text = self.rms("encoder_proj_layer_norm", self.linear("context_embedder", text))
        pooled = torch.cat([given["pooled"], self.wave(given["micro"]).flatten(1)], -1)
        pooled = self.mlp("time_text_embed.text_embedder", self.mlp("cond_embed", pooled))
        time_ = pooled + self.mlp("time_text_embed.timestep_embedder", self.wave(1000.0 * timestep))
        zero = pooled + self.mlp("time_text_embed.timestep_embedder", self.wave(torch.zeros_like(timestep)))
        x, side = self.stem(tokens)
        r, _ = self.stem(given["reference"].repeat(2, 1, 1))
        grid = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1).view(-1, 2)
        grid = F.pad(grid, (1, 0))
        n_text = text.shape[1]
        rope = self.rope(torch.cat([torch.zeros(n_text, 3, dtype=torch.long), grid, grid]))
        for i in range(self.m.config.num_layers):
            text, x, r = self.double(f"transformer_blocks.{i}", text, x, r, time_, zero, rope, i)
        z = torch.cat([text, x], 1)
        for i in range(self.m.config.num_single_layers):
            name, block = f"single_transformer_blocks.{i}", i + self.m.config.num_layers
            z, r = self.single(name, z, r, time_, zero, rope, n_text, block)
        logits = self.head(z[:, n_text:], side)
        if not self.blocks:
            return logits, None
        maps = torch.stack([maps[-1] for maps in self.maps], 1)[1:]
        return logits, maps.mean((1, 2, 3))

    def double(self, name, text, x, r, time_, zero, rope, block):
        c = self.linear(f"{name}.norm1_context.linear", F.silu(time_)).chunk(6, -1)
        a = self.linear(f"{name}.norm1.linear", F.silu(time_)).chunk(6, -1)
        b = self.linear(f"{name}.norm1.linear", F.silu(zero)).chunk(6, -1)
        q, k, v = [], [], []
        normed = self.norm(text, c[0], c[1])
        q.append(self.rms(f"{name}.attn.norm_added_q", self.split(self.linear(f"{name}.attn.add_q_proj", normed))))
        k.append(self.rms(f"{name}.attn.norm_added_k", self.split(self.linear(f"{name}.attn.add_k_proj", normed))))
        v.append(self.split(self.linear(f"{name}.attn.add_v_proj", normed)))
        for stream, mod in ((x, a), (r, b)):
            normed = self.norm(stream, mod[0], mod[1])
            q.append(self.rms(f"{name}.attn.norm_q", self.split(self.linear(f"{name}.attn.to_q", normed))))
            k.append(self.rms(f"{name}.attn.norm_k", self.split(self.linear(f"{name}.attn.to_k", normed))))
            v.append(self.split(self.linear(f"{name}.attn.to_v", normed)))
        q, k, v = torch.cat(q, 2), torch.cat(k, 2), torch.cat(v, 2)
        q, k = self.rotate(q, rope), self.rotate(k, rope)
        n_text, n = text.shape[1], x.shape[1]
        out = self.attention(q, k, v, n_text, n, block)

        def finish(stream, part, to_out, ff, mod):
            stream = stream + mod[2][:, None] * self.linear(f"{name}.attn.{to_out}", part)
            hidden = self.linear(f"{name}.{ff}.net.0.proj", self.norm(stream, mod[3], mod[4]))
            return stream + mod[5][:, None] * self.linear(f"{name}.{ff}.net.2", F.gelu(hidden, approximate="tanh"))

        text = finish(text, out[:, :n_text], "to_add_out", "ff_context", c)
        x = finish(x, out[:, n_text : n_text + n], "to_out.0", "ff", a)
        return text, x, finish(r, out[:, n_text + n :], "to_out.0", "ff", b)

    def single(self, name, z, r, time_, zero, rope, n_text, block):
        mods = [self.linear(f"{name}.norm.linear", F.silu(t)).chunk(3, -1) for t in (time_, zero)]
        normed = [self.norm(s, m[0], m[1]) for s, m in zip((z, r), mods, strict=True)]

        def project(what):
            return torch.cat([self.split(self.linear(f"{name}.attn.{what}", s)) for s in normed], 2)

        q = self.rotate(self.rms(f"{name}.attn.norm_q", project("to_q")), rope)
        k = self.rotate(self.rms(f"{name}.attn.norm_k", project("to_k")), rope)
        out = self.attention(q, k, project("to_v"), n_text, z.shape[1] - n_text, block)
        parts = out.split([z.shape[1], r.shape[1]], 1)
        result = []
        for stream, part, s, m in zip((z, r), parts, normed, mods, strict=True):
            hidden = F.gelu(self.linear(f"{name}.proj_mlp", s), approximate="tanh")
            result.append(stream + m[2][:, None] * self.linear(f"{name}.proj_out", torch.cat([part, hidden], -1)))
        return result

    @torch.no_grad()
    def __call__(self, given, steps, seed):
        """The whole loop, batch 1: softmax, multinomial and Gumbel noise over every position of every step."""
        config, mask = self.m.config, self.m.config.mask_id
        shape = given["reference"].shape
        reference = given["reference"].flatten(1)
        tokens = torch.full_like(reference, mask)
        generator, heat = torch.Generator().manual_seed(seed), temperatures(steps, (2.0, 0.0))
        self.history = []
        for step in range(steps):
            timestep = torch.full((2,), float(steps - 1 - step))
            logits, scores = self.forward(tokens.view(shape).repeat(2, 1, 1), timestep, given)
            uncond, cond = logits.chunk(2)
            p = (uncond + GUIDANCE * (cond - uncond)).flatten(2).transpose(1, 2).softmax(-1)
            drawn = torch.multinomial(p.flatten(0, 1), 1, generator=generator).view_as(tokens)
            unknown = tokens == mask
            drawn = torch.where(unknown, drawn, tokens)
            if scores is not None:
                side = int(scores.shape[1] ** 0.5)
                map_ = upsample(smooth(rescale(scores).view(1, side, side)), tuple(shape[1:])).flatten(1)
                drawn = torch.where(unknown & (map_ < HOLD), reference, drawn)
            if step == steps - 1:
                self.history.append(drawn.view(shape))
                return drawn.view(shape)
            chosen = p.gather(2, drawn.clamp(max=config.codebook_size - 1)[..., None])[..., 0]
            chosen = torch.where(unknown, chosen, torch.finfo(torch.float32).max)
            share = masked_share(step, steps)
            count = mask_count(unknown.sum(1), tokens.shape[1], torch.ones(1), share)
            u = torch.rand(chosen.shape, generator=generator)
            gumbel = -torch.log(torch.clamp(-torch.log(u.clamp(min=1e-20)), min=1e-20))
            confidence = chosen.clamp(min=1e-20).log() + heat[step] * gumbel
            cut = confidence.sort(1).values.gather(1, count[:, None])
            tokens = torch.where(confidence < cut, mask, drawn)
            self.history.append(tokens.view(shape))
        raise AssertionError


# --- Ours ---------------------------------------------------------------------------------------------------------


def ours(model, given, steps, seed, *, hold=0.0, blocks=None, released=False, speed="exact", history=None):
    """The tokens of one run; those after each step go to the list `history`. `blocks`: to capture; default: the last
    third."""
    if history is not None:
        history.clear()
    reference = given["reference"]
    batch, count, device = len(reference), reference[0].numel(), reference.device
    with torch.inference_mode():
        conditions = model.condition(
            given["text"], given["pooled"], given["micro"], tuple(reference.shape[1:]), reference, STRENGTH
        )
    noise = SeededNoise(range(seed, seed + batch), count, device)
    if released:
        noise = ReleasedNoise(torch.Generator().manual_seed(seed), batch, count, device)
    capture = None
    if hold:
        capture = Capture(blocks or last_third(model.config), torch.full((batch, TEXT), 1 / TEXT, device=device))
    out = sample(
        model,
        conditions,
        torch.full_like(reference, model.config.mask_id),
        noise,
        SamplingOptions(steps=steps, guidance=GUIDANCE, hold=hold, speed=speed),
        reference=reference,
        capture=capture,
        early_exit=False,
        on_step=None if history is None else lambda now: history.append(now.tokens),
    )
    return out.tokens


def last_third(config: TransformerConfig) -> tuple[int, ...]:
    return tuple(range(config.blocks - config.blocks // 3, config.blocks))


# --- Reports ------------------------------------------------------------------------------------------------------


def rounds_of(runs: dict[str, Callable[[], torch.Tensor]], rounds: int):
    """Each run once per round, in turn: seconds on the clock and of the CPU, and the last result, by name.

    CPU seconds are what is left to compare on a machine that others use too.
    """
    wall, cpu, results = {name: [] for name in runs}, {name: [] for name in runs}, {}
    for _ in range(rounds):
        for name, run in runs.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            results[name] = run()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - start_cpu)
    return wall, cpu, results


def faster(seconds, base: str, name: str) -> float:
    """The median over the rounds of how many times faster `name` was than `base` in the same round."""
    return statistics.median(b / s for b, s in zip(seconds[base], seconds[name], strict=True))


def comparison(theirs, ours) -> str:
    """Whether two runs with the same draws agree, or after which step how many tokens first did not.

    One differing step is the end of the comparison: from there on the two are given different inputs. Two tokens that
    differ are a near-tie at the cut-off of the least confident; what rounding decides, no implementation can promise.
    """
    for step, (a, b) in enumerate(zip(theirs, ours, strict=True)):
        if not torch.equal(a, b):
            return f"same draws: tokens equal up to step {step}, where {(a != b).sum()} of {a.numel()} differ"
    return "same draws: all tokens of all steps equal"


def cpu_report(args) -> None:
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.threads} threads, fp32, {args.steps} steps, {args.rounds} rounds\n")
    for name, (config, side) in CASES.items():
        if args.case and args.case not in name:
            continue
        model, given = make_model(config), make_inputs(config, side)
        loop = Straightforward(model, last_third(config))
        run, history = partial(ours, model, given, args.steps, 5), []
        runs = {
            LOOP: partial(loop, given, args.steps, 5),
            SAME_DRAWS: partial(run, hold=HOLD, released=True, history=history),
            FULL: partial(run, hold=HOLD),
            PLAIN: run,
        }
        if args.released:
            other = load_file(args.released).make(model.state_dict(), config.model_dump())
            runs["released loop, second implementation"] = partial(other, given, args.steps, 5)
        speeds = {speed: f"{FULL}, {speed}" for speed in ("fast", "faster")}
        runs |= {text: partial(run, hold=HOLD, speed=speed) for speed, text in speeds.items()}
        wall, cpu, results = rounds_of(runs, args.rounds)
        print(f"{name} ({sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters)")
        print(f"  {'':51}{'wall s':>15}{'CPU s':>15}{'faster (medians)':>18}")
        print(f"  {'':51}{'min':>7}{'median':>8}{'min':>7}{'median':>8}{'wall':>9}{'CPU':>9}")
        for text in runs:
            columns = "".join(f"{min(s[text]):7.2f}{statistics.median(s[text]):8.2f}" for s in (wall, cpu))
            print(f"  {text:51}{columns}{faster(wall, LOOP, text):8.2f}x{faster(cpu, LOOP, text):8.2f}x")
        kept = (results[FULL] == given["reference"]).float().mean().item()
        print(f"  {comparison(loop.history, history)}; {kept:.0%} of the tokens are the source's")
        extra = [1 / faster(s, PLAIN, FULL) - 1 for s in (wall, cpu)]
        print(f"  capture and hold against plain: {extra[0]:+.1%} wall, {extra[1]:+.1%} CPU")
        for text in speeds.values():
            agree = (results[text] == results[FULL]).float().mean().item()
            gain = faster(wall, FULL, text), faster(cpu, FULL, text)
            print(
                f"  {text}: {gain[0]:.2f}x wall, {gain[1]:.2f}x CPU of the exact mode, "
                f"{agree:.1%} of the tokens agree with it"
            )
        print(flush=True)
    if not args.no_memory:
        memory_report(args)


def memory_report(args) -> None:
    """Peak resident memory of whole processes that sample once, less that of one that only imports and builds."""
    for case in CASES:
        if args.case and args.case not in case:
            continue
        peaks = {}
        for what in ("nothing", "plain", "capture", "straightforward"):
            command = [sys.executable, "-m", "benchmarks.editmgt", "--memory-of", what, "--case", case, "--steps", "2"]
            command += ["--threads", str(args.threads)]
            peaks[what] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024
        over = peaks["capture"] / peaks["plain"] - 1
        print(f"{case}: peak memory in MB: " + ", ".join(f"{k} {v:.0f}" for k, v in peaks.items()))
        print(f"  capture and hold over plain: {over:+.1%} of the process, {peaks['capture'] - peaks['plain']:+.0f} MB")


def memory_of(args) -> None:
    torch.set_num_threads(args.threads)
    config, side = CASES[args.case]
    model, given = make_model(config), make_inputs(config, side)
    if args.memory_of == "plain":
        ours(model, given, args.steps, 5)
    elif args.memory_of == "capture":
        ours(model, given, args.steps, 5, hold=HOLD)
    elif args.memory_of == "straightforward":
        Straightforward(model, last_third(config))(given, args.steps, 5)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def preset_report(args) -> None:
    """Seconds per edit and peak memory of a preset with random weights: transformer, sampler and image decoder."""
    device, preset = torch.device(args.device), read_preset(args.preset)
    cuda = device.type == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    config = TransformerConfig(**preset["transformer"])
    side = preset["resolution"] // 16
    with device:
        model = make_model(config).to(dtype)
        vq = fresh_vq(preset)
    if args.compile:
        model.compile_step()
    blocks = default_blocks(config.blocks)
    print(
        f"{torch.cuda.get_device_name(device) if cuda else 'CPU'}, torch {torch.__version__}, {dtype}, {args.preset}, "
        f"{preset['resolution']} px, {args.steps} steps, guidance {GUIDANCE}, strength {STRENGTH}, "
        f"capture of {len(blocks)} blocks, compile {args.compile}"
    )
    for batch in args.batch:
        given = make_inputs(config, side, batch, device, dtype)
        edit = partial(edit_once, model, vq, given, args.steps, blocks)
        edit()
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
        seconds = []
        for _ in range(args.rounds):
            start = time.perf_counter()
            edit()
            seconds.append((time.perf_counter() - start) / batch)
        line = f"  batch {batch}: {statistics.median(seconds):.3f} s per edit (median of {args.rounds}), "
        line += f"min {min(seconds):.3f}"
        if cuda:
            # A training step is three forward passes, a guided one two.
            floor = training_flops(config, side, side, TEXT) / 3 * 2 * args.steps / (args.peak_tflops * 1e12)
            line += f", peak {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB"
            line += f"; arithmetic alone at {args.peak_tflops:.0f} TFLOP/s: {floor:.3f} s"
        print(line, flush=True)


@torch.inference_mode()
def edit_once(model, vq, given, steps, blocks):
    """What one edit is but for reading text and the source: sampling with capture and hold, and decoding."""
    image = vq.decode(ours(model, given, steps, 0, hold=HOLD, blocks=blocks))
    if image.device.type == "cuda":
        torch.cuda.synchronize(image.device)
    return image


def load_file(path: str):
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--device", default="cpu")
    add("--threads", type=int, default=2)
    add("--rounds", type=int, default=3)
    add("--steps", type=int, help="default: 16, or 36 for a preset")
    add("--case", help="only the cases whose name contains this")
    add("--released", metavar="FILE.py", help="a second implementation of the released loop")
    add("--no-memory", action="store_true")
    add("--memory-of", choices=("nothing", "plain", "capture", "straightforward"), help=argparse.SUPPRESS)
    add("--preset", help="time one preset of configs/model on --device, and nothing else")
    add("--batch", type=int, nargs="+", default=[1, 8])
    add("--compile", action="store_true")
    add("--peak-tflops", type=float, default=989.0, help="of the GPU in bf16, dense (H200: 989)")
    args = parser.parse_args()
    args.steps = args.steps or (36 if args.preset else 16)
    if args.memory_of:
        memory_of(args)
    elif args.preset:
        preset_report(args)
    else:
        cpu_report(args)


if __name__ == "__main__":
    main()
