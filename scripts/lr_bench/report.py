"""The tables of the benchmark, for the terminal, Markdown and JSON alike."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.table import Table as RichTable

from lr_bench.disturbances import CHANGE, DISTURBANCES, NONE, recovery_steps
from lr_bench.jobs import Settings, Store, fair_lr
from lr_bench.methods import AT_FOUND, OURS, PEERS, PRODIGY_DEFAULT
from lr_bench.regret import (
    MEAN_TARGET,
    WORST_TARGET,
    Losses,
    Reference,
    Regret,
    best_tuned_peer,
    mean_over_seeds,
    regret,
    tuned_lr,
)
from lr_bench.workloads import WORKLOADS

NOTHING = "-"
DISTURBED_TARGET = 0.01
COST_TARGET = 0.08


@dataclass(frozen=True)
class Table:
    """Text in rows and columns."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""
    """Said below the table."""

    def rich(self) -> RichTable:
        """For the terminal."""
        table = RichTable(title=self.title, caption=self.note or None)
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For docs/."""
        rule = ["---"] + ["---:"] * (len(self.columns) - 1)
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.columns, rule, *self.rows)]
        return "\n".join([f"### {self.title}", "", *lines, "", *([self.note, ""] if self.note else [])])


def reporting(settings: Settings, store: Store) -> Settings:
    """The same settings with every method, and the workloads of which there are results."""
    names = tuple(name for name in settings.workloads if any(job.workload == name for job in store.records))
    return replace(settings, workloads=names, methods=OURS + PEERS)


def tables(settings: Settings, store: Store) -> Iterator[Table]:
    """Everything there are results for."""
    yield from (table for table in (rates_found(settings, store), against_each_peer(settings, store)) if table.rows)
    for name in settings.workloads:
        losses = store.losses(settings, name)
        yield final_losses(settings, name, losses)
        reference = best_tuned_peer(losses, PEERS, settings.seeds)
        if reference is not None:
            yield regrets(name, losses, reference)
    for name in settings.workloads:
        if any(job.workload == name and job.disturbance != NONE for job in store.records):
            yield disturbance_table(settings, store, name)
    if (cost := costs(settings, store)).rows:
        yield cost


def rates_found(settings: Settings, store: Store) -> Table:
    """By workload: the regret of `auto`, and what of it the choice of the rate is to blame for."""
    rows = []
    for name in settings.workloads:
        losses = store.losses(settings, name)
        reference, best = best_tuned_peer(losses, PEERS, settings.seeds), tuned_lr(losses, "wsd", settings.seeds[0])
        runs = store.from_start(settings, name, "auto")
        found = [(run["job"]["seed"], run["found_lr"]) for run in runs if run.get("found_lr")]
        if reference is None or best is None or not found:
            continue
        result = regret(losses, reference, "auto", [WORKLOADS[name].starts[0]])
        behind = [
            losses[AT_FOUND, lr, seed] / reference.by_seed[seed] - 1
            for seed, lr in found
            if (AT_FOUND, lr, seed) in losses and seed in reference.by_seed
        ]
        middle = math.exp(sum(math.log(lr) for _, lr in found) / len(found))
        rows.append(
            [
                name, str(settings.steps(name)), f"{reference.method} {reference.lr:.2g}",
                NOTHING if result is None else _percent(result.mean),
                NOTHING if result is None else _percent(result.worst_run),
                f"{middle:.2g}", f"{best:.2g}", f"{middle / best:.2f}",
                _percent(sum(behind) / len(behind)) if behind else NOTHING,
                f"{sum(run['search_steps'] for run in runs) / len(runs) / settings.steps(name):.1%}",
            ]
        )  # fmt: skip
    columns = ["workload", "steps", "best tuned peer", "regret", "worst seed", "rate found", "WSD's best", "factor"]
    note = "Selection: WSD at the rate found, seed by seed, against the best tuned peer."
    return Table("auto against the best tuned peer", [*columns, "selection", "steps lost"], rows, note)


def against_each_peer(settings: Settings, store: Store) -> Table:
    """By workload: `auto` against each peer as tuned on the first seed, on the seeds that both were run on."""
    behind = {name: parts for name in settings.workloads if (parts := _behind_peers(settings, store, name))}
    columns = {
        peer: column for peer in PEERS if (column := [parts[peer] for parts in behind.values() if peer in parts])
    }
    rows = [
        [name, *(_percent(parts[peer]) if peer in parts else NOTHING for peer in columns)]
        for name, parts in behind.items()
    ]
    if rows:
        rows += [
            ["median", *(_percent(statistics.median(column)) for column in columns.values())],
            ["geometric mean", *(_percent(_geometric_mean(column)) for column in columns.values())],
            ["below it in", *(f"{sum(part < 0 for part in column)} of {len(column)}" for column in columns.values())],
        ]
    note = "Below zero `auto`, which nobody tunes, ends lower. Each peer at the setting best for it on the first seed."
    return Table("auto against each tuned peer", ["workload", *columns], rows, note)


def _behind_peers(settings: Settings, store: Store, name: str) -> dict[str, float]:
    """By tuned peer: how far `auto` ends behind it, as a part of its loss."""
    losses = store.losses(settings, name)
    found: dict[str, float] = {}
    for peer in PEERS:
        reference = best_tuned_peer(losses, (peer,), settings.seeds)
        if reference is None:
            continue
        result = regret(losses, reference, "auto", [WORKLOADS[name].starts[0]])
        if result is not None:
            found[peer] = result.mean
    return found


def _geometric_mean(parts: Sequence[float]) -> float:
    return statistics.geometric_mean([1 + part for part in parts]) - 1


def final_losses(settings: Settings, name: str, losses: Losses) -> Table:
    """Final evaluation loss by method and starting LR; the last column tells of the tuned setting."""
    starts = WORKLOADS[name].starts
    rows = []
    for method in settings.methods:
        cells = [_number(mean_over_seeds(losses, method, start_of(method, lr))) for lr in starts]
        best = tuned_lr(losses, method, settings.seeds[0])
        if best is not None:
            tried = sorted({lr for other, lr, _ in losses if other == method})
            edge = " (edge)" if len(tried) > 1 and best in (tried[0], tried[-1]) else ""
            rows.append([method, *cells, f"{_number(mean_over_seeds(losses, method, best))} at {best:.2g}{edge}"])
    title = f"{name}: final loss by starting learning rate, {settings.steps(name)} steps"
    return Table(title, ["method", *(f"{lr:.0e}" for lr in starts), f"best (by seed {settings.seeds[0]})"], rows)


def start_of(method: str, lr: float) -> float:
    """What a method is given as `lr` by somebody who begins at `lr`: Prodigy takes none, its default serves."""
    return PRODIGY_DEFAULT if method == "prodigy" else lr


def regrets_by_method(name: str, losses: Losses, reference: Reference) -> dict[str, Regret]:
    """Regret over the starting LRs of every method that was run from them."""
    starts = WORKLOADS[name].starts
    found = {m: regret(losses, reference, m, sorted({start_of(m, lr) for lr in starts})) for m in OURS + PEERS}
    return {method: result for method, result in found.items() if result is not None}


def regrets(name: str, losses: Losses, reference: Reference) -> Table:
    """Regret of every method, untuned, against the best tuned peer."""
    rows = []
    for method, result in regrets_by_method(name, losses, reference).items():
        verdict = ("yes" if result.on_target else "NO") if method == "auto" else NOTHING
        numbers = [_percent(x) for x in (result.mean, result.worst, result.worst_run)]
        rows.append([method, *numbers, str(len(result.by_lr)), verdict])
    of = sum(reference.by_seed.values()) / len(reference.by_seed)
    best = f"{reference.method} at {reference.lr:.2g}: {of:.4f}, seeds {', '.join(map(str, reference.by_seed))}"
    columns = ["method", "mean", "worst start", "worst run", "starts", "on target"]
    note = (
        f"Target of `auto`: mean at most {MEAN_TARGET:+.0%}, worst start (seed mean) at most {WORST_TARGET:+.1%}. "
        "Each method on the seeds it was run on, the reference on the same; peers here are untuned."
    )
    title = f"{name}: regret from every start against the best tuned peer ({best})"
    return Table(title, columns, rows, note)


def disturbance_table(settings: Settings, store: Store, name: str) -> Table:
    """Final loss against the undisturbed run of the same method, and steps to recover, means over the seeds."""
    rows = []
    for method in settings.methods:
        lr = fair_lr(settings, store, name, method)
        found = {} if lr is None else disturbance_effects(settings, store, name, method, lr)
        if found:
            rows.append([f"{method} ({lr:.2g})", *(_cell(found.get(kind), kind) for kind in DISTURBANCES)])
    title = f"{name}: trouble in mid-run; change of the final loss, steps to recover"
    note = (
        f"Against the undisturbed run of the same method, seeds as above; target: within {DISTURBED_TARGET:.0%}. "
        "Recovered: mean training loss of the next 5 % of the run within 2 % of that run's. After the change of data "
        "the undisturbed run is a whole run on the old data, as hard as the new; in brackets the loss on the new. "
        "The peers have no guard of their own against NaN; `rules` and `auto` skip such an update."
    )
    return Table(title, ["method (LR)", *DISTURBANCES], rows, note)


@dataclass(frozen=True)
class Effect:
    """What a disturbance did to a method, on the mean of the seeds."""

    change: float
    """Of the final loss, as a part of the undisturbed run's."""
    final: float
    """Final loss (after a change of data: on the new)."""
    recovery: float | None
    """Optimizer steps to recover, None if a seed never did."""


