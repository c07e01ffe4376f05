"""Scores at the aggregator's API: who reads them and when, and that they follow from the bundle beside them."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from rexis.chain.signer import LocalSigner
from rexis.encoding import canonical_json, sha256
from rexis.protocol.contributions import ContributionBundle, ContributionStatement
from rexis.protocol.uploads import content_digest_header
from services.aggregator.settings import AggregatorSettings
from services.foundation.database import migrate, transaction
from tests.services.scored_rows import ScoredFederation
from tests.services.service_applications import authorised, client_of, settings_for

OWNER, STRANGER = LocalSigner.generate(), LocalSigner.generate()


@pytest.fixture
def settings(database_url: str) -> AggregatorSettings:
    found = settings_for("aggregator", database_url)
    assert isinstance(found, AggregatorSettings)
    return found


@pytest.fixture
def client(engine: Engine, settings: AggregatorSettings) -> Iterator[TestClient]:
    migrate(engine, "services.aggregator")
    with client_of(settings) as opened:
        yield opened


def test_everybody_in_the_federation_reads_what_anybody_computes_from_the_bundle(
    engine: Engine, settings: AggregatorSettings, client: TestClient
) -> None:
    scored = ScoredFederation(OWNER)
    with transaction(engine) as session:
        scored.add(session)
    path = f"/v1/federations/{scored.id}/scores"
    answers = []
    for account in (OWNER, scored.members[0], scored.members[8], scored.aggregator):
        headers = authorised(settings, account)
        statement, bundle = client.get(path, headers=headers), client.get(f"{path}/bundle", headers=headers)
        assert statement.is_success, statement.text
        assert statement.headers["content-digest"] == content_digest_header(sha256(statement.content))
        answers.append((statement.content, bundle.content))
    assert len(set(answers)) == 1
    statement, bundle = ContributionStatement.parse(statement.json()), ContributionBundle.parse(bundle.json())
    assert bundle == scored.bundle
    assert ContributionStatement.of(scored.config, bundle) == statement
    assert answers[0] == (canonical_json(statement.document()), canonical_json(bundle.document()))
    assert statement.bands == (0, *[1] * 8)
    for below in ("", "/bundle"):
        answer = client.get(path + below, headers=authorised(settings, STRANGER))
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:rexis:problem:not-found")
        assert client.get(path + below).status_code == 401


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_there_are_no_scores_while_rounds_run_and_none_of_too_few(engine: Engine, settings: AggregatorSettings, client: TestClient) -> None:
    running, short = ScoredFederation(OWNER), ScoredFederation(OWNER, rounds=4)
    with transaction(engine) as session:
        running.add(session, state="running")
        short.add(session, state="failed")
    headers = authorised(settings, OWNER)
    for below in ("scores", "scores/bundle"):
        assert client.get(f"/v1/federations/{running.id}/{below}", headers=headers).status_code == 404
    refused = client.get(f"/v1/federations/{short.id}/scores", headers=headers)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:rexis:problem:scores-refused")
    assert "at least 10 are required, got 0" in refused.json()["detail"]
    assert len(client.get(f"/v1/federations/{short.id}/scores/bundle", headers=headers).json()["rounds"]) == 4
