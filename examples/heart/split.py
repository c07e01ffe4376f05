"""FLamby's split of each hospital's patients into training and test rows, as row indices in `split.json`.

Per hospital, in the order of the file, what scikit-learn's `train_test_split` gives for FLamby's arguments, stratified by the diagnosis;
unstratified for Switzerland, whose single patient without disease can not be in both parts. The file is committed because a split must not
change with a library's version. To make it anew:

    python -m examples.heart.split
"""

import json
from dataclasses import dataclass
from pathlib import Path

from examples.heart.hospitals import COUNTS, hospital_rows

SPLIT = Path(__file__).with_name("split.json")
TRAIN_SHARE = 0.66
SEED = 43
UNSTRATIFIED = ("Switzerland",)


@dataclass(frozen=True)
class Split:
    """One hospital's rows, by their index among its rows: `train` and `test`, ascending."""

    train: tuple[int, ...]
    test: tuple[int, ...]


def read_split(path: Path = SPLIT) -> dict[str, Split]:
    """The committed split of each hospital.

    Raises:
        ValueError: the indices are not each row of each hospital once.
    """
    document = json.loads(path.read_text(encoding="utf-8"))
    split = {name: Split(tuple(parts["train"]), tuple(parts["test"])) for name, parts in document["hospitals"].items()}
    for hospital, rows in COUNTS.items():
        if hospital not in split or sorted(split[hospital].train + split[hospital].test) != list(range(rows)):
            raise ValueError(f"{path}: expected each of the {rows} rows of {hospital} once")
    return split


def compute_split() -> dict[str, Split]:
    """The split made anew."""
    from sklearn.model_selection import train_test_split

    split = {}
    for hospital in COUNTS:
        columns, rows = hospital_rows(hospital)
        diseased = [int(row[columns.index("num")]) > 0 for row in rows]
        train, test = train_test_split(
            list(range(len(rows))),
            test_size=1 - TRAIN_SHARE,
            train_size=TRAIN_SHARE,
            random_state=SEED,
            stratify=None if hospital in UNSTRATIFIED else diseased,
        )
        split[hospital] = Split(tuple(sorted(train)), tuple(sorted(test)))
    return split


def split_rows(hospital: str, split: dict[str, Split]) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Column names, training rows and test rows of one hospital, in the order of the file."""
    columns, rows = hospital_rows(hospital)
    return columns, [rows[index] for index in split[hospital].train], [rows[index] for index in split[hospital].test]


def _document(split: dict[str, Split]) -> str:
    # One line a part: a difference stays readable.
    parts = [
        f'    {json.dumps(name)}: {{\n      "train": {json.dumps(part.train)},\n      "test": {json.dumps(part.test)}\n    }}'
        for name, part in split.items()
    ]
    return '{\n  "source": "python -m examples.heart.split",\n  "hospitals": {\n' + ",\n".join(parts) + "\n  }\n}\n"


if __name__ == "__main__":
    SPLIT.write_text(_document(compute_split()), encoding="utf-8")
