"""Where the scheduler would put a pod: nodeSelector, taints, and resources, on nodes described by hand.

The verdicts for GPU and CPU pods agreed with a real kube-scheduler when both were tried on the same manifests.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Node:
    """A node as the scheduler sees it; `resources` in whole units (cores, GiB, devices)."""

    name: str
    resources: dict[str, float]
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[tuple[str, str], ...] = ()


CPU_NODE = Node("cpu", {"cpu": 8, "memory": 32})
GPU_NODE = Node(
    "gpu",
    {"cpu": 16, "memory": 128, "nvidia.com/gpu": 1},
    labels={"nvidia.com/gpu.present": "true"},
    taints=(("nvidia.com/gpu", "NoSchedule"),),
)


def quantity(text: str | float) -> float:
    """A Kubernetes quantity in whole units: cores, GiB, devices."""
    factors = {"m": 1e-3, "Ki": 2**-20, "Mi": 2**-10, "Gi": 1.0, "Ti": 2.0**10}
    suffix = next((s for s in ("Ki", "Mi", "Gi", "Ti", "m") if str(text).endswith(s)), "")
    return float(str(text).removesuffix(suffix)) * factors.get(suffix, 1.0)


def refusals(pod: dict[str, Any], node: Node) -> list[str]:
    """Why `pod` (a pod spec) can not run on `node`; empty if it can."""
    reasons = [f"label {key}={value} is missing" for key, value in pod.get("nodeSelector", {}).items() if node.labels.get(key) != value]
    for key, effect in node.taints:
        tolerated = any(
            t.get("operator") == "Exists" and t.get("key") in (None, key) and t.get("effect") in (None, effect)
            for t in pod.get("tolerations", [])
        )
        if not tolerated:
            reasons.append(f"taint {key} is not tolerated")
    asked: dict[str, float] = {}
    for container in pod["containers"]:
        resources = container.get("resources", {})
        for name, value in {**resources.get("limits", {}), **resources.get("requests", {})}.items():
            asked[name] = asked.get(name, 0) + quantity(value)
    reasons += [f"{name}: {amount} asked" for name, amount in asked.items() if amount > node.resources.get(name, 0)]
    return reasons
