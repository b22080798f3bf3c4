from pathlib import Path

import pytest

from headrace.errors import SettingRefused, UnknownName
from headrace.settings import load_settings


def test_the_defaults_need_no_service(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    assert settings.storage_uri == str(tmp_path / ".headrace" / "storage")
    assert settings.registry_uri == f"sqlite:///{tmp_path}/.headrace/registry.db"
    assert settings.cluster == "local"


def test_a_variable_wins_over_the_file_which_wins_over_the_default(tmp_path, monkeypatch):
    (tmp_path / "staging.toml").write_text('workers = 3\nstorage = "s3://bucket/x/"\n')
    monkeypatch.setenv("HEADRACE_ENVIRONMENT", "staging")
    assert load_settings(tmp_path).workers == 3
    assert load_settings(tmp_path).uri("bundles", "d") == "s3://bucket/x/bundles/d"
    monkeypatch.setenv("HEADRACE_WORKERS", "5")
    assert load_settings(tmp_path).workers == 5


def test_a_wrong_value_names_the_variable_the_value_and_what_it_should_be(monkeypatch):
    monkeypatch.setenv("HEADRACE_WORKERS", "many")
    with pytest.raises(SettingRefused, match=r"HEADRACE_WORKERS = 'many' .*valid integer.*Dask"):
        load_settings()


def test_a_misspelt_variable_is_refused_with_a_guess(monkeypatch):
    monkeypatch.setenv("HEADRACE_HOEM", "/data")
    with pytest.raises(UnknownName, match="did you mean 'HEADRACE_HOME'"):
        load_settings()


def test_a_misspelt_key_of_the_file_is_refused(tmp_path):
    (tmp_path / "local.toml").write_text("wrokers = 3\n")
    with pytest.raises(SettingRefused, match="HEADRACE_WROKERS"):
        load_settings(tmp_path)


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "local.toml").write_text("workers = = 3\n")
    with pytest.raises(SettingRefused, match=r"local\.toml"):
        load_settings(tmp_path)


def test_an_environment_without_a_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADRACE_ENVIRONMENT", "staging")
    with pytest.raises(SettingRefused, match=r"no .*staging\.toml"):
        load_settings(tmp_path)


def test_the_variables_of_the_server_are_left_to_it(monkeypatch):
    monkeypatch.setenv("HEADRACE_SERVER_PORT", "9000")
    assert isinstance(load_settings().home, Path)


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("HEADRACE_WORKER_MEMORY", "plenty", "write a number and a unit, such as 512MiB or 2GiB"),
        ("HEADRACE_CLUSTER", "scheduler", "write 'local' or an address such as tcp://scheduler"),
    ],
)
def test_what_dask_would_stumble_over_is_refused_at_the_start(monkeypatch, variable, value, remedy):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingRefused, match=f"{variable} = '{value}' is refused: {remedy}"):
        load_settings()
