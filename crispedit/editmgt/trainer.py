"""The trainer: trains EditMGT on examples, on one process or many, with accelerate.

    for each batch of a step:  encode -> drop some instructions, mask tokens -> cross entropy -> backward
    then:                      clip, AdamW step, EMA, metrics; at intervals a savepoint and samples

The result of a step depends only on (seed, step, keys of the pairs), never on the process that computes it: each pair
has its own random generator, and the loss is a mean over the masked tokens of the *global* batch, across processes and
accumulation steps. So one process and eight give the same loss curve, and so does a run that was killed and resumed.
"""

import json
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, is_wandb_available
from numpy.typing import NDArray
from pydantic_core import to_json
from torch import Tensor
from tqdm import tqdm

from crispedit import console
from crispedit.editmgt import savepoint
from crispedit.editmgt.examples import Examples
from crispedit.editmgt.meter import Meter, flat_items
from crispedit.editmgt.objective import default_capture, losses, masked_batch
from crispedit.editmgt.optimiser import EMA, adamw, rate_at
from crispedit.editmgt.parallel import distribute, synchronised
from crispedit.editmgt.settings import Training
from crispedit.editmgt.text import TextFeatures
from crispedit.editmgt.transformer import Transformer
from crispedit.record import content_key, seed_of

METRICS = "metrics.jsonl"

State = Mapping[str, Any]
# A source's batch, at a step, as examples on this process's device.
Encode = Callable[[Any, int], Examples]
# Measures the model after a number of steps, in the main process: measurements and a picture [H, W, 3].
Observe = Callable[[Transformer, int], tuple[Mapping[str, float], NDArray[np.uint8] | None]]


class BatchSource(Protocol):
    """The source of a run's batches."""

    categories: Sequence[str]

    def steps(self, state: State | None, rank: int, processes: int) -> Iterator[tuple[Sequence[Any], State]]:
        """Endless: this process's batches of each step, and the reader's state after that step."""


def make_accelerator(settings: Training) -> Accelerator:
    """The Accelerator for these settings; it uses the CPU if there is no accelerator.

    ValueError for a tracker that is not installed, or if `accelerate launch` is configured to shard the model itself.
    """
    for plugin in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{plugin}", "").lower() == "true":
            raise ValueError(
                f"accelerate launch is configured to use {plugin}: turn it off; the recipe's `sharding: full` is FSDP2"
            )
    tracker = settings.watch.tracker
    if tracker == "wandb" and not is_wandb_available():
        raise ValueError("watch.tracker is wandb, which is not installed: install it, or choose tensorboard")
    return Accelerator(
        cpu=not torch.accelerator.is_available(),
        mixed_precision="bf16" if settings.precision == "bf16" else "no",
        log_with=None if tracker == "none" else tracker,
        project_config=ProjectConfiguration(str(settings.run), logging_dir=str(settings.run)),
    )


