"""Search of settings for one training: Ray Tune with Optuna's TPE, in rounds that the store remembers.

Trials are ordinary train steps, keyed and recorded: one that any job has run before is found, not run. They
come in rounds, each a fresh fit whose history is replayed from the journal of the rounds before. A round's
suggestions are made before any of its trials ends, and it is pruned by what the rounds before came to; so a
search is the same however fast and however many its workers are, and one that was killed goes on where it
was.

Tune's trials are light processes that each follow one step on a worker of the crew; a trial that is to end
early is stopped by stopping that step, never by killing anything.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import optuna
import ray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from xstilts.errors import TrainingError, XstiltsError
from xstilts.execute.backends import Terms
from xstilts.execute.cluster import LocalRay
from xstilts.execute.crew import ENDED, MEMBER, NUMBER, WAITING, TrialRun
from xstilts.execute.rounds import Round, Study
from xstilts.execute.site import Site
from xstilts.execute.trials import Journal, Trial, best_of, clean
from xstilts.execute.workers import THREADS, Worker
from xstilts.frozen import Json, stream
from xstilts.plan.step import SearchBody, Step
from xstilts.plan.trainings import trial_of
from xstilts.spec.experiment import TrainSettings, Values

if TYPE_CHECKING:  # these load torch, which Tune's processes import this module without
    from xstilts.execute.steps import Outcome, Work

STARTUP_TRIALS = 4
"""Random ones before TPE models; Optuna's 10 would leave a search of twelve almost random."""

BESIDE = {"node:__internal_head__": 0.001}
"""What each process of Tune's asks for: it computes nothing, so no CPU that a worker could want, and it runs
where the cluster is kept together, not on a spot node. Ray gives every head 1.0 of it."""

QUIETLY = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}
"""Ctrl-C is the driver's, the store is the log, and the terminal has tables of its own."""

LOST_FOLLOWERS = 3
"""How often a trial's own light process may be lost; another one then follows the step, which goes on."""

PLACE_SECONDS = 1.0
"""How long to wait for a first worker to answer, before asking again whether the search is to stop."""

METRIC = "dev"
"""What Tune asks every report to have; what is worth knowing stands beside it."""

STATES = {
    "finished": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


def run(work: Work) -> Outcome:
    """Chosen settings; the record's `result` holds them and every trial.

    Raises:
        TrainingError: no trial finished.
        Interrupted: asked to stop; trials that have ended are kept, others have checkpoints.
        XstiltsError: a trial could not be run, which says nothing of its settings.
    """
    from xstilts.execute.steps import Outcome
    from xstilts.train.loop import Interrupted

    study = Study.of(work)
    with work.timed("compute"), _crew(work, study.body) as members:
        while (begin := study.round_begin()) is not None:
            if not work.should_stop():
                _run_round(work, study, members, begin)
            if work.should_stop() and study.is_open:
                said = f"stopped after {len(study.trials)} of {study.body.trials} trials; they are kept"
                raise Interrupted(said)
    for trial in study.trials.values():
        if trial.state != "finished":
            clean(work.store, trial, work.step.key)
    trials = study.ended(study.body.trials)
    best = best_of(trials)
    if best is None:
        raise TrainingError(
            f"none of {len(trials)} trials finished", "lower search.learning_rate in the job file"
        )
    table: list[Json] = [trial.to_json() for trial in trials]
    chosen: dict[str, Json] = dict(best.values)
    return Outcome(result={"chosen": chosen, "trial": best.number, "value": best.value, "trials": table})


@contextmanager
def _crew(work: Work, body: SearchBody) -> Iterator[tuple[Any, ...]]:
    """Workers for as many trials as run at once: those that were given, else some of its own."""
    if work.crew:
        yield work.crew[: body.concurrent]
        return
    execution = work.site.execution
    count = min(body.concurrent, execution.workers)
    each = execution.threads * (execution.ranks if work.terms.engine == "ray_train" else 1)
    cluster = None if ray.is_initialized() else LocalRay(count * each)
    # No CPUs of Ray's: whoever runs the search has counted its workers.
    make = ray.remote(num_cpus=0, max_concurrency=THREADS, max_restarts=-1)(Worker)
    members = tuple(make.remote(work.site) for _ in range(count))
    try:
        yield members
    finally:
        for member in members:
            ray.kill(member)
        if cluster is not None:
            cluster.close()


def _run_round(work: Work, study: Study, members: Sequence[Any], begin: int) -> None:
    """Runs the trials of one round that have not ended yet, as many at once as there are workers."""
    watch = Round(work, study, members, study.floors(begin))
    searcher = _Suggestions(study, begin, watch, members)
    watch.points = searcher.points
    watch.keep_what_is_recorded()
    numbers = searcher.begin()
    if not numbers:
        return
    scratch = Path(tempfile.mkdtemp(prefix="tune", dir=work.scratch))
    for name, value in QUIETLY.items():
        os.environ.setdefault(name, value)
    terms = replace(work.terms, ready=time.time(), over=None, rungs=watch.rungs)
    follow = tune.with_parameters(_follow, search=work.step, site=work.site, terms=terms, members=members)
    tuner = tune.Tuner(
        tune.with_resources(follow, BESIDE),
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            search_alg=searcher,
            scheduler=_Rungs(watch),
            num_samples=len(numbers),
            max_concurrent_trials=len(members),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="round",
            storage_path=str(scratch),
            verbose=0,
            callbacks=[_Stopping(watch)],
            failure_config=tune.FailureConfig(max_failures=LOST_FOLLOWERS),
        ),
    )
    try:
        results = tuner.fit()
    except BaseException:
        watch.ask_all_to_stop()
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    watch.check([str(result.error) for result in results if result.error is not None])


