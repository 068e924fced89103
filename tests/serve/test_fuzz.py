"""schemathesis over the whole OpenAPI: no answer is an error of ours, and each is one that the document names."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from typing import Any

import hypothesis
import pytest
import requests
from hypothesis import HealthCheck
from hypothesis.errors import Unsatisfiable

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


def fuzz(process: Any, examples: int, seed: int = 0) -> dict[int, int]:
    """So many requests of each kind to each endpoint; how often each status was the answer."""
    root = f"http://127.0.0.1:{process.port}"
    schema = schemathesis.openapi.from_url(f"{root}/openapi.json")
    statuses: dict[int, int] = {}
    settings = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize=False,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    with requests.Session() as session:
        for found in schema.get_all_operations():
            operation = found.ok()
            for mode in MODES:
                cases = operation.as_strategy(generation_mode=mode)

                @hypothesis.seed(seed)
                @settings
                @hypothesis.given(case=cases)
                def call(case: Any) -> None:
                    answer = case.call(base_url=root, session=session, timeout=60)
                    case.validate_response(answer, checks=CHECKS)
                    status = answer.status_code
                    statuses[status] = statuses.get(status, 0) + 1

                with contextlib.suppress(Unsatisfiable):  # there is nothing to get wrong
                    call()
    return statuses


def check(process: Any, statuses: dict[int, int]) -> None:
    assert not [status for status in statuses if status >= 500], statuses
    assert {200, 400} <= set(statuses)
    assert process.popen.poll() is None


def test_a_few_hundred_requests_of_every_kind(process: Any) -> None:
    check(process, fuzz(process, 6))


@pytest.mark.slow
def test_twenty_thousand_requests_leave_the_memory_flat(start: Any, trained: Any) -> None:
    process = start(trained)
    fuzz(process, 40, 1)
    before, statuses, seed = process.memory, Counter[int](), 1
    while sum(statuses.values()) < 20_000:
        seed += 1
        statuses.update(fuzz(process, 300, seed))
    after = process.memory
    print(f"{statuses}: {before >> 20} MiB before, {after >> 20} MiB after")
    check(process, statuses)
    assert after - before < 200 << 20
