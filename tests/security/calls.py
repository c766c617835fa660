"""What a source file calls, by full names: through whatever alias it was imported, and as a reference that is only passed on."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Use:
    """A name that is used, in full, with the call's keywords where it is called."""

    name: str
    line: int
    is_call: bool
    keywords: dict[str, ast.expr]


def uses(text: str) -> Iterator[Use]:
    """Every dotted name, with what it was imported as put in full: `import numpy as np; np.load(f)` uses `numpy.load`."""
    tree = ast.parse(text)
    known = dict(_imported(tree))
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        name = _dotted(node)
        if name is None or not isinstance(getattr(node, "ctx", None), ast.Load):  # what is assigned to is no use
            continue
        first, _, rest = name.partition(".")
        full = ".".join(filter(None, (known.get(first, first), rest)))
        call = called.get(id(node))
        keywords = {} if call is None else {keyword.arg or "**": keyword.value for keyword in call.keywords}
        yield Use(full, getattr(node, "lineno", 0), call is not None, keywords)


def is_constant(node: ast.expr | None, value: object) -> bool:
    """Whether an argument is written out as just this value."""
    return isinstance(node, ast.Constant) and node.value is value


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    yield alias.asname, alias.name
                else:
                    yield alias.name.partition(".")[0], alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _dotted(node: ast.AST) -> str | None:
    """`a.b.c` of an expression that is only names; the inner parts of a longer one give names of their own, which do no harm."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value)
        return None if inner is None else f"{inner}.{node.attr}"
    return None
