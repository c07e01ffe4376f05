"""`rexis verify inclusion`."""

from pathlib import Path

from rexis.cli.inclusion import InclusionProof
from rexis.cli.output import console, print_json
from rexis.encoding import from_hex, to_hex


def inclusion(path: Path, record: str | None, *, as_json: bool) -> None:
    """Verify a proof file, against `record` (hexadecimal) if given, and say what was checked."""
    proof = InclusionProof.read(path)
    proof.verify(from_hex(record, 32) if record is not None else None)
    if as_json:
        result = {"result": "PASS", "kind": proof.kind, "index": proof.index, "n_leaves": proof.n_leaves, "record": to_hex(proof.record)}
        print_json({**result, "record_checked": record is not None})
        return
    out = console()
    out.print(f"[bold green]PASS[/]  item {proof.index} of {proof.n_leaves} ({proof.kind}) is committed to by {to_hex(proof.record)}")
    if record is None:
        out.print("[yellow]NOT CHECKED[/]  that this is the published record: give it with --record", soft_wrap=True)
