"""Random requests that the description of the service allows, and others, find no failure (needs schemathesis)."""

from typing import Any

import pytest

pytestmark = pytest.mark.serving
schemathesis = pytest.importorskip("schemathesis", reason="comes with the extra test-serving")

from hypothesis import HealthCheck, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from cfmvc_scvi.wire import ARROW, NPZ  # noqa: E402

TOKEN = "a-token-for-the-tests"
schemathesis.openapi.media_type(NPZ, st.binary(max_size=500))
schemathesis.openapi.media_type(ARROW, st.binary(max_size=500))


@pytest.fixture
def described(live: Any) -> Any:
    return schemathesis.openapi.from_url(
        f"{live.url}/openapi.json", headers={"authorization": f"Bearer {TOKEN}"}, wait_for_schema=10
    )


schema = schemathesis.pytest.from_fixture("described")


@schema.parametrize()
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_finds_a_failure(case: Any) -> None:
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    wanted = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
    ]
    response = case.call(headers={"authorization": f"Bearer {TOKEN}"})
    case.validate_response(response, checks=wanted)


@schema.parametrize()
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_without_the_token_no_request_gets_anywhere(case: Any) -> None:
    case.headers = {name: value for name, value in (case.headers or {}).items() if name.lower() != "authorization"}
    response = case.call()
    assert response.status_code == (200 if case.path == "/healthz" and case.method == "GET" else response.status_code)
    if case.path != "/healthz":
        assert response.status_code == 401
