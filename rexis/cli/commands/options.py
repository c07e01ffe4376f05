"""Options that several commands have."""

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]
Marketplace = Annotated[str | None, typer.Option("--marketplace", metavar="URL", help="URL of the marketplace.", show_default=False)]
Trainer = Annotated[str | None, typer.Option("--trainer", metavar="URL", help="URL of the trainer.", show_default=False)]
Aggregator = Annotated[str | None, typer.Option("--aggregator", metavar="URL", help="URL of the aggregator.", show_default=False)]
Verifier = Annotated[str | None, typer.Option("--verifier", metavar="URL", help="URL of the verifier.", show_default=False)]
