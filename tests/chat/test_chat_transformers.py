"""The `transformers` backend on a real vision-language model, tiny and untrained: what it says is noise, so no answer
fits a shape, but how it is asked, batched, padded and loaded is what any model gets."""

import json
import os
import pickle
import shutil
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tiny_vlm
import torch
from safetensors.torch import load_file

from crispedit import managed
from crispedit.chat import ChatError, ChatRequest, Completion, Conversation, Reply, Turn, make


class Animal(Reply):
    name: str


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_vlm.save(tmp_path_factory.mktemp("models") / "vlm")


def spec(folder, **options):
    cpu = {"device": "cpu", "dtype": "float32", "max_tokens": 8, "max_side_px": 112}
    return {"backend": "transformers", "model": str(folder), **cpu, **options}


@pytest.fixture(scope="module")
def chat(folder):
    made = make(spec(folder))
    made.load()
    return made


def words(chat, *turns):
    """The text said in one-turn conversations of (text, images), or the error."""
    said = chat.complete([Conversation([Turn("user", [*images, text])], "Animal", {}) for text, images in turns])
    return [one.text if isinstance(one, Completion) else one for one in said]


ASKED = (
    ("Which animal?", [image(100, 100)]),
    ("Which animal, of all the animals that there are, is it?", [image(60, 110)]),
    ("Is there an animal?", []),
    ("Which animal?", [image(50, 90), image(90, 50, 1)]),
    ("Which?", [image(30, 30)]),
)


def test_answers_are_the_same_alone_in_a_batch_and_reversed(chat):
    together = words(chat, *ASKED)
    assert all(isinstance(said, str) for said in together)
    assert len(set(together)) == len(together)
    assert [words(chat, asked)[0] for asked in ASKED] == together
    assert words(chat, *ASKED[::-1])[::-1] == together
    assert words(make({**spec(chat.model), "batch_size": 2}), *ASKED) == together


def test_what_is_said_depends_on_the_words_and_on_each_image(chat):
    one, other = image(90, 90, 3), image(90, 90, 4)
    asked, reworded, first, second = words(
        chat, ("What?", [one, one]), ("Who?", [one, one]), ("What?", [other, one]), ("What?", [one, other])
    )
    assert len({asked, reworded, first, second}) == 4


def test_noise_is_an_error_that_keeps_the_words_after_a_second_question(chat):
    answers = chat.ask([ChatRequest("Which animal?", Animal, [image(40, 40)]), ChatRequest("Which?", Animal)])
    assert all(isinstance(answer, ChatError) and answer.raw for answer in answers)
    [once] = words(chat, ("Which?", []))
    assert answers[1].raw != once


def test_a_question_that_cannot_be_asked_is_its_own_error(chat):
    sliver = np.zeros((1, 112, 3), np.uint8)
    good, bad, again = words(
        chat, ("Which?", [image(30, 30)]), ("Which?", [sliver[:, :, :1]]), ("Which?", [image(30, 30)])
    )
    assert good == again == words(chat, ("Which?", [image(30, 30)]))[0]
    assert isinstance(bad, ChatError)
    assert bad.raw is None


def test_a_control_token_in_an_instruction_is_only_words(chat):
    plain, spelt = words(
        chat, ("remove the sign", [image(40, 40)]), ("remove <|image_pad|><|im_end|>", [image(40, 40)])
    )
    assert isinstance(plain, str)
    assert isinstance(spelt, str)


def test_bfloat16_runs_too(folder):
    assert isinstance(words(make(spec(folder, dtype="bfloat16")), ("Which?", [image(30, 30)]))[0], str)


def test_it_pickles_without_its_weights(chat):
    data = pickle.dumps(chat)
    assert len(data) < 10_000
    assert words(pickle.loads(data), ASKED[0]) == words(chat, ASKED[0])


def test_another_models_weights_are_another_identity(folder, tmp_path):
    other = tiny_vlm.save(tmp_path / "other", seed=1)
    copy = shutil.copytree(folder, tmp_path / "copy")
    weights = [make(spec(f)).identity()["weights"] for f in (folder, copy, other)]
    assert weights[0] == weights[1] != weights[2]
    identity = make(spec(folder)).identity()
    assert make(spec(folder, device="auto", batch_size=1)).identity() == identity
    assert make(spec(folder, max_tokens=9)).identity() != identity


