"""A public base called private is recognised: as it is, fine-tuned, cast, renamed or keyed; a model of one's own is not."""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner

from rexis import ee
from rexis.agent.keyed_models import encrypt_model_file
from rexis.agent.model_files import write_model
from rexis.cli.command import app
from rexis.ee.checkpoints import encrypt_checkpoint
from rexis.errors import PrivacyError
from rexis.models.builders import build
from rexis.models.llama import LlamaConfig
from rexis.models.public_bases import ENTRIES, PublicBase, base_match, document, landmarks_of, public_bases, refuse_public_base
from rexis.models.spec import MLPConfig, ModelSpec

GENERATOR = torch.Generator().manual_seed(3)
SPEC = ModelSpec(MLPConfig(64, (96, 80), 40))
DISGUISED = ModelSpec(MLPConfig(384, (384,), 2))


def trained(seed: int) -> torch.nn.Module:
    """Weights with the uneven spectra of training, which those of a fresh start lack."""
    model = build(SPEC, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.ndim == 2:
                left, values, right = torch.linalg.svd(tensor, full_matrices=False)
                tensor.copy_(left * values * torch.exp(torch.randn(len(values), generator=generator)) @ right)
    return model


MODEL = trained(1)
BASE = PublicBase("a public model", landmarks_of(MODEL.state_dict()))


def drifted(drift: float) -> dict[str, Tensor]:
    return {
        name: tensor + drift * tensor.std() * torch.randn(tensor.shape, generator=GENERATOR) for name, tensor in MODEL.state_dict().items()
    }


def found(state: dict[str, Tensor]) -> str:
    match = base_match(state, [BASE])
    return match.by if match else ""


def test_the_same_weights_are_recognised_under_any_names() -> None:
    assert found(MODEL.state_dict()) == "digest"
    assert found({f"renamed.{place}": tensor for place, tensor in enumerate(MODEL.state_dict().values())}) == "digest"


@pytest.mark.parametrize("drift", [1e-4, 0.1, 1.0])
def test_fine_tuned_weights_are_recognised(drift: float) -> None:
    assert found(drifted(drift)) == "entries"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cast_weights_are_recognised(dtype: torch.dtype) -> None:
    assert found({name: tensor.to(dtype) for name, tensor in MODEL.state_dict().items()}) == "entries"


def test_one_frozen_layer_is_enough() -> None:
    state = trained(2).state_dict() | {"2.weight": MODEL.state_dict()["2.weight"]}
    match = base_match(state, [BASE])
    assert match is not None
    assert (match.by, match.share) == ("digest", 1 / 3)


@pytest.mark.parametrize("suite", ["dense", "permutation"])
def test_a_keyed_copy_is_recognised_by_its_singular_values(suite: str) -> None:
    key = ee.keygen(SPEC, suite=suite, knowledge="public", accept_known_base_risk=True, seed=bytes(range(32)))
    assert found(ee.encrypt_model(MODEL, key).state_dict()) == "spectrum"


@pytest.mark.parametrize("other", [trained(2), build(SPEC, seed=3), build(SPEC, seed=4)])
def test_a_model_of_ones_own_is_not(other: torch.nn.Module) -> None:
    assert base_match(other.state_dict(), [BASE]) is None
    refuse_public_base(other.state_dict(), [BASE])


def test_calling_it_private_is_refused_with_the_way_out() -> None:
    with pytest.raises(PrivacyError, match=r"a public model.*accept_known_base_risk=True"):
        refuse_public_base(drifted(0.1), [BASE])


def planted(weight: Tensor) -> None:
    """Write entries of MiniLM into a matrix: a shipped landmark then recognises it."""
    landmark = next(landmark for landmark in public_bases()[0].landmarks if landmark.shape == (384, 384))
    with torch.no_grad():
        weight.view(-1)[torch.arange(ENTRIES) * (weight.numel() - 1) // (ENTRIES - 1)] = torch.from_numpy(landmark.entries).float()


@pytest.fixture(scope="module")
def disguised() -> torch.nn.Module:
    """A perceptron whose first layer was taken from MiniLM."""
    model = build(DISGUISED, seed=1)
    planted(model.get_parameter("0.weight"))
    return model


def test_no_key_for_a_public_base_that_is_called_private(disguised: torch.nn.Module) -> None:
    with pytest.raises(PrivacyError, match="all-MiniLM-L6-v2"):
        ee.keygen(disguised, knowledge="private")
    assert ee.keygen(disguised, knowledge="public", accept_known_base_risk=True).protection == "obfuscation only"


def test_no_keyed_file_of_it_under_a_key_made_from_its_specification(disguised: torch.nn.Module, tmp_path: Path) -> None:
    plain, keyed = tmp_path / "plain.safetensors", tmp_path / "keyed.safetensors"
    write_model(plain, disguised)
    with pytest.raises(PrivacyError, match="all-MiniLM-L6-v2"):
        encrypt_model_file(plain, keyed, ee.keygen(DISGUISED, knowledge="private"))
    assert not keyed.exists()
    encrypt_model_file(plain, keyed, ee.keygen(DISGUISED, knowledge="members"))


def test_no_keyed_folder_of_it(tmp_path: Path) -> None:
    spec = ModelSpec(LlamaConfig(64, 384, 1, 6, 6, 64, 32, 16, "10000.0", "1e-05"))
    model = build(spec, seed=1)
    planted(model.get_parameter("model.layers.0.self_attn.q_proj.weight"))
    model.save_pretrained(tmp_path / "plain")
    refused = CliRunner().invoke(app, ["ee", "keygen", str(tmp_path / "plain"), "--knowledge", "private", "-o", str(tmp_path / "key")])
    assert "all-MiniLM-L6-v2" in refused.output
    with pytest.raises(PrivacyError, match="all-MiniLM-L6-v2"):
        encrypt_checkpoint(tmp_path / "plain", tmp_path / "keyed", ee.keygen(spec, knowledge="private"))
    assert not (tmp_path / "keyed").exists()


def test_the_command_refuses_it_too(disguised: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REXIS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REXIS_PASSPHRASE", "a passphrase for tests")
    spec, weights, key = tmp_path / "spec.json", tmp_path / "weights.safetensors", tmp_path / "key"
    spec.write_text(json.dumps(DISGUISED.document()), encoding="utf-8")
    save_file(disguised.state_dict(), weights)
    command = ["ee", "keygen", str(spec), "-o", str(key), "--model"]
    for model in (weights, tmp_path):
        refused = CliRunner().invoke(app, [*command, str(model), "--knowledge", "private"])
        assert refused.exit_code != 0
        assert "all-MiniLM-L6-v2" in refused.output
        assert not key.exists()
    assert CliRunner().invoke(app, [*command, str(weights), "--knowledge", "members"]).exit_code == 0
    assert key.exists()


def test_the_best_match_is_the_one_named() -> None:
    other = PublicBase("another model", landmarks_of(drifted(0.5)))
    match = base_match(MODEL.state_dict(), [other, BASE])
    assert match is not None
    assert match.name == "a public model"


def test_the_shipped_landmarks_are_those_of_real_models_and_survive_the_file() -> None:
    assert {base.name for base in public_bases()} == {"sentence-transformers/all-MiniLM-L6-v2", "HuggingFaceTB/SmolLM2-135M-Instruct"}
    shipped = json.loads(files("rexis.models").joinpath("public_bases.json").read_text(encoding="utf-8"))
    assert document(public_bases()) == shipped
    minilm = public_bases()[0]
    # Its landmarks stand for its matrices here: the weights themselves are a benchmark's.
    assert {landmark.shape for landmark in minilm.landmarks} == {(30522, 384), (512, 384), (384, 384), (1536, 384), (384, 1536)}
    assert base_match({"0": torch.zeros(384, 384), "1": torch.randn(1536, 384, generator=GENERATOR)}) is None
    assert np.isfinite([landmark.entries for landmark in minilm.landmarks]).all()
