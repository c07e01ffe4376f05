"""The manifests, rendered for every overlay and held to the rules that keep a cluster safe."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.foundation.outbox.policies import KNOWN_CHAINS, PRESETS
from services.foundation.settings import RelayerSettings
from tests.k8s.placement import CPU_NODE, GPU_NODE, refusals

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy" / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
SERVICES = {"marketplace", "trainer", "aggregator", "verifier"}
# Where the key of a service can be: the component, the variables that say so, and the secrets that are files.
FORMS = {
    "account": ({"REXIS_RELAYER_KEYSTORE", "REXIS_RELAYER_PASSPHRASE"}, {"relayer-keystore"}),
    "account-kms": ({"REXIS_RELAYER_KMS_KEY", "REXIS_RELAYER_ADDRESS"}, set()),
    "account-web3signer": (
        {
            "REXIS_RELAYER_WEB3SIGNER_URL",
            "REXIS_RELAYER_ADDRESS",
            "REXIS_RELAYER_WEB3SIGNER_AUTHORITY",
            "REXIS_RELAYER_WEB3SIGNER_CERTIFICATE",
            "REXIS_RELAYER_WEB3SIGNER_CERTIFICATE_KEY",
        },
        {"relayer-web3signer-authority", "relayer-web3signer-certificate", "relayer-web3signer-certificate-key"},
    ),
}
SIGNERS = {"marketplace-background", "trainer-background", "aggregator-background", "verifier-background", "trainer-worker"}
# What an operator has to create in each namespace before the first rollout.
GUIDE = (ROOT / "docs" / "guides" / "operator.md").read_text(encoding="utf-8")
SECRETS = GUIDE.split("a secret `secrets` with:\n\n")[1].split("\n\n")[0]
DOCUMENTED_SECRETS = {key for line in SECRETS.splitlines() for key in re.findall(r"`([a-z0-9-]+)`", line.split("|")[1])}
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, list[dict[str, Any]]]:
    rendered = render(K8S / "overlays" / request.param)
    file = tmp_path_factory.mktemp("k8s") / f"{request.param}.yaml"
    file.write_text(rendered)
    return request.param, file, list(yaml.safe_load_all(rendered))


def pods(documents: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(d, d["spec"]["template"]["spec"]) for d in documents if d["kind"] in ("Deployment", "Job")]


def render(folder: Path) -> str:
    return subprocess.run([BIN / "kubectl", "kustomize", str(folder)], check=True, capture_output=True, text=True).stdout


def secrets_used(pod: dict[str, Any]) -> set[str]:
    return {e["valueFrom"]["secretKeyRef"]["key"] for c in pod["containers"] for e in c.get("env", []) if "valueFrom" in e}


def mounted(pod: dict[str, Any]) -> set[str]:
    return {item["key"] for volume in pod["volumes"] for item in volume.get("secret", {}).get("items", [])}


def holders_of_keys(documents: list[dict[str, Any]]) -> dict[str, tuple[set[str], set[str]]]:
    """What of a key is in which deployment or job: variables, and files."""
    found = {}
    for document, pod in pods(documents):
        variables = {entry["name"] for container in pod["containers"] for entry in container["env"] if "RELAYER" in entry["name"]}
        if variables or mounted(pod):
            found[str(document["metadata"]["name"])] = (variables, mounted(pod))
    return found


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
        assert secrets_used(pod) | mounted(pod) <= DOCUMENTED_SECRETS, document["metadata"]["name"]
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
    assert holders_of_keys(overlay[2]) == dict.fromkeys(SIGNERS, FORMS["account"])


@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_in_one_place_that_the_overlay_chooses(form: str, tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    chosen = tmp_path / "k8s" / "overlays" / "prod" / "kustomization.yaml"
    text = chosen.read_text()
    assert text.count("[../../components/account]") == 1
    chosen.write_text(text.replace("[../../components/account]", f"[../../components/{form}]"))
    rendered = render(chosen.parent)
    (file := tmp_path / "rendered.yaml").write_text(rendered)
    checked = subprocess.run([BIN / "kubernetes-validate", "--strict", "-k", "1.34", file], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    documents = list(yaml.safe_load_all(rendered))
    assert holders_of_keys(documents) == dict.fromkeys(SIGNERS, FORMS[form])
    for _, pod in pods(documents):
        assert secrets_used(pod) <= DOCUMENTED_SECRETS
        assert mounted(pod) <= DOCUMENTED_SECRETS
    # A variable of another name would be ignored, and the process would start without a key.
    assert {name.removeprefix("REXIS_").lower() for name in FORMS[form][0]} <= RelayerSettings.model_fields.keys()


def test_every_service_names_the_policy_of_its_chain(overlay: tuple[str, Path, list[dict[str, Any]]]) -> None:
    """The chain of the manifests is of an id that nobody knows, and `generic` would wait for a tag that its nodes do not have."""
    settings = [document["data"] for document in overlay[2] if document["kind"] == "ConfigMap"]
    assert len(settings) == len(SERVICES)
    for data in settings:
        assert int(data["REXIS_CHAIN_ID"]) not in KNOWN_CHAINS
        assert data["REXIS_CHAIN_POLICY"] == "qbft"
        assert isinstance(PRESETS[data["REXIS_CHAIN_POLICY"]].finality, int)


def test_every_long_running_process_has_a_liveness_probe(overlay: tuple[str, Path, list[dict[str, Any]]]) -> None:
    for document, pod in pods(overlay[2]):
        if document["kind"] == "Deployment":
            assert all("livenessProbe" in container for container in pod["containers"]), document["metadata"]["name"]


def test_production_runs_images_by_digest() -> None:
    for _, pod in pods(list(yaml.safe_load_all(render(K8S / "overlays" / "prod")))):
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
