"""Random requests that the description of the service allows, and others, find no failure (needs schemathesis)."""

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.serving
schemathesis = pytest.importorskip("schemathesis", reason="comes with the extra test-serving")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from cfmvc_scvi.wire import ARROW, NPZ  # noqa: E402

TOKEN = "a-token-for-the-tests"
schemathesis.openapi.media_type(NPZ, st.binary(max_size=500))
schemathesis.openapi.media_type(ARROW, st.binary(max_size=500))


def each_operation(live: Any, n_examples: int, check: Callable[[Any], None]) -> list[str]:
    """Check random requests of each operation, and return their labels; by strategies, whatever pytest's version."""
    schema = schemathesis.openapi.from_url(
        f"{live.url}/openapi.json", headers={"authorization": f"Bearer {TOKEN}"}, wait_for_schema=10
    )
    operations = [result.ok() for result in schema.get_all_operations()]
    for operation in operations:

        @settings(max_examples=n_examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def examine(case: Any) -> None:
            check(case)

        examine()
    return [operation.label for operation in operations]


def test_no_request_finds_a_failure(live: Any) -> None:
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    wanted = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
    ]

    def check(case: Any) -> None:
        response = case.call(headers={"authorization": f"Bearer {TOKEN}"})
        case.validate_response(response, checks=wanted)

    assert {"GET /v1/model", "POST /v1/encode", "POST /v1/counterfactual"} <= set(each_operation(live, 200, check))


def test_without_the_token_no_request_gets_anywhere(live: Any) -> None:
    def check(case: Any) -> None:
        case.headers = {name: value for name, value in (case.headers or {}).items() if name.lower() != "authorization"}
        assert case.call().status_code == (200 if case.path == "/healthz" else 401)

    assert "POST /v1/counterfactual" in each_operation(live, 50, check)
