"""The table of the benchmark, for the terminal and for docs/."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

from integration_bench.methods import COSINE_RATES
from integration_bench.problem import LENGTH, LORA, ROWS, SCRATCH, STEPS

COLUMNS = ("framework", "task", "method", "rate", "mean loss", "ratio", "worst seed")


@dataclass(frozen=True)
class Row:
    """A method under a framework on a task."""

    framework: str
    task: str
    method: str
    lr: float | None
    """Learning rate; None where the method chooses it itself."""
    losses: list[float]
    """Held-out loss by seed, nats per byte."""
    cosine_losses: list[float]
    """The tuned cosine's, on the same seeds."""

    @property
    def ratio(self) -> float:
        """Mean loss over the tuned cosine's; above 1 is worse."""
        return sum(self.losses) / sum(self.cosine_losses)

    def cells(self) -> list[str]:
        """Its line of the table."""
        worst = max(a / b for a, b in zip(self.losses, self.cosine_losses, strict=True))
        rate = f"{self.lr:.2g}" if self.lr is not None else "-"
        mean = sum(self.losses) / len(self.losses)
        return [self.framework, self.task, self.method, rate, f"{mean:.4f}", f"{self.ratio:.3f}", f"{worst:.3f}"]


def table(rows: list[Row]) -> Table:
    """For the terminal."""
    drawn = Table(*COLUMNS[:3], title="held-out loss, and its ratio to the tuned cosine's")
    for name in COLUMNS[3:]:
        drawn.add_column(name, justify="right")
    for row in rows:
        drawn.add_row(*row.cells())
    return drawn


def markdown(rows: list[Row], command: str, seeds: tuple[int, ...]) -> str:
    """For docs/."""
    about = f"""# AutoLR in other trainers

Made by `{command}`.
A small GPT-2 on bytes, batches of {ROWS} windows of {LENGTH}: from scratch on the bundled text
({STEPS[SCRATCH]} steps), and by LoRA of rank 8 after a training on Python's sources ({STEPS[LORA]}).
Ours climb in both, and what a climb takes is among the steps.
Held-out loss, mean over seeds {", ".join(map(str, seeds))}. The cosine's rate
is the best of {len(COSINE_RATES)} on the first seed; `ratio` is to its mean, and above 1 is worse. `default` is the
framework's own or, where it has none, AdamW's rate (torch, Lightning) and that of our example (Accelerate): not tuned.
"""
    head = ["| " + " | ".join(COLUMNS) + " |", "|---|---|---|" + "---:|" * len(COLUMNS[3:])]
    return "\n".join([about, *head, *("| " + " | ".join(row.cells()) + " |" for row in rows), ""])
