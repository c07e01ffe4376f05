"""What the journal keeps an institution from: two sums from one model, whose difference could be its update."""

from pathlib import Path

import pytest

from rexis.agent.federation.records import FederationRecords
from rexis.agent.journal import Journal
from rexis.errors import PolicyError

MODEL, OTHER_MODEL, ONE, OTHER = (bytes([number]) * 32 for number in range(1, 5))


@pytest.mark.parametrize(("stage", "refused"), [("open", True), ("answered", True), ("dropped", False), ("refused", False)])
def test_a_model_that_is_trained_on_in_one_federation_is_not_in_another(tmp_path: Path, stage: str, refused: bool) -> None:
    with Journal.open(tmp_path / "journal.sqlite", "correct horse battery staple", work_factor=2) as journal:
        with journal.transaction() as connection:
            connection.execute("INSERT INTO federation (id, config, content_root) VALUES (?, ?, ?)", (ONE, b"{}", bytes(32)))
            connection.execute(
                "INSERT INTO attempt (federation, round, attempt, ctx, base_model, manifest, stage, since) VALUES (?, 1, 1, ?, ?, ?, ?, 0)",
                (ONE, bytes(32), MODEL, b"{}", stage),
            )
        records = FederationRecords(journal)
        records.check_base_model(MODEL, ONE)
        records.check_base_model(OTHER_MODEL, OTHER)
        if refused:
            with pytest.raises(PolicyError, match="rule on base models"):
                records.check_base_model(MODEL, OTHER)
        else:
            records.check_base_model(MODEL, OTHER)