def disturbance_effects(settings: Settings, store: Store, name: str, method: str, lr: float) -> dict[str, Effect]:
    """By kind of disturbance, those for which there are both runs."""
    effects = {}
    for kind in DISTURBANCES:
        finals, bases, recoveries = list[float](), list[float](), list[int | None]()
        for seed in settings.seeds:
            with_trouble = store.records.get(settings.job(name, method, lr, seed, kind))
            without = store.records.get(settings.job(name, method, lr, seed))
            if with_trouble is not None and without is not None and without["final"] is not None:
                finals.append(math.inf if with_trouble["final"] is None else with_trouble["final"])
                bases.append(without["final"])
                curves = with_trouble["train_loss"], without["train_loss"]
                recoveries.append(recovery_steps(*curves, settings.steps(name)))
        if finals:
            known = [steps for steps in recoveries if steps is not None]
            recovery = sum(known) / len(known) if len(known) == len(recoveries) else None
            effects[kind] = Effect(sum(finals) / sum(bases) - 1, sum(finals) / len(finals), recovery)
    return effects


def _cell(effect: Effect | None, kind: str) -> str:
    if effect is None:
        return NOTHING
    loss = f" ({_number(effect.final)})" if kind == CHANGE else ""
    recovered = "never" if effect.recovery is None else f"{effect.recovery:.0f}"
    return f"{_percent(effect.change)}{loss}, {recovered}"


