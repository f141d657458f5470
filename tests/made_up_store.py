"""Steps with files of known sizes and true checksums, without running anything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xstilts.record.artifacts import ArtifactStore, StepPaths, plan_file
from xstilts.record.schema import Output, StepRecord

MODEL = {"model/model.safetensors": 300, "model/config.json": 20, "head.safetensors": 40, "history.jsonl": 30}
"""Name under the attempt -> bytes."""


@dataclass
class MadeUpStore:
    """Writes into `store`."""

    store: ArtifactStore

    def train(
        self,
        key: str,
        attempt: str = "win",
        recorded: bool = True,
        losing: bool = False,
        checkpoints: bool = True,
    ) -> StepRecord:
        """A trained model, with a checkpoint of 500 bytes; `losing`: another attempt's 1000 bytes too."""
        paths = StepPaths(key)
        if checkpoints:
            self.store.put(f"{paths.checkpoints(attempt)}00000010/model.safetensors", bytes(500))
        if losing:
            self.store.put(f"{paths.checkpoints('lost')}00000010/model.safetensors", bytes(600))
            self.store.put(paths.run("lost", "model/model.safetensors"), bytes(400))
        kind = key.partition("-")[0]
        return self._step(key, kind, attempt, MODEL, {}, recorded)

    def predict(self, key: str, model: str) -> StepRecord:
        """Predictions of 50 bytes by the model of another step."""
        return self._step(key, "predict", "win", {"predictions/en.parquet": 50}, {"model": model}, True)

    def plan(self, job: str, *steps: tuple[str, list[str]]) -> None:
        """The stored plan of a job: keys and what they start from, inputs first."""
        known = {key for key, _ in steps} | {each for _, needed in steps for each in needed}
        inputs = {key: {} for key in sorted(known - {key for key, _ in steps})}
        inputs |= {key: {f"r{i}": f"label {each}" for i, each in enumerate(needed)} for key, needed in steps}
        listed = [{"key": key, "label": f"label {key}", "inputs": roles} for key, roles in inputs.items()]
        self.store.put(plan_file(job, "0"), json.dumps({"job": job, "steps": listed}).encode())

    def _step(
        self,
        key: str,
        kind: Any,
        attempt: str,
        files: Mapping[str, int],
        inputs: dict[str, str],
        recorded: bool,
    ) -> StepRecord:
        paths = StepPaths(key)
        outputs = {}
        for name, size in files.items():
            data = (hashlib.sha256(f"{key}{name}".encode()).digest() * size)[:size]
            place = paths.run(attempt, name)
            self.store.put(place, data)
            relative = place.removeprefix(f"{paths.root}/")
            outputs[name] = Output(path=relative, bytes=size, sha256=hashlib.sha256(data).hexdigest())
        record = StepRecord(
            key=key, kind=kind, version=1, identity={}, inputs=inputs, outputs=outputs, attempt=attempt,
            finished="2026-01-01T00:00:00+00:00",
        )  # fmt: skip
        if recorded:
            self.store.create(paths.record, record.to_json())
        return record
