"""Rounds of a search: which trials are still to run, what they report, and what follows from that.

Without Ray: workers are handles that can be asked to stop, and whoever runs a round passes on its reports.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from xstilts.errors import XstiltsError
from xstilts.execute.crew import DONE, ENDED, MEMBER, NUMBER, RUNG
from xstilts.execute.pruning import RUNGS, floors
from xstilts.execute.trials import Journal, Trial, attempt_mark, best_of, clean
from xstilts.plan.step import SearchBody
from xstilts.plan.trainings import HINT, own_values, trial_of
from xstilts.record.schema import read_record

if TYPE_CHECKING:  # it loads torch
    from xstilts.execute.steps import Work

TRIES = 3
"""Rounds in which a trial may be stopped by somebody who is not this search."""

STOP_SECONDS = 1.0
"""Between two askings of workers to stop: one that has just begun a step has forgotten the first."""

KEPT = "run the job again; finished trials are kept"


@dataclass(slots=True)
class Study:
    """What is known of a search, and where it is written down."""

    work: Work
    body: SearchBody
    journal: Journal
    first: tuple[dict[str, Any], ...]
    """Points that come before any suggestion: the job's own settings, and what another search chose."""
    trials: dict[int, Trial]
    """Those that have ended."""
    tries: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, work: Work) -> Study:
        """With what earlier attempts came to."""
        body = work.step.body
        assert isinstance(body, SearchBody)
        first = [own_values(body)]
        if HINT in work.step.inputs:
            record, _ = work.input(HINT)
            chosen = record.result.get("chosen")
            hint = {name: chosen[name] for name in body.space} if isinstance(chosen, dict) else {}
            if hint and trial_of(work.step, hint).digest != trial_of(work.step, first[0]).digest:
                first.append(hint)
        journal = Journal(work.store, work.step.key, tuple(body.space))
        return cls(work, body, journal, tuple(first), journal.read_all(body.trials))

    @property
    def is_open(self) -> bool:
        """Whether a trial has yet to end."""
        return len(self.trials) < self.body.trials

    def round_begin(self) -> int | None:
        """The first number of the round to run now; None when all have ended."""
        missing = (number for number in range(self.body.trials) if number not in self.trials)
        number = next(missing, None)
        return None if number is None else number - number % self.body.concurrent

    def round_numbers(self, begin: int) -> range:
        """Of the round that starts at `begin`."""
        return range(begin, min(begin + self.body.concurrent, self.body.trials))

    def ended(self, begin: int) -> list[Trial]:
        """The trials of the rounds before `begin`."""
        return [self.trials[number] for number in range(begin)]

    def floors(self, begin: int) -> dict[float, float]:
        """Rung -> the value below which a trial of the round that starts at `begin` ends there."""
        if self.body.prune == "none":
            return {}
        return floors(dict(trial.rungs) for trial in self.ended(begin))

    def keep(self, trial: Trial) -> None:
        """Writes down what a trial came to, and tells how far the search is."""
        self.trials[trial.number] = self.journal.write(trial)
        best = best_of(list(self.trials.values()))
        metrics = {} if best is None or best.value is None else {"best_dev": best.value}
        self.work.tell(len(self.trials) / self.body.trials, metrics, len(self.trials))