class _Suggestions(OptunaSearch):  # type: ignore[misc]
    """Optuna's points of one round, all asked for before it begins; says which worker takes each trial."""

    def __init__(self, study: Study, begin: int, watch: Round, members: Sequence[Any]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        body = study.body
        seed = stream(body.trial.seed, f"search/{begin}") % 2**32
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, constant_liar=True
        )
        space = {name: distribution(name, values) for name, values in body.space.items()}
        super().__init__(space=space, metric=METRIC, mode="max", sampler=sampler)
        for trial in study.ended(begin):
            self._remember(trial)
        self.points = {number: self._point(study, number) for number in study.round_numbers(begin)}
        self._waiting: deque[int] = deque()
        self._members = members
        self._free = list(range(len(members)))
        self._asked: dict[Any, int] = {}
        self._taken: dict[str, tuple[int, int]] = {}
        self._study = study
        self._watch = watch

    def begin(self) -> tuple[int, ...]:
        """The trials that are to run now: those of the round that have not ended."""
        self._waiting.extend(number for number in self.points if number not in self._study.trials)
        return tuple(self._waiting)

    def _point(self, study: Study, number: int) -> dict[str, Any]:
        if number < len(study.first):
            return dict(study.first[number])
        return dict(super().suggest(str(number)))

    def _remember(self, trial: Trial) -> None:
        """What Optuna is told of a trial of the past; nothing of one outside the space."""
        if not all(holds(self._space[name], value) for name, value in trial.values.items()):
            return
        self._ot_study.add_trial(
            optuna.trial.create_trial(
                state=_state(trial),
                value=trial.value,
                params=dict(trial.values),
                distributions=self._space,
                intermediate_values={step: value for step, (_, value) in enumerate(trial.rungs)},
            )
        )

    def suggest(self, trial_id: str) -> Any:
        """The next trial of the round and the worker that takes it; None while no free worker answers."""
        if self._watch.is_stopping() or not self._waiting:
            return Searcher.FINISHED
        member = self._placed()
        if member is None:
            self._watch.sign()
            return None
        number = self._waiting.popleft()
        self._free.remove(member)
        self._taken[trial_id] = (number, member)
        return {**self.points[number], NUMBER: number, MEMBER: member}

    def _placed(self) -> int | None:
        """A free worker that has a place. One that has none may never get one while other searches hold what
        it needs, so that no trial may wait for it: two searches that share too few nodes both go on."""
        waiting = set(self._asked.values())
        for member in self._free:
            if member not in waiting:
                self._asked[self._members[member].__ray_ready__.remote()] = member
        asked = [reference for reference, member in self._asked.items() if member in self._free]
        # Reports of trials that run wait for this.
        ready, _ = ray.wait(asked, timeout=0 if self._taken else PLACE_SECONDS)
        for reference in ready:
            member = self._asked.pop(reference)
            with suppress(ray.exceptions.RayError):  # it is coming back, and asked again then
                ray.get(reference)
                return member
        return None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: a round has its suggestions already."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Its worker is free, and Optuna is told how it ended: pruned and failed are no low scores."""
        if trial_id not in self._taken:
            return
        number, member = self._taken.pop(trial_id)
        self._free.append(member)
        trial, asked = self._study.trials.get(number), self._ot_trials.get(str(number))
        if trial is not None and asked is not None:
            self._ot_study.tell(asked, trial.value, state=_state(trial))

    def save(self, checkpoint_path: str) -> None:
        """Writes an empty file: a search goes on from its journal, never from Tune's state."""
        Path(checkpoint_path).touch()

    def __reduce__(self) -> Any:
        return (Searcher, ())


