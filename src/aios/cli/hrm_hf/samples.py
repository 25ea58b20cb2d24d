"""What a model makes of the first words of the evaluation text: on its way for the log, at its end for the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from aios.auto_lr.loop.random_state import random_numbers_kept
from aios.cli.hrm_hf.answer import draw
from aios.data.dataset import TokenWindows
from aios.engines.device import Precision
from aios.settings.answering import Answering

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from aios.core.hrm_models import HRMForCausalLM

PROMPT_TOKENS = 12
WORD_TOKENS = 40


@dataclass(frozen=True)
class Sampler:
    """Always the same words to go on from, and the same random numbers: what differs is what was learned."""

    tokenizer: PreTrainedTokenizerBase
    """Of the model."""
    windows: TokenWindows
    """The evaluation text."""
    precision: Precision
    """Number types."""
    seed: int
    """Of what is drawn."""

    def __call__(self, model: HRMForCausalLM) -> tuple[str, str]:
        """(prompt, what the model goes on to say); leaves it in evaluation mode, and all random numbers as they were.

        On several workers that must run in step each of them calls it.
        """
        longest = model.config.max_position_embeddings
        prompt = self.windows[0][: min(PROMPT_TOKENS, longest - 1)].unsqueeze(0).to(model.device)
        with random_numbers_kept(), self.precision.autocast_context(model.device):
            torch.manual_seed(self.seed)
            model.eval()
            tokens = draw(model, prompt, Answering(min(WORD_TOKENS, longest - prompt.shape[1])))
        length = prompt.shape[1]
        return self.tokenizer.decode(tokens[0, :length]), self.tokenizer.decode(tokens[0, length:])
