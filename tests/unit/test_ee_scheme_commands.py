"""`rexis ee` makes keys that add noise, and rows go out with it; what needs more than a key file is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from rexis import ee
from rexis.cli.command import app
from rexis.ee.schemes import Noise
from rexis.models.mlp import LogisticConfig
from rexis.models.spec import ModelSpec

PASSPHRASE = "a passphrase for tests"


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REXIS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REXIS_PASSPHRASE", PASSPHRASE)
    monkeypatch.chdir(tmp_path)
    Path("spec.json").write_text(json.dumps(ModelSpec(LogisticConfig(3, 2)).document()))


def test_rows_go_out_with_the_noise_of_the_key() -> None:
    made = CliRunner().invoke(
        app, ["ee", "keygen", "spec.json", "--knowledge", "private", "--scheme", "noise", "--sigma", "0.5", "-o", "job.key"]
    )
    assert made.exit_code == 0, made.output
    assert "μ = 2" in made.output
    Path("rows.csv").write_text("a,b,c\n" + "1,2,3\n" * 400)
    sent = CliRunner().invoke(app, ["ee", "encrypt", "--key", "job.key", "--inputs", "rows.csv", "-o", "sent.safetensors", "--json"])
    assert sent.exit_code == 0, sent.output
    key = ee.Key.load("job.key", PASSPHRASE)
    assert key.scheme == Noise(0.5)
    rows = key.site_keys["layer0/in"].decrypt(load_file("sent.safetensors")["x"].double())
    error = rows - torch.tensor([1.0, 2.0, 3.0])
    assert error.std().item() == pytest.approx(0.5, rel=0.1)
    assert error.mean().abs().item() < 0.1


@pytest.mark.parametrize("arguments", [["--scheme", "ckks"], ["--scheme", "client_encoder"], ["--scheme", "noise"], ["--sigma", "1"]])
def test_what_a_key_file_does_not_carry_is_refused(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["ee", "keygen", "spec.json", "--knowledge", "private", "-o", "job.key", *arguments])
    assert result.exit_code != 0
    assert "sigma" in result.output or "rexis.ee.keygen" in result.output
    assert not Path("job.key").exists()
