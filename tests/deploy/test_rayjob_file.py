"""deploy/rayjob.yaml: every field known to KubeRay and of its type, nothing runs as root, and the token is asked for."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.rayjob_fields import NETWORK_POLICY, RAY_JOB, strays

ROOT = Path(__file__).resolve().parents[2]
JOB, POLICY = yaml.safe_load_all((ROOT / "deploy/rayjob.yaml").read_text())
CLUSTER = JOB["spec"]["rayClusterSpec"]
PODS = {
    "submitter": JOB["spec"]["submitterPodTemplate"],
    "head": CLUSTER["headGroupSpec"]["template"],
    **{group["groupName"]: group["template"] for group in CLUSTER["workerGroupSpecs"]},
}


def test_every_field_is_one_that_kuberay_knows() -> None:
    assert strays(JOB, RAY_JOB) == []
    assert strays(POLICY, NETWORK_POLICY) == []


def misspelt(job: Any) -> None:
    job["spec"]["backofLimit"] = job["spec"].pop("backoffLimit")


def as_text(job: Any) -> None:
    job["spec"]["backoffLimit"] = "3"


def number_for_text(job: Any) -> None:
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


def memory_of_no_unit(job: Any) -> None:
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] = "16 GB"


def deep_inside(job: Any) -> None:
    job["spec"]["submitterPodTemplate"]["spec"]["containers"][0]["securityContext"]["allowPriviledgeEscalation"] = False


def not_a_list(job: Any) -> None:
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"] = {}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (misspelt, [".spec.backofLimit is not known"]),
        (as_text, [".spec.backoffLimit must be integer"]),
        (number_for_text, [".spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus must be text"]),
        (
            memory_of_no_unit,
            [".spec.rayClusterSpec.workerGroupSpecs[0].template.spec.containers[0].resources.limits.memory must be quantity"],
        ),
        (deep_inside, [".spec.submitterPodTemplate.spec.containers[0].securityContext.allowPriviledgeEscalation is not known"]),
        (not_a_list, [".spec.rayClusterSpec.workerGroupSpecs must be a list"]),
    ],
)
def test_a_field_that_strays_is_named(spoil: Callable[[Any], None], said: list[str]) -> None:
    job = json.loads(json.dumps(JOB))  # what anchors share becomes separate
    spoil(job)
    assert strays(job, RAY_JOB) == said


def containers() -> Iterator[tuple[Any, Any]]:
    for pod in PODS.values():
        for container in pod["spec"]["containers"]:
            yield pod["spec"], container


def test_nothing_runs_as_root_or_can_become_it() -> None:
    for pod, container in containers():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001  # whom the image has
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert not {"hostNetwork", "hostPID"} & set(pod)
    assert "USER 10001:10001" in (ROOT / "deploy/Dockerfile").read_text()


def test_every_container_says_what_it_needs() -> None:
    for _, container in containers():
        assert set(container["resources"]) == {"requests", "limits"}
        assert set(container["resources"]["limits"]) >= {"cpu", "memory"}
        assert container["image"].partition(":")[2] not in ("", "latest")


def test_nodes_are_looked_after() -> None:
    for name in ("head", "workers"):
        (container,) = PODS[name]["spec"]["containers"]
        for probe in ("readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"] == {"path": "/api/healthz", "port": 52365}
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert set(mounted) == {volume["name"] for volume in PODS[name]["spec"]["volumes"]}
        assert mounted["data"] == "/data"


def test_the_token_is_asked_for_and_not_written_down() -> None:
    assert CLUSTER["authOptions"] == {"mode": "token", "secretName": "latentray-token"}
    text = (ROOT / "deploy/rayjob.yaml").read_text()
    assert "auth_token=" in text  # how the secret is made
    assert "kind: Secret" not in text


def test_only_the_cluster_itself_gets_to_its_ports() -> None:
    labels = POLICY["spec"]["podSelector"]["matchLabels"]
    assert all(pod["metadata"]["labels"] == labels for pod in PODS.values())
    inside, operator = POLICY["spec"]["ingress"]
    assert inside == {"from": [{"podSelector": {"matchLabels": labels}}]}
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]
    assert CLUSTER["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_it_comes_back_after_a_fault_and_goes_when_it_is_done() -> None:
    spec = JOB["spec"]
    assert spec["backoffLimit"] >= 1
    assert spec["shutdownAfterJobFinishes"] is True
    (group,) = CLUSTER["workerGroupSpecs"]
    words = shlex.split(spec["entrypoint"])
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == int(words[words.index("--workers") + 1])
    assert "--overwrite" not in words


def test_ray_is_the_one_of_the_lock() -> None:
    assert f"ray=={CLUSTER['rayVersion']} " in (ROOT / "requirements.lock").read_text()
