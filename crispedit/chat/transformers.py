"""A vision-language model in this process as the chat model: any that transformers loads for images and text.

Qwen3.5, Qwen3-VL, InternVL, SmolVLM, LLaVA ... from a local folder or the Hugging Face hub. Decoding is greedy, so
answers repeat. Weights are read from safetensors; code in a repository runs only if the recipe allows it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from PIL import Image as Pillow
from pydantic import Field, PrivateAttr

from crispedit import weights
from crispedit.chat import Chat, ChatError, Completion, Conversation, Published, Turn
from crispedit.outcome import describe, each


class Transformers(Chat):
    """Generates in batches, padded on the left; a batch that does not fit in memory is halved.

    Padding is masked, so an answer depends on its batch only by rounding. In bfloat16 that changes a word now and then;
    `batch_size: 1` avoids it.
    """

    gpus: ClassVar[float] = 1.0
    incidental: ClassVar[frozenset[str]] = frozenset({"device", "batch_size"})

    model: str
    """A folder, or a repository of the Hugging Face hub."""
    revision: str | None = None
    """A commit, tag or branch of that repository."""
    adapter: str | None = None
    """A LoRA of the package peft, such as EditScore's: a folder or a repository. Merged into the weights on loading."""
    adapter_revision: str | None = None
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    device: str = "auto"
    """"auto" is the GPU if there is one, else the CPU."""
    batch_size: int = Field(8, ge=1)
    trust_remote_code: bool = False
    template: dict[str, Any] = {}
    """Variables for the model's own chat template, such as `enable_thinking: false`."""

    _processor: Any = PrivateAttr(None)
    _network: Any = PrivateAttr(None)

    def load(self) -> None:
        import torch

        from crispedit import torchvision_ops

        torchvision_ops.declare()  # before transformers looks for torchvision
        from transformers import AutoModelForImageTextToText, AutoProcessor

        where = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        device = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        self._processor = AutoProcessor.from_pretrained(self.model, **where)
        tokenizer = self._processor.tokenizer
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        network = AutoModelForImageTextToText.from_pretrained(
            self.model, dtype=getattr(torch, self.dtype), use_safetensors=True, **where
        ).to(device)
        if self.adapter is not None:
            from peft import PeftModel

            folder = Path(self.adapter)
            if folder.is_dir() and not (folder / "adapter_model.safetensors").is_file():
                raise ValueError(f"{folder} has no adapter_model.safetensors")
            adapted = PeftModel.from_pretrained(network, self.adapter, revision=self.adapter_revision)
            network = adapted.merge_and_unload(safe_merge=True)
        self._network = network.eval()

    def identity(self) -> dict[str, Any]:
        """The options, with the digest of a local folder's weights: a model that is trained further is another
        model."""
        identity = super().identity() | {"weights": _digest(self.model)}
        if self.adapter is None:  # keeps the identity from before there were adapters
            for name in ("adapter", "adapter_revision"):
                del identity["options"][name]
            return identity
        return identity | {"adapter": _digest(self.adapter)}

    def complete(self, conversations: Sequence[Conversation]) -> list[Completion | ChatError]:
        if self._network is None:
            self.load()
        # A batch has one number of images and one set of settings: not every processor takes a mixed batch.
        alike: dict[tuple[int, Published | None, int | None], list[int]] = {}
        for index, conversation in enumerate(conversations):
            shown = sum(not isinstance(part, str) for turn in conversation.turns for part in turn.parts)
            settings = shown, conversation.published, conversation.max_tokens
            alike.setdefault(settings, []).append(index)
        completions: dict[int, Completion | Exception] = {}
        for group in alike.values():
            for start in range(0, len(group), self.batch_size):
                batch = group[start : start + self.batch_size]
                completions.update(zip(batch, each(self._generate, [conversations[i] for i in batch]), strict=True))
        answers = [completions[index] for index in range(len(conversations))]
        return [ChatError(describe(answer)) if isinstance(answer, Exception) else answer for answer in answers]

    def _generate(self, conversations: Sequence[Conversation]) -> list[Completion]:
        import torch

        published = conversations[0].published
        limit = (published and published.max_tokens) or conversations[0].max_tokens or self.max_tokens
        inputs = self._processor.apply_chat_template(
            [[_message(turn) for turn in conversation.turns] for conversation in conversations],
            tokenize=True,
            return_dict=True,
            add_generation_prompt=True,
            sanitize_control_tokens=True,  # a control token spelt out in an instruction is plain text
            processor_kwargs={"return_tensors": "pt", "padding": True},
            **self.template,
        ).to(self._network.device, dtype=self._network.dtype)
        with torch.inference_mode():
            tokens_BT = self._network.generate(
                **inputs,
                max_new_tokens=limit,
                do_sample=False,
                num_beams=1,
                temperature=None,  # the model's own, for sampling, would only be warned about
                top_p=None,
                top_k=None,
                pad_token_id=self._processor.tokenizer.pad_token_id,
            )
        answers_BT = tokens_BT[:, inputs["input_ids"].shape[1] :]
        texts = self._processor.batch_decode(answers_BT, skip_special_tokens=True)
        asked_B = inputs["attention_mask"].sum(dim=1).tolist()
        written_B = [self._length(answer_T) for answer_T in answers_BT.tolist()]
        return [
            Completion(text, written > limit, asked, min(written, limit))
            for text, asked, written in zip(texts, asked_B, written_B, strict=True)
        ]

    def _length(self, answer_T: Sequence[int]) -> int:
        """Tokens up to the end of the answer; one more than there are if it does not end."""
        ends = self._network.generation_config.eos_token_id
        stops = {*(ends if isinstance(ends, list) else [ends]), self._processor.tokenizer.eos_token_id}
        return next((n for n, token in enumerate(answer_T) if token in stops), len(answer_T) + 1)


def _digest(model: str) -> str | None:
    folder = Path(model)
    return weights.digest(folder) if folder.is_dir() else None


def _message(turn: Turn) -> dict[str, Any]:
    """A turn as transformers' chat templates take it."""
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": Pillow.fromarray(part)}
        for part in turn.parts
    ]
    return {"role": turn.role, "content": content}
