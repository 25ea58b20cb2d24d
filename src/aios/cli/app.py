"""The `aios` command. Heavy imports (torch, transformers) wait until a command needs them."""

from __future__ import annotations

import errno
import functools
import io
import logging
import sys
import traceback
from types import TracebackType
from typing import Annotated

import typer

import aios
from aios.cli.gui_command import gui
from aios.cli.hrm_commands import hrm_hf
from aios.distributed.environment import place_of
from aios.distributed.launch_notes import refuse
from aios.errors import LostWorkersError, RunError, UserError, is_out_of_memory, one_line

_NO_MEMORY = (
    "the memory that this process may use is used up; close other programs, raise the limit, or take a smaller "
    "--batch-size, --max-seq-len or --preset (--debug shows where)."
)

app = typer.Typer(
    help="AI-OS: train Hierarchical Reasoning Models without choosing a learning rate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(hrm_hf, name="hrm-hf")
app.command("gui")(gui)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"aios {aios.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """AI-OS: train Hierarchical Reasoning Models without choosing a learning rate."""


def _report_failure(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An uncaught exception ends the process with exit code 1; say it in one sentence."""
    if is_out_of_memory(error):
        typer.echo(f"{_speaker()}Error: {_NO_MEMORY}", err=True)
        return
    sentence = one_line(error) or "no further detail"
    typer.echo(f"{_speaker()}Error: {kind.__name__}: {sentence} (--debug shows the traceback)", err=True)


def _speaker() -> str:
    """Which worker speaks, where there are several."""
    place = place_of()
    return f"[worker {place.rank}] " if place is not None and place.world_size > 1 else ""


@functools.cache
def command() -> typer.core.TyperGroup:
    """`aios` with all that is below it, built from the signatures, which takes a while."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup), "it has commands"
    return group


def _run() -> None:
    """The command that is asked for; a name that no file can have is bad input, wherever it is met."""
    try:
        command()(prog_name="aios")
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise UserError(f"The name {error.filename} is longer than the file system allows; shorten it.") from error


def _not_about_devices(record: logging.LogRecord) -> bool:
    """Whether what DeepSpeed logs, on standard output, is more than the CPU it has found: where transformers finds it
    installed, that is told of each training, which need not use it."""
    return not record.getMessage().startswith("Setting accelerator to CPU")


def main() -> None:
    """Run the command line: exit 0 done, 1 failed, 2 bad usage or bad input."""
    if "--debug" not in sys.argv:
        sys.excepthook = _report_failure
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")  # a letter that a terminal has not shall cost no run
    logging.getLogger("DeepSpeed").addFilter(_not_about_devices)
    try:
        _run()
    except (UserError, RunError) as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        typer.echo(f"{_speaker()}Error: {one_line(error)}", err=True)
        exit_code = 2 if isinstance(error, UserError) else 1
        if place_of() is not None and not isinstance(error, LostWorkersError):
            refuse(exit_code)
        sys.exit(exit_code)
