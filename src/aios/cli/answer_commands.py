"""The commands that use a trained brain: `generate` and `chat`. Thin: parse and hand over."""

from __future__ import annotations

import inspect
import io
import json
import sys
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from aios.cli.cores import share_cores
from aios.cli.flags import DebugOption, with_options
from aios.cli.hrm_hf.trained_brain import TrainedBrain, WeightsPlace, Which, find_weights, open_while_trained
from aios.errors import UserError
from aios.settings.answering import Answering
from aios.settings.config import Device, TrainingConfig
from aios.settings.flag_values import is_utf8

if TYPE_CHECKING:
    from aios.cli.hrm_hf.answer import Answer

STDIN = "-"

NameOption = Annotated[str, typer.Option(help="Name of the brain: its folder under --bundle-dir.")]
BundleOption = Annotated[str, typer.Option(help="Folder that holds the brains.")]
WhichOption = Annotated[
    Which | None,
    typer.Option(
        "--checkpoint",
        help="Weights: of the newest valid checkpoint, of the best evaluation, or those that the brain's folder shows. "
        "Default: those shown, of a brain in training the newest.",
        show_default=False,
    ),
]
LengthOption = Annotated[int, typer.Option(help="Tokens after which an answer ends.")]
TemperatureOption = Annotated[float, typer.Option(help="Divides the logits; 0: always the likeliest token.")]
TopKOption = Annotated[int, typer.Option(help="Draw among so many likeliest tokens; 0: among all.")]
TopPOption = Annotated[float, typer.Option(help="Draw among the likeliest tokens with this share of the probability.")]
SeedOption = Annotated[int, typer.Option(help="Seed of what is drawn.")]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute.")]


class _Asked(NamedTuple):
    """What the options that both commands have come to."""

    config: TrainingConfig
    """Where the brain is, and on which device it answers."""
    how: Answering
    """How it picks its words."""
    which: Which | None
    """The checkpoint that was asked for; None: what is published."""
    found: WeightsPlace
    """Where the weights lie."""


def _asked(
    brain_name: NameOption = TrainingConfig.brain_name,
    bundle_dir: BundleOption = TrainingConfig.bundle_dir,
    checkpoint: WhichOption = None,
    max_new_tokens: LengthOption = Answering.max_new_tokens,
    temperature: TemperatureOption = Answering.temperature,
    top_k: TopKOption = Answering.top_k,
    top_p: TopPOption = Answering.top_p,
    seed: SeedOption = TrainingConfig.seed,
    device: DeviceOption = "auto",
) -> _Asked:
    """The options of both commands are the parameters of this."""
    config = TrainingConfig(bundle_dir=bundle_dir, brain_name=brain_name, seed=seed, device=device)
    how = Answering(max_new_tokens, temperature, top_k, top_p)
    return _Asked(config, how, checkpoint, find_weights(config, checkpoint))


def _asking(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `_asked`, received as `**asked`."""
    return with_options(function, list(inspect.signature(_asked, eval_str=True).parameters.values()))


@_asking
def generate(
    prompt: Annotated[str, typer.Option(help="The text to go on with; - reads it from standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object about it instead of the text.")] = False,
    debug: DebugOption = False,
    **asked: Any,
) -> None:
    """Go on with a text as a trained brain would; prints what it adds, as it comes."""
    to_do = _asked(**asked)
    text = _read_prompt(prompt)
    found, brain = _open(to_do)
    from aios.cli.hrm_hf.answer import answer, encode

    tokens = encode(brain, text)
    if not tokens:
        raise UserError("--prompt holds no token that the brain knows; write a few words.")
    if len(tokens) > brain.window:
        _remark(f"The prompt has {len(tokens)} tokens; the last {brain.window} of them are used, the model's window.")
    pieces: list[str] = []
    given = answer(brain, tokens[-brain.window :], to_do.how, pieces.append if as_json else _show)
    if not as_json:
        _show("\n")
        return
    typer.echo(json.dumps(_told(found, to_do.config, text, len(tokens), "".join(pieces), given)))


@_asking
def chat(debug: DebugOption = False, **asked: Any) -> None:
    """Write a text by turns with a trained brain; Ctrl-C ends an answer, /quit or the end of input the whole."""
    to_do = _asked(**asked)
    _, brain = _open(to_do)
    from aios.cli.hrm_hf.chat import QUIT, converse

    if _is_typed_in():
        _remark(
            f"{to_do.config.brain_dir} goes on with what you write. Ctrl-C ends an answer, {QUIT} the conversation."
        )
    converse(brain, to_do.how, _hear, _show, _remark)


def _open(asked: _Asked) -> tuple[WeightsPlace, TrainedBrain]:
    """Where the brain was found, and itself, ready to draw tokens."""
    share_cores()
    import torch

    found, brain = open_while_trained(asked.found, asked.config, asked.which)
    for sentence in found.remarks:
        _remark(sentence)
    torch.manual_seed(asked.config.seed)
    return found, brain


def _read_prompt(prompt: str) -> str:
    """The text to go on with; of standard input all but the line break at its end."""
    text = prompt
    if prompt == STDIN:
        try:
            text = _standard_input().read().decode("utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise UserError(
                f"The prompt on standard input is not UTF-8 text (byte {error.start}); convert it first."
            ) from error
    if not is_utf8(text):
        raise UserError("--prompt holds bytes that are no UTF-8; convert it first.")
    if not text:
        where = "standard input" if prompt == STDIN else "--prompt"
        raise UserError(f"{where} is empty; write the text that the brain is to go on with.")
    return text


def _standard_input() -> IO[bytes]:
    """Nothing where it was closed before we began."""
    return sys.stdin.buffer if sys.stdin is not None else io.BytesIO()


def _is_typed_in() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _hear() -> str | None:
    """The next line that is typed, None at the end of input or on Ctrl-C."""
    shows = _is_typed_in()
    if shows:
        typer.echo("> ", err=True, nl=False)
    try:
        line = _standard_input().readline()
    except KeyboardInterrupt:
        line = b""
    if not line and shows:
        typer.echo(err=True)
    return line.decode("utf-8", errors="replace").rstrip("\r\n") if line else None


def _show(piece: str) -> None:
    typer.echo(piece, nl=False)


def _remark(sentence: str) -> None:
    typer.echo(sentence, err=True)


def _told(
    found: WeightsPlace, config: TrainingConfig, prompt: str, prompt_tokens: int, text: str, given: Answer
) -> dict[str, Any]:
    """What --json says."""
    return {
        "brain": config.brain_name,
        "weights": str(found.folder),
        "prompt": prompt,
        "prompt_tokens": prompt_tokens,
        "text": text,
        "tokens": len(given.tokens),
        "ended": given.ended,
        "seed": config.seed,
        "seconds": round(given.seconds, 3),
    }