class Trainer:
    """Trains the model in one process of a run.

    model: fresh or pretrained; it is trained in place. empty: features of the empty instruction. ValueError if the
    global batch cannot be divided among the processes, or if no parameter is trainable.
    """

    def __init__(
        self,
        model: Transformer,
        source: BatchSource,
        encode: Encode,
        empty: TextFeatures,
        settings: Training,
        accelerator: Accelerator,
        observe: Observe | None = None,
    ) -> None:
        parallel = settings.batch * accelerator.num_processes
        if settings.global_batch % parallel:
            product = f"{parallel}, batch {settings.batch} times {accelerator.num_processes} processes"
            raise ValueError(f"global_batch {settings.global_batch} is not a multiple of {product}")
        self.settings, self.accelerator, self.source = settings, accelerator, source
        self.encode, self.observe = encode, observe
        self.empty = empty.to(accelerator.device)
        self.model = trainable(model, settings).train()
        self.model.gradient_checkpointing = settings.gradient_checkpointing
        if settings.compile:
            self.model.compile_step()
        self.wrapped = distribute(self.model, settings, accelerator)
        self.weights = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = adamw(self.weights, settings.optimiser)
        self.ema = None if settings.ema is None else EMA(self.weights, settings.ema)
        self.meter = Meter(model.config, source.categories, accelerator)
        self.step = self.skipped = self.skipped_in_a_row = 0
        self.reader: State | None = None

    def train(self) -> Literal["finished", "stopped"]:
        """Train to the last step, from the last savepoint or the start. "stopped": by a signal, after saving."""
        settings, accelerator = self.settings, self.accelerator
        self._resume()
        if settings.watch.tracker != "none":
            accelerator.init_trackers("tracker")
        steps = self.source.steps(self.reader, accelerator.process_index, accelerator.num_processes)
        hidden = not (accelerator.is_main_process and console.shows_progress())
        with (
            _stop_signal() as signalled,
            tqdm(total=settings.steps, initial=self.step, desc="train", unit="step", disable=hidden) as bar,
        ):
            while self.step < settings.steps:
                loss, stopping = self._step(steps, signalled)
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                bar.update()
                last = self.step == settings.steps
                if last or stopping or self.step % settings.save.every == 0:
                    self._save()
                # The first samples come with the first savepoint.
                if last or self.step == settings.save.every or self.step % settings.watch.sample_every == 0:
                    self._observe()
                if stopping:
                    break
        return "finished" if self.step >= settings.steps else "stopped"

    def _step(self, steps: Iterator[tuple[Sequence[Any], State]], signalled: threading.Event) -> tuple[float, bool]:
        """Run one step; returns its loss, and whether any process received a stop signal."""
        settings, mask_id = self.settings, self.model.config.mask_id
        began = time.perf_counter()
        batches, self.reader = next(steps)
        read = time.perf_counter()
        seed, examples = settings.seed, (self.encode(batch, self.step) for batch in batches)
        masked = [masked_batch(e, self.empty, settings.objective, mask_id, seed, self.step) for e in examples]
        total = self.accelerator.reduce(torch.stack([batch.weight.sum() for batch in masked]).sum(), "sum")
        self.meter.begin_step()
        self.meter.step |= {"wait_s": read - began, "encode_s": time.perf_counter() - read}
        weighted = torch.zeros_like(total)
        for number, batch in enumerate(masked):
            self._seed(self.accelerator.process_index * len(masked) + number)
            with synchronised(self.wrapped, last=number == len(masked) - 1):
                with self.accelerator.autocast():
                    localised = settings.objective.localise and batch.examples.source is not None
                    capture = default_capture(self.model.config, batch) if localised else None
                    losses_M, localisation_B = losses(self.wrapped, batch, capture)
                loss = (losses_M * batch.weight).sum() / total
                aim = loss + settings.objective.localise * localisation_B.sum() / settings.global_batch
                (aim * self.accelerator.num_processes).backward()  # gradients are averaged over processes
            weighted += loss.detach()
            self.meter.add(batch, losses_M.detach())
        self.meter.step |= {"loss": weighted.item(), "stop": float(signalled.is_set())}
        summed = self.meter.end_step()
        total_norm = torch.nn.utils.clip_grad_norm_(list(self.weights.values()), settings.optimiser.clip)
        norm = float(savepoint.unsharded(total_norm))
        rate = rate_at(self.step, settings.steps, settings.optimiser)
        self._update(rate, skip=not math.isfinite(norm) or not math.isfinite(summed["loss"]))
        self.step += 1
        self.meter.seconds += time.perf_counter() - began
        self._log({"loss": summed["loss"], "grad_norm": norm, "rate": rate})
        return summed["loss"], summed["stop"] > 0

    def _seed(self, batch: int) -> None:
        """Seed the draws inside the model (LoRA's dropout), so that no generator's state must be saved."""
        torch.manual_seed(seed_of(content_key(str(self.settings.seed), str(self.step), str(batch)), "model"))

    def _update(self, rate: float, skip: bool) -> None:
        """Update the weights, or skip the step if it was not finite. RuntimeError after too many skipped steps."""
        if not skip:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            if self.ema is not None:
                self.ema.update(self.weights, self.step + 1 - self.skipped)
            self.skipped_in_a_row = 0
        self.optimizer.zero_grad(set_to_none=True)
        if skip:
            self.skipped, self.skipped_in_a_row = self.skipped + 1, self.skipped_in_a_row + 1
            if self.skipped_in_a_row > self.settings.max_skipped:
                raise RuntimeError(
                    f"step {self.step}: loss or gradient was not finite for {self.skipped_in_a_row} steps in a row; "
                    f"lower the rate, and resume from a savepoint in {self.settings.run / savepoint.FOLDER}"
                )

    def _log(self, row: dict[str, float]) -> None:
        """Write a line to the metrics. At step 1 and every `log_every` steps, add all measurements and send them to the
        tracker."""
        watch, values = self.settings.watch, {"step": self.step, **row, "skipped": self.skipped}
        if self.step == 1 or self.step % watch.log_every == 0 or self.step == self.settings.steps:
            values |= self.meter.read()
            self.accelerator.log(flat_items(values), step=self.step)
            self.meter.reset()
        self._write(values)

    def _write(self, values: Mapping[str, Any]) -> None:
        if self.accelerator.is_main_process:
            with (self.settings.run / METRICS).open("ab") as file:
                file.write(to_json(values, inf_nan_mode="null") + b"\n")  # JSON holds neither NaN nor infinity

    def _observe(self) -> None:
        """Call the observer in the main process; the others wait."""
        if self.observe is None:
            return
        model = self.snapshot()
        if model is not None:
            measured, picture = self.observe(model, self.step)
            if measured:
                self.accelerator.log(flat_items(measured), step=self.step)
                self._write({"step": self.step, **measured})
            if picture is not None:
                for tracker in self.accelerator.trackers:
                    layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                    tracker.log_images({"samples": picture[None]}, step=self.step, **layout)
        self.accelerator.wait_for_everyone()

    def snapshot(self) -> Transformer | None:
        """The current model, with the averaged weights if there are any, unsharded, on this process's device.

        LoRA's adapters are in it, not merged. Every process must call it; None in all but the main one.
        """
        averages = {} if self.ema is None else self.ema.weights
        main = self.accelerator.is_main_process
        weights = {name: averages.get(name, weight) for name, weight in self.model.named_parameters()}
        state = savepoint.gather(weights, main)
        return rebuilt(self.model, state).to(self.accelerator.device) if main else None

    def _save(self) -> None:
        main = self.accelerator.is_main_process
        files = savepoint.files(self.weights, self.optimizer, self.ema, main)
        if main:
            folder = self.settings.run / savepoint.FOLDER
            state = {"reader": self.reader, "skipped": self.skipped, "skipped_in_a_row": self.skipped_in_a_row}
            savepoint.write(folder, self.step, files, state)
            savepoint.sweep(folder, self.settings.save.keep)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        """Resume from the last readable savepoint, if any. Unreadable savepoints after it are renamed; metrics of later
        steps are removed.

        ValueError if savepoints exist and none is readable, or if processes see different ones.
        """
        run = self.settings.run
        run.mkdir(parents=True, exist_ok=True)
        torn = self._restore(savepoint.paths(run / savepoint.FOLDER))
        resumed_at = self.accelerator.gather(torch.tensor([self.step], device=self.accelerator.device)).tolist()
        if len(set(resumed_at)) > 1:
            raise ValueError(f"{run}: its processes would resume at steps {resumed_at}; all must see the same folder")
        if self.accelerator.is_main_process:
            for path in torn:
                savepoint.set_aside(path)
            _truncate(run / METRICS, self.step)

    def _restore(self, savepoints: Sequence[Path]) -> list[Path]:
        """Restore the last readable savepoint; returns the unreadable ones after it."""
        torn: list[Path] = []
        for path in reversed(savepoints):
            try:
                state = savepoint.restore(path, self.weights, self.optimizer, self.ema)
            except savepoint.TornError as error:
                warnings.warn(f"skipping a damaged savepoint: {error}", stacklevel=2)
                torn.append(path)
                continue
            self.step, self.reader, self.skipped = state["step"], state["reader"], state["skipped"]
            self.skipped_in_a_row = state["skipped_in_a_row"]
            return torn
        if torn:
            raise ValueError(f"{torn[0].parent}: all savepoints are damaged; remove that folder to start again")
        return torn


