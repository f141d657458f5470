"""A job file as an Experiment, every mistake in it with file, line and the nearest name.

YAML 1.2: `no` is Norwegian, not false, and 1e-5 is a number. Keys are always text. Aliases work; tags and
`<<` merges are refused, since a reader of the file should see what is run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from xstilts.errors import JobFileError, XstiltsError
from xstilts.spec import explain
from xstilts.spec.experiment import Experiment

_TAG = "tag:yaml.org,2002:"
_PLAIN = frozenset({"null", "bool", "int", "float"})
_AS_TEXT = frozenset({"str", "timestamp", "merge", "value"})
"""Scalars taken as written: no field of a job is a date."""
_REMEDY_YAML = "mend the line; YAML is `key: value`, indented with spaces"


@dataclass(frozen=True, slots=True)
class JobFile:
    """A valid job file and where each of its words stands."""

    path: Path
    text: str
    experiment: Experiment
    lines: dict[explain.Path, int] = field(repr=False)
    """Path of a key or item -> its line, from 1."""

    def error_at(self, problem: XstiltsError) -> XstiltsError:
        """`problem` with the file and line of its `where`; as it is when it has none."""
        if not problem.where:
            return problem
        place = _place(self.path, self.lines, problem.where)
        return type(problem)(f"{place}: {problem.problem}", problem.remedy, problem.where)


def load(path: Path | str) -> JobFile:
    """Reads and checks one job file.

    Raises:
        JobFileError: no such file, not YAML, a misspelt or repeated key, a value that cannot be; all the
            problems of a file at once, each with its line.
    """
    path = Path(path)
    return parse(_read(path), path)


def parse(text: str, path: Path) -> JobFile:
    """The same for text that is already read; `path` only names it in errors."""
    lines: dict[explain.Path, int] = {}
    words = _words(text, path, lines)
    try:
        experiment = Experiment.model_validate(words)
    except ValidationError as error:
        raise _refusal(path, lines, explain.complaints(error, set(lines))) from None
    return JobFile(path, text, experiment, lines)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise JobFileError(f"no job file at {path}", _others(path)) from None
    except IsADirectoryError:
        raise JobFileError(f"{path} is a folder, not a job file", _others(path / "*.yaml")) from None
    except UnicodeDecodeError:
        raise JobFileError(f"{path} is not text in UTF-8", "save it as UTF-8, or name a job file") from None
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise JobFileError(
            f"{path} cannot be read ({reason})", "check its path and its permissions"
        ) from None


def _others(path: Path) -> str:
    """What to type instead: the job file of the nearest name in that folder, else all of them."""
    folder = path.parent
    names = sorted(each.name for each in folder.glob("*.yaml")) if folder.is_dir() else []
    near = get_close_matches(path.name, names, n=1)
    if near:
        return f"did you mean {folder / near[0]}?"
    return f"{folder} has {', '.join(names)}" if names else "check the path; job files end in .yaml"


def _words(text: str, path: Path, lines: dict[explain.Path, int]) -> dict[str, Any]:
    """The file's plain values; fills `lines`."""
    yaml = YAML(typ="safe", pure=True)
    try:
        tree = yaml.compose(text)
    except YAMLError as problem:
        raise _not_yaml(path, problem) from None
    if tree is None:
        raise JobFileError(f"{path} is empty", "copy a file from jobs/ and change it")
    if not isinstance(tree, MappingNode):
        raise JobFileError(f"{path}:{_line(tree)}: a job file is a list of `key: value`", _REMEDY_YAML)
    words = _Tree(path, lines, yaml).value(tree, (), ())
    if not isinstance(words, dict):
        raise JobFileError(f"{path} holds no keys", _REMEDY_YAML)
    return words


def _not_yaml(path: Path, problem: YAMLError) -> JobFileError:
    context = getattr(problem, "context", None) or ""
    # A bracket or quote that is never closed is told where it was opened, not at the end of the file.
    opened = "flow" in context or "quoted" in context
    mark = getattr(problem, "context_mark" if opened else "problem_mark", None)
    reason = getattr(problem, "problem", None) or "it holds a character that YAML does not allow"
    place = f"{path}:{mark.line + 1}" if mark is not None else f"{path}"
    return JobFileError(f"{place}: this is not YAML ({reason})", _REMEDY_YAML)


@dataclass
class _Tree:
    """Turns YAML nodes into plain values and notes the line of each."""

    path: Path
    lines: dict[explain.Path, int]
    yaml: Any

    def value(self, node: Node, at: explain.Path, above: tuple[int, ...]) -> Any:
        """The plain value of `node`; `above` holds the ids of the nodes around it."""
        if id(node) in above:
            raise self._refuse(
                node, f"{explain.dotted(at)} contains itself", "write it out without the alias"
            )
        kind = node.tag.removeprefix(_TAG) if node.tag else ""
        if isinstance(node, MappingNode) and kind == "map":
            return self._section(node, at, (*above, id(node)))
        if isinstance(node, SequenceNode) and kind == "seq":
            return [self._item(each, (*at, n), (*above, id(node))) for n, each in enumerate(node.value)]
        if isinstance(node, ScalarNode) and (kind in _AS_TEXT or kind in _PLAIN):
            return str(node.value) if kind in _AS_TEXT else self._scalar(node)
        tag = (node.tag or "").replace(_TAG, "!!")
        raise self._refuse(node, f"{explain.dotted(at)} has the tag {tag}", "leave the tag out")

    def _section(self, node: MappingNode, at: explain.Path, above: tuple[int, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                raise self._refuse(key, "a key is one word", _REMEDY_YAML)
            name = str(key.value)
            here = (*at, name)
            if name in found:
                first = self.lines[here]
                raise self._refuse(
                    key, f"{explain.dotted(here)} is given twice, first in line {first}", "keep one of them"
                )
            self.lines[here] = _line(key)
            found[name] = self.value(value, here, above)
        return found

    def _item(self, node: Node, at: explain.Path, above: tuple[int, ...]) -> Any:
        self.lines[at] = _line(node)
        return self.value(node, at, above)

    def _scalar(self, node: ScalarNode) -> Any:
        try:
            return self.yaml.constructor.construct_object(node)
        except ValueError:  # an integer of more than 4,300 digits: the model will say what belongs there
            return str(node.value)

    def _refuse(self, node: Node, problem: str, remedy: str) -> JobFileError:
        return JobFileError(f"{self.path}:{_line(node)}: {problem}", remedy)


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _place(path: Path, lines: dict[explain.Path, int], where: explain.Path) -> str:
    """file:line of `where`, or of the nearest section around it that the file has."""
    for end in range(len(where), 0, -1):
        if where[:end] in lines:
            return f"{path}:{lines[where[:end]]}"
    return f"{path}"


def _refusal(path: Path, lines: dict[explain.Path, int], found: list[explain.Complaint]) -> JobFileError:
    """One error for all the problems, in the order of their lines."""
    ordered = sorted(found, key=lambda each: _position(lines, each.where))
    told = [(_place(path, lines, each.where), each) for each in ordered]
    if len(told) == 1:
        place, only = told[0]
        return JobFileError(f"{place}: {only.problem}", only.remedy, only.where)
    listed = "".join(f"\n  {place}: {each.problem}: {each.remedy}" for place, each in told)
    return JobFileError(f"{path} has {len(told)} problems", f"mend each of them{listed}")


def _position(lines: dict[explain.Path, int], where: explain.Path) -> int:
    return next((lines[where[:end]] for end in range(len(where), 0, -1) if where[:end] in lines), 0)
