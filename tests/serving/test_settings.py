from pathlib import Path

from serving.settings import PREFIX, ServerSettings, load_server_settings


def test_an_option_wins_over_a_variable_and_none_is_no_option(monkeypatch):
    monkeypatch.setenv("HEADRACE_SERVER_PORT", "1234")
    assert load_server_settings().port == 1234
    assert load_server_settings(port=4321, host=None).port == 4321
    assert load_server_settings(port=4321, host=None).host == "127.0.0.1"


def test_the_documentation_lists_every_setting_with_its_default():
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    for name, field in ServerSettings.model_fields.items():
        default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
        told = "none" if field.default in ("", None) else f"`{default}`"
        assert f"| `{PREFIX}{name.upper()}` | {told} |" in page, name
