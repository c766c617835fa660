"""The habits of the house that no linter knows: names, lengths, first sentences, what a file may say, and what the package promises."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points, packages_distributions, version
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("engine", "kernels", "trainers", "benchmarks")
TOP_LEVEL = {
    *PACKAGES,
    *("tests", "deploy", "pyproject.toml", "requirements.lock", "Makefile"),
    *("README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERBS = PROJECT["project"]["entry-points"]["latentray.verbs"]
# Written so that this file does not match itself. Package indexes only: a container file may name the registry it builds from.
INDEX_HOSTS = re.compile(r"py[p]i\.|python[h]osted\.|pytorch\.or[g]/whl|ana[c]onda\.org|npm[j]s\.")
BARE_GPU_IMPORTS = {"torch", "numpy", "safetensors", "engine", "kernels"}
TORCHVISION_NETWORKS = {
    f"engine/networks/{stem}.py" for stem in ("convnext", "densenet", "imagenet_features", "retinanet", "retinanet_stages")
}


@cache
def house_files() -> tuple[Path, ...]:
    """Every file that git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return tuple(path for name in sorted(set(listing.split("\0")) - {""}) if (path := ROOT / name).is_file())


def modules(*folders: str) -> Iterator[Path]:
    """The Python files under `folders`, or all of them."""
    for path in house_files():
        if path.suffix == ".py" and (not folders or path.relative_to(ROOT).parts[0] in folders):
            yield path


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_top_level_is_the_agreed_one() -> None:
    found = {path.relative_to(ROOT).parts[0] for path in house_files()}
    assert {entry for entry in found if not entry.startswith(".")} <= TOP_LEVEL


def test_first_line_says_what_the_file_is_for() -> None:
    silent = []
    for path in modules():
        lines = path.read_text().splitlines()
        if not lines and path.name == "__init__.py":
            continue  # only marks a package; its room's README speaks for it
        first = lines[1] if lines[0].startswith("#!") else lines[0]
        if not re.match(r'"""[A-Z`a-z0-9].*[.:?]("""$|\s*$)', first):
            silent.append(name(path))
    assert not silent, f"line 1 is no sentence: {silent}"


@pytest.mark.parametrize("script", [".ci/run", "engine/encode_dataset.py"])
def test_scripts_can_be_executed(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    assert (ROOT / script).read_text().startswith("#!")


def test_files_stay_short() -> None:
    limits: dict[str, int] = {".py": 400, ".md": 400}
    long = {}
    for path in house_files():
        limit = limits.get(path.suffix)
        if path.name == "README.md":
            limit = 250 if path.parent == ROOT else 60
        if name(path) == "benchmarks/README.md":
            limit = None  # made from results, as long as these are; what is written by hand is page_head.md
        if name(path) == "benchmarks/page_head.md":
            limit = 60
        length = len(path.read_text().splitlines()) if limit else 0
        if limit and length > limit:
            long[name(path)] = length
    assert not long


def test_no_module_hides_another() -> None:
    """A script runs with its own folder first on the path: there, a module named like another would be imported in its place."""
    taken = sys.stdlib_module_names | set(PACKAGES)
    assert [name(path) for path in modules(*PACKAGES) if path.stem in taken] == []


def test_tests_are_no_package() -> None:
    assert [name(path) for path in modules("tests") if path.name == "__init__.py"] == []


def test_files_speak_of_no_index_and_no_machine() -> None:
    places = [re.escape(f"{place}/") for place in {str(ROOT), str(Path.home())} if place.count("/") > 0 and place != "/"]
    forbidden = re.compile("|".join([INDEX_HOSTS.pattern, *places]))
    found = []
    for path in house_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # a picture
        found += [f"{name(path)}:{number}" for number, line in enumerate(text.splitlines(), 1) if forbidden.search(line)]
    assert found == []


def test_lock_pins_and_hashes_every_requirement() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    requirements = [index for index, line in enumerate(lines) if line and line[0] not in "# "]
    assert len(requirements) > 100
    for index in requirements:
        assert re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+ .*\\$", lines[index]), lines[index]
        assert lines[index + 1].startswith("    --hash=sha256:"), lines[index]


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_verb_resolves(verb: str) -> None:
    (entry,) = entry_points(group="latentray.verbs", name=verb)
    assert entry.value == VERBS[verb], "installed before pyproject.toml changed; run `make setup`"
    module = entry.load()
    assert isinstance(module.HELP, str)
    assert callable(module.add_arguments)
    assert callable(module.run)


def test_command_resolves() -> None:
    (entry,) = entry_points(group="console_scripts", name="latentray")
    assert callable(entry.load())


def test_version_is_one() -> None:
    import engine

    assert version("latentray") == engine.__version__
    assert f"## [{engine.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def run_python(code: str) -> str:
    """What `code` prints in a fresh interpreter that treats warnings as errors."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_engine_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'torchvision', 'numpy', 'zarr', 'ray', 'xarray', 'pandas', 'nvidia', 'PIL', 'cv2'}"
    assert run_python(f"import sys, engine; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_doors_open_and_stay_open() -> None:
    """`engine.encode_dataset` is a module and a door of one name; the door wins however often and in whatever order both are imported."""
    doors = "engine.open_archive, engine.open_codes, engine.load_codec, engine.encode_dataset"
    for first in ("", "import engine.encode_dataset", "from engine.encode_dataset import encode_dataset"):
        assert run_python(f"import engine\n{first}\nprint(all(map(callable, ({doors}) + ({doors}))))") == "True"


def test_a_door_that_is_none_is_an_attribute_error() -> None:
    import engine

    with pytest.raises(AttributeError, match="no attribute 'open_sesame'"):
        _ = engine.open_sesame


def imported_packages(path: Path) -> set[str]:
    """Top-level names that a file imports when it runs; imports for type checkers only do not count."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    return {full.split(".")[0] for full in names}


def test_what_is_imported_is_declared() -> None:
    extras = PROJECT["project"]["optional-dependencies"].values()
    declared = {re.split(r"[\[<>=;]", line)[0].strip() for line in [*PROJECT["project"]["dependencies"], *chain(*extras)]}
    providers = packages_distributions()
    known = sys.stdlib_module_names | set(PACKAGES) | {"tests"}
    undeclared = {}
    for path in modules():
        for package in imported_packages(path) - known:
            if not declared & {provider.lower() for provider in providers.get(package, [package.replace("_", "-")])}:
                undeclared.setdefault(package, name(path))
    assert undeclared == {}


def test_what_runs_on_a_bare_gpu_image_imports_no_more_than_that_has() -> None:
    """import-linter can only forbid what it is told; this names what is allowed."""
    rooms = ("engine/networks/", "engine/refine/", "engine/metrics.py", "engine/sliced_wasserstein.py", "engine/frechet.py", "kernels/")
    strangers = {}
    for path in modules("engine", "kernels"):
        allowed = BARE_GPU_IMPORTS | sys.stdlib_module_names
        if name(path) in TORCHVISION_NETWORKS:
            allowed |= {"torchvision"}
        if name(path).startswith("kernels/"):
            allowed |= {"triton"}
        if name(path).startswith(rooms) and (found := imported_packages(path) - allowed):
            strangers[name(path)] = sorted(found)
    assert strangers == {}
