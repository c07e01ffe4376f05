"""The order of the files: the long ones begin first, so that nobody waits for one of them alone in the end."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Kills, stages with deadlines and whole platforms: most of their time is waiting, which the short files fill. A new one belongs here
# from about half a minute on. Federations, which have stages to keep, begin when the platforms have started.
LONG_FIRST = (
    "end_to_end/test_platform.py",
    "end_to_end/test_story.py",
    "contracts/test_forge.py",
    "services/test_chain_index.py",
    "services/test_outbox_tasks.py",
    "services/test_aggregator_takeover.py",
    "services/test_federation_agents.py",
    "services/test_aggregator_rounds.py",
    "services/test_aggregator_groups.py",
    "services/test_aggregator_consents.py",
    "services/test_aggregator_witnesses.py",
    "services/test_federation_privacy.py",
    "services/test_relay_load.py",
    "services/test_chain_kills.py",
    "services/test_aggregator_kills.py",
    "end_to_end/test_readme.py",
    "services/test_agent_queries.py",
    "services/test_key_commands.py",
    "services/test_background_processes.py",
    "end_to_end/test_supervision.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if absent := [name for name in LONG_FIRST if not (TESTS / name).is_file()]:
        raise pytest.UsageError(f"{Path(__file__).name} names files that are gone: {', '.join(absent)}")
    place = {TESTS / name: number for number, name in enumerate(LONG_FIRST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))
