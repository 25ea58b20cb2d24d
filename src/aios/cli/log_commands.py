"""The commands that only read a training log: `plot`, `lr-log`, `watch`, `replay`. Thin: parse and hand over."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from aios.cli.flags import DebugOption
from aios.errors import UserError
from aios.places import expanded
from aios.runs.writable import check_writable

FORMATS = (".png", ".svg", ".pdf", ".jpg", ".webp")

LogArgument = Annotated[
    Path,
    typer.Argument(metavar="LOG", parser=expanded, help="A training log (metrics.jsonl), or the folder of a brain."),
]


def check_picture(output: Path) -> None:
    """Refuse, before anything is done, an --output that no picture can be written to.

    Raises:
        UserError: when it is a folder, has another ending than a picture, or lies where no folder is, or nothing can be
            written.
    """
    if output.is_dir():
        raise UserError(f"{output} is a folder; give --output the name of a picture file.")
    if output.suffix.lower() not in FORMATS:
        known = ", ".join(FORMATS)
        raise UserError(f"{output} has an ending that is no picture format; use one of {known} for --output.")
    if not output.parent.is_dir():
        raise UserError(f"There is no folder {output.parent} to draw into; make it, or choose another --output.")
    check_writable(output.parent, "--output")


def plot(
    logs: Annotated[
        list[Path], typer.Argument(metavar="LOG...", parser=expanded, help="Training logs, or folders of brains.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            parser=expanded,
            help="Where the picture goes; its ending says the format.",
        ),
    ] = Path("run.png"),
    dark: Annotated[bool, typer.Option("--dark", help="Light on dark.")] = False,
    debug: DebugOption = False,
) -> None:
    """Draw loss and learning rate of one run, or of several over each other, with a mark at each adjustment."""
    check_picture(output)
    # Imported late: matplotlib takes its time, and `aios --help` does not need it.
    from aios.run_view.reading import labels_of, read_history

    histories = [read_history(log) for log in logs]
    for log, history in zip(logs, histories, strict=True):
        if history.train_records == 0:
            raise UserError(f"{log} holds no training step yet, so there is nothing to draw; wait until the run has.")
    _save_picture(list(zip(labels_of(logs, histories), histories, strict=True)), output, dark)
    typer.echo(f"The picture is in {output}.")


def _save_picture(runs: Sequence[tuple[str, Any]], output: Path, dark: bool) -> None:
    from aios.run_view.drawing import DARK, LIGHT, RUN_SIZE, blank_picture, draw_run, save_picture

    figure = blank_picture(RUN_SIZE)
    draw_run(figure, runs, DARK if dark else LIGHT)
    save_picture(figure, output)


def lr_log(
    log: LogArgument,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of the table.")] = False,
    debug: DebugOption = False,
) -> None:
    """List the decisions of a run, from its start to its end: when, what, why, and the numbers behind it."""
    from aios.run_view.reading import read_history
    from aios.run_view.timeline import as_data
    from aios.terminal.tables import table_console, timeline_table

    history = read_history(log)
    decisions = history.decisions
    if as_json:
        for decision in decisions:
            typer.echo(json.dumps(as_data(decision)))
        return
    console = table_console()
    if not decisions:
        console.print(f"The log tells of no decision in {history.step:,} steps.")
        return
    console.print(timeline_table(decisions, several=len({d.rank for d in decisions}) > 1))
    if history.decision_count > len(decisions):
        console.print(f"These are the newest {len(decisions):,} of {history.decision_count:,} decisions.")


def watch(log: LogArgument, debug: DebugOption = False) -> None:
    """Watch a training in the terminal until it ends, from before it begins; Ctrl-C leaves, the training goes on."""
    from rich.console import Console

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
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            parser=expanded,
            help="Draw the recorded and the replayed LR into this picture.",
        ),
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
    from aios.terminal.tables import table_console

    choice = dataclasses.replace(parse_settings(settings or []), settings_file=adaptive_lr_config)
    if output is not None:
        check_picture(output)
    recording = read_recording(log, rank)
    replayed = replay_run(recording, choice)
    if output is not None:
        replay_view.draw_replay(recording, replayed, output)
    if as_json:
        typer.echo(json.dumps(replay_view.as_json(recording, replayed, choice), indent=2, allow_nan=False))
        return
    console = table_console()
    replay_view.print_replay(console, recording, replayed, choice)
    if output is not None:
        console.print(f"The picture is in {output}.", markup=False, soft_wrap=True)
