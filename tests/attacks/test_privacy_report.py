"""The owner's own attacks on his job: what the suite finds where it must, what it says of the stated defences, and what it never claims."""

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rexis import ee
from rexis.attacks import PrivacyReport, privacy_report
from rexis.attacks.findings import Finding
from rexis.attacks.limits import LIMITS, judge
from rexis.attacks.report_page import html
from rexis.attacks.suite import BY_NAME, SUITE
from rexis.errors import MalformedMessageError
from rexis.models.bert import BertConfig
from rexis.models.builders import build
from rexis.models.mlp import LogisticConfig, MLPConfig
from rexis.models.public_bases import ENTRIES, public_bases
from rexis.models.spec import ModelSpec
from rexis.protocol.report_summary import Verdict

D, RECORDS = 8, 360
SPEC = ModelSpec(MLPConfig(D, (16,), 2))
MODEL = build(SPEC, seed=1)
GENERATOR = torch.Generator().manual_seed(4)
# Skewed and correlated, as the columns of cohorts are; the class hangs on the widest direction.
LATENT = torch.randn(RECORDS, D, 4, generator=GENERATOR, dtype=torch.float64).square().sum(dim=-1) * 1.5 ** -torch.arange(D).double()
TURN = torch.linalg.qr(torch.randn(D, D, generator=GENERATOR, dtype=torch.float64))[0]
ROWS = (LATENT - LATENT.mean(dim=0)) @ TURN
LABELS = (LATENT[:, 0] > 5).long()
VOCABULARY = 40


def key_of(knowledge: Any = "private", **choices: Any) -> ee.Key:
    return ee.keygen(SPEC, knowledge=knowledge, accept_known_base_risk=True, seed=bytes(range(32)), **choices)


def report_on(knowledge: Any = "private", **choices: Any) -> PrivacyReport:
    key = choices.pop("key", None) or key_of(knowledge)
    return privacy_report(ROWS, MODEL, key, seed=choices.pop("seed", 1), **choices)


def verdicts(report: PrivacyReport) -> dict[str, str]:
    return {finding.attack: str(finding.verdict) for finding in report.findings}


def figures(report: PrivacyReport, attack: str) -> dict[str, float]:
    return dict(next(finding.figures for finding in report.findings if finding.attack == attack))


@pytest.fixture(scope="module")
def dense() -> PrivacyReport:
    return report_on(labels=LABELS, known_records=D + 1)


def test_a_dense_key_on_a_private_model_is_graded_by_what_was_read(dense: PrivacyReport) -> None:
    found = verdicts(dense)
    assert (found["known_pairs"], found["cohort_alignment"], found["record_budget"]) == ("fail", "fail", "fail")
    assert figures(dense, "known_pairs")["r2_known"] > 1 - 1e-6
    assert figures(dense, "cohort_alignment")["reidentified_above_chance"] > 0.25
    assert figures(dense, "geometry")["distance_correlation"] > 1 - 1e-6
    assert found["exactness"] == "pass"
    assert {"label_partition", "public_base", "token_frequencies"} <= set(dense.left_out)
    assert (dense.grade, dense.protection) == ("D", "keyed transformation")
    assert {advice.kind for advice in dense.advice} >= {"noise", "records", "data"}


def test_the_stated_defence_is_in_the_figures(dense: PrivacyReport) -> None:
    noisy = report_on(labels=LABELS, known_records=D + 1, noise=6.0)
    for attack, figure in (("known_pairs", "r2_known"), ("cohort_alignment", "r2"), ("geometry", "neighbours_kept")):
        assert figures(noisy, attack)[figure] < figures(dense, attack)[figure] - 0.2
    assert verdicts(noisy)["cohort_alignment"] != "fail"
    by_sigma = [level.figures["reidentified_above_chance"] for level in dense.noise_levels]
    assert by_sigma[0] > 0.25 > by_sigma[-1]
    assert dense.noise_levels[-1].figures["mu"] == pytest.approx(1 / dense.noise_levels[-1].sigma)
    # A shift hides nothing of the rows: it adds one to the pairs.
    train = report_on(key=key_of(mode="train"), labels=LABELS, budget_s=6.0)
    assert figures(train, "geometry")["purity"] == pytest.approx(figures(dense, "geometry")["purity"], abs=0.02)


