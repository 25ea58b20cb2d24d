"""The commands `aios hrm-hf ...`: thin, they parse and hand over."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from aios.cli.answer_commands import chat, generate
from aios.cli.cores import share_cores
from aios.cli.flag_help import Example, FlagsCommand
from aios.cli.flags import DebugOption, config_options, given_flags
from aios.cli.hrm_hf.origin import brain_folder, find_origin
from aios.cli.log_commands import check_picture, lr_log, plot, replay, watch
from aios.cli.runs_command import runs
from aios.distributed.environment import WorkerPlace, parent_of, place_of
from aios.distributed.launch_notes import has_own_launcher, refused
from aios.distributed.parent import die_with, end_after
from aios.errors import UserError
from aios.places import expanded
from aios.runs.lock import RUN, WRITER, BrainLock

hrm_hf = typer.Typer(help="Train and inspect Hierarchical Reasoning Models (HRM ACT v1).", no_args_is_help=True)


@hrm_hf.callback()
def _group() -> None:
    """Train and inspect Hierarchical Reasoning Models (HRM ACT v1)."""


class _TrainCommand(FlagsCommand):
    examples = (
        Example("aios hrm-hf train", "the bundled text; the learning rate is found and adjusted on the way"),
        Example("aios hrm-hf train --dataset-file my.txt --brain-name mine --steps 2000", "a text of your own"),
        Example("aios hrm-hf train --brain-name mine --resume --steps 4000", "go on where that run ended"),
        Example("aios hrm-hf train --preset small --device cuda --brain-name big", "a larger model, on a GPU"),
        Example("aios hrm-hf train --no-auto-adjust-lr --lr 1e-3 --brain-name fixed", "a learning rate of your own"),
    )


@config_options
def train(
    context: typer.Context,
    debug: DebugOption = False,
    **flags: Any,
) -> None:
    """Train an HRM on text; with the adaptive learning rate unless told otherwise."""
    place, given = place_of(), given_flags(context)
    if place is not None and place.launcher is not None:
        end_after(place.launcher)
    if place is not None and (exit_code := refused()) is not None:
        raise typer.Exit(exit_code)
    if place is not None:
        given.setdefault("world_size", place.world_size)
    with _brain_lock(brain_folder(given), place) as lock:
        if lock.remark is not None:
            typer.echo(lock.remark, err=True)
        _train(given, place, lock)


def _brain_lock(brain_dir: Path, place: WorkerPlace | None) -> BrainLock:
    """What this process must hold while it trains: of several workers the first writes, for the others too."""
    if place is None:
        return BrainLock(brain_dir)
    if place.rank > 0:
        return BrainLock(brain_dir, parts=())
    return BrainLock(brain_dir, (WRITER,) if has_own_launcher() else (RUN, WRITER))


def _train(given: dict[str, Any], place: WorkerPlace | None, lock: BrainLock) -> None:
    """Train as the flags say, in this process or in workers of its own."""
    origin = find_origin(given, restarted=place is not None and place.restarts > 0)
    share_cores()
    # Imported late: torch takes seconds, and bad input has been refused by now.
    if origin.config.shares_weights and place is None:
        from aios.cli.hrm_hf.launch import launch

        launch(origin, sys.argv[1:], lock)
    elif origin.config.parallel_independent:
        from aios.cli.hrm_hf.parallel_training_v3 import train_independently

        train_independently(origin, lock)
    else:
        from aios.cli.hrm_hf.train_actv1 import train_actv1

        train_actv1(origin, lock)


hrm_hf.command("train", cls=_TrainCommand)(train)
hrm_hf.command("train-actv1", cls=_TrainCommand, help="The older name of train.", hidden=True)(train)


@hrm_hf.command("independent-worker", hidden=True)
def independent_worker(
    folder: Path,
    rank: int,
    checkpoint: Path,
    number: int,
    heartbeat: int,
    debug: DebugOption = False,
) -> None:
    """One worker of `train --parallel-independent`, which starts it: not for people."""
    die_with(parent_of())
    share_cores()
    from aios.cli.hrm_hf.parallel_worker import work

    work(folder, rank, checkpoint, number, heartbeat)


hrm_hf.command("plot")(plot)
hrm_hf.command("lr-log")(lr_log)
hrm_hf.command("watch")(watch)
hrm_hf.command("replay")(replay)
hrm_hf.command("runs")(runs)
hrm_hf.command("generate")(generate)
hrm_hf.command("chat")(chat)


class _LrFindCommand(FlagsCommand):
    examples = (
        Example("aios hrm-hf lr-find -o search.png", "for a run on the bundled text, with all defaults"),
        Example("aios hrm-hf lr-find --dataset-file my.txt --preset small", "for a run on a text of your own"),
    )


@hrm_hf.command("lr-find", cls=_LrFindCommand)
@config_options
def lr_find(
    context: typer.Context,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", parser=expanded, help="Where the picture goes.")
    ] = Path("lr_find.png"),
    debug: DebugOption = False,
    **flags: Any,
) -> None:
    """Search the learning rate that training with these flags would begin with; draws the curve, trains nothing."""
    origin = find_origin(given_flags(context), trains=False)
    if origin.config.several_workers:
        raise UserError("lr-find searches on one device; leave out the flags of several workers.")
    check_picture(output)
    share_cores()
    from aios.cli.lr_find import lr_find

    lr_find(origin, output)
