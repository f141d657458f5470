"""What a job's names stand for here: rows of the manifest or of the world, encoders by checksum."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from xstilts.errors import JobFileError, ModelError
from xstilts.families import snapshot
from xstilts.plan.step import Body, EncoderRef, PretrainBody, SearchBody, Step, TrainBody
from xstilts.spec.experiment import Experiment, ModelSpec
from xstilts.tasks import world
from xstilts.tasks.manifest import Manifest
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

    def check(self, steps: Iterable[Step]) -> None:
        """Refuses steps whose files are not those that were pulled, before the first of them runs.

        Only what is to run is looked at: a finished job can be reported where its data are gone.

        Raises:
            DataError: a file is missing, empty, or of another size than in the manifest.
        """
        places = {(rows.path, rows.config, rows.split): rows for step in steps for rows in _rows(step.body)}
        for rows in places.values():
            if rows.world is None:
                self.manifest.check(rows)

    def languages(self, path: str) -> tuple[str, ...]:
        """Languages that raw text `path` has."""
        return tuple(world.LANGUAGES) if path == "world" else self.manifest.configs(path)

    def encoder(self, model: ModelSpec) -> EncoderRef:
        """An encoder by its checksums: of a folder of the user's, else of the mirror's; or by its commit."""
        folder = snapshot.find(model.name, self._data)
        if folder is not None and folder == Path(model.name):
            return EncoderRef(name=str(folder.absolute()), weights=snapshot.weights(folder))
        if folder is not None:
            # What the manifest says, where it lists the model: the worker compares the bytes with it.
            listed = self.manifest.model(model.name) or {}
            known = {name: listed[name] for name in sorted(listed) if snapshot.decides(name)}
            return EncoderRef(name=model.name, weights=known or snapshot.weights(folder))
        if model.revision is not None:
            return EncoderRef(name=model.name, revision=model.revision)
        raise ModelError(
            f"no encoder named {model.name!r} here",
            "give a folder, a mirror that holds it (--data), or `revision`, its commit on the hub",
            ("model", "name"),
        )


def _rows(body: Body) -> tuple[Rows, ...]:
    """All the rows that a step reads."""
    if isinstance(body, PretrainBody):
        return body.corpora
    if isinstance(body, SearchBody):
        body = body.trial
    return (body.rows, body.selection_rows) if isinstance(body, TrainBody) else body.rows