@pytest.mark.parametrize("labels", ["permuted", "split"])
def test_training_shows_the_classes(labels: Any) -> None:
    report = report_on(key=key_of(mode="train", labels=labels), labels=LABELS, budget_s=6.0)
    assert figures(report, "label_partition")["purity"] == 1
    assert verdicts(report)["label_partition"] == "warn"


@pytest.mark.parametrize(
    ("knowledge", "base", "grade"), [("private", None, "D"), ("private", MODEL, "F"), ("members", None, "D"), ("public", None, "F")]
)
def test_whoever_holds_the_plain_weights_reads_every_row(knowledge: str, base: Any, grade: str) -> None:
    report = report_on(knowledge, base=base, known_records=D + 1, budget_s=6.0)
    if knowledge == "private" and base is None:
        assert "public_base" in report.left_out
    else:
        assert figures(report, "public_base")["read"] > 1 - 1e-5
    assert report.grade == grade
    assert (report.protection == "obfuscation only") == (knowledge != "private")
    assert any("`masked`" in advice.text for advice in report.advice) == ("public_base" in verdicts(report))


def test_members_and_the_public_never_get_more_than_obfuscation_only(dense: PrivacyReport) -> None:
    passed = tuple(Finding(finding.attack, 1, Verdict.PASS) for finding in dense.findings)
    for knowledge, grade in (("private", "A"), ("members", "D"), ("public", "D")):
        assert replace(dense, findings=passed, job=replace(dense.job, knowledge=knowledge)).grade == grade


def test_what_did_not_fit_is_no_pass() -> None:
    nothing = report_on(budget_s=0.0)
    assert set(verdicts(nothing).values()) == {"not run"}
    assert all("of the budget were left" in finding.note for finding in nothing.findings)
    assert nothing.grade == "D"
    part = report_on(budget_s=2.5)
    assert (verdicts(part)["known_pairs"] != "not run", verdicts(part)["cohort_alignment"]) == (True, "not run")
    # An attack that can not come to an end says so, and the others go on.
    alone = report_on(reference=ROWS[:1], budget_s=6.0)
    assert (verdicts(alone)["cohort_alignment"], verdicts(alone)["exactness"]) == ("not run", "pass")
    assert "at least 2 records" in next(finding.note for finding in alone.findings if finding.attack == "cohort_alignment")
    assert any("no pass" in advice.text for advice in alone.advice)


def test_a_report_is_its_file_and_repeats_from_its_seed(dense: PrivacyReport) -> None:
    read = PrivacyReport.read(dense.content())
    assert read == dense
    assert read.digest == dense.digest == read.summary().report
    again = report_on(labels=LABELS, known_records=D + 1)
    assert [finding.figures for finding in again.findings] == [finding.figures for finding in dense.findings]
    assert again.salt != dense.salt
    assert again.digest != dense.digest
    assert set(json.loads(json.dumps(dense.summary().document()))) == {"version", "grade", "attacks", "versions", "report"}


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(grade="A"),
        lambda document: document["findings"][0].update(verdict="perhaps"),
        lambda document: document["findings"][0]["figures"].update(r2="NaN"),
        lambda document: document["findings"][0]["figures"].update(r2="0.10"),
        lambda document: document["findings"][0].update(seconds=1.5),
        lambda document: document["findings"].extend(document["findings"]),
        lambda document: document["job"].update(knowledge="nobody"),
        lambda document: document.update(salt="0x00"),
        lambda document: document.update(more=1),
    ],
)
def test_an_altered_report_is_no_report(dense: PrivacyReport, change: Any) -> None:
    document = json.loads(dense.content())
    change(document)
    with pytest.raises(MalformedMessageError):
        PrivacyReport.read(json.dumps(document).encode())


