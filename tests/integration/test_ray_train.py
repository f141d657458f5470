"""A step under Ray Train: with one rank the bits of one process, with more its numbers; losses and stops."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from xstilts import api
from xstilts.errors import TrainingError
from xstilts.execute import ray_train, steps
from xstilts.execute.backends import Event, Terms, WorkersLost, new_attempt
from xstilts.execute.cluster import LocalRay
from xstilts.execute.site import Site
from xstilts.execute.workers import Worker
from xstilts.plan.step import Step
from xstilts.record.artifacts import StepPaths
from xstilts.record.schema import StepRecord, read_record
from xstilts.spec.experiment import ExecutionSpec
from xstilts.train.loop import Interrupted

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

JOB = """\
name: ranks
world: {seed: 1}
pretrain:
  {data: world, vocabulary: 300, layers: 3, width: 32, heads: 2, length: 24, batch: 16, steps: 20,
   learning_rate: 2.0e-3, sentences: 200}
intermediate: [none]
targets: [world_paraphrase]
languages: [w0, w1]
seeds: [1]
train:
  target: {learning_rate: 1.0e-3, epochs: EPOCHS, effective_batch: 15, max_length: 48, fraction: 0.1}
evaluate: {split: test, first: 10, selection: {first: 40}}
"""


@dataclass
class Run:
    """A step being run, and what it said."""

    store: Path
    execution: ExecutionSpec
    rungs: tuple[float, ...] = ()
    stop: Callable[[], bool] = lambda: False
    attempt: str = field(default_factory=new_attempt)
    events: list[Event] = field(default_factory=list)

    @property
    def site(self) -> Site:
        """Where it runs."""
        return Site(str(self.store), None, self.execution)

    def together(self, step: Step) -> StepRecord:
        """Under Ray Train."""
        terms = Terms(engine="ray_train", rungs=self.rungs, holder="test")
        return ray_train.run_step(step, self.site, self.attempt, self.events.append, self.stop, terms)

    def by_a_worker(self, ray: Any, step: Step) -> Event:
        """The same, as a driver has it done: by a warm worker that only watches."""
        terms = Terms(engine="ray_train", rungs=self.rungs, holder="test")
        worker = ray.remote(num_cpus=0, max_concurrency=4)(Worker).remote(self.site)
        last: Event = ray.get(worker.run.remote(step, self.attempt, terms))
        self.events += ray.get(worker.news.remote()).events
        ray.kill(worker)
        return last

    def inline(self, step: Step) -> StepRecord:
        """In this process."""
        terms = Terms(rungs=self.rungs, holder="test")
        return steps.run_step(step, self.site, self.attempt, self.events.append, self.stop, terms)

    def weights(self, record: StepRecord) -> dict[str, torch.Tensor]:
        """Encoder and head."""
        root = self.store / StepPaths(record.key).root
        files = [root / record.outputs[name].path for name in ("model/model.safetensors", "head.safetensors")]
        return {name: each for path in files for name, each in load_file(path).items()}

    @property
    def told(self) -> list[Event]:
        """The rungs."""
        return [event for event in self.events if event.what == "rung"]


def execution(ranks: int = 1, shard: bool = False, **words: Any) -> ExecutionSpec:
    """On CPUs, in micro-batches of 4."""
    return ExecutionSpec(ranks=ranks, shard=shard, device="cpu", per_device_batch=4, **words)


def target(folder: Path, epochs: str = "2") -> tuple[Step, Step]:
    """The pretraining and the training of the job."""
    path = folder / "ranks.yaml"
    path.write_text(JOB.replace("EPOCHS", epochs))
    planned = [each.step for each in api.plan(api.open_job(path, str(folder / "unused")))]
    pretraining = next(each for each in planned if each is not None and each.kind == "pretrain")
    training = next(each for each in planned if each is not None and each.kind == "train")
    return pretraining, training


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray of two CPUs."""
    made = LocalRay(2)
    yield made.ray
    made.close()


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the encoder."""
    folder = tmp_path_factory.mktemp("begun")
    Run(folder / "store", execution()).inline(target(folder)[0])
    return folder / "store"


@pytest.fixture
def new(begun: Path, tmp_path: Path) -> Callable[..., Run]:
    """Runs on copies of that store."""
    numbers = iter(range(100))

    def make(chosen: ExecutionSpec, **words: Any) -> Run:
        folder = tmp_path / str(next(numbers))
        shutil.copytree(begun, folder)
        return Run(folder, chosen, **words)

    return make


def test_one_rank_gives_the_bits_of_one_process(
    cluster: Any, new: Callable[..., Run], tmp_path: Path
) -> None:
    step = target(tmp_path)[1]
    alone, ranked = new(execution(), rungs=(0.5,)), new(execution(), rungs=(0.5,))
    expected = alone.inline(step)
    last = ranked.by_a_worker(cluster, step)
    assert last.what == "done", last.text
    got = read_record(ranked.site.open_store(), step.key)
    assert got is not None
    names = ("model/model.safetensors", "head.safetensors")
    assert [got.outputs[name].sha256 for name in names] == [expected.outputs[name].sha256 for name in names]
    assert got.selection == expected.selection and got.layout == expected.layout
    assert [(each.done, each.step, each.metrics) for each in ranked.told] == [
        (each.done, each.step, each.metrics) for each in alone.told
    ]
    assert len(ranked.told) == 1 and any(event.what == "progress" for event in ranked.events)
    assert got.attempt == ranked.attempt and got.seconds.compute > 0
    assert not list((ranked.store / "steps" / step.key).glob("attempts/*"))


@pytest.mark.parametrize("shard", [False, True], ids=["ranks", "shards"])
def test_two_ranks_give_its_numbers(
    cluster: Any, new: Callable[..., Run], tmp_path: Path, shard: bool
) -> None:
    step = target(tmp_path)[1]
    alone, ranked = new(execution()), new(execution(2, shard), rungs=(0.25, 0.5))
    expected, got = alone.inline(step), ranked.together(step)
    assert got.key == expected.key and got.layout["workers"] == 2
    assert got.selection["best_step"] == expected.selection["best_step"]  # type: ignore[index]
    assert got.result["final_loss"] == pytest.approx(expected.result["final_loss"], rel=1e-3)
    weights = alone.weights(expected)
    for name, each in ranked.weights(got).items():
        torch.testing.assert_close(each, weights[name], atol=2e-3, rtol=1e-2)
    assert [each.done for each in ranked.told] == [0.25, 0.5]
    # What Train keeps for itself is nowhere in the store.
    assert {path.name for path in (ranked.store / "steps" / step.key).iterdir()} <= {
        "record.json",
        "runs",
        "taken",
    }


def trains(run: Run) -> bool:
    """Whether it has done some steps: that it waits for its places is told as progress too."""
    return any(event.what == "progress" and event.done > 0 for event in run.events)


def ranks_of(cluster: Any) -> list[psutil.Process]:
    """The processes that train."""
    found = []
    for each in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(each.cmdline()):
                found.append(each)
        except psutil.NoSuchProcess:
            continue
    return found


def until(what: Callable[[], Any], seconds: float = 120) -> Any:
    """What it gives, once that is something."""
    begin = time.monotonic()
    while not (found := what()):
        assert time.monotonic() - begin < seconds, "waited in vain"
        time.sleep(0.1)
    return found


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_killed_is_told_of_and_the_next_run_goes_on(
    cluster: Any, new: Callable[..., Run], tmp_path: Path, victim: int
) -> None:
    step = target(tmp_path, "60")[1]
    run = new(execution(2, checkpoint_seconds=0.5))
    raised: list[BaseException] = []
    when: list[float] = []

    def work() -> None:
        try:
            run.together(step)
        except BaseException as problem:
            raised.append(problem)
            when.append(time.monotonic())

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: list((run.store / "steps" / step.key).glob("runs/*/checkpoints/*/state.json")))
    ranks = ranks_of(cluster)
    assert len(ranks) == 2
    killed = time.monotonic()
    os.kill(ranks[victim].pid, signal.SIGKILL)
    thread.join(60)
    assert raised and isinstance(raised[0], WorkersLost), raised
    print("lost after", when[0] - killed)
    assert when[0] - killed < 20
    until(lambda: not ranks_of(cluster), 30)

    again = replace(run, attempt=new_attempt(), events=[], execution=execution(1))
    lease = run.store / StepPaths(step.key).lease
    lease.unlink(missing_ok=True)
    record = again.inline(step)
    assert int(str(record.result["resumed_at"])) > 0


def test_stopping_writes_a_checkpoint_of_all_ranks(
    cluster: Any, new: Callable[..., Run], tmp_path: Path
) -> None:
    step = target(tmp_path, "60")[1]
    run = new(execution(2, True, checkpoint_seconds=1000))
    run.stop = lambda: trains(run)
    with pytest.raises(Interrupted, match="stopped after step"):
        run.together(step)
    states = list((run.store / "steps" / step.key).glob("runs/*/checkpoints/*/state.json"))
    assert len(states) == 1
    assert not (run.store / StepPaths(step.key).record).exists()


def test_a_node_that_is_about_to_go_stops_the_ranks_in_time(
    cluster: Any, new: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = target(tmp_path, "60")[1]
    run = new(execution(2, checkpoint_seconds=1000))
    here = frozenset(str(node["NodeID"]) for node in cluster.nodes())
    monkeypatch.setattr(ray_train, "draining", lambda _: here if trains(run) else frozenset())
    with pytest.raises(WorkersLost, match="about to be taken away") as caught:
        run.together(step)
    assert caught.value.preempted  # type: ignore[attr-defined]
    assert len(list((run.store / "steps" / step.key).glob("runs/*/checkpoints/*/state.json"))) == 1


def test_what_goes_wrong_in_a_rank_comes_back_as_it_is(
    cluster: Any, new: Callable[..., Run], tmp_path: Path
) -> None:
    step = target(tmp_path)[1]
    settings = step.body.settings.model_copy(update={"learning_rate": 1e30, "clip": 1e30})  # type: ignore[union-attr]
    bad = step.model_copy(update={"body": step.body.model_copy(update={"settings": settings})})
    run = new(execution(2))
    with pytest.raises(TrainingError, match="not finite"):
        run.together(bad)
