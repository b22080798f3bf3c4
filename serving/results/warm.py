"""Results that are there before the first request: of the requests that a file lists.

Done while a model is loaded, before it answers anybody. A request that the model refuses, as one
with a field that it no longer has, is left out and told: it is no reason not to serve the model.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from headrace.errors import HeadraceError, SettingRefused
from serving.errors import ModelNotServed
from serving.features import read_features
from serving.http.codec import Head
from serving.inputs import Inputs, Tell, keyed_inputs, keyed_rows, raw_inputs
from serving.outputs import run
from serving.plain.codec import PlainCodec
from serving.query import Outcome, Query
from serving.repository import ModelRepository
from serving.results.batch import Results
from serving.results.records import keyed_keys, raw_keys
from serving.served import ServedModel
from serving.settings import ServerSettings

_HEAD = Head("/api/v1/infer")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Warming:
    """Computes the results of a file of requests: one body of the plain API a line."""

    results: Results
    path: Path
    settings: ServerSettings

    def __call__(self, model: ServedModel) -> None:
        """Keep the results of those requests that are for ``model``.

        Raises:
            SettingRefused: if the file cannot be read.
        """
        try:
            lines = self.path.read_bytes().splitlines()
        except OSError as error:
            expected = f"{error.strerror}; write the path of a file of requests, one a line"
            raise SettingRefused(
                "HEADRACE_SERVER_RESULT_CACHE_WARM", str(self.path), expected
            ) from error
        codec = PlainCodec(cast("ModelRepository", _Alone(model)), self.settings)
        kept, refused = 0, None
        for number, line in enumerate(lines, 1):
            try:
                kept += self._keep(codec.decode(line, _HEAD)) if line.strip() else 0
            except ModelNotServed:
                continue  # of another endpoint
            except HeadraceError as error:
                refused = refused or f"line {number}: {error}"
        if refused:
            _logger.warning("model=%s not all of %s: %s", model.version, self.path, refused)
        _logger.info("model=%s results=%d computed from %s", model.version, kept, self.path)

    def _keep(self, query: Query) -> int:
        refused: list[HeadraceError] = []

        def tell(_: Query, outcome: Outcome) -> None:
            if isinstance(outcome, HeadraceError):
                refused.append(outcome)

        inputs = _inputs(query, tell)
        if inputs is None:
            raise refused[0]
        self.results.keep_here(query.model, inputs, run(query.model, [inputs]).batches[0])
        return query.rows


class _Alone:
    """A repository of one model."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model

    def served(self, name: str | None = None) -> ServedModel:
        endpoint = self._model.release.endpoint
        if name not in (None, endpoint):
            raise ModelNotServed("model", str(name), endpoint)
        return self._model


def _inputs(query: Query, tell: Tell) -> Inputs | None:
    model = query.model
    if query.features is not None:
        inputs = raw_inputs(model, [query], tell)
        if inputs:
            inputs.keys = raw_keys(model, inputs.matrix)
        return inputs
    keyed = keyed_rows(model, [query], tell)
    if keyed is None:
        return None
    keyed.keys = keyed_keys(model, keyed.rows)
    return keyed_inputs(model, keyed, read_features(model, keyed.rows.keys, keyed.rows.at))
