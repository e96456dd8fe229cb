"""How the code is laid out: what the import contracts of setup.cfg cannot say."""

from __future__ import annotations

import ast
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import grimp

ROOT = Path(__file__).parent.parent
LIBRARY = sorted((ROOT / "edgecsd").rglob("*.py"))
MOST_LOOSE = 8
LOOKED_AT = 400  # lines: a longer file is looked at again: one concept, or two?


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


TREES = {module_of(file): ast.parse(file.read_text()) for file in LIBRARY}


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run at import, inside of `if` and `try` too."""
    for statement in body:
        yield statement
        for part in ("body", "orelse", "finalbody"):
            if isinstance(statement, ast.If | ast.Try):
                yield from statements(getattr(statement, part, []))


def defined_in(tree: ast.Module) -> set[str]:
    """The names that a module's own statements bind, imports left out."""
    names: set[str] = set()
    for statement in statements(tree.body):
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names |= {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    return names


def test_few_modules_lie_loose_beside_the_packages() -> None:
    loose = [file.name for file in LIBRARY if file.parent == ROOT / "edgecsd"]
    assert len(loose) <= MOST_LOOSE, loose


def test_every_name_is_imported_from_the_file_that_defines_it() -> None:
    defined = {module: defined_in(tree) for module, tree in TREES.items()}
    lazy = {"edgecsd"}  # its public steps are found by __getattr__
    wrong = []
    for file in [*LIBRARY, *(f for folder in ("tests", "benchmarks") for f in sorted((ROOT / folder).rglob("*.py")))]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in TREES and node.module not in lazy:
                wrong += [
                    f"{file.relative_to(ROOT)}:{node.lineno}: {name.name} of {node.module}"
                    for name in node.names
                    if name.name not in defined[node.module] and f"{node.module}.{name.name}" not in TREES
                ]
    assert wrong == []


def test_no_class_name_stands_twice() -> None:
    homes = defaultdict(list)
    for module, tree in TREES.items():
        for statement in statements(tree.body):
            if isinstance(statement, ast.ClassDef):
                homes[statement.name].append(module)
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("edgecsd", exclude_type_checking_imports=True)
    left = {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}
    while free := {module for module, imported in left.items() if not imported & set(left)}:
        left = {module: imported for module, imported in left.items() if module not in free}
    assert left == {}, "these files import each other, or a file of such a circle"


def test_long_files_are_looked_at() -> None:
    for file in LIBRARY:
        lines = file.read_text().count("\n")
        if lines > LOOKED_AT:
            with warnings.catch_warnings():
                warnings.simplefilter("default")
                warnings.warn(f"{file.relative_to(ROOT)} has {lines} lines: one concept, or two?", stacklevel=1)
