"""What a trained brain makes of a text: tokens drawn one by one, shown as soon as they are text."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList, TextStreamer

from aios.cli.hrm_hf.trained_brain import TrainedBrain
from aios.core.hrm_models import CACHE_NAME
from aios.data.tokenizer import end_of_document_id
from aios.settings.answering import Answering

if TYPE_CHECKING:
    from aios.core.hrm_models import HRMCache, HRMForCausalLM

Show = Callable[[str], object]
"""Takes the text of an answer piece by piece."""
_BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer makes of the bytes of a character that has only begun."""


@dataclass(frozen=True)
class Answer:
    """How a text went on."""

    tokens: list[int]
    """The new ones, without the one that ends a text."""
    ended: str
    """`end of text`, `length` or `interrupted`."""
    seconds: float
    """Wall time."""
    cache: HRMCache | None
    """What the model keeps of the whole text, for an answer that goes on from there."""


class _Shown(TextStreamer):  # type: ignore[misc,unused-ignore]
    """Hands on what can no longer change: whole words, and at the end no half of a character."""

    def __init__(self, brain: TrainedBrain, show: Show) -> None:
        super().__init__(brain.tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._show = show

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Show a piece; what cannot become a character any more is left out."""
        self._show(text.rstrip(_BROKEN) if stream_end else text)


class _Interrupted(StoppingCriteria):  # type: ignore[misc,unused-ignore]
    """Ends an answer between two tokens once Ctrl-C was pressed."""

    def __init__(self, pressed: threading.Event) -> None:
        self._pressed = pressed

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        """True for each row, or for none."""
        return torch.full((input_ids.shape[0],), self._pressed.is_set(), device=input_ids.device)


@contextmanager
def _ctrl_c() -> Iterator[threading.Event]:
    """Set by Ctrl-C meanwhile, which then does nothing else: an exception amid a step would spoil the cache."""
    pressed = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: pressed.set())
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def encode(brain: TrainedBrain, text: str) -> list[int]:
    """The tokens of a text, as in training: none around them."""
    ids: list[int] = brain.tokenizer.encode(text, add_special_tokens=False)
    return ids


def draw(model: HRMForCausalLM, ids: Tensor, how: Answering, **more: Any) -> Any:
    """`ids` (1, time) and the tokens that go on from them; `more` is for transformers' `generate`, as is the result.

    A model whose weights are no longer finite says words at random.
    """
    drawing: dict[str, Any] = {"do_sample": False}
    if how.samples:
        drawing = {"do_sample": True, "temperature": how.temperature, "top_k": how.top_k, "top_p": how.top_p}
    return model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=how.max_new_tokens,
        remove_invalid_values=True,
        **drawing,
        **more,
    )


def answer(brain: TrainedBrain, tokens: list[int], how: Answering, show: Show, cache: HRMCache | None = None) -> Answer:
    """Go on with a text; Ctrl-C ends the answer.

    `cache` is that of an earlier answer, whose text and answer `tokens` begin with.
    """
    begun = time.perf_counter()
    end = end_of_document_id(brain.tokenizer)
    ids = torch.tensor([tokens], device=brain.model.device)
    # A model that is only asked: without what torch keeps for gradients to come, a token takes a tenth less.
    with _ctrl_c() as pressed, torch.inference_mode():
        output = draw(
            brain.model,
            ids,
            how,
            eos_token_id=end,
            pad_token_id=end,
            cache=cache,
            use_cache=True,
            return_dict_in_generate=True,
            streamer=_Shown(brain, show),
            stopping_criteria=StoppingCriteriaList([_Interrupted(pressed)]),
        )
    new = output.sequences[0, len(tokens) :].tolist()
    finished = bool(new) and new[-1] == end
    ended = "end of text" if finished else "interrupted" if pressed.is_set() else "length"
    return Answer(new[:-1] if finished else new, ended, time.perf_counter() - begun, output.get(CACHE_NAME))
