"""Schemathesis against a running server: no 5xx, and every answer is as the document says.

Requests that fit the document and requests that break it, through a socket: the usual ones take
the hot lane, the others the web framework.
"""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as tries
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.faults.load import serving
from tests.faults.serving_home import write_home

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """The document of a running server; models stay where they are."""
    home = tmp_path_factory.mktemp("schemathesis")
    write_home(home)
    with serving(home, model_control=False) as server:
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")


def attack(operation, mode, *, examples, checks):
    """Send so many requests to one operation, and check what comes back."""

    @tries(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def send(case):
        case.call_and_validate(checks=checks)

    send()


def operations(document):
    return [found.ok() for found in document.get_all_operations()]


def attack_all(document, *, examples):
    for operation in operations(document):
        attack(operation, GenerationMode.POSITIVE, examples=examples, checks=CHECKS)
        if {"parameters", "requestBody"} & operation.definition.raw.keys():
            attack(operation, GenerationMode.NEGATIVE, examples=examples, checks=CHECKS)


def test_no_request_fails_the_server_or_gets_what_is_not_in_the_document(document):
    assert len(operations(document)) > 20
    attack_all(document, examples=4)


@pytest.mark.soak
def test_no_request_of_many_does(document):
    attack_all(document, examples=400)


@pytest.mark.parametrize("path", ["/api/v1/infer", "/api/v1/infer/batch"])
def test_what_fits_the_document_is_answered(document, path):
    operation = document[path]["POST"]
    checks = [*CHECKS, positive_data_acceptance]
    attack(operation, GenerationMode.POSITIVE, examples=15, checks=checks)
