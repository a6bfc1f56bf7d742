"""Requests made up from the OpenAPI document, valid and not, against the real app."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS, load_all_checks

from api.main import create_app, describe_app

# A few of each kind: this runs on every commit, and must not take more than about a minute.
EXAMPLES = 6

load_all_checks()
CHECKED = [
    CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "unsupported_method",
    )
]


@schemathesis.serializer("application/x-ndjson")
def write_lines(context, value):
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else b"nonsense"


schema = schemathesis.openapi.from_dict(describe_app().openapi())


@pytest.fixture(scope="module")
def contract_app(settings):
    return create_app(settings)


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
    derandomize=True,
)
@pytest.mark.usefixtures("sessions")
def test_what_the_document_says_is_what_the_app_does(case, contract_app, api_key):
    case.call_and_validate(
        app=contract_app,
        headers={"Authorization": f"Bearer {api_key}"},
        checks=CHECKED,
    )
