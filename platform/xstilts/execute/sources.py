"""What a job's names stand for here: rows of the manifest or of the world, encoders by checksum."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from xstilts.errors import DataError, JobFileError, ModelError
from xstilts.families import snapshot
from xstilts.frozen import digest
from xstilts.plan.step import (
    Body,
    EncoderRef,
    PredictBody,
    PretrainBody,
    ProbeBody,
    ScoreBody,
    SearchBody,
    Step,
    TrainBody,
    TranslateBody,
)
from xstilts.spec.experiment import Experiment, ModelSpec
from xstilts.tasks import world
from xstilts.tasks.manifest import FILE, Manifest
from xstilts.tasks.task import Rows, Split


class LocalSources:
    """Sources for `plan.expand`, from a data folder and the job's generated world."""

    def __init__(self, experiment: Experiment, data: Path | None) -> None:
        self._world = experiment.world
        self._data = data

    @cached_property
    def manifest(self) -> Manifest:
        """Read when the first published rows are asked for; a world needs none."""
        return Manifest.load(self._data)

    def rows(self, split: Split, language: str) -> Rows:
        """Identity of the rows of one split of one language."""
        if split.path != "world":
            return self.manifest.rows(split, language)
        if self._world is None:
            raise JobFileError(
                "the job uses tasks of the generated world and has none", "add `world: {seed: 1}`"
            )
        generator = world.generator_identity(self._world.seed)
        return Rows(path="world", config=split.config, split=split.split, language=language, world=generator)

    def check(self, steps: Iterable[Step]) -> dict[tuple[str, str], str]:
        """Looks at the files of steps before the first of them runs: (target, language) -> what is wrong with
        the rows of a language that would be reported.

        Only what is to run is looked at: a finished job can be reported where its data are gone.

        Raises:
            DataError: a file to train, choose or search on is missing, empty, or of another size than in the
                manifest.
        """
        found: dict[tuple[str, str], str] = {}
        looked: set[str] = set()
        for body in (step.body for step in steps):
            for rows in _rows(body):
                if rows.world is None and not rows.made_by and digest(rows) not in looked:
                    looked.add(digest(rows))
                    self.manifest.check(rows)
            if isinstance(body, PredictBody | ScoreBody):
                found |= self._damaged(body)
        return found

    def _damaged(self, body: PredictBody | ScoreBody) -> dict[tuple[str, str], str]:
        """Of the rows that are reported, or that a threshold for them is found on."""
        found = {}
        for rows in (*body.rows, *body.calibration):
            try:
                if rows.world is None:
                    self.manifest.check(rows)
            except DataError as problem:
                found[body.task.name, rows.language] = problem.problem
        return found

    def count(self, split: Split) -> int | None:
        """How many rows a published split has here; generated rows are counted when they are made."""
        return None if split.path == "world" else self.manifest.count(split)

    def languages(self, path: str) -> tuple[str, ...]:
        """Languages that raw text `path` has."""
        return tuple(world.LANGUAGES) if path == "world" else self.manifest.configs(path)

    def encoder(self, model: ModelSpec) -> EncoderRef:
        """An encoder by its checksums: of a folder of the user's, else of the mirror's; or by its commit."""
        folder = snapshot.find(model.name, self._data)
        if folder is not None and folder == Path(model.name):
            return EncoderRef(name=str(folder.absolute()), weights=snapshot.weights(folder))
        # What the manifest says, where it lists the model: the worker compares the bytes with it. Of a mirror
        # in a bucket there is only the manifest here.
        there = self._data is not None and (folder is not None or (self._data / FILE).is_file())
        listed = (self.manifest.model(model.name) if there else None) or {}
        known = {name: listed[name] for name in sorted(listed) if snapshot.decides(name)}
        if known or folder is not None:
            return EncoderRef(name=model.name, weights=known or snapshot.weights(folder or Path()))
        if model.revision is not None:
            return EncoderRef(name=model.name, revision=model.revision)
        raise ModelError(
            f"no encoder named {model.name!r} here",
            "run `xstilts data pull JOB`, give a folder, or `revision`, its commit on the hub",
            ("model", "name"),
        )


def _rows(body: Body) -> tuple[Rows, ...]:
    """The rows that a step cannot do without."""
    if isinstance(body, PretrainBody):
        return body.corpora
    if isinstance(body, SearchBody):
        body = body.trial
    if isinstance(body, TranslateBody):
        return (body.rows,)
    if isinstance(body, PredictBody):
        return body.candidates
    if isinstance(body, ProbeBody):
        return body.rows
    if not isinstance(body, TrainBody):
        return ()
    mixing = body.mixing
    parts = () if mixing is None else mixing.parts
    text = () if mixing is None or mixing.mlm is None else mixing.mlm.corpora
    mixed = (rows for part in parts for rows in (part.rows, part.selection_rows))
    return (body.rows, *(body.target_dev or (body.selection_rows,)), *mixed, *text)
