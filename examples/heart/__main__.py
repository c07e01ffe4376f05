"""`python -m examples.heart`: the whole story on a platform of its own, in `.rexis/demo`; see `story`."""

import sys

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from examples.heart.report import Report
from examples.heart.story import REPORT, Setting, Story
from rexis.errors import RexisError


def main() -> None:
    """Tell the story; exit code 1 with one message if something fails."""
    console = Console(highlight=False)
    # The cores belong to the platform and the agents; idle threads of torch would spin against them.
    torch.set_num_threads(1)
    setting = Setting()
    try:
        report = Story(setting, console).tell()
    except RexisError as error:
        console.print(Text.assemble(("The demo stopped: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("\nstopped; no process is left")
        sys.exit(130)
    print_summary(console, report)
    console.print(f"\n[bold]{(setting.folder / REPORT).resolve().as_uri()}[/]", soft_wrap=True)


def print_summary(console: Console, report: Report) -> None:
    """What the story came to, as a table."""
    scores = Table(box=None, header_style="bold", pad_edge=False)
    for header in ("trained on", "AUC", "95 % interval"):
        scores.add_column(header)
    for score in report.scores:
        style = "bold green" if score.name == report.federated else ""
        scores.add_row(Text(score.name, style=style), f"{score.auc:.3f}", f"{score.low:.3f} to {score.high:.3f}")
    console.print()
    console.print(scores)
    chain = report.chain
    console.print(
        f"\n{chain['rounds']} rounds in {chain['transactions']} transactions on chain; encrypted answers within "
        f"{report.inference['relative_error']:.1e} of plaintext ({report.inference['label']}); {report.seconds:.0f} s",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
