"""The command that lists the brains in a folder: `runs`. Thin: the list is the one that the window shows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aios.cli.answer_commands import BundleOption
from aios.cli.flags import DebugOption
from aios.errors import UserError
from aios.places import expanded
from aios.settings.config import TrainingConfig

if TYPE_CHECKING:
    from aios.brains.brain_list import Brain

SortOption = Annotated[
    Literal["newest", "name", "state", "steps", "loss", "eval", "best"],
    typer.Option("--sort", help="By which column; newest: the brain written to last comes first."),
]


def runs(
    bundle_dir: BundleOption = TrainingConfig.bundle_dir,
    sort: SortOption = "newest",
    reverse: Annotated[bool, typer.Option("--reverse", help="In the opposite order.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of the table.")] = False,
    debug: DebugOption = False,
) -> None:
    """List the brains in a folder: state, steps, newest loss, newest and best evaluation loss."""
    from aios.brains.brain_list import list_brains
    from aios.brains.columns import COLUMNS, Order, ordered
    from aios.terminal.tables import listing, table_console

    folder = expanded(bundle_dir)
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder} with brains; train one, or name another --bundle-dir.")
    found = list_brains(folder)
    brains = ordered(found, Order(sort, reverse)) if sort != "newest" else found[:: -1 if reverse else 1]
    if as_json:
        for brain in brains:
            typer.echo(json.dumps(_told(brain)))
    elif not brains:
        typer.echo(f"No brains in {folder} yet.")
    else:
        headings = [(column.heading, column.is_number) for column in COLUMNS]
        table_console().print(listing(headings, [[column.text(brain) for column in COLUMNS] for brain in brains]))


def _told(brain: Brain) -> dict[str, Any]:
    """What --json says of a brain; null for what is not known."""
    from aios.brains.notes import read_notes

    return {
        "name": brain.name,
        "folder": str(brain.folder),
        "log": str(brain.log),
        "state": brain.state.value,
        "step": brain.step,
        "steps": brain.steps,
        "loss": brain.loss,
        "eval_loss": brain.eval_loss,
        "best_loss": brain.best_loss,
        "why": brain.sentence,
        "modified": brain.modified,
        "notes": read_notes(brain.folder),
    }
