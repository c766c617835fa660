"""What a cell of a table says of a film: the grammar by which labels are asked for, and the answer, yes, no or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.errors import ConfigError

_YES, _NO = ("1", "1.0", "true", "t", "yes", "y"), ("0", "0.0", "false", "f", "no", "n")


Cells = Sequence[str | None]


@dataclass(frozen=True)
class Term:
    """What a cell must be: `yes` (1, true, yes; 0, false, no mean it is not), `is` equal to `value`, or `filled` at all."""

    column: str
    must: Literal["yes", "is", "filled"]
    value: str = ""

    @staticmethod
    def parse(text: str) -> Term:
        """`COLUMN`, `COLUMN=VALUE` or `COLUMN?`."""
        column, equals, value = (part.strip() for part in text.partition("="))
        must: Literal["yes", "is", "filled"] = "is" if equals else "filled" if column.endswith("?") else "yes"
        column = column.removesuffix("?").strip() if must == "filled" else column
        if not column or (equals and not value):
            raise ConfigError(f"a label is made of COLUMN, COLUMN=VALUE or COLUMN?: {text.strip() or 'nothing'}")
        return Term(column, must, value)

    def holds(self, cell: str | None) -> bool | None:
        """Whether it does for a cell; None where the cell does not say. A cell may hold several values, as `Effusion|Mass`."""
        if self.must == "filled":
            return bool(cell)
        if not cell:
            return None
        if self.must == "is":
            return self.value in (cell.strip(), *map(str.strip, cell.split("|")))
        word = cell.strip().lower()
        return True if word in _YES else False if word in _NO else None


@dataclass(frozen=True)
class LabelSpec:
    """A label by name: yes where any of its terms holds."""

    name: str
    terms: tuple[Term, ...]

    @staticmethod
    def parse(text: str) -> LabelSpec:
        """`TERM`, or `NAME: TERM, TERM`. Raises ConfigError for anything else."""
        name, colon, terms = text.partition(":")
        if not colon:
            return LabelSpec(text.strip(), (Term.parse(text),))
        if not name.strip():
            raise ConfigError(f"a label must read like TERM or NAME: TERM, TERM: {text}")
        return LabelSpec(name.strip(), tuple(map(Term.parse, terms.split(","))))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that its terms look at."""
        return tuple(dict.fromkeys(term.column for term in self.terms))

    def marks(self, cells: Mapping[str, Cells]) -> list[bool | None]:
        """Whether it holds, film by film, for the cells of these columns; None where they say neither yes nor no."""
        found = zip(*([term.holds(cell) for cell in cells[term.column]] for term in self.terms), strict=True)
        return [True if True in terms else None if None in terms else False for terms in found]
