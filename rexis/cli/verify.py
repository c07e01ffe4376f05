"""`rexis verify inclusion`, `rexis verify receipt` and `rexis verify fetch`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import typer

from rexis.cli.inclusion import InclusionProof
from rexis.cli.output import FAILED, console, print_json, without_controls
from rexis.cli.receipt_claims import Evidence, examine, read_bundle
from rexis.commitments import Receipt
from rexis.encoding import from_hex, parse_json, to_hex
from rexis.protocol.claims import Claim, Verdict
from rexis.protocol.receipt_bundle import MAX_BUNDLE_BYTES

STYLES = {Verdict.PASS: "bold green", Verdict.FAIL: "bold red", Verdict.NOT_CHECKED: "yellow"}
# What has to be compared, and the claims of which one does so. All others could hold for a batch that nobody ever committed, or for a
# receipt that anybody signed.
ANCHORS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "the record with the chain (--rpc or --record)": frozenset({"record-on-chain", "record-expected"}),
        "the issuer with the provider whom you expect (--issuer)": frozenset({"issuer-expected"}),
    }
)


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


def receipt(path: Path, evidence: Evidence, *, as_json: bool) -> None:
    """Check every claim of a bundle, print all verdicts, and end with exit code 1 if one failed."""
    claims = examine(read_bundle(path), evidence)
    overall = overall_verdict(claims)
    if as_json:
        print_json({"result": overall.value, "claims": [claim.to_json() for claim in claims]})
    else:
        _print_claims(claims, overall)
    if overall is Verdict.FAIL:
        raise typer.Exit(FAILED)


def overall_verdict(claims: Sequence[Claim]) -> Verdict:
    """FAIL if a claim failed; PASS if none did, and the record is the chain's and the issuer the expected one; else NOT CHECKED."""
    if any(claim.verdict is Verdict.FAIL for claim in claims):
        return Verdict.FAIL
    return Verdict.NOT_CHECKED if missing_anchors(claims) else Verdict.PASS


def missing_anchors(claims: Sequence[Claim]) -> list[str]:
    """What was not compared with anything that its maker did not write."""
    passed = {claim.name for claim in claims if claim.verdict is Verdict.PASS}
    return [what for what, names in ANCHORS.items() if not names & passed]


def fetch(wanted: str, output: Path, *, issuer: str | None, verifier: str | None, timeout_s: int, as_json: bool) -> None:
    """Download the bundle of a receipt, which must be in a batch on chain before; a file that exists is replaced.

    Args:
        wanted: digest of a receipt that the profile's account issued or handed in, or the file of a receipt, which is handed in first.
    """
    from rich.text import Text

    from rexis.cli.home import require_profile, service_url, write_private
    from rexis.cli.identity import open_signer, signed_in
    from rexis.client.verifier import ReceiptStanding, VerifierClient
    from rexis.encoding import checksum_address

    profile = require_profile()
    signer, _ = open_signer(profile)
    chosen = checksum_address(issuer) if issuer is not None else None
    out = console(stderr=True)

    def tell(found: ReceiptStanding) -> None:
        if not as_json:
            # Text, not markup: the verifier chose the words.
            out.print(Text(found.state, style="dim"), Text(found.reason or ""))

    with signed_in("verifier", service_url("verifier", verifier, profile), signer, profile.chain_id) as connection:
        client = VerifierClient(connection)
        if wanted.startswith("0x"):
            digest = from_hex(wanted, 32)
        else:
            given = _read_receipt(Path(wanted))
            digest, chosen = client.deposit_receipt(given), given.issuer
        content = client.wait_for_bundle(digest, issuer=chosen, timeout_s=timeout_s, on_state=tell)
    write_private(output, content)
    if as_json:
        print_json({"bundle": str(output), "receipt": to_hex(digest)})
        return
    console().print(f"[bold green]Saved[/]  {output}. It opens a commitment: show it to whom you trust, and check it with", soft_wrap=True)
    console().print(f"       rexis verify receipt {output} --issuer PROVIDER --rpc NODE", soft_wrap=True, markup=False)


def _read_receipt(path: Path) -> Receipt:
    with path.open("rb") as file:
        return Receipt.parse(parse_json(file.read(MAX_BUNDLE_BYTES + 1), max_bytes=MAX_BUNDLE_BYTES))


def _print_claims(claims: Sequence[Claim], overall: Verdict) -> None:
    from rich.text import Text

    from rexis.cli.report import grid

    table = grid("", "", "")
    table.show_header = False
    for column in table.columns[:2]:
        column.no_wrap = True
    for claim in claims:
        # Text, not markup: what was found may quote the file.
        text = Text(claim.why, style="dim") if claim.verdict is Verdict.NOT_CHECKED else Text(claim.statement)
        if claim.verdict is Verdict.FAIL:
            text.append(f"\n{without_controls(claim.why)}", style="red")
        table.add_row(Text(claim.verdict.value, style=STYLES[claim.verdict]), Text(claim.name), text)
    out = console()
    out.print(table)
    summary = {
        Verdict.FAIL: ", ".join(claim.name for claim in claims if claim.verdict is Verdict.FAIL),
        Verdict.PASS: "every claim that was checked holds, the record is the chain's, and the issuer is the provider whom you expect",
        Verdict.NOT_CHECKED: f"nothing failed, but the bundle may be anybody's: compare {' and '.join(missing_anchors(claims))}",
    }
    out.print(Text.assemble((overall.value, STYLES[overall]), f"  {summary[overall]}"), soft_wrap=True)
