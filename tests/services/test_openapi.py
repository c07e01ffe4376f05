"""The interface of each service: committed, complete, and changed on purpose only.

After a change that is meant: `REXIS_UPDATE_OPENAPI=1 python -m pytest tests/services/test_openapi.py`
"""

import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from services.foundation.problems import MEDIA_TYPE
from tests.services.service_applications import SERVICES, application, settings_for

ROOT = Path(__file__).parents[2]
# Operations that come with the foundation in every service.
FOUNDATION_TAGS = {"sign-in", "uploads", "relays"}


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def document(service: str) -> dict[str, Any]:
    return application(settings_for(service, "sqlite:///unused")).openapi()


def modules_of(service: str) -> list[ModuleType]:
    """The modules that are loaded with a service's application."""
    return [module for name, module in sys.modules.items() if name.startswith(f"services.{service}.")]


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for methods in document["paths"].values() for operation in methods.values()]


def test_the_interface_is_the_committed_one(service: str, document: dict[str, Any]) -> None:
    committed = ROOT / "services" / service / "openapi.json"
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("REXIS_UPDATE_OPENAPI"):
        committed.write_text(text, encoding="utf-8")
    assert json.loads(committed.read_text(encoding="utf-8")) == document, (
        f"the interface of the {service} changed; if it is meant, run: REXIS_UPDATE_OPENAPI=1 python -m pytest {__file__}"
    )


def test_the_interface_does_not_depend_on_the_settings(service: str, document: dict[str, Any]) -> None:
    other = settings_for(service, "sqlite:///other", public_url="https://elsewhere.example", chain_id=10, max_body_bytes=5)
    assert application(other).openapi() == document


def test_operations_have_unique_ids_and_name_their_errors(document: dict[str, Any]) -> None:
    found = operations(document)
    ids = [operation["operationId"] for operation in found]
    assert len(ids) == len(set(ids))
    for operation in found:
        schema = operation["responses"]["default"]["content"][MEDIA_TYPE]["schema"]
        assert schema == {"$ref": "#/components/schemas/ProblemDocument"}, operation["operationId"]


def test_every_operation_says_who_may_call_it(document: dict[str, Any]) -> None:
    own = [operation for operation in operations(document) if not FOUNDATION_TAGS & set(operation["tags"])]
    assert own
    for operation in own:
        assert "Open to" in operation["description"], operation["operationId"]
        assert ("Open to everyone" in operation["description"]) == ("security" not in operation), operation["operationId"]


def test_every_body_has_an_example_that_its_schema_admits(service: str, document: dict[str, Any]) -> None:
    bodies = [
        operation["requestBody"]
        for operation in operations(document)
        if not FOUNDATION_TAGS & set(operation["tags"]) and "requestBody" in operation
    ]
    for body in bodies:
        name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        model = next(getattr(module, name) for module in modules_of(service) if hasattr(module, name))
        examples = document["components"]["schemas"][name]["examples"]
        assert examples
        for example in examples:
            model.model_validate(example)
