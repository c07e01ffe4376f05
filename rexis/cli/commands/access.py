"""`rexis access`."""

from typing import Annotated

import typer

from rexis.cli.commands.options import AsJson, Marketplace
from rexis.cli.output import failures

app = typer.Typer(no_args_is_help=True, help="Ask for access to data sets, and decide about it.")

Purpose = Annotated[str, typer.Option(help="DUO code: NRES, GRU, HMB, DS, POA, or its number.", show_default=False)]
Request = Annotated[str, typer.Argument(metavar="REQUEST", help="Id of the access request.")]
Timeout = Annotated[int, typer.Option(min=1, metavar="SECONDS", help="How long to wait.")]


@app.command("request")
def access_request(
    dataset: Annotated[int, typer.Argument(min=1, help="Token id of the data set.")],
    purpose: Purpose,
    days: Annotated[int, typer.Option(min=1, max=729, help="How long, from the grant on.")] = 90,
    text: Annotated[str, typer.Option("--text", help="What else the owner should know.", show_default=False)] = "",
    disease: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Disease studied, e.g. MONDO:0005267 (repeatable).", show_default=False)
    ] = None,
    country: Annotated[str | None, typer.Option(help="ISO 3166 code of the place of processing.", show_default=False)] = None,
    institution: Annotated[str | None, typer.Option(help="Your institution, as the policy names it.", show_default=False)] = None,
    project: Annotated[str | None, typer.Option(help="Project identifier.", show_default=False)] = None,
    research_type: Annotated[str | None, typer.Option(help="Kind of research.", show_default=False)] = None,
    publish_from: Annotated[
        str | None, typer.Option(metavar="DATE", help="First day on which results are published.", show_default=False)
    ] = None,
    non_commercial: Annotated[bool, typer.Option("--non-commercial", help="The use is not commercial.")] = False,
    not_for_profit: Annotated[bool, typer.Option("--not-for-profit", help="The user is no company for profit.")] = False,
    no_methods: Annotated[bool, typer.Option("--no-methods", help="No development of general methods.")] = False,
    genetic_study: Annotated[bool, typer.Option("--genetic-study", help="The study is genetic.")] = False,
    clinical_care: Annotated[bool, typer.Option("--clinical-care", help="Patients are treated.")] = False,
    ethics_approval: Annotated[bool, typer.Option("--ethics-approval", help="An ethics committee approved.")] = False,
    collaboration: Annotated[bool, typer.Option("--collaboration", help="Together with the owner.")] = False,
    returns_results: Annotated[bool, typer.Option("--returns-results", help="Results go back to the owner.")] = False,
    marketplace: Marketplace = None,
    as_json: AsJson = False,
) -> None:
    """Ask for access with a declared purpose. What is not declared counts as the answer that meets no condition.

    The purpose is weighed against the data set's policy at once; a refusal names the rule.
    """
    with failures(as_json):
        from rexis.cli.access import request

        declared = {
            "diseases": sorted(set(disease or ())),
            "country": country,
            "institution": institution,
            "project": project,
            "research_type": research_type,
            "publish_from": publish_from,
            "commercial": not non_commercial,
            "for_profit": not not_for_profit,
            "methods_development": not no_methods,
            "genetic_study": genetic_study,
            "clinical_care": clinical_care,
            "ethics_approval": ethics_approval,
            "collaboration": collaboration,
            "returns_results": returns_results,
        }
        request(dataset, purpose, declared, days=days, text=text, marketplace=marketplace, as_json=as_json)


@app.command("grant")
def access_grant(
    request: Request,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before signing.")] = False,
    timeout: Timeout = 120,
    marketplace: Marketplace = None,
    as_json: AsJson = False,
) -> None:
    """Grant a request about your data set: the conditions are shown, their digest is signed, and the grant stands on chain."""
    with failures(as_json):
        from rexis.cli.access import grant

        grant(request, ask=not (yes or as_json), timeout_s=timeout, marketplace=marketplace, as_json=as_json)


@app.command("decline")
def access_decline(
    request: Request,
    reason: Annotated[str, typer.Option(help="The requester reads it.", show_default=False)] = "",
    marketplace: Marketplace = None,
    as_json: AsJson = False,
) -> None:
    """Turn a request about your data set down."""
    with failures(as_json):
        from rexis.cli.access import decline

        decline(request, reason, marketplace=marketplace, as_json=as_json)


@app.command("revoke")
def access_revoke(
    dataset: Annotated[int, typer.Argument(min=1, help="Token id of the data set.")],
    consumer: Annotated[str, typer.Argument(help="Address of the account that has access.")],
    purpose: Purpose,
    timeout: Timeout = 120,
    marketplace: Marketplace = None,
    as_json: AsJson = False,
) -> None:
    """End a grant at once. Grants that were signed before are void as well, also those that have not arrived yet."""
    with failures(as_json):
        from rexis.cli.access import revoke

        revoke(dataset, consumer, purpose, timeout_s=timeout, marketplace=marketplace, as_json=as_json)


@app.command("list")
def access_list(
    role: Annotated[str, typer.Option(help="consumer: your requests; owner: those about your data sets.")] = "consumer",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    marketplace: Marketplace = None,
    as_json: AsJson = False,
) -> None:
    """List requests, newest first."""
    with failures(as_json):
        from rexis.cli.access import list_requests

        list_requests(role, limit, marketplace=marketplace, as_json=as_json)
