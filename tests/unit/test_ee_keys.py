"""Keys: what keygen refuses, what the sites admit, and the key file."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from rexis import ee
from rexis.ee import key_files, modules, site_keys
from rexis.ee.groups import FastOrthogonal, Orthogonal, Permutation, SignedPermutation
from rexis.ee.shift_scales import DEVIATION, ShiftScales
from rexis.ee.site_keys import SiteKey
from rexis.ee.sites import Mode, Site, SiteKind
from rexis.encoding import canonical_json, parse_canonical_json, to_hex
from rexis.errors import KeyFileError, PrivacyError, UnsupportedLayerError
from rexis.models.bert import BertConfig
from rexis.models.builders import build
from rexis.models.llama import LlamaConfig
from rexis.models.mlp import MAX_DEPTH, MLPConfig
from rexis.models.spec import ModelSpec

SPEC = ModelSpec(MLPConfig(6, (9, 8), 3))
ODD = ModelSpec(MLPConfig(6, (9,), 3, "tanh"))
SEED = bytes(range(32))


def test_knowledge_has_no_default() -> None:
    with pytest.raises(TypeError, match="knowledge"):
        ee.keygen(SPEC)


def test_a_public_base_is_refused_unless_its_risk_is_accepted() -> None:
    with pytest.raises(PrivacyError, match="obfuscation only"):
        ee.keygen(SPEC, knowledge="public")
    assert ee.keygen(SPEC, knowledge="public", accept_known_base_risk=True).protection == "obfuscation only"
    assert ee.keygen(SPEC, knowledge="members").protection == "obfuscation only"
    assert ee.keygen(SPEC, knowledge="private").protection != "obfuscation only"


def test_seeds_come_from_the_system_unless_given() -> None:
    assert ee.keygen(SPEC, knowledge="private").seed != ee.keygen(SPEC, knowledge="private").seed
    assert ee.keygen(SPEC, knowledge="private", seed=SEED).seed == SEED


@pytest.mark.parametrize("field", ["mode", "suite", "knowledge", "seed", "epoch"])
def test_fields_are_checked(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        replace(ee.keygen(SPEC, knowledge="private"), **{field: b"nonsense" if field == "seed" else -1})


def test_secrets_are_not_printed() -> None:
    assert SEED.hex() not in repr(ee.keygen(SPEC, knowledge="private", seed=SEED))
    assert repr(SEED) not in repr(ee.keygen(SPEC, knowledge="private", seed=SEED))


def test_id_names_the_key_and_its_epoch() -> None:
    key = ee.keygen(SPEC, knowledge="private", seed=SEED)
    assert key.id == ee.keygen(ODD, knowledge="members", seed=SEED).id
    assert len({key.id, replace(key, epoch=1).id, ee.keygen(SPEC, knowledge="private", seed=bytes(32)).id}) == 3


@pytest.mark.parametrize(
    ("spec", "mode", "suite", "groups", "shifted"),
    [
        (SPEC, "infer", "dense", [Orthogonal, Permutation, Permutation, Orthogonal], [True, False, False, True]),
        (SPEC, "train", "dense", [Orthogonal, Permutation, Permutation, Permutation], [False] * 4),
        (SPEC, "infer", "permutation", [Permutation] * 4, [False] * 4),
        (ODD, "infer", "dense", [Orthogonal, SignedPermutation, Orthogonal], [True, False, True]),
        (ODD, "train", "permutation", [Permutation] * 3, [False] * 3),
    ],
)
def test_suites_take_these_groups(spec: ModelSpec, mode: Mode, suite: ee.keys.Suite, groups: list[type], shifted: list[bool]) -> None:
    key = ee.keygen(spec, mode=mode, suite=suite, knowledge="private", seed=SEED)
    assert [type(site.transform) for site in key.site_keys.values()] == groups
    assert [bool(site.shift.any()) for site in key.site_keys.values()] == shifted
    assert [site.transform.dimension for site in key.site_keys.values()] == list(spec.config.widths)
    assert all(site.shift.abs().max() < 6 * DEVIATION for site in key.site_keys.values())


def test_elements_act_as_their_formulas_say() -> None:
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    indices, signs = torch.tensor([2, 0, 1]), torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
    assert Permutation(indices).apply(x).tolist() == [3.0, 1.0, 2.0]
    assert SignedPermutation(indices, signs).apply(x).tolist() == [3.0, -1.0, -2.0]
    matrix = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    assert Orthogonal(matrix).apply(x[:2]).tolist() == [2.0, -1.0]
    assert SiteKey(Orthogonal(matrix), x[1:]).encrypt(x[:2]).tolist() == [4.0, 2.0]


def test_the_hidden_key_is_the_one_of_the_published_vector() -> None:
    key = ee.keygen(ModelSpec(MLPConfig(6, (8,), 3)), knowledge="private", seed=SEED)
    hidden = key.site_keys["layer0/hidden"].transform
    assert isinstance(hidden, Permutation)
    assert hidden.indices.tolist() == [0, 2, 5, 3, 6, 1, 7, 4]


@pytest.mark.parametrize("mode", ["infer", "train"])
@pytest.mark.parametrize(
    ("kind", "group", "shift", "admitted_in"),
    [
        (SiteKind.INPUT, Orthogonal, True, {"infer"}),
        (SiteKind.INPUT, Orthogonal, False, {"infer", "train"}),
        (SiteKind.HIDDEN, Permutation, False, {"infer", "train"}),
        (SiteKind.HIDDEN, Permutation, True, set()),
        (SiteKind.HIDDEN, SignedPermutation, False, set()),
        (SiteKind.HIDDEN, Orthogonal, False, set()),
        (SiteKind.HIDDEN_ODD, SignedPermutation, False, {"infer", "train"}),
        (SiteKind.HIDDEN_ODD, Orthogonal, False, set()),
        (SiteKind.OUTPUT, Orthogonal, True, {"infer"}),
        (SiteKind.OUTPUT, Permutation, False, {"infer", "train"}),
        (SiteKind.OUTPUT, Permutation, True, {"infer"}),
        (SiteKind.OUTPUT, SignedPermutation, False, {"infer"}),
    ],
)
def test_a_key_outside_its_sites_rule_is_refused(kind: SiteKind, group: type, shift: bool, admitted_in: set[str], mode: Mode) -> None:
    site = Site("layer0/x", kind, 4)
    if mode in admitted_in:
        assert isinstance(SiteKey.draw(SEED, "x", site, group, shift=shift, mode=mode).transform, group)
    else:
        with pytest.raises(UnsupportedLayerError, match="layer0/x"):
            SiteKey.draw(SEED, "x", site, group, shift=shift, mode=mode)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh"])
def test_what_the_rules_refuse_is_really_wrong(activation: str) -> None:
    """A dense or (without an odd activation) signed hidden key, forced past the rule, gives outputs that are off by their own size."""
    spec = ModelSpec(MLPConfig(20, (32,), 2, activation))
    model = build(spec, seed=3, dtype=torch.float64)
    x = torch.randn(64, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    key = ee.keygen(spec, knowledge="private", seed=SEED)
    wrong = [Orthogonal] if activation == "tanh" else [Orthogonal, SignedPermutation]
    for group in wrong:
        forced = dict(key.site_keys) | {"layer0/hidden": SiteKey(group.draw(SEED, "x", 32), torch.zeros(32, dtype=torch.float64))}
        output = ee.decrypt_outputs(modules.encrypt(model, forced)(ee.encrypt_inputs(x, key)), key)
        assert (output - model(x)).abs().max() > 0.1 * model(x).abs().max()


def test_models_without_a_transform_are_refused() -> None:
    with pytest.raises(UnsupportedLayerError, match="Softmax"):
        ee.keygen(nn.Sequential(nn.Linear(3, 3), nn.Softmax(-1), nn.Linear(3, 3)), knowledge="private")


def test_a_key_of_another_architecture_is_refused() -> None:
    key = ee.keygen(SPEC, knowledge="private")
    for use in (ee.encrypt_model, ee.decrypt_model):
        with pytest.raises(KeyFileError, match="the key is for"):
            use(build(ODD, seed=1), key)


@pytest.mark.parametrize("rows", [torch.zeros(4, 7), torch.zeros(4, 6, dtype=torch.int64), torch.tensor(1.0), torch.zeros(6, 4)])
def test_rows_of_another_shape_or_type_are_refused(rows: torch.Tensor) -> None:
    key = ee.keygen(SPEC, knowledge="private")
    with pytest.raises(ValueError, match="expected floats"):
        ee.encrypt_inputs(rows, key)
    with pytest.raises(ValueError, match="expected floats"):
        ee.decrypt_outputs(rows, key)


def test_key_file(tmp_path: Path) -> None:
    path = tmp_path / "model.key"
    key = replace(ee.keygen(SPEC, mode="train", suite="permutation", knowledge="members"), epoch=7)
    key.save(path, "correct horse")
    assert ee.Key.load(path, "correct horse") == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    sealed = path.read_bytes()
    assert len(sealed) < key_files.MAX_FILE_SIZE
    assert key.seed not in sealed
    with pytest.raises(FileExistsError):
        key.save(path, "correct horse")
    with pytest.raises(KeyFileError, match="wrong passphrase"):
        ee.Key.load(path, "correct horsf")
    # One bit of each part: magic, salt, nonce, body, tag; then truncation and growth.
    body = len(b"rexis/ee-key/1\0")
    for position in (0, body, body + 16, body + 28, len(sealed) - 1):
        (tmp_path / "bad").write_bytes(sealed[:position] + bytes([sealed[position] ^ 1]) + sealed[position + 1 :])
        with pytest.raises(KeyFileError):
            ee.Key.load(tmp_path / "bad", "correct horse")
    for changed in (b"", sealed[:20], sealed[:-1], sealed + b"\0", sealed.ljust(5000, b"\0")):
        (tmp_path / "bad").write_bytes(changed)
        with pytest.raises(KeyFileError):
            ee.Key.load(tmp_path / "bad", "correct horse")


def test_the_largest_key_file_stays_under_a_kilobyte(tmp_path: Path) -> None:
    spec = ModelSpec(MLPConfig(65536, (1234,) * (MAX_DEPTH - 1), 65536, "leaky_relu", "layer", residual=True))
    key = ee.keygen(spec, knowledge="members", suite="permutation", mode="train", records=1 << 48)
    replace(key, epoch=(1 << 32) - 1).save(tmp_path / "key", "p")
    assert (tmp_path / "key").stat().st_size < key_files.MAX_FILE_SIZE


@pytest.mark.parametrize(
    "change",
    [
        *({"mode": "guess"}, {"seed": "0x00"}, {"version": 3}, {"version": True}, {"version": "2"}, {"extra": 1}, {"spec": None}),
        *({"epoch": True}, {"labels": "split"}, {"records": 0}, {"records": True}, {"records": "5"}),
        *({"shifts": [-1, 0]}, {"shifts": [-1, 0, 1]}, {"shifts": [-33, 0, 0]}, {"shifts": ["-1", 0, 0]}, {"shifts": [True, 0, 0]}),
        *({"shifts": None}, {"shifts": {"keys": -1}}),
        *({"condition": 1.0}, {"condition": "1"}, {"condition": "nan"}, {"condition": "11.0"}, {"condition": None}, {"condition": [1]}),
    ],
)
def test_a_sealed_document_that_is_no_key_is_refused(change: dict[str, object]) -> None:
    document = ee.keygen(SPEC, knowledge="private")._document()
    assert ee.Key._parse(document)._document() == document
    with pytest.raises(KeyFileError):
        ee.Key._parse(document | change)
    for name in document:
        with pytest.raises(KeyFileError, match="expected a key of version"):
            ee.Key._parse({other: value for other, value in document.items() if other != name})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": "0x" + "01" * 32}, "check"),
        ({"epoch": 1}, "check"),
        ({"spec": ODD.document()}, "architecture"),
        ({"check": "0x" + "00" * 16}, "check"),
        ({"architecture": "0x" + "00" * 32}, "architecture"),
        ({"vocabulary": True}, "vocabulary"),
    ],
)
def test_a_wrong_seed_or_another_architecture_fails_loudly(change: dict[str, object], named: str) -> None:
    document = ee.keygen(SPEC, knowledge="private", seed=SEED)._document()
    with pytest.raises(KeyFileError, match=named) as refused:
        ee.Key._parse(document | change)
    assert "01" * 32 not in str(refused.value)


def test_a_file_of_version_1_is_read_and_gives_the_key_it_gave_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"version": 1, "seed": to_hex(SEED), "spec": SPEC.document(), "mode": "infer", "suite": "dense", "knowledge": "members"}
    key_files.write(tmp_path / "key", document | {"epoch": 0}, "p")
    key = ee.Key.load(tmp_path / "key", "p")
    assert (key.version, key.knowledge, key.records, key.labels) == (1, "members", None, "permuted")
    assert key._document() == document | {"epoch": 0}
    with pytest.raises(ValueError, match="version 1"):
        replace(key, records=5)
    newer = ee.keygen(SPEC, knowledge="members", seed=SEED)
    for name, site in key.site_keys.items():
        identity = torch.eye(len(site.shift), dtype=torch.float64)
        assert torch.equal(site.encrypt(identity), newer.site_keys[name].encrypt(identity))
    # Where keys of version 2 are structured, those of version 1 are Haar matrices.
    monkeypatch.setattr(site_keys, "FAST_FROM", 6)
    groups = [type(replace(key, version=version).site_keys["layer0/in"].transform) for version in (1, 2)]
    assert groups == [Orthogonal, FastOrthogonal]


def test_the_scales_of_shifts_are_in_the_file_and_a_file_without_them_is_one_of_full_shifts(tmp_path: Path) -> None:
    model = build(SPEC, seed=1)
    with torch.no_grad():
        model.get_parameter("4.weight").mul_(0.01)
    key = ee.keygen(model, knowledge="private", seed=SEED)
    assert key.shifts.outputs < 0
    key.save(tmp_path / "key", "p")
    loaded = ee.Key.load(tmp_path / "key", "p")
    assert loaded == key
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    answers = ee.encrypt_model(model.double(), key)(ee.encrypt_inputs(x, loaded))
    torch.testing.assert_close(ee.decrypt_outputs(answers, loaded), model(x), rtol=0, atol=1e-12)

    older = {name: value for name, value in key._document().items() if name != "shifts"}
    before = ee.Key._parse(older)
    assert before == ee.keygen(SPEC, knowledge="private", seed=SEED)
    assert before._document() == older
    ratio = before.site_keys["layer2/out"].shift / key.site_keys["layer2/out"].shift
    assert torch.equal(ratio, torch.full_like(ratio, 2.0**-key.shifts.outputs))
    # Sealed with the rest: whoever changes it without the passphrase is noticed, and another scale would be another key.
    with pytest.raises(ValueError, match="version 1"):
        replace(key, version=1)
    sealed = (tmp_path / "key").read_bytes()
    (tmp_path / "bad").write_bytes(sealed[:-20] + bytes([sealed[-20] ^ 1]) + sealed[-19:])
    with pytest.raises(KeyFileError, match="altered"):
        ee.Key.load(tmp_path / "bad", "p")


def test_an_empty_passphrase_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="passphrase"):
        ee.keygen(SPEC, knowledge="private").save(tmp_path / "key", "")
    assert not (tmp_path / "key").exists()


@pytest.mark.parametrize(
    ("spec", "suite", "vocabulary"),
    [
        (SPEC, "dense", False),
        (ModelSpec(BertConfig(28996, 512, 768, 12, 12, 3072, 2)), "permutation", True),
        (ModelSpec(BertConfig(28996, 512, 768, 12, 12, 3072, 2, affine=False)), "dense", True),
        (ModelSpec(LlamaConfig(49152, 576, 30, 9, 3, 64, 1536, 8192, "100000.0", "1e-05")), "dense", True),
    ],
)
@pytest.mark.parametrize("mode", ["infer", "train"])
def test_the_document_of_every_family_reads_back_and_fits(spec: ModelSpec, suite: ee.keys.Suite, vocabulary: bool, mode: Mode) -> None:
    key = ee.keygen(spec, mode=mode, suite=suite, knowledge="members", records=1 << 48, condition=1.0 if mode == "train" else 3.3)
    key = replace(key, shifts=ShiftScales(-32, -32, -32))
    written = canonical_json(key._document())
    assert ee.Key._parse(parse_canonical_json(written, max_bytes=1024)) == key
    assert key._document()["vocabulary"] is vocabulary
    assert len(written) < key_files.MAX_FILE_SIZE - 64
