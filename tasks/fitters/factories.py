"""What a spec names as ``module:name``, found and called."""

import importlib
from typing import Any

from headrace.errors import SpecRefused


def made(model: str, field: str, factory: str, *arguments: Any, **parameters: Any) -> Any:
    """Return what ``factory`` gives for ``arguments`` and ``parameters``.

    Args:
        model: the name of the model, for errors.
        field: where the spec names the factory, such as ``trainer.estimator``.
        factory: ``module:name`` of a function or class.
        arguments: what it is called with by place.
        parameters: what it is called with by name: the spec's ``trainer.parameters``.

    Raises:
        SpecRefused: if there is no such module or name, or it does not take the parameters.
    """
    module_name, name = factory.split(":")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise SpecRefused(model, f"{field} {factory!r} is not there: {error}") from error
    try:
        return found(*arguments, **parameters)
    except (TypeError, ValueError) as error:
        said = f"{field} {factory!r} does not take trainer.parameters {parameters}: {error}"
        raise SpecRefused(model, said) from error