@dataclass(slots=True)
class Round:
    """One round, in the search's own process: what its trials report, and what follows from it."""

    work: Work
    study: Study
    members: Sequence[Any]
    floors: Mapping[float, float]
    """Rung -> the value below which a trial ends there."""
    points: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    problem: XstiltsError | RuntimeError | None = None
    rungs_met: dict[int, dict[float, float]] = field(default_factory=dict)
    begun: dict[int, float] = field(default_factory=dict)
    done: dict[int, float] = field(default_factory=dict)
    asked_at: float = 0.0
    unplaced: set[int] = field(default_factory=set)
    """Trials whose worker did not come back: another takes them, when the rest of the round has ended."""

    @property
    def rungs(self) -> tuple[float, ...]:
        """Where trials tell their value; nowhere when nothing is ever pruned."""
        return RUNGS if self.study.body.prune == "asha" else ()

    def is_stopping(self) -> bool:
        """Whether running trials are to end, and no other is to begin."""
        return self.problem is not None or self.work.should_stop()

    def ask_all_to_stop(self) -> None:
        """Workers write a checkpoint and end what they do."""
        if time.monotonic() - self.asked_at >= STOP_SECONDS:
            self.asked_at = time.monotonic()
            for member in self.members:
                member.stop.remote()

    def keep_what_is_recorded(self) -> None:
        """Trials that any job has run before end here, without a process of Tune's."""
        for number, values in self.points.items():
            step = trial_of(self.work.step, values)
            if number not in self.study.trials and read_record(self.work.store, step.key) is not None:
                self._keep_recorded(number)

    def hear(self, config: Mapping[str, Any], said: Mapping[str, Any]) -> None:
        """A report of a trial; problems are kept until the round has ended, which they make it do."""
        try:
            self._hear(int(config[NUMBER]), int(config[MEMBER]), said)
        except (XstiltsError, RuntimeError) as problem:
            self.problem = self.problem or problem

    def _hear(self, number: int, member: int, said: Mapping[str, Any]) -> None:
        begun = self.begun.setdefault(number, time.monotonic())
        if RUNG in said:
            rung = min(RUNGS, key=lambda each: abs(each - float(said[RUNG])))
            value = float(said["value"])
            self.rungs_met.setdefault(number, {})[rung] = value
            if value < self.floors.get(rung, -math.inf) and number not in self.study.trials:
                # Written before the worker hears of it: whatever is lost now, the trial stays pruned.
                seconds = round(time.monotonic() - begun, 3)
                self._keep(number, "pruned", said, steps=int(said["step"]), seconds=seconds)
            if number in self.study.trials:
                self.members[member].stop.remote()
        elif ENDED in said:
            self._ended(number, str(said[ENDED]), said, round(time.monotonic() - begun, 3))
        else:
            self.done[number] = float(said.get(DONE, self.done.get(number, 0.0)))
            if why := str(said.get("why", "")):
                self.work.note(f"trial {number}: {why}")
            self.sign()

    def sign(self) -> None:
        """Says how far the search is; that it lives, where it waits for workers."""
        ended, count = len(self.study.trials), self.study.body.trials
        running = sum(done for each, done in self.done.items() if each not in self.study.trials)
        self.work.tell((ended + running) / count, {}, ended)

    def _ended(self, number: int, how: str, said: Mapping[str, Any], seconds: float) -> None:
        if number in self.study.trials:
            clean(self.work.store, self.study.trials[number], self.work.step.key)
        elif how == "finished":
            self._keep_recorded(number)
        elif how == "failed":
            self._keep(number, "failed", said, seconds=seconds, why=str(said["why"]))
            clean(self.work.store, self.study.trials[number], self.work.step.key)
        elif how == "unplaced":
            self.unplaced.add(number)
        elif how == "bug":
            raise RuntimeError(f"trial {number} of {self.work.step.label} met a bug\n{said['why']}")
        elif how == "broken":
            remedy = str(said.get("remedy") or KEPT)
            raise XstiltsError(f"trial {number} of {self.work.step.label} did not end: {said['why']}", remedy)

    def _keep_recorded(self, number: int) -> None:
        step = trial_of(self.work.step, self.points[number])
        record = read_record(self.work.store, step.key)
        if record is None:
            raise XstiltsError(f"trial {number} of {self.work.step.label} left no record", KEPT)
        trial = Trial.of_record(number, self.points[number], record, self._met(number))
        own = record.attempt.endswith(attempt_mark(self.work.step.key))
        self.study.keep(replace(trial, found=not own))

    def _keep(self, number: int, state: Any, said: Mapping[str, Any], **words: Any) -> None:
        values = self.points[number]
        key = trial_of(self.work.step, values).key
        curve = tuple((float(share), float(loss)) for share, loss in said.get("curve", ()))
        self.study.keep(Trial(number, values, key, state, rungs=self._met(number), curve=curve, **words))

    def _met(self, number: int) -> tuple[tuple[float, float], ...]:
        return tuple(sorted(self.rungs_met.get(number, {}).items()))

    def check(self, errors: Sequence[str]) -> None:
        """Raises what went wrong in the round beside training.

        Raises:
            XstiltsError: training that goes wrong is an answer; a full disk or a lost worker is none.
            RuntimeError: a bug.
        """
        if self.problem is not None:
            raise self.problem
        if errors and not self.is_stopping():
            cause = errors[0].strip().splitlines()[-1]
            remedy = "mend it and run the job again; finished trials are kept"
            raise XstiltsError(f"a trial of {self.work.step.label} did not end ({cause})", remedy)
        for number in self.points:
            if number in self.study.trials or number in self.unplaced or self.is_stopping():
                continue
            self.study.tries[number] = self.study.tries.get(number, 0) + 1
            if self.study.tries[number] >= TRIES:
                text = f"trial {number} of {self.work.step.label} was stopped {TRIES} times, by nobody here"
                raise XstiltsError(text, KEPT)
