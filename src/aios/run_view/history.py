"""A run as its log tells it, in bounded memory however long it gets."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Literal

from aios.run_view.events import MAX_STEP, Adjustment, Phase, RunEvent, Sample, loss_of, number
from aios.run_view.logged_settings import same_evaluation
from aios.run_view.pace import Pace
from aios.run_view.sentences import sentence
from aios.run_view.series import EMPTY, BucketSeries, Series
from aios.run_view.smoothing import Smoother
from aios.run_view.timeline import Decision, decision_from

MAX_DECISIONS = 10_000
"""Decisions kept, adjustments among them; of more, the newest."""
MAX_EVENTS = 2_000
"""Other events kept; of more, the newest."""
MAX_PHASES = 200
MAX_SAMPLES = 50
"""Samples kept; of more, the newest."""

State = Literal["waiting", "running", "stopped", "diverged", "finished"]
_KEYS = ("loss", "ce", "grad_norm", "tokens_per_sec")


FINISHES = ("finish_now", "overfitting")
"""Reasons of an anneal that ends the run before its last step."""
HIGHEST = 1e30
"""A number of this size is as good as infinite: no run makes one, and axes cannot show it."""


class RunHistory:
    """Digests log records; how they are split over calls of `add` makes no difference.

    A run that goes back (resumed from a checkpoint, a worker restarted) repeats steps: what is newer replaces curve,
    decisions and phases beyond the step it went back to. Lines that are merely out of order are put in their place.
    """

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        """Settings of the latest sitting (`run_start`, `run_resumed`); empty where the log has none."""
        self._eval_id: Any = None  # of what its evaluations are
        self.run_id: str | None = None
        """Names the latest sitting."""
        self.started = math.nan
        """When the latest sitting began, unix seconds; NaN where the log does not say."""
        self.state: State = "waiting"
        """How the run stands: `waiting` before its first record, `diverged` when it stopped in trouble."""
        self.stop_reason: str | None = None
        """Why it stopped, as logged."""
        self.unigram_entropy: float | None = None
        """Nats per token of the text when context is ignored: what a model has to beat."""
        self.records = 0
        """Records taken."""
        self.train_records = 0
        """Those of training steps."""
        self.adjustment_count = 0
        """Adjustments made, those no longer kept included."""
        self.decision_count = 0
        """Decisions made, those no longer kept included."""
        self._decisions: deque[Decision] = deque(maxlen=MAX_DECISIONS)
        self._events: deque[RunEvent] = deque(maxlen=MAX_EVENTS)
        self._phases: deque[Phase] = deque(maxlen=MAX_PHASES)
        self._samples: deque[Sample] = deque(maxlen=MAX_SAMPLES)
        self._series: dict[tuple[str, int | None], BucketSeries] = {}
        self._pending: dict[tuple[str, int | None], tuple[list[int], list[float]]] = {}
        self._smoothers: dict[int | None, Smoother] = {}
        self._paces: dict[int | None, Pace] = {}
        self._reached = 0  # the newest step of any record
        self._finish: tuple[int, int] | None = None  # (begun after, ends at) of an early end
        self._comparable_after = -1  # evaluations up to this step were made in another way than the newest
        self._resumed = False  # whether the latest sitting is a resumed one
        self._final_best: tuple[float, float] | None = None  # as the run said itself when it ended

    def add(self, records: Iterable[dict[str, Any]]) -> None:
        """Take records in the order of the log; what is no record of a step's is passed over."""
        for record in records:
            event, step, rank = record.get("event"), record.get("step"), record.get("rank")
            if type(step) is not int or not 0 <= step < MAX_STEP or not isinstance(event, str):
                continue
            if type(rank) is not int:
                rank = None
            self.records += 1
            if event == "train":
                self._train(record, step, rank)
            else:
                self._other(event, record, step, rank)
        self._flush()

    def series(self, key: str, rank: int | None = None) -> Series:
        """The curve `key` of worker `rank` (None: the only one, else the first that has it).

        Keys: `loss`, `ce`, `smooth` (the smoothed loss), `grad_norm`, `tokens_per_sec`, `lr`, `lr[1]`... for groups
        with a rate of their own, `eval_loss` and its perplexity `ppl`. One that the log has not is an empty curve.
        """
        found = self._series.get((key, rank))
        if found is None and rank is None:
            others = sorted(r for k, r in self._series if k == key and r is not None)
            found = self._series[key, others[0]] if others else None
        return found.series() if found is not None else EMPTY

    def has(self, key: str, rank: int | None = None) -> bool:
        """Whether worker `rank` has a curve `key` of its own."""
        return (key, rank) in self._series

    @property
    def keys(self) -> list[str]:
        """Names of the curves there are."""
        return sorted({key for key, _ in self._series})

    @property
    def loss_key(self) -> str:
        """The curve to show as loss: the cross-entropy that the scheduler sees, else the whole loss."""
        return "ce" if any(key == "ce" for key, _ in self._series) else "loss"

    @property
    def ranks(self) -> list[int | None]:
        """The workers that train, `[None]` where the log names none."""
        named = sorted(rank for rank in self._paces if rank is not None)
        return [None, *named] if None in self._paces or not named else list(named)

    def best_evaluation(self, rank: int | None = None) -> tuple[float, float] | None:
        """(step, nats per token) of the best evaluation of worker `rank`: of an ended run the one it names itself.

        Else the lowest of those that are made as the newest is, on the same data; None where there is none.
        """
        if self._final_best is not None and (rank is None or not self.has("eval_loss", rank)):
            return self._final_best
        return self.series("eval_loss", rank).lowest(self._comparable_after)

    @property
    def decisions(self) -> list[Decision]:
        """The newest decisions, in step order."""
        return sorted(self._decisions, key=lambda d: d.step)

    @property
    def adjustments(self) -> list[Adjustment]:
        """Those of the newest decisions that changed the learning rate, in step order."""
        return sorted((d.adjustment for d in self._decisions if d.adjustment is not None), key=lambda a: a.step)

    @property
    def other_events(self) -> list[RunEvent]:
        """The newest other events, in the order of the log."""
        return list(self._events)

    @property
    def samples(self) -> list[Sample]:
        """What the model said on its way, in step order, the newest of them."""
        return list(self._samples)

    @property
    def phases(self) -> list[Phase]:
        """Search, warm-up and anneal."""
        return [phase for phase in self._phases if phase.start < phase.end]

    @property
    def step(self) -> int:
        """The step reached by the worker that is furthest; after a resume that of the latest sitting."""
        return max((pace.step for pace in self._paces.values()), default=self._reached)

    @property
    def total_steps(self) -> int | None:
        """The step at which the run ends, None where the log does not say; earlier when it was asked to finish."""
        if self._finish is not None:
            return self._finish[1]
        steps = self.config.get("steps")
        return steps if type(steps) is int else None

    @property
    def last_ts(self) -> float | None:
        """Unix seconds of the newest training step."""
        known = [pace.ts for pace in self._paces.values() if math.isfinite(pace.ts)]
        return max(known, default=None)

    def eta_seconds(self, now: float) -> float | None:
        """Seconds from `now` (unix) to the end: the recent median step time x the steps left.

        None unless the run is running, its end is known, and the latest sitting has made a step.
        """
        end = self.total_steps
        if self.state != "running" or end is None:
            return None
        known = [eta for pace in self._paces.values() if (eta := pace.eta_seconds(end, now)) is not None]
        return max(known, default=None)

    def _train(self, record: dict[str, Any], step: int, rank: int | None) -> None:
        self.train_records += 1
        self.state = "running"
        pace = self._paces.get(rank)
        if pace is None:
            pace = self._paces[rank] = Pace()
            self._smoothers[rank] = Smoother()
        ts = record.get("ts")
        if type(ts) is not float:
            ts = number(record, "ts")
        if step <= pace.step and ts > pace.ts:  # written later, yet not a later step: the run went back
            self._go_back(step - 1, rank)
            pace.resumed(step - 1)
        if step > pace.step:
            pace.seen(step, ts, number(record, "step_time_s"))
        for key in _KEYS:
            if key in record:
                self._point(key, rank, step, record[key])
        self._smooth(record, step, rank)
        self._learning_rates(record.get("lr"), step, rank)

    def _smooth(self, record: dict[str, Any], step: int, rank: int | None) -> None:
        loss = loss_of(record)
        if math.isfinite(loss):
            self._point("smooth", rank, step, self._smoothers[rank].add(loss))

    def _learning_rates(self, lr: Any, step: int, rank: int | None) -> None:
        if not isinstance(lr, list):
            self._point("lr", rank, step, lr)
            return
        for at, rate in enumerate(lr):
            if at == 0 or rate != lr[0] or (f"lr[{at}]", rank) in self._pending or (f"lr[{at}]", rank) in self._series:
                self._point("lr" if at == 0 else f"lr[{at}]", rank, step, rate)

    def _point(self, key: str, rank: int | None, step: int, value: Any) -> None:
        if value is None:  # how the log writes a NaN or an infinity
            value = math.nan
        elif type(value) is not float:
            if type(value) is not int:
                return
            value = float(value) if abs(value) < HIGHEST else math.inf
        if abs(value) >= HIGHEST:
            value = math.copysign(math.inf, value)
        name = (key, rank)
        pending = self._pending.get(name)
        if pending is None:
            pending = self._pending[name] = ([], [])
        pending[0].append(step)
        pending[1].append(value)

    def _flush(self) -> None:
        for name, (steps, values) in self._pending.items():
            if name not in self._series:
                self._series[name] = BucketSeries()
            self._series[name].add(steps, values)
        self._pending.clear()

    def _other(self, event: str, record: dict[str, Any], step: int, rank: int | None) -> None:
        self._reached = step
        handle = _HANDLERS.get(event)
        if handle is not None:
            handle(self, record, step, rank)
        decision = decision_from(record, step, rank)
        if decision is not None:
            self._decisions.append(decision)
            self._count(decision, 1)
        elif (text := sentence(record)) is not None:
            self._events.append(RunEvent(step, rank, event, text, number(record, "ts")))

    def _count(self, decision: Decision, by: int) -> None:
        self.decision_count += by
        self.adjustment_count += by if decision.adjustment is not None else 0

    def _start(self, record: dict[str, Any], step: int, rank: int | None) -> None:
        if record.get("event") == "run_start" and rank is None:
            self._forget()
        else:
            self._go_back(step if record.get("event") == "run_resumed" else -1, rank)
        for worker, pace in self._paces.items():
            if rank in (None, worker):
                pace.resumed(step)
        config, run_id, self.started = record.get("config"), record.get("run_id"), number(record, "ts")
        before, evaluated = self.config, self._eval_id
        self.config, self._eval_id = config if isinstance(config, dict) else {}, record.get("eval_id")
        comparable = same_evaluation(
            {"config": before, "eval_id": evaluated}, {"config": self.config, "eval_id": self._eval_id}
        )
        self._comparable_after = min(self._comparable_after, step) if comparable else step
        self._final_best, self._resumed = None, record.get("event") == "run_resumed"
        self.run_id = str(run_id) if run_id is not None else None
        self.unigram_entropy = number(record, "unigram_entropy") if "unigram_entropy" in record else None
        if self.config.get("steps") != before.get("steps"):
            self._phases = deque((_cut(phase, step) for phase in self._phases), maxlen=MAX_PHASES)
        self.state, self.stop_reason = "running", None
        if self._finish is not None and not self._finish[0] < step < self._finish[1]:
            self._finish = None  # or the sitting goes on to finish

    def _forget(self) -> None:
        """Another run begins in the same log."""
        digested = (self._pending, self._series, self._smoothers, self._paces, self._decisions, self._phases)
        for kept in (*digested, self._samples):
            kept.clear()
        self.adjustment_count = self.decision_count = self.train_records = 0
        self.config, self._eval_id, self._comparable_after = {}, None, -1

    def _go_back(self, step: int, rank: int | None) -> None:
        """Forget what worker `rank` (None: all of them) had beyond `step`: it is about to be repeated."""
        self._flush()
        for (_, worker), series in self._series.items():
            if rank in (None, worker):
                series.drop_after(step)
        for worker, smoother in self._smoothers.items():
            if rank in (None, worker):
                smooth = self._series.get(("smooth", worker))
                smoother.go_on_from(smooth.last if smooth is not None else None, max(step, 0))
        gone = [d for d in self._decisions if d.step > step and rank in (None, d.rank)]
        for decision in gone:
            self._count(decision, -1)
        if gone:
            kept = [d for d in self._decisions if d.step <= step or rank not in (None, d.rank)]
            self._decisions = deque(kept, maxlen=MAX_DECISIONS)
        if rank is None:
            self._phases = deque((p for p in self._phases if p.start < step), maxlen=MAX_PHASES)
            self._samples = deque((s for s in self._samples if s.step <= step), maxlen=MAX_SAMPLES)

    def _eval(self, record: dict[str, Any], step: int, rank: int | None) -> None:
        for key, curve in (("loss", "eval_loss"), ("ppl", "ppl")):
            if key in record:
                self._point(curve, rank, step, record[key])

    def _sample(self, record: dict[str, Any], step: int, rank: int | None) -> None:
        prompt, text = record.get("prompt"), record.get("text")
        if isinstance(prompt, str) and isinstance(text, str):
            self._samples.append(Sample(step, prompt, text))

    def _search(self, record: dict[str, Any], step: int, rank: int | None) -> None:
        used = number(record, "used_steps")  # logs from before the search came on top of the steps
        if used > 0:
            kind = "search" if record["event"] == "adaptive_lr_search" else "trial"
            self._add_phase(Phase(kind, max(0, step - int(used)), step))

    def _climb(self, record: dict[str, Any], step: int, rank: int | None) -> None:
        if step > 0:
            self._add_phase(Phase("climb", 0, step))

    def _init(self, record: dict[str, Any], step: int, rank: int | None) -> None:
        warmup = number(record, "warmup_steps")
        # At the beginning of a run the event may have the step before the warm-up or the one behind it.
        begun = max((p.end for p in self._phases if p.kind in ("search", "climb")), default=0)
        first = step if self._resumed else begun
        if warmup > 0 and not any(p.kind == "warm-up" and p.start <= first < p.end for p in self._phases):
            self._add_phase(Phase("warm-up", first, first + int(min(warmup, MAX_STEP))))

    def _anneal(self, record: dict[str, Any], step: int, rank: int | None) -> None:
        start, end = number(record, "start"), number(record, "end")
        if not 0 <= start < end < MAX_STEP:
            return
        if record.get("reason") in FINISHES:
            self._finish = int(start), int(end)
            self._phases = deque((_cut(phase, int(start)) for phase in self._phases), maxlen=MAX_PHASES)
        phase = Phase("anneal", int(start), int(end))
        if phase not in self._phases and start < step < end:  # a resumed run's: what was before the resume was none
            phase = Phase("anneal", step, int(end))
        self._add_phase(phase)

    def _add_phase(self, phase: Phase) -> None:
        if phase not in self._phases:  # every worker tells of it
            self._phases.append(phase)

    def _stopped(self, record: dict[str, Any], step: int, rank: int | None) -> None:
        reason = record.get("reason")
        self.stop_reason = str(reason) if reason is not None else None
        self.state = "diverged" if reason == "trouble" else "stopped"

    def _final(self, record: dict[str, Any], step: int, rank: int | None) -> None:
        self.state = "finished"
        best = number(record, "best_step"), number(record, "best_eval_loss")
        self._final_best = best if all(map(math.isfinite, best)) else None


def progress_text(step: int, total: int | None) -> str:
    """`347 / 500`: steps done, of how many where that is known."""
    return f"{step:,} / {total:,}" if total else f"{step:,}"


def _cut(phase: Phase, step: int) -> Phase:
    return Phase(phase.kind, min(phase.start, step), min(phase.end, step))


_HANDLERS: dict[str, Callable[[RunHistory, dict[str, Any], int, int | None], None]] = {
    "run_start": RunHistory._start,
    "run_resumed": RunHistory._start,
    "eval": RunHistory._eval,
    "sample": RunHistory._sample,
    "adaptive_lr_search": RunHistory._search,
    "adaptive_lr_challenge": RunHistory._search,
    "adaptive_lr_climb": RunHistory._climb,
    "adaptive_lr_init": RunHistory._init,
    "adaptive_lr_anneal": RunHistory._anneal,
    "stopped": RunHistory._stopped,
    "final": RunHistory._final,
}
