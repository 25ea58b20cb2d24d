"""`aios hrm-hf watch` and `aios hrm-hf replay`: they only read a training log. Thin: parse and hand over."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from aios.errors import UserError

PLAIN_WIDTH = 160
"""Columns of a table that goes into a file or a pipe."""

LogArgument = Annotated[
    Path, typer.Argument(metavar="LOG", help="A training log (metrics.jsonl), or the folder of a brain.")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show a traceback when it fails.")]


def watch(log: LogArgument, debug: DebugOption = False) -> None:
    """Watch a training in the terminal until it ends; Ctrl-C leaves, the training goes on."""
    from aios.terminal.watch import watch_log

    watch_log(log, Console(highlight=False))


def replay(
    log: LogArgument,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An adaptive-LR setting, or profile=rules or profile=auto."),
    ] = None,
    adaptive_lr_config: Annotated[
        str | None, typer.Option(metavar="FILE", help="Settings file in place of the recorded run's.")
    ] = None,
    rank: Annotated[int, typer.Option(min=0, help="The worker, in the log of several.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Draw the recorded and the replayed LR into this picture.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Feed a recorded run's losses to the adaptive LR under other settings; show what it would have decided.

    The losses stay those recorded: under another learning rate they would have been different.
    """
    from aios.replay.recording import read_recording
    from aios.replay.replay import parse_settings
    from aios.replay.replay import replay as replay_run
    from aios.terminal import replay_view

    choice = dataclasses.replace(parse_settings(settings or []), settings_file=adaptive_lr_config)
    if output is not None and not output.absolute().parent.is_dir():
        raise UserError(f"There is no folder {output.parent} to draw into; choose another --output.")
    recording = read_recording(log, rank)
    replayed = replay_run(recording, choice)
    if output is not None:
        replay_view.draw_replay(recording, replayed, output)
    if as_json:
        typer.echo(json.dumps(replay_view.as_json(recording, replayed, choice), indent=2, allow_nan=False))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, PLAIN_WIDTH)
    replay_view.print_replay(console, recording, replayed, choice)
    if output is not None:
        console.print(f"The picture is in {output}.", markup=False, soft_wrap=True)
