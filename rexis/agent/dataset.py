"""From a CSV file and a policy file to everything that a registration needs, worked out on the premises."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

import yaml

from rexis.agent.metadata import Description, croissant
from rexis.agent.mock_data import codebook, mock_rows
from rexis.agent.profile import MINIMUM_K, Profile, profile_table
from rexis.agent.table import Table, read_table
from rexis.errors import MalformedMessageError, PrivacyError
from rexis.policy import DataUsePolicy

MAX_POLICY_BYTES = 256 << 10
MOCK_ROWS = 100


@dataclass(frozen=True)
class LocalDataset:
    """A table with what was found out about it. `metadata` and `policy.document()` are what becomes public, the rest stays.

    Attributes:
        table: the rows.
        profile: types, identifiers, k-anonymity.
        policy: what the data may be used for.
        metadata: Croissant document.
    """

    table: Table
    profile: Profile
    policy: DataUsePolicy
    metadata: dict[str, Any]

    def require_registrable(self) -> None:
        """Raise unless the table may be registered.

        Raises:
            PrivacyError: it has direct identifiers; the message names columns and rules.
        """
        refused = self.profile.refused
        if refused:
            broken = "; ".join(f"{finding.column}: {finding.rule}" for finding in refused)
            advice = " ".join(f"--exclude {finding.column!r}" for finding in refused)
            raise PrivacyError(
                f"refused, nothing was sent. {broken} (45 CFR 164.514(b)(2)). Remove the columns, or leave them out: {advice}"
            )

    def mock_csv(self, generator: Random) -> str:
        """`MOCK_ROWS` rows of mock data as CSV, drawn from the codebook alone; the generator decides them."""
        text = StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.table.columns)
        writer.writerows(mock_rows(codebook(self.table, self.profile), MOCK_ROWS, generator))
        return text.getvalue()


def open_dataset(
    path: Path,
    policy: DataUsePolicy,
    description: Description,
    *,
    delimiter: str = ",",
    exclude: Sequence[str] = (),
    quasi_identifiers: Sequence[str] | None = None,
    minimum_k: int = MINIMUM_K,
) -> LocalDataset:
    """Read and profile a table and describe it; see `read_table`, `profile_table` and `croissant` for arguments and errors."""
    table = read_table(path, delimiter=delimiter, exclude=exclude)
    profile = profile_table(table, quasi_identifiers=quasi_identifiers, minimum_k=minimum_k)
    return LocalDataset(table, profile, policy, croissant(description, profile, policy))


def read_policy(path: Path) -> DataUsePolicy:
    """Read a policy file: YAML, or JSON, which is YAML too.

    Raises:
        MalformedMessageError: too large, not YAML, or not a policy; the message names the rule.
    """
    with path.open("rb") as file:
        content = file.read(MAX_POLICY_BYTES + 1)
    if len(content) > MAX_POLICY_BYTES:
        raise MalformedMessageError(f"{path.name}: expected a policy of at most {MAX_POLICY_BYTES} bytes")
    try:
        document = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise MalformedMessageError(f"{path.name}: not YAML: {' '.join(str(error).split())}") from error
    try:
        return DataUsePolicy.parse(document)
    except MalformedMessageError as error:
        raise MalformedMessageError(f"{path.name}: {error}") from error