class _Rungs(FIFOScheduler):  # type: ignore[misc]
    """Tune's scheduler: hands reports to the round, which ends a trial by stopping its worker's step."""

    def __init__(self, watch: Round) -> None:
        super().__init__()
        self._watch = watch

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """CONTINUE: a trial that is pruned ends by itself. STOP for one that waits while the search stops."""
        self._watch.hear(trial.config, result)
        waits = bool(result.get(WAITING)) and self._watch.is_stopping()
        return str(TrialScheduler.STOP if waits else TrialScheduler.CONTINUE)

    def __reduce__(self) -> Any:
        return (FIFOScheduler, ())


class _Stopping(tune.Callback):  # type: ignore[misc]
    """Looks, between any two events of Tune's, whether the search is to stop."""

    def __init__(self, watch: Round) -> None:
        self._watch = watch

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Every 0.1 s at the latest."""
        if self._watch.is_stopping():
            self._watch.ask_all_to_stop()

    def __reduce__(self) -> Any:
        return (tune.Callback, ())


def _state(trial: Trial) -> TrialState:
    scored = trial.state != "finished" or trial.value is not None
    return STATES[trial.state] if scored else TrialState.FAIL


def distribution(name: str, values: Values) -> BaseDistribution:
    """What Optuna draws a setting from."""
    if values.choices:
        return CategoricalDistribution(values.choices)
    assert values.low is not None and values.high is not None
    log = values.scale == "log"
    if _is_whole(TrainSettings.model_fields[name].annotation):
        return IntDistribution(int(values.low), int(values.high), log=log)
    return FloatDistribution(values.low, values.high, log=log)


def _is_whole(annotation: Any) -> bool:
    """Whether a setting is an int, or one or none."""
    return annotation is int or any(_is_whole(part) for part in get_args(annotation))


def holds(space: BaseDistribution, value: Any) -> bool:
    """Whether `value` can have been drawn from `space`."""
    if isinstance(space, CategoricalDistribution):
        return value in space.choices
    return isinstance(value, int | float) and space.low <= value <= space.high  # type: ignore[attr-defined]


def _follow(config: dict[str, Any], search: Step, site: Site, terms: Terms, members: Sequence[Any]) -> None:
    """Runs in a process of Tune's: one trial on its worker, or the one that is recorded."""
    body = search.body
    assert isinstance(body, SearchBody)

    def tell(words: Mapping[str, Any]) -> None:
        tune.report({METRIC: math.nan, **words})

    try:
        TrialRun(
            ray=ray,
            member=members[config[MEMBER]],
            step=trial_of(search, {name: config[name] for name in body.space}),
            number=config[NUMBER],
            site=site,
            terms=terms,
            journal=Journal(site.open_store(), search.key, tuple(body.space)),
            tell=tell,
        ).run()
    except XstiltsError as problem:
        tell({ENDED: "broken", "why": problem.problem, "remedy": problem.remedy})
    except Exception:  # said once; what Tune tries again is a process that was lost
        tell({ENDED: "bug", "why": traceback.format_exc()})