def trainable(model: Transformer, settings: Training) -> Transformer:
    """The model with gradients only for trained weights: fresh LoRA adapters, or those named by `trainable`."""
    if settings.lora is not None:
        from crispedit.editmgt.lora import add_lora

        return add_lora(model, settings.lora, settings.seed)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.startswith(settings.trainable))
    if not any(weight.requires_grad for weight in model.parameters()):
        raise ValueError(f"trainable: no parameter's name begins with one of {list(settings.trainable)}")
    return model


def rebuilt(model: Transformer, state: Mapping[str, Tensor]) -> Transformer:
    """A frozen model of the same structure (adapters included) that shares these tensors."""
    adapters: Any = getattr(model, "peft_config", None)
    with torch.device("meta"):
        copy = Transformer(model.config)
        if adapters is not None:
            from peft import inject_adapter_in_model

            copy = inject_adapter_in_model(adapters["default"], copy)
    copy.load_state_dict(dict(state), assign=True)
    return copy.eval().requires_grad_(False)


def _truncate(path: Path, step: int) -> None:
    """Remove the lines after a step: a killed run had trained beyond its last savepoint, and may have cut a line."""
    if path.is_file():
        lines = path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(kept))
        os.replace(temporary, path)


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM (from a scheduler) or SIGINT (Ctrl-C) sets. A second signal ends the process at once.

    Python delivers signals to the main thread only; in other threads the event is never set.
    """
    signalled = threading.Event()
    with ExitStack() as former:

        def handle(number: int, frame: object) -> None:
            signalled.set()
            former.close()

        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                former.callback(signal.signal, number, signal.signal(number, handle))
        yield signalled
