"""Names of the locked packages that stay out of an image: what only tests need and what is under the GPL, one a line for the Dockerfile."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
LEFT_OUT = ("dev", "dicom-gpl")  # extras
OF_RAY = {"pyyaml", "jsonschema"}  # tests use them, and Ray could not do without


def not_shipped(project: Path = PROJECT) -> list[str]:
    """The packages of the extras that are left out, but for those that latentray or another extra names as well."""
    about = tomllib.loads(project.read_text())["project"]
    extras = {name: _names(lines) for name, lines in about["optional-dependencies"].items()}
    kept = _names(about["dependencies"]).union(OF_RAY, *(names for name, names in extras.items() if name not in LEFT_OUT))
    return sorted(set().union(*(extras[name] for name in LEFT_OUT)) - kept)


def _names(lines: list[str]) -> set[str]:
    return {re.split(r"[\[<>=;~! ]", line)[0] for line in lines}


if __name__ == "__main__":
    sys.stdout.write("\n".join(not_shipped()) + "\n")
