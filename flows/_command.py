"""The command line of every flow, made from its parameter class.

``python -m flows.NAME`` reads its flags into the flow's one frozen configuration, makes sure that a
Prefect server is there to report to, runs the flow, prints its report on stdout (everything else
goes to stderr), and exits with an ``ExitCode``.
"""

import datetime as dt
import json
import sys
from typing import Annotated, Any, TypeVar

from prefect.runtime import flow_run
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_settings import CliApp, CliImplicitFlag, SettingsConfigDict

from flows._console import be_quiet, table
from flows._reporting import run_reporting
from headrace.errors import ExitCode, HeadraceError, UsageError
from headrace.names import checked_name
from headrace.settings import load_settings
from headrace.spec import load_spec

EPILOG = "exit codes: 0 done, 1 failed, 2 wrong usage, 3 done with a finding (drift, not promoted)"


def _known_model(name: str) -> str:
    return load_spec(name).name


def _month(text: str) -> str:
    try:
        dt.datetime.strptime(text, "%Y-%m")  # noqa: DTZ007  (only its form is checked)
    except ValueError:
        raise ValueError(f"{text!r} is not a month; write it as 2013-08") from None
    return text


ModelName = Annotated[str, AfterValidator(_known_model)]
EndpointName = Annotated[str, AfterValidator(lambda name: checked_name("endpoint", name))]
Month = Annotated[str, AfterValidator(_month)]
Day = dt.date


class FlowConfig(BaseModel):
    """Base of every flow's parameters: frozen, and unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FlowReport(BaseModel):
    """What a flow made, as the person who started it wants to read it."""

    model_config = ConfigDict(frozen=True)

    def lines(self) -> list[tuple[str, str]]:
        """The rows of the summary: what, and its value."""
        return [(name, str(value)) for name, value in self.model_dump().items()]

    @property
    def exit_code(self) -> ExitCode:
        """``FINDING`` where the flow found something a person should look at."""
        return ExitCode.DONE


Config = TypeVar("Config", bound=FlowConfig)

_IN_NAMES = {
    "model": "{}",
    "input": "{}",
    "version": "version {}",
    "month": "{}",
    "since": "since {}",
    "until": "until {}",
    "endpoint": "at {}",
}


def run_name() -> str:
    """The name of the flow run that is starting: ``train flight_delay until 2013-08-01``."""
    given = flow_run.parameters["config"]
    # A model where Python called the flow, a mapping where a deployment did.
    chosen = given.model_dump() if isinstance(given, FlowConfig) else given
    words = [how.format(chosen[name]) for name, how in _IN_NAMES.items() if chosen.get(name)]
    return " ".join([flow_run.flow_name, *words])


def run(flow: Any, config_class: type[Config], argv: list[str] | None) -> int:
    """Run ``flow`` as a command and return its exit code."""
    try:
        config, as_json = _parse(flow, config_class, sys.argv[1:] if argv is None else argv)
        settings = load_settings()
        be_quiet()
        report: FlowReport = run_reporting(flow, config, settings)
    except HeadraceError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  (this is a command)
        return error.exit_code
    print(_as_json(report) if as_json else table(report.lines()))  # noqa: T201
    return report.exit_code


class _WrongFlags(UsageError):
    def __init__(self, error: ValidationError, command: str) -> None:
        parts = []
        for item in error.errors():
            flag = "--" + "-".join(str(step) for step in item["loc"]).replace("_", "-")
            message = item["msg"].removeprefix("Value error, ")
            parts.append(f"{flag}: {message} (given: {item['input']!r})")
        super().__init__(f"{'; '.join(parts)}. See {command} --help.")


def _parse(flow: Any, config_class: type[Config], argv: list[str]) -> tuple[Config, bool]:
    command = f"python -m flows.{flow.name.replace('-', '_')}"
    parser: type[Any] = create_model(
        command,
        __base__=config_class,
        __doc__=f"{flow.__doc__}\n\n{EPILOG}",
        as_json=(
            CliImplicitFlag[bool],
            Field(False, alias="json", description="print the report as one JSON object"),
        ),
    )
    parser.model_config |= SettingsConfigDict(
        cli_prog_name=command, cli_kebab_case=True, cli_hide_none_type=True
    )
    try:
        parsed = CliApp.run(parser, cli_args=argv)
    except ValidationError as error:
        raise _WrongFlags(error, command) from error
    fields = {name: getattr(parsed, name) for name in config_class.model_fields}
    return config_class(**fields), parsed.as_json


def _as_json(report: FlowReport) -> str:
    return json.dumps(report.model_dump(mode="json"))