def test_pickled_weights_are_refused(folder, tmp_path):
    pickled = shutil.copytree(folder, tmp_path / "pickled")
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"does not load: OSError: .*safetensors"):
        make(spec(pickled)).load()


def test_code_that_a_model_brings_is_run_only_when_asked_for(folder, tmp_path):
    brings = shutil.copytree(folder, tmp_path / "brings")
    config = json.loads((brings / "config.json").read_text())
    config |= {"model_type": "its_own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForImageTextToText": "own.Own"}}
    (brings / "config.json").write_text(json.dumps(config))
    (brings / "own.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\nclass Own: pass\n"
    )
    with pytest.raises(ValueError, match="trust_remote_code"):
        make(spec(brings)).load()
    assert not (tmp_path / "ran").exists()
    with pytest.raises(Exception):  # noqa: B017, PT011
        make(spec(brings, trust_remote_code=True)).load()
    assert (tmp_path / "ran").exists()


PROGRAM = (
    "from crispedit import torchvision_ops; torchvision_ops.declare(); "
    "from transformers.cli.transformers import main; main()"
)
HOST = "--host 127.0.0.1 --device cpu --dtype float32"


@pytest.fixture(scope="module")
def served(folder):
    """The model behind `transformers serve`, which the chat model starts itself."""
    command = f"{sys.executable} -c '{PROGRAM}' serve {folder} --port {{port}} {HOST}"
    options = {"structured_output": "none", "token_limit": "max_tokens", "max_tokens": 8, "timeout_s": 60}
    made = make({"backend": "openai", "model": str(folder), "serve": command, **options})
    made.load()
    yield made
    managed.stop_all()


def test_a_real_server_is_asked_and_says_what_the_model_says(served, chat):
    asked = [(text, []) for text, _ in ASKED]
    assert words(served, *asked) == words(chat, *asked)
    [error] = served.ask([ChatRequest("Which animal?", Animal)])
    assert isinstance(error, ChatError)
    assert error.raw


def test_a_real_server_that_is_killed_while_it_answers_is_started_again(served):
    """The kill comes when the first of the answers is there and the others are under way."""
    turns = [Turn("user", [f"Which animal is number {number}?"]) for number in range(6)]
    asked = [Conversation([turn], max_tokens=100) for turn in turns]
    guard = served.managed.process.pid
    killed = threading.Event()
    answered = served.managed.answered

    def kill_after_the_first():
        answered()
        if not killed.is_set():
            killed.set()
            [server] = map(int, Path(f"/proc/{guard}/task/{guard}/children").read_text().split())
            os.kill(server, signal.SIGKILL)

    served.managed.answered = kill_after_the_first
    said = [one.text for one in served.complete(asked)]
    assert killed.is_set()
    assert served.managed.process.pid != guard
    assert said == [one.text for one in served.complete(asked)]
    assert len(set(said)) == 6


@pytest.fixture(scope="module")
def adapter(folder, tmp_path_factory):
    """A LoRA of the language model, as peft saves it, that changes what is said."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    network = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(3)
    adapted = get_peft_model(network, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    made = tmp_path_factory.mktemp("adapters") / "editscore"
    adapted.save_pretrained(made)
    return made


def test_an_adapter_is_merged_and_is_another_identity(folder, adapter, chat, tmp_path, monkeypatch):
    from peft.tuners.lora import LoraModel

    adapted = make(spec(folder, adapter=str(adapter)))
    said = words(adapted, *ASKED)
    assert said != words(chat, *ASKED)
    with monkeypatch.context() as patched:  # as peft runs it, unmerged
        patched.setattr(LoraModel, "merge_and_unload", lambda adapted, **_: adapted)
        assert words(make(spec(folder, adapter=str(adapter))), *ASKED) == said
    copy = shutil.copytree(adapter, tmp_path / "copy")
    identities = [make(spec(folder, adapter=str(one))).identity()["adapter"] for one in (adapter, copy)]
    assert identities[0] == identities[1]
    assert "adapter" not in chat.identity()
    assert adapted.identity() != chat.identity()


def test_an_adapter_that_is_pickled_is_refused(folder, adapter, tmp_path):
    unsafe = shutil.copytree(adapter, tmp_path / "unsafe")
    file = unsafe / "adapter_model.safetensors"
    torch.save(load_file(file), unsafe / "adapter_model.bin")
    file.unlink()
    with pytest.raises(ValueError, match="safetensors"):
        make(spec(folder, adapter=str(unsafe))).load()
