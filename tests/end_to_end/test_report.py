"""The demo's report: one file that needs nothing else, shows what it was given, and fits a desk, a phone and a dark room."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from examples.heart.experimenter import Score
from examples.heart.report import Report

HASH = "0x" + "ab12" * 16
HOSPITALS = ("Cleveland", "Hungary", "Switzerland", "VA Long Beach")
CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="headless Chromium is not installed: the page is not looked at")


def rounds(lost: int | None) -> list[dict[str, Any]]:
    return [
        {
            "round": number,
            "attempt": 1,
            "state": "finished",
            "survivors": 3 if number == lost else 4,
            "loss": 0.69 * 0.95**number,
            **dict.fromkeys(("model", "opened", "fixed", "finalised"), HASH),
        }
        for number in range(1, 11)
    ]


@pytest.fixture
def report() -> Report:
    answer = {
        "state": "released",
        "note": "",
        "columns": ["age", "no disease", "disease"],
        "rows": [{"label": "45 to 54", "cells": [40, None]}],
    }
    return Report(
        finished_at="21 November 2026, 07:00 UTC",
        seconds=161.2,
        cores=2,
        hospitals=HOSPITALS,
        scores=(
            Score("federated", 0.8754, 0.83, 0.916, 0.776, 50),
            Score("pooled", 0.8811, 0.838, 0.921, 0.795, 1000),
            *(Score(name, 0.8 + 0.01 * place, 0.75, 0.88, 0.7, 50, 0.8) for place, name in enumerate(HOSPITALS)),
        ),
        federated="federated",
        test_rows=254,
        features=13,
        trainings=[
            {"name": "logistic regression", "id": HASH, "seconds": 44.0, "rounds": rounds(5)},
            {"name": "network", "id": HASH, "seconds": 51.0, "rounds": rounds(None)},
        ],
        statistics={"count": 486},
        dropped={"hospital": "Switzerland", "round": 5, "survivors": 3},
        access=[
            {"hospital": "Cleveland", "purpose": "HMB", "decision": "granted", "reason": "covered", "transaction": HASH},
            {"hospital": "Cleveland", "purpose": "POA", "decision": "refused", "reason": "HMB does not cover POA", "transaction": None},
        ],
        query={
            "text": "Diagnosis by age band.",
            "answers": [{"hospital": name, **answer} for name in HOSPITALS],
            "stopped": [{"state": "held", "text": "A question about one patient.", "note": "held for review"}],
        },
        inference={"owner": "Cleveland", "patients": 104, "relative_error": 3.2e-7, "label": "obfuscation only"},
        verification=[
            {
                "name": "One byte changed",
                "verdict": "FAIL",
                "claims": [
                    {"name": "signature", "verdict": "FAIL", "detail": f"expected {HASH}, got {HASH}"},
                    {"name": "inclusion", "verdict": "NOT CHECKED", "detail": ""},
                ],
            }
        ],
        chain={
            "id": 31337,
            "blocks": 200,
            "rounds": 21,
            "transactions": 170,
            "gas": 1,
            "contracts": {"FederationRegistry": "0x" + "2" * 40},
            "events": [
                {
                    "contract": "FederationRegistry",
                    "event": "RoundOpened",
                    "count": 21,
                    "gas": 123456,
                    "first_block": 12,
                    "last_block": 190,
                    "transaction": HASH,
                }
            ],
            "log": [{"contract": "FederationRegistry", "event": "RoundOpened", "block": 12, "gas": 123456, "transaction": HASH}],
        },
        views=[{"party": "aggregator", "saw": "masked vectors", "hidden": "any hospital's update"}],
        checks=["none of 486 rows is in any file"],
        limits=["EE here is obfuscation only"],
        timings={"platform": 13.2, "federations": 70.2},
    )


def test_the_page_needs_nothing_else_and_holds_its_data(report: Report) -> None:
    page = report.html()
    assert not re.search(r"(src|srcset|action)=|@import|url\(", page)
    assert re.findall(r'href="([^"]*)"', page) == ["https://doi.org/10.24432/C52P4X"]
    inside = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert inside is not None
    assert json.loads(inside[1]) == json.loads(json.dumps(report.document()))
    for shown in ("0.875", "obfuscation only", "suppressed", "held", "NOT CHECKED", "HMB does not cover POA", "3.2e-07"):
        assert shown in page


def test_text_from_elsewhere_stays_text(report: Report) -> None:
    hostile = "</script><script>alert(1)</script><img src=x>"
    trainings = [{**report.trainings[0], "name": hostile}, report.trainings[1]]
    page = replace(report, trainings=trainings, checks=[hostile]).html()
    assert "<script>alert" not in page
    assert "<img" not in page


@needs_chromium
@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (500, "dark")])
def test_chromium_draws_it_and_nothing_is_wider_than_the_window(report: Report, tmp_path: Path, width: int, scheme: str) -> None:
    page = tmp_path / "report.html"
    measure = "<script>document.title = JSON.stringify([document.documentElement.scrollWidth, innerWidth])</script></body>"
    page.write_text(report.html().replace("</body>", measure), encoding="utf-8")
    picture = tmp_path / "report.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'chromium'}"]
    flags += [f"--window-size={width},3000"] + (["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else [])
    drawn = subprocess.run([str(CHROMIUM), *flags, f"--screenshot={picture}", page.as_uri()], capture_output=True, timeout=120, check=False)
    assert drawn.returncode == 0, drawn.stderr.decode()[-500:]
    # An empty page of this size compresses to a few kilobytes.
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 50_000
    told = subprocess.run([str(CHROMIUM), *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>\[(\d+),(\d+)\]</title>", told.stdout)
    assert title is not None
    assert int(title[1]) <= int(title[2])
