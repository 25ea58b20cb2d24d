"""What the campaign has found: as a table for the terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from faults.records import HELD, MISSED

COLUMNS = ("kind", "code", "cases", "faults", "held", "missed", "did not hold", "seconds")
LEFT = ("kind", "code", "did not hold")
SHOWN = 40
"""Cases that did not hold, listed in the Markdown at most."""


def summarize(records: Iterable[dict[str, Any]], kinds: Sequence[str], code: str) -> list[dict[str, Any]]:
    """For each kind: cases, faults, those that held, and the other verdicts by name; all were run on `code`."""
    rows, records = [], list(records)
    for kind in kinds:
        mine = [record for record in records if record["kind"] == kind]
        if not mine:
            continue
        verdicts = Counter(record["verdict"] for record in mine)
        rows.append(
            {
                "kind": kind,
                "code": code,
                "cases": len(mine),
                "faults": sum(record["faults"] for record in mine if record["verdict"] != MISSED),
                "held": verdicts.pop(HELD, 0),
                "missed": verdicts.pop(MISSED, 0),
                "failed": dict(verdicts.most_common()),
                "seconds": round(sum(record["seconds"] for record in mine), 1),
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """For the terminal."""
    shown = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in COLUMNS:
        shown.add_column(name, justify="left" if name in LEFT else "right")
    for row in rows:
        style = "red" if row["failed"] else None
        shown.add_row(*_cells(row), style=style)
    return shown


def _cells(row: dict[str, Any]) -> list[str]:
    failed = ", ".join(f"{count} {verdict}" for verdict, count in row["failed"].items()) or "-"
    numbers = [f"{row[name]:,}" for name in ("cases", "faults", "held", "missed")]
    return [row["kind"], row["code"], *numbers, failed, f"{row['seconds']:,.0f}"]


def write(records: Sequence[dict[str, Any]], kinds: Sequence[str], code: str, command: str, json_path: Path) -> None:
    """Write the summary as JSON to `json_path` and as Markdown beside it.

    Kinds that were not run on `code` keep their rows of before, which name the code that they were run on.
    """
    rows = summarize(records, kinds, code)
    bad = [record for record in records if record["verdict"] not in (HELD, MISSED)]
    if json_path.exists():
        rows, bad = _with_older(rows, bad, json.loads(json_path.read_text(encoding="utf-8")), kinds)
    json_path.parent.mkdir(parents=True, exist_ok=True)
    summary = {"command": command, "kinds": rows, "did_not_hold": bad}
    json_path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# The campaign of faults",
        "",
        f"Made by `{command}`. `held`: nothing lost beyond the last save, no silent difference, no traceback, an exit",
        "code as promised. `missed`: the fault never happened, for example because the process had ended before.",
        f"`code`: a hash of `src` as it was when the kind was run; as this was written it was {code}.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'|'.join('---' if name in LEFT else '---:' for name in COLUMNS)}|",
        *(f"| {' | '.join(_cells(row))} |" for row in rows),
        "",
    ]
    if bad:
        lines += ["## What did not hold", ""]
        lines += [f"- `{r['kind']}` {r['name']}: **{r['verdict']}**: {_plain(r['detail'])}" for r in bad[:SHOWN]]
        lines += ["", f"{len(bad)} in all; the rest is in the JSON beside this file." if len(bad) > SHOWN else ""]
    json_path.with_suffix(".md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _with_older(
    rows: list[dict[str, Any]], bad: list[dict[str, Any]], older: dict[str, Any], kinds: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """With what an older summary has of kinds that were not run anew."""
    done = {row["kind"] for row in rows}
    rows = rows + [row for row in older["kinds"] if row["kind"] not in done]
    bad = bad + [record for record in older["did_not_hold"] if record["kind"] not in done]
    return sorted(rows, key=lambda row: kinds.index(row["kind"])), bad


def _plain(text: str, longest: int = 240) -> str:
    """On one line, without what Markdown would take for its own."""
    line = " ".join(text.split())
    for mark in ("`", "<", "|", "*", "_"):
        line = line.replace(mark, "\\" + mark)
    return line if len(line) <= longest else line[:longest] + "..."
