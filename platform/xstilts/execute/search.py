"""Search of one intermediate-target pair: Ray Tune with Optuna's TPE over learning rate and epochs.

Trials are ordinary train steps, keyed and recorded: one that any job has run before is found, not run. They
come in rounds, each a fresh fit whose history is replayed from the rounds before; a round's suggestions
are made before any of its trials ends, so a search is the same however fast its workers are, and one that
was killed goes on where it was.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from xstilts.errors import TrainingError, XstiltsError
from xstilts.execute.backends import Event, new_attempt
from xstilts.execute.ray_backend import LocalRay
from xstilts.execute.site import Site
from xstilts.execute.steps import Outcome, Work, run_step
from xstilts.frozen import Json, stream
from xstilts.plan.step import SearchBody, Step
from xstilts.record.schema import StepRecord, read_record
from xstilts.spec.experiment import TrainSettings
from xstilts.train.loop import Interrupted

STARTUP_TRIALS = 4
"""Random ones before TPE models; Optuna's 10 would leave a search of twelve almost random."""

METRIC = "dev"
FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Trial:
    """One point of the space and what came of it."""

    number: int
    learning_rate: float
    epochs: int
    value: float | None
    """Source-language dev score of the weights kept, percent; None where training failed."""
    key: str
    state: str
    """finished | failed."""

    @property
    def point(self) -> dict[str, Any]:
        """As Optuna knows it."""
        return {"learning_rate": self.learning_rate, "epochs": self.epochs}

    def to_json(self) -> dict[str, Json]:
        """A row of the record's trial table."""
        return {
            "number": self.number,
            "learning_rate": self.learning_rate,
            "epochs": self.epochs,
            "value": self.value,
            "key": self.key,
            "state": self.state,
        }


def run(work: Work) -> Outcome:
    """Chosen settings; the record's `result` holds them and every trial.

    Raises:
        TrainingError: no trial finished.
    """
    body = work.step.body
    assert isinstance(body, SearchBody)
    trials: list[Trial] = []
    with ExitStack() as stack:
        if not ray.is_initialized():
            stack.callback(LocalRay(body.concurrent * work.site.execution.threads).close)
        while len(trials) < body.trials:
            if work.should_stop():
                raise Interrupted(f"stopped after {len(trials)} of {body.trials} trials; they are kept")
            with work.timed("compute"):
                trials += _round(work, body, trials)
            best = _best(trials)
            work.tell(
                len(trials) / body.trials,
                {} if best is None else {"best_dev": best.value or 0.0},
                len(trials),
            )
    best = _best(trials)
    if best is None:
        raise TrainingError(
            f"none of {len(trials)} trials finished", "lower search.learning_rate in the job file"
        )
    chosen: dict[str, Json] = {"learning_rate": best.learning_rate, "epochs": best.epochs}
    table: list[Json] = [dict(trial.to_json()) for trial in trials]
    return Outcome(result={"chosen": chosen, "trial": best.number, "value": best.value, "trials": table})


def trial_step(step: Step, body: SearchBody, point: dict[str, Any]) -> Step:
    """The train step that a point of the space stands for."""
    settings = TrainSettings.model_validate(body.trial.settings.model_dump() | point)
    trial = body.trial.model_copy(update={"settings": settings})
    label = f"trial-{step.label.removeprefix('search-')}"
    return Step(label=label, body=trial, inputs=step.inputs)


def _round(work: Work, body: SearchBody, before: list[Trial]) -> list[Trial]:
    """As many trials as run at once."""
    count = min(body.concurrent, body.trials - len(before))
    scratch = Path(tempfile.mkdtemp(prefix="tune", dir=work.scratch))
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(_trial, step=work.step, site=work.site),
            {"cpu": work.site.execution.threads},
        ),
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            search_alg=_searcher(body, before),
            num_samples=count,
            max_concurrent_trials=count,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name="round", storage_path=str(scratch), verbose=0),
    )
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    try:
        results = tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    trials: list[Trial] = []
    for result in results:
        # Training that went wrong is an answer; a full disk, bad data or a lost worker is none.
        if result.error is not None or result.config is None or result.metrics is None:
            cause = str(result.error or "it was lost").strip().splitlines()[-1]
            remedy = "mend it and run the job again; finished trials are kept"
            raise XstiltsError(f"a trial of {work.step.label} did not end ({cause})", remedy)
        failed = bool(result.metrics.get(FAILED))
        trials.append(_told(work, body, len(before) + len(trials), result.config, failed))
    return trials


def _searcher(body: SearchBody, before: list[Trial]) -> OptunaSearch:
    """TPE that knows the trials before; the very first point is the job file's own settings."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    low, high = body.learning_rate.low, body.learning_rate.high
    space = {
        "learning_rate": optuna.distributions.FloatDistribution(low, high, log=True),
        "epochs": optuna.distributions.CategoricalDistribution(body.epochs),
    }
    seed = stream(body.trial.seed, f"search/{len(before)}") % 2**32
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
    settings = body.trial.settings
    own = {"learning_rate": settings.learning_rate, "epochs": int(settings.epochs)}
    fits = low <= settings.learning_rate <= high and settings.epochs in body.epochs
    # A trial that failed is told as the worst score there is: Ray cannot hand Optuna a failure of the past.
    rewards = [trial.value if trial.value is not None else 0.0 for trial in before]
    return OptunaSearch(
        space=space,
        metric=METRIC,
        mode="max",
        sampler=sampler,
        points_to_evaluate=[trial.point for trial in before] if before else ([own] if fits else None),
        evaluated_rewards=rewards if before else None,
    )


def _trial(config: dict[str, Any], step: Step, site: Site) -> None:
    """Runs in a Tune actor: one keyed train step, or the one that is recorded."""
    body = step.body
    assert isinstance(body, SearchBody)
    chosen = trial_step(step, body, config)
    record = read_record(site.open_store(), chosen.key)
    if record is None:
        try:
            record = run_step(chosen, site, new_attempt(), _unheard)
        except TrainingError:
            tune.report({METRIC: 0.0, FAILED: True})
            return
    tune.report({METRIC: _value(record), FAILED: False})


def _told(work: Work, body: SearchBody, number: int, point: dict[str, Any], failed: bool) -> Trial:
    """What became of a point, read from the store: the one source that a killed search leaves."""
    step = trial_step(work.step, body, point)
    record = read_record(work.store, step.key)
    if record is None and not failed:
        remedy = "run the job again; finished trials are kept"
        raise XstiltsError(f"trial {number} of {work.step.label} left no record", remedy)
    return Trial(
        number=number,
        learning_rate=float(point["learning_rate"]),
        epochs=int(point["epochs"]),
        value=None if record is None else _value(record),
        key=step.key,
        state="failed" if record is None else "finished",
    )


def _value(record: StepRecord) -> float:
    kept = (record.selection or {}).get("kept")
    return float(kept) if isinstance(kept, int | float) and math.isfinite(kept) else 0.0


def _best(trials: list[Trial]) -> Trial | None:
    finished = [trial for trial in trials if trial.value is not None]
    return max(finished, key=lambda trial: trial.value or 0.0, default=None)


def _unheard(event: Event) -> None:
    """Trials show their progress as the search's, which counts them."""