def test_the_page_needs_nothing_else_and_shows_every_verdict(dense: PrivacyReport) -> None:
    hostile = "</script><script>alert(1)</script><img src=x>"
    page = html(replace(dense, advice=(replace(dense.advice[0], text=hostile), *dense.advice)))
    assert not re.search(r"(src|srcset|action|href)=\"|@import|url\(", page)
    assert "<script>alert" not in page
    inside = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert inside is not None
    assert PrivacyReport.parse(json.loads(inside[1])).findings == dense.findings
    for finding in dense.findings:
        assert BY_NAME[finding.attack].title in page
    assert page.count("<svg") == 3
    assert "Grade D" in page


def test_every_attack_has_limits_with_their_source_and_silence_is_no_pass() -> None:
    assert set(LIMITS) == set(BY_NAME)
    for attack in SUITE:
        assert all(limit.source and limit.meaning and limit.warn > 0 for limit in LIMITS[attack.name])
        assert all(limit.fail is None or limit.fail > limit.warn for limit in LIMITS[attack.name])
        with pytest.raises(ValueError, match="expected one of the figures"):
            judge(attack.name, {"something else": 0.0})


def test_linking_needs_the_same_weights_and_more_than_one_row_of_them() -> None:
    keys = [key_of("private"), ee.keygen(SPEC, knowledge="private", seed=bytes(32))]
    same, other = (ee.encrypt_model(model, keys[1]) for model in (MODEL, build(SPEC, seed=2)))
    assert verdicts(report_on(key=keys[0], earlier=same, budget_s=6.0))["linking"] == "fail"
    assert verdicts(report_on(key=keys[0], earlier=other, budget_s=6.0))["linking"] == "pass"
    row = build(ModelSpec(LogisticConfig(D, 1)), seed=1)
    report = privacy_report(
        ROWS, row, ee.keygen(row, knowledge="private"), budget_s=6.0, earlier=build(ModelSpec(LogisticConfig(D, 1)), seed=2)
    )
    assert "linking" in report.left_out


def test_records_that_a_model_learnt_by_heart_are_told_from_others() -> None:
    model = build(ModelSpec(LogisticConfig(D, 2)), seed=1)
    members, classes = ROWS[:12].float(), LABELS[:12].flip(0)
    for _ in range(1_000):
        loss = torch.nn.functional.cross_entropy(model(members), classes)
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True):
                parameter.sub_(0.1 * gradient)
    key = ee.keygen(model, knowledge="private")
    report = privacy_report(members.double(), model, key, ROWS, labels=classes, unseen=(ROWS[12:212], LABELS[12:212]), seed=1)
    assert figures(report, "membership")["advantage"] > 0.2
    assert verdicts(report)["membership"] != "pass"


def texts(count: int, seed: int) -> Tensor:
    """Token ids of a language in which each word has a few likely followers."""
    generator = np.random.default_rng(seed)
    language = np.random.default_rng(0)
    common = 1 / np.arange(1, VOCABULARY + 1)
    follows = 0.8 * language.dirichlet(np.full(VOCABULARY, 0.05), size=VOCABULARY) + 0.2 * common / common.sum()
    cumulative = np.cumsum(follows / follows.sum(axis=1, keepdims=True), axis=1)
    ids = np.zeros((count, 12), dtype=np.int64)
    ids[:, 0] = generator.integers(0, VOCABULARY, count)
    for place in range(1, ids.shape[1]):
        ids[:, place] = np.minimum((cumulative[ids[:, place - 1]] < generator.random((count, 1))).sum(axis=1), VOCABULARY - 1)
    return torch.from_numpy(ids)


