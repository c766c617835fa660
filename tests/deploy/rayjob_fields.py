"""The fields of ray.io/v1 RayJob and networking.k8s.io/v1 NetworkPolicy that deploy/ may use, with their types, and who strays from them.

Taken from the custom resource definitions of KubeRay 1.7 and the API of Kubernetes 1.32. A field that is not here is an error: Kubernetes
itself drops what it does not know without a word.
"""

from __future__ import annotations

import re
from typing import Any

QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
INT, BOOL, TEXT = "integer", "true or false", "text"
TEXTS = {"*": TEXT}  # any names, each with a text
AMOUNTS = {"*": "quantity"}

RESOURCES = {"requests": AMOUNTS, "limits": AMOUNTS}
POD_SECURITY = {
    **dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), INT),
    "runAsNonRoot": BOOL,
    "seccompProfile": {"type": ("RuntimeDefault", "Localhost", "Unconfined"), "localhostProfile": TEXT},
}
CONTAINER_SECURITY = {
    **dict.fromkeys(("allowPrivilegeEscalation", "privileged", "readOnlyRootFilesystem", "runAsNonRoot"), BOOL),
    "runAsUser": INT,
    "capabilities": {"drop": [TEXT], "add": [TEXT]},
}
PROBE = {
    "httpGet": {"path": TEXT, "port": INT, "scheme": ("HTTP", "HTTPS")},
    **dict.fromkeys(("initialDelaySeconds", "periodSeconds", "timeoutSeconds", "successThreshold", "failureThreshold"), INT),
}
CONTAINER = {
    "name": TEXT,
    "image": TEXT,
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "command": [TEXT],
    "args": [TEXT],
    "workingDir": TEXT,
    "env": [{"name": TEXT, "value": TEXT, "valueFrom": {"secretKeyRef": {"name": TEXT, "key": TEXT, "optional": BOOL}}}],
    "ports": [{"name": TEXT, "containerPort": INT, "protocol": ("TCP", "UDP")}],
    "resources": RESOURCES,
    "securityContext": CONTAINER_SECURITY,
    **dict.fromkeys(("readinessProbe", "livenessProbe", "startupProbe"), PROBE),
    "volumeMounts": [{"name": TEXT, "mountPath": TEXT, "subPath": TEXT, "readOnly": BOOL}],
}
VOLUME = {
    "name": TEXT,
    "persistentVolumeClaim": {"claimName": TEXT, "readOnly": BOOL},
    "emptyDir": {"medium": ("Memory", ""), "sizeLimit": "quantity"},
    "secret": {"secretName": TEXT, "defaultMode": INT},
}
POD = {
    "metadata": {"labels": TEXTS, "annotations": TEXTS},
    "spec": {
        "restartPolicy": ("Always", "OnFailure", "Never"),
        "serviceAccountName": TEXT,
        "automountServiceAccountToken": BOOL,
        "terminationGracePeriodSeconds": INT,
        "nodeSelector": TEXTS,
        "tolerations": [{"key": TEXT, "operator": ("Exists", "Equal"), "value": TEXT, "effect": TEXT}],
        "securityContext": POD_SECURITY,
        "initContainers": [CONTAINER],
        "containers": [CONTAINER],
        "volumes": [VOLUME],
    },
}
CLUSTER = {
    "rayVersion": TEXT,
    "authOptions": {"mode": ("token", "disabled"), "secretName": TEXT},
    "enableInTreeAutoscaling": BOOL,
    "headGroupSpec": {"serviceType": ("ClusterIP", "NodePort", "LoadBalancer"), "rayStartParams": TEXTS, "template": POD},
    "workerGroupSpecs": [
        {
            "groupName": TEXT,
            **dict.fromkeys(("replicas", "minReplicas", "maxReplicas", "numOfHosts", "idleTimeoutSeconds"), INT),
            "rayStartParams": TEXTS,
            "template": POD,
        }
    ],
}
RAY_JOB = {
    "apiVersion": ("ray.io/v1",),
    "kind": ("RayJob",),
    "metadata": {"name": TEXT, "namespace": TEXT, "labels": TEXTS},
    "spec": {
        "entrypoint": TEXT,
        **dict.fromkeys(("backoffLimit", "activeDeadlineSeconds", "preRunningDeadlineSeconds", "ttlSecondsAfterFinished"), INT),
        "shutdownAfterJobFinishes": BOOL,
        "suspend": BOOL,
        "submissionMode": ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"),
        "submitterPodTemplate": POD,
        "submitterConfig": {"backoffLimit": INT},
        "runtimeEnvYAML": TEXT,
        "rayClusterSpec": CLUSTER,
    },
}
SELECTOR = {"matchLabels": TEXTS}
NETWORK_POLICY = {
    "apiVersion": ("networking.k8s.io/v1",),
    "kind": ("NetworkPolicy",),
    "metadata": {"name": TEXT, "namespace": TEXT, "labels": TEXTS},
    "spec": {
        "podSelector": SELECTOR,
        "policyTypes": [("Ingress", "Egress")],
        "ingress": [
            {
                "from": [{"podSelector": SELECTOR, "namespaceSelector": SELECTOR}],
                "ports": [{"protocol": ("TCP", "UDP"), "port": INT}],
            }
        ],
    },
}


def strays(value: Any, table: Any, place: str = "") -> list[str]:
    """Where `value` has a field that the table has not, or one of another type; empty where all is as it should be."""
    if isinstance(table, dict):
        if not isinstance(value, dict):
            return [f"{place or 'document'} must be an object"]
        found = []
        for name, item in value.items():
            kind = table.get(name, table.get("*"))
            found += [f"{place}.{name} is not known"] if kind is None else strays(item, kind, f"{place}.{name}")
        return found
    if isinstance(table, list):
        if not isinstance(value, list):
            return [f"{place} must be a list"]
        return [one for at, item in enumerate(value) for one in strays(item, table[0], f"{place}[{at}]")]
    if isinstance(table, tuple):
        return [] if value in table else [f"{place} must be one of {', '.join(table)}"]
    return [] if _is(value, table) else [f"{place} must be {table}"]


def _is(value: Any, kind: str) -> bool:
    if kind == INT:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == BOOL:
        return isinstance(value, bool)
    if kind == "quantity":
        return isinstance(value, int | str) and not isinstance(value, bool) and bool(QUANTITY.fullmatch(str(value)))
    return isinstance(value, str)
