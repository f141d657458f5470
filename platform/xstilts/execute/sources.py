"""What a job's names stand for here: rows of the manifest or of the world, encoders by checksum."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from xstilts.errors import JobFileError, ModelError
from xstilts.families import snapshot
from xstilts.plan.step import EncoderRef
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

    def languages(self, path: str) -> tuple[str, ...]:
        """Languages that raw text `path` has."""
        return tuple(world.LANGUAGES) if path == "world" else self.manifest.configs(path)

    def encoder(self, model: ModelSpec) -> EncoderRef:
        """An encoder by its checksums: of a folder of the user's, else of the mirror's; or by its commit."""
        places = [Path(model.name)] + ([self._data / "models" / model.name] if self._data else [])
        for folder in places:
            if (folder / "config.json").is_file():
                name = str(folder.absolute()) if folder is places[0] else model.name
                return EncoderRef(name=name, weights=snapshot.weights(folder))
        if model.revision is not None:
            return EncoderRef(name=model.name, revision=model.revision)
        raise ModelError(
            f"no encoder named {model.name!r} here",
            "give a folder, a mirror that holds it (--data), or `revision`, its commit on the hub",
            ("model", "name"),
        )
