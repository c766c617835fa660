"""What a cell of a table says of a film: the grammar by which labels are asked for, and the answer, yes, no or nothing."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.errors import ConfigError

_YES, _NO = ("1", "1.0", "true", "t", "yes", "y"), ("0", "0.0", "false", "f", "no", "n")


_SIGNS: dict[str, Callable[[float, float], bool]] = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
_BOUND = re.compile(r"\s*([<>]=?)\s*([^<>=/\s]+)\s*")

Cells = Sequence[str | None]


@dataclass(frozen=True)
class Bound:
    """What a number must be: on this side (`>`, `>=`, `<`, `<=`) of a border."""

    sign: str
    border: float

    @staticmethod
    def parse(text: str) -> Bound:
        """`>0.5`. Raises ConfigError for another sign, and for what is no finite number."""
        found = _BOUND.fullmatch(text)
        number = _number(found[2]) if found else None
        if found is None or number is None:
            raise ConfigError(
                f"a number is asked for as COLUMN>NUMBER or COLUMN>NUMBER/<NUMBER, with >, >=, < or <=: {text.strip() or 'nothing'}"
            )
        return Bound(found[1], number)

    def holds(self, number: float) -> bool:
        """Whether a number is there."""
        return _SIGNS[self.sign](number, self.border)

    def meets(self, other: Bound) -> bool:
        """Whether some number is within both."""
        if self.sign[0] == other.sign[0]:
            return True
        upper, lower = (self, other) if self.sign[0] == "<" else (other, self)
        return lower.border < upper.border or (lower.border == upper.border and lower.holds(upper.border) and upper.holds(lower.border))


@dataclass(frozen=True)
class Term:
    """What a cell must be: `yes` (1, true, yes; 0, false, no mean it is not), `is` equal to `value`, `filled` at all, or a `number` within
    the first of `bounds`. Where there is a second one, only numbers within that are without it: those between say nothing."""

    column: str
    must: Literal["yes", "is", "filled", "number"]
    value: str = ""
    bounds: tuple[Bound, ...] = ()

    @staticmethod
    def parse(text: str) -> Term:
        """`COLUMN`, `COLUMN=VALUE`, `COLUMN?`, `COLUMN>NUMBER` or `COLUMN>NUMBER/<NUMBER`; what stands before a `=` or `?` is no sign."""
        sign = re.search("[<>=]", text)
        if sign and sign[0] != "=" and not text.rstrip().endswith("?"):
            return _compared(text[: sign.start()].strip(), text[sign.start() :])
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
        if self.must == "number":
            return self._within(_number(cell))
        if self.must == "is":
            return self.value in (cell.strip(), *map(str.strip, cell.split("|")))
        word = cell.strip().lower()
        return True if word in _YES else False if word in _NO else None

    def _within(self, number: float | None) -> bool | None:
        if number is None:
            return None
        first, *second = self.bounds
        return True if first.holds(number) else None if second and not second[0].holds(number) else False


def _compared(column: str, text: str) -> Term:
    bounds = tuple(map(Bound.parse, text.split("/")))
    if not column or len(bounds) > 2:
        raise ConfigError(f"a number is asked for as COLUMN>NUMBER or COLUMN>NUMBER/<NUMBER: {column}{text}")
    if len(bounds) == 2 and bounds[0].meets(bounds[1]):
        raise ConfigError(f"no number may be both with and without a label: {column}{text}")
    return Term(column, "number", bounds=bounds)


def _number(text: str) -> float | None:
    """A finite number, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


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
