"""Where things live in `py/recovery`, as its README says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "py" / "recovery"
#: Each module with the number and the name of its room.
ROOMS = {
    module: (number, room.partition("**")[0])
    for number, room in enumerate((PACKAGE / "README.md").read_text().split("\n- **")[1:])
    for module in re.findall(r"`(\w+)`", room)
}
MODULES = {path.stem: path for path in PACKAGE.glob("*.py") if path.stem != "__init__"}


def loaded_with(path: Path) -> Iterator[str]:
    """The modules of the package that a module imports when it is itself imported."""

    def below(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            is_for_types = isinstance(child, ast.If) and isinstance(child.test, ast.Name)
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not is_for_types:
                yield child
                yield from below(child)

    for node in below(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "recovery":
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("recovery."):
            yield (node.module or "").split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names if name.name.startswith("recovery."))


def test_every_module_is_in_one_room() -> None:
    words = re.findall(r"\n  (`.*)", (PACKAGE / "README.md").read_text())
    named = re.findall(r"`(\w+)`", " ".join(words))
    assert sorted(named) == sorted(MODULES)


def test_no_module_is_loaded_with_one_of_a_later_room() -> None:
    wrong = [
        f"{module} ({ROOMS[module][1]}) imports {other} ({ROOMS[other][1]})"
        for module, path in MODULES.items()
        for other in loaded_with(path)
        if other in ROOMS and ROOMS[other][0] > ROOMS[module][0]
    ]
    assert wrong == []


def test_nothing_is_loaded_with_the_torture() -> None:
    assert [module for module, path in MODULES.items() if "torture" in loaded_with(path)] == []


def test_every_module_says_in_its_first_line_what_it_does() -> None:
    assert [module for module, path in MODULES.items() if not ast.get_docstring(ast.parse(path.read_text()))] == []