def test_a_permuted_vocabulary_fails_for_a_private_transformer_and_its_weights_for_a_public_one() -> None:
    model = build(ModelSpec(BertConfig(VOCABULARY, positions=16, hidden=32, layers=1, heads=4, intermediate=64, outputs=2)), seed=1)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "LayerNorm" in name:
                tensor.add_(0.1 * torch.randn(tensor.shape, generator=GENERATOR))
    keys = [ee.keygen(model, suite="permutation", knowledge="private") for _ in range(2)]
    report = privacy_report(texts(300, 1), model, keys[0], texts(300, 2), earlier=ee.encrypt_model(model, keys[1]), seed=1)
    assert figures(report, "token_frequencies")["running_tokens"] > 0.5
    known_texts = figures(report, "known_texts")
    assert (known_texts["known_texts"], verdicts(report)["known_texts"]) == (3, "fail")
    assert known_texts["running_10_percent"] > known_texts["running_known"] > 0.2
    assert any("known texts" in advice.text for advice in report.advice)
    assert (verdicts(report)["linking"], report.grade) == ("fail", "F")
    assert {"cohort_alignment", "public_base", "vocabulary", "norm_gains"} <= set(report.left_out)
    public = ee.keygen(model, suite="permutation", knowledge="public", accept_known_base_risk=True)
    known = privacy_report(texts(300, 1), model, public, texts(300, 2), seed=1)
    for attack in ("public_base", "vocabulary", "norm_gains"):
        assert figures(known, attack)["read"] == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"reference": ROWS[:, :3]}, "expected a reference like the data"),
        ({"labels": LABELS[:5]}, "expected one class for each"),
        ({"noise": -1.0}, "expected noise of 0 or more"),
        ({"unseen": (ROWS, LABELS[:5])}, "not trained on"),
    ],
)
def test_data_that_do_not_fit_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        report_on(**wrong)


def test_the_key_says_what_noise_and_how_many_records_go_out() -> None:
    key = key_of(mode="train", scheme="noise", sigma=6.0, records=40)
    report = report_on(key=key, budget_s=6.0)
    assert (report.job.noise, report.job.records, report.job.key_id) == (6.0, 40, key.id)
    assert figures(report, "record_budget")["known_records"] == 1
    assert figures(report, "known_pairs")["r2_d_plus_1"] < 0.9
    assert verdicts(report)["exactness"] == "pass"


def test_a_plaintext_model_over_keyed_rows_reads_them_where_its_first_layer_is_known() -> None:
    private, members = (key_of(knowledge, mode="train", suite="inputs") for knowledge in ("private", "members"))
    unknown = report_on(key=private, budget_s=6.0)
    assert "plain_activations" in unknown.left_out
    assert verdicts(unknown)["plain_model"] == "warn"
    assert figures(unknown, "plain_model") == {"plain_site_share": 0.666667, "readable_share": 1.0}
    report = report_on(key=members, labels=LABELS, budget_s=6.0)
    assert figures(report, "plain_activations")["read"] > 1 - 1e-6
    assert figures(report, "label_partition")["purity"] == 1
    assert report.grade == "D"


def test_a_public_base_that_is_called_private_is_recognised() -> None:
    base = next(base for base in public_bases() if "MiniLM" in base.name)
    landmark = next(landmark for landmark in base.landmarks if landmark.shape == (384, 384))
    model = build(ModelSpec(BertConfig(VOCABULARY, positions=16, hidden=384, layers=1, heads=12, intermediate=32, outputs=2)), seed=1)
    key = ee.keygen(model, suite="permutation", knowledge="private")
    assert verdicts(privacy_report(texts(8, 1), model, key, texts(8, 2), seed=1))["public_fingerprint"] == "pass"
    weight = model.get_submodule("bert.encoder.layer.0.attention.self.query").weight
    with torch.no_grad():
        weight.view(-1)[torch.arange(ENTRIES) * (weight.numel() - 1) // (ENTRIES - 1)] = torch.from_numpy(landmark.entries).float()
    report = privacy_report(texts(8, 1), model, key, texts(8, 2), seed=1)
    found = next(finding for finding in report.findings if finding.attack == "public_fingerprint")
    assert (found.verdict, report.grade) == (Verdict.FAIL, "F")
    assert base.name in found.note
