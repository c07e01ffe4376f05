"""The four hospitals of the table: `hospital_rows("Cleveland")` is what that hospital would hold, and nobody else."""

import csv
from collections.abc import Sequence
from pathlib import Path

HEART = Path(__file__).with_name("heart.csv")
SOURCE_COLUMN = "dataset"
COUNTS = {"Cleveland": 303, "Hungary": 261, "Switzerland": 46, "VA Long Beach": 130}


def hospital_rows(hospital: str, table: Path = HEART) -> tuple[list[str], list[list[str]]]:
    """Column names and rows of one hospital, in the order of the file, without the column `hospital`.

    Raises:
        ValueError: a hospital that is not in the table.
    """
    if hospital not in COUNTS:
        raise ValueError(f"expected one of {', '.join(COUNTS)}, got {hospital!r}")
    with table.open(encoding="utf-8", newline="") as file:
        columns, *rows = csv.reader(file)
    return columns[1:], [row[1:] for row in rows if row[0] == hospital]


def write_hospital(hospital: str, path: Path, indices: Sequence[int] | None = None) -> int:
    """Write one hospital's table to `path` as CSV, or only the rows with these indices, and return the number of rows."""
    columns, rows = hospital_rows(hospital)
    chosen = rows if indices is None else [rows[index] for index in indices]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(chosen)
    return len(chosen)
