"""schemathesis over the whole OpenAPI of a server: what is asked follows the document, or breaks it."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from typing import Any

import hypothesis
import requests
from hypothesis import HealthCheck
from hypothesis.errors import Unsatisfiable

from gatewise.bench.server_process import ServerProcess

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


def fuzz(process: ServerProcess, examples: int, seed: int = 0) -> Counter[int]:
    """So many requests of each kind to each endpoint; how often each status was the answer.

    Args:
        process: who is asked.
        examples: at most, of an endpoint and a kind: with one value, say, there are fewer.
        seed: of what is asked.

    Raises:
        AssertionError: an answer is an error of the server's own, or none that its document names.
    """
    root = f"http://127.0.0.1:{process.port}"
    schema = schemathesis.openapi.from_url(f"{root}/openapi.json")
    statuses = Counter[int]()
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
                    statuses[answer.status_code] += 1

                with contextlib.suppress(Unsatisfiable):  # there is nothing to get wrong
                    call()
    return statuses
