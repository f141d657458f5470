"""Tasks and languages as data; importing this registers all of them (0.1 s) and loads no ML library."""

from xstilts.tasks import intermediate, languages, registry, targets, world

__all__ = ["intermediate", "languages", "registry", "targets", "world"]

_ISO_15924 = {"Latin": "Latn", "Greek": "Grek", "Georgian": "Geor"}

for _task in world.TASKS.values():
    registry.register(_task)
for _spoken in world.EVERY.values():
    languages.register(
        languages.Language(
            code=_spoken.code,
            name=_spoken.name,
            family=_spoken.family,
            script=_ISO_15924[_spoken.script],
            distance=_spoken.distance,
        )
    )
