"""How a run ended, in the words of its closing table."""

from __future__ import annotations

from aios.cli.hrm_hf.run_keeper import RunKeeper
from aios.cli.hrm_hf.train_epoch import TrainingRun
from aios.runs.brain import best_dir


def summary_rows(keeper: RunKeeper, unigram_entropy: float) -> list[tuple[str, str]]:
    """(name, value) lines; `unigram_entropy` in nats per token."""
    run, config = keeper.run, keeper.run.config
    whose = " (mean of the workers)" if config.parallel_independent else ""
    return [
        ("Steps", _steps(keeper)),
        ("Training loss", f"{run.last_loss:.4f} nats per token{whose}"),
        *_evaluation(run),
        ("Unigram entropy", f"{unigram_entropy:.4f} nats per token: what knowing only word counts gives"),
        ("Learning rate", _learning_rate(run)),
        ("Brain", str(config.brain_dir)),
        ("Log", str(config.log_path)),
    ]


def _steps(keeper: RunKeeper) -> str:
    searched, auto = keeper.result()["search_steps"], keeper.run.auto
    told = f" (finding the learning rate took the work of {searched})" if searched else ""
    return f"{auto.step_count} of {auto.end}{told}"


def _evaluation(run: TrainingRun) -> list[tuple[str, str]]:
    if run.last_eval is None:
        return []
    step, loss = run.last_eval
    rows = [("Evaluation loss", f"{loss:.4f} nats per token (at step {step})")]
    best = run.auto.evaluations.best
    if best is not None and best.step != step:
        place = f"at step {best.step}, the brain in {best_dir(run.config.brain_dir)}"
        rows.append(("Best evaluation", f"{best.loss:.4f} nats per token ({place})"))
    return rows


def _learning_rate(run: TrainingRun) -> str:
    control, last = run.auto.control, float(run.optimizers[0].param_groups[0]["lr"])
    if run.engine.schedules_lr:
        return f"by DeepSpeed's scheduler, now at {last:.3g}"
    if run.auto.climbing:
        return f"{last:.3g}, on the climb that finds it"
    if control is None:
        return f"{last:.3g}, not trained with yet"
    if run.step < control.plan.warmup_end:
        return f"{last:.3g}, in the warm-up to {control.adaptive_lr:.3g}"
    if control.scheduler is None:
        return f"{control.plan.base_lr:.3g}, fixed"
    history = [float(lr) for lr in control.scheduler.lr_history]
    path = f"{history[0]:.3g} -> {history[-1]:.3g} (between {min(history):.3g} and {max(history):.3g})"
    return path + (f", annealed to {last:.3g}" if control.anneal.begun(run.step) else "")
