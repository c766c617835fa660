"""deploy/cluster.yaml as `ray up` reads it, and every `ray start` in deploy/: known options, a token, nothing for the world."""

from __future__ import annotations

import copy
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = yaml.safe_load((ROOT / "deploy/cluster.yaml").read_text())
JOB = next(yaml.safe_load_all((ROOT / "deploy/rayjob.yaml").read_text()))


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with Ray's defaults, found valid by what `ray up` calls before it turns to the cloud."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    whole: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(whole)
    return whole


def test_ray_takes_it() -> None:
    kinds = prepared(FILE)["available_node_types"]
    bounds = {name: (kind["min_workers"], kind["max_workers"]) for name, kind in kinds.items()}
    assert bounds == {"head": (0, 0), "cpu_worker": (2, 8), "gpu_worker": (0, 4)}
    assert kinds["gpu_worker"]["resources"]["GPU"] == 1
    assert "GPU" not in kinds["cpu_worker"]["resources"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("max_worker",), 8),
        (("max_workers",), "8"),
        (("available_node_types", "cpu_worker", "resources"), "16"),
        (("available_node_types", "cpu_worker", "minimum"), 2),
        (("head_node_type",), "no such kind"),
        (("max_workers",), 1),  # fewer than start at once
    ],
)
def test_ray_refuses_what_is_misspelt(path: tuple[str, ...], value: object) -> None:
    spoilt = copy.deepcopy(FILE)
    inner = spoilt
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    from jsonschema import ValidationError

    with pytest.raises((ValidationError, ValueError)):
        prepared(spoilt)


def ray_starts() -> dict[str, list[str]]:
    """The words after `ray start` in each place that starts Ray."""
    lines = {f"cluster.yaml {at}": line for at in ("head", "worker") for line in FILE[f"{at}_start_ray_commands"] if "ray start" in line}
    script = (ROOT / "deploy/slurm.sh").read_text().replace("\\\n", " ")
    lines |= {f"slurm.sh {at}": line for at, line in enumerate(re.findall(r"ray start .*", script))}
    lines |= {
        f"README.md {at}": line for at, line in enumerate(re.findall(r"^ray start .*", (ROOT / "deploy/README.md").read_text(), re.M))
    }
    return {place: shlex.split(line.partition("ray start")[2], comments=True) for place, line in lines.items()}


def test_ray_knows_every_option() -> None:
    from ray.scripts.scripts import start

    known = {name for parameter in start.params for name in (*parameter.opts, *parameter.secondary_opts)}
    found = ray_starts()
    assert len(found) == 5
    for place, words in found.items():
        assert [word for word in words if word.startswith("--") and word.partition("=")[0] not in known] == [], place
    cluster = JOB["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert {f"--{name}" for name in group["rayStartParams"]} <= known


def test_dashboards_listen_on_loopback() -> None:
    heads = {place: words for place, words in ray_starts().items() if "--head" in words}
    assert len(heads) == 3
    assert all("--dashboard-host=127.0.0.1" in words for words in heads.values())


def test_every_node_asks_for_the_token() -> None:
    (target,) = FILE["file_mounts"]
    starts = [line for at in ("head", "worker") for line in FILE[f"{at}_start_ray_commands"] if "ray start" in line]
    assert len(starts) == 2
    assert all(f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={target} " in line for line in starts)
    assert FILE["file_mounts"][target] == "~/.ray/auth_token"


def test_one_image_everywhere() -> None:
    (container,) = JOB["spec"]["submitterPodTemplate"]["spec"]["containers"]
    assert FILE["docker"]["image"] == container["image"]
    assert f"--tag {container['image']} " in (ROOT / "deploy/README.md").read_text()
