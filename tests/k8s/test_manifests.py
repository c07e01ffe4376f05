"""The manifests, rendered for every overlay and held to the rules that keep a cluster safe."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.placement import CPU_NODE, GPU_NODE, refusals

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy" / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
SERVICES = {"marketplace", "trainer", "aggregator", "verifier"}
# What an operator has to create in each namespace before the first rollout (docs/guides/operator.md).
DOCUMENTED_SECRETS = {"database-url", "redis-url", "session-key", "relayer-keystore", "relayer-passphrase"}
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, list[dict[str, Any]]]:
    rendered = subprocess.run(
        [BIN / "kubectl", "kustomize", str(K8S / "overlays" / request.param)], check=True, capture_output=True, text=True
    ).stdout
    file = tmp_path_factory.mktemp("k8s") / f"{request.param}.yaml"
    file.write_text(rendered)
    return request.param, file, list(yaml.safe_load_all(rendered))


def pods(documents: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(d, d["spec"]["template"]["spec"]) for d in documents if d["kind"] in ("Deployment", "Job")]


def process(document: dict[str, Any]) -> str:
    return str(document["metadata"]["labels"]["rexis.io/process"])


def test_every_document_is_valid_in_the_strict_schema(overlay: tuple[str, Path, list[dict[str, Any]]]) -> None:
    result = subprocess.run(
        [BIN / "kubernetes-validate", "--strict", "-k", "1.34", overlay[1]], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_typing_error_would_be_found(overlay: tuple[str, Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(overlay[1].read_text().replace("readOnlyRootFilesystem", "readOnlyRootFileSystem"))
    assert subprocess.run([BIN / "kubernetes-validate", "--strict", "-k", "1.34", wrong], capture_output=True, check=False).returncode != 0


def test_each_service_has_its_own_namespace_and_processes(overlay: tuple[str, Path, list[dict[str, Any]]]) -> None:
    found = {(d["metadata"]["namespace"].removeprefix("rexis-"), process(d)) for d, _ in pods(overlay[2])}
    expected = {(s, p) for s in SERVICES for p in ("api", "background", "migrate")} | {("trainer", "worker")}
    assert found == expected


def test_pods_are_hardened(overlay: tuple[str, Path, list[dict[str, Any]]]) -> None:
    for document, pod in pods(overlay[2]):
        name = document["metadata"]["name"]
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["requests"], name
            assert "memory" in container["resources"]["limits"], name


def test_secrets_come_from_the_documented_list_and_never_from_a_config_map(
    overlay: tuple[str, Path, list[dict[str, Any]]],
) -> None:
    for document, pod in pods(overlay[2]):
        used = {e["valueFrom"]["secretKeyRef"]["key"] for c in pod["containers"] for e in c.get("env", []) if "valueFrom" in e}
        assert used <= DOCUMENTED_SECRETS, document["metadata"]["name"]
    for document in overlay[2]:
        if document["kind"] == "ConfigMap":
            assert not {key for key in document["data"] if "KEY" in key or "PASS" in key or "DATABASE" in key}
            assert document["data"]["REXIS_ENV"] == "production"


def test_every_namespace_denies_by_default_and_every_service_selects_a_deployment(
    overlay: tuple[str, Path, list[dict[str, Any]]],
) -> None:
    documents = overlay[2]
    for service in SERVICES:
        namespace = f"rexis-{service}"
        mine = [d for d in documents if d["metadata"].get("namespace") == namespace]
        denies = [d for d in mine if d["kind"] == "NetworkPolicy" and d["metadata"]["name"].endswith("default-deny")]
        assert len(denies) == 1
        assert set(denies[0]["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        assert "ingress" not in denies[0]["spec"]
        selector = next(d for d in mine if d["kind"] == "Service")["spec"]["selector"]
        labels = [d["spec"]["template"]["metadata"]["labels"] for d in mine if d["kind"] == "Deployment"]
        assert sum(selector.items() <= label.items() for label in labels) == 1


def test_only_the_trainers_worker_uses_gpus_and_only_there(overlay: tuple[str, Path, list[dict[str, Any]]]) -> None:
    name, _, documents = overlay
    for document, pod in pods(documents):
        on_gpu = name == "prod" and process(document) == "worker"
        assert bool(refusals(pod, CPU_NODE)) is on_gpu, document["metadata"]["name"]
        assert bool(refusals(pod, GPU_NODE)) is not on_gpu, document["metadata"]["name"]


def test_only_what_signs_on_chain_holds_the_key_of_its_service(overlay: tuple[str, Path, list[dict[str, Any]]]) -> None:
    holders = set()
    for document, pod in pods(overlay[2]):
        names = {entry["name"] for container in pod["containers"] for entry in container["env"]}
        mounted = {item["key"] for volume in pod["volumes"] for item in volume.get("secret", {}).get("items", [])}
        if "REXIS_RELAYER_PASSPHRASE" in names or "relayer-keystore" in mounted:
            assert {"REXIS_RELAYER_KEYSTORE", "REXIS_RELAYER_PASSPHRASE"} <= names
            assert mounted == {"relayer-keystore"}
            holders.add(document["metadata"]["name"])
    background = {f"{service}-background" for service in ("marketplace", "trainer", "aggregator", "verifier")}
    assert holders == {*background, "trainer-worker"}


def test_every_long_running_process_has_a_liveness_probe(overlay: tuple[str, Path, list[dict[str, Any]]]) -> None:
    for document, pod in pods(overlay[2]):
        if document["kind"] == "Deployment":
            assert all("livenessProbe" in container for container in pod["containers"]), document["metadata"]["name"]


def test_production_runs_images_by_digest() -> None:
    rendered = subprocess.run([BIN / "kubectl", "kustomize", str(K8S / "overlays" / "prod")], check=True, capture_output=True)
    for _, pod in pods(list(yaml.safe_load_all(rendered.stdout))):
        for container in pod["containers"]:
            assert "@sha256:" in container["image"], container["image"]


def test_each_image_holds_its_own_service_and_no_other() -> None:
    for service in SERVICES:
        lines = (ROOT / "deploy" / "docker" / f"{service}.Dockerfile").read_text().splitlines()
        copied = {line.split()[1] for line in lines if line.startswith("COPY services/")}
        assert copied == {"services/__init__.py", "services/foundation", "services/admin", f"services/{service}"}
        assert any(line.startswith("USER 1") for line in lines)
        assert any("torch.txt" in line for line in lines) is (service == "trainer"), service
        for line in lines:
            if line.startswith("COPY "):
                assert (ROOT / line.split()[1]).exists(), line
