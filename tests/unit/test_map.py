"""The map in platform/README.md is the docstrings' first lines, and every module has one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
SOURCE = REPO / "platform"
MAP = SOURCE / "README.md"
MODULES = sorted((SOURCE / "xstilts").rglob("*.py"))


def first_line(module: Path) -> str:
    """What the module says it is for; "" when it says nothing."""
    return (ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def drawn() -> str:
    """The map as it should be: packages as headings, one line a module."""
    lines: list[str] = []
    for folder in sorted({module.parent for module in MODULES}):
        name = folder.relative_to(SOURCE).as_posix()
        lines += ["", f"### {name}/", "", first_line(folder / "__init__.py"), ""]
        inside = [each for each in MODULES if each.parent == folder and each.name != "__init__.py"]
        lines += [f"- `{each.name}`: {first_line(each)}" for each in inside]
    return "\n".join(lines).strip() + "\n"


def test_the_map_is_what_the_modules_say() -> None:
    text = MAP.read_text(encoding="utf-8")
    head, mark, body = text.partition("<!-- map -->\n")
    assert mark, "platform/README.md has lost its map"
    if body.strip() != drawn().strip():
        redraw = "redraw it: python tests/unit/test_map.py"
        pytest.fail(f"platform/README.md differs from the modules; {redraw}\n\n{_difference(body, drawn())}")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_every_module_says_what_it_is_for(module: Path) -> None:
    told = first_line(module)
    assert told, "give it a docstring: what it is for, in one line"
    assert told.endswith((".", "?", ":")), f"the first line should be a whole sentence: {told!r}"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_modules_are_small_and_named_for_what_they_hold(module: Path) -> None:
    assert module.stem not in {"utils", "helpers", "common", "misc", "manager"}
    text = module.read_text(encoding="utf-8")
    assert text.count("\n") <= 450, "is it one thing?"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines; its top should read as a table of contents"


def test_the_source_root_is_no_package() -> None:
    # With platform/__init__.py, `import platform` from the repository finds this folder instead of the
    # standard library's module, and pytest dies before it can say so (Python 3.11, pytest 9.2).
    assert not (SOURCE / "__init__.py").exists()


def _difference(is_now: str, should_be: str) -> str:
    now, wanted = is_now.strip().splitlines(), should_be.strip().splitlines()
    gone, new = [f"- {a}" for a in now if a not in wanted], [f"+ {a}" for a in wanted if a not in now]
    return "\n".join(gone + new)


if __name__ == "__main__":
    head = MAP.read_text(encoding="utf-8").partition("<!-- map -->\n")[0]
    MAP.write_text(f"{head}<!-- map -->\n{drawn()}", encoding="utf-8")
    print(f"{MAP.relative_to(REPO)} redrawn, {len(MODULES)} modules")