def costs(settings: Settings, store: Store) -> Table:
    """What `auto` costs: search in steps and time, time of a whole run over `constant`, memory."""
    rows = []
    for name in settings.workloads:
        auto, plain = (store.undisturbed(settings, name, method) for method in ("auto", "constant"))
        if auto and plain:
            seconds, baseline = (_mean(records, "seconds") for records in (auto, plain))
            search = _mean(auto, "search_seconds") / seconds
            steps = _mean(auto, "search_steps") / settings.steps(name)
            memory = f"{max(r['extra_bytes'] for r in auto) / 2**20:.1f} MiB"
            rows.append([name, f"{steps:.1%}", f"{search:.1%}", _percent(seconds / baseline - 1), memory])
    columns = ["workload", "search, steps", "search, time", "whole run against constant", "extra memory"]
    return Table(f"Cost of `auto` (target: at most {COST_TARGET:.0%})", columns, rows)


def summary(settings: Settings, store: Store) -> dict[str, Any]:
    """The figures behind the tables, as JSON (an infinite regret is the string "diverged")."""
    found: dict[str, Any] = {"settings": asdict(settings), "workloads": {}}
    for name in settings.workloads:
        losses = store.losses(settings, name)
        reference = best_tuned_peer(losses, PEERS, settings.seeds)
        entry: dict[str, Any] = {
            "steps": settings.steps(name),
            "runs": [
                {"method": method, "lr": lr, "seed": seed, "final": _json(loss)}
                for (method, lr, seed), loss in sorted(losses.items())
            ],
        }
        if reference is not None:
            entry["reference"] = asdict(reference)
            entry["regret"] = {
                method: {key: _json(getattr(result, key)) for key in ("mean", "worst", "worst_run")}
                | {"by_lr": {f"{lr:.3g}": _json(x) for lr, x in result.by_lr.items()}}
                for method, result in regrets_by_method(name, losses, reference).items()
            }
        if trouble := _effects_by_method(settings, store, name):
            entry["disturbances"] = trouble
        found["workloads"][name] = entry
    return found


def _effects_by_method(settings: Settings, store: Store, name: str) -> dict[str, Any]:
    rates = {method: fair_lr(settings, store, name, method) for method in settings.methods}
    effects = {m: disturbance_effects(settings, store, name, m, lr) for m, lr in rates.items() if lr is not None}
    return {
        method: {
            kind: {"change": _json(e.change), "final": _json(e.final), "recovery_steps": e.recovery}
            for kind, e in found.items()
        }
        for method, found in effects.items()
        if found
    }


def _mean(records: list[dict[str, Any]], key: str) -> float:
    return sum(float(record[key]) for record in records) / len(records)


def _json(value: float) -> float | str:
    return value if math.isfinite(value) else "diverged"


def _number(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.4f}" if math.isfinite(value) else "diverged"


def _percent(part: float) -> str:
    return f"{100 * part:+.1f} %" if math.isfinite(part) else "diverged"
