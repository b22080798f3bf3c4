"""Every command of the documentation is run, and every Python snippet of it, as it stands there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
LOOP = [
    "materialize",
    "check_features",
    "train",
    "deploy",
    "batch_predict",
    "backfill",
    "resume_batches",
    "check_drift",
    "retrain",
    "features",
    "check_skew",
    "push_features",
]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL
    )


def commands() -> list[str]:
    found = [
        line.removeprefix("$ ").strip()
        for page in PAGES
        for block in blocks(page, "console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    return list(dict.fromkeys(found))


def flow_commands() -> list[list[str]]:
    """The commands of flows, in the order in which a loop goes."""
    split = [shlex.split(c) for c in commands() if c.startswith("python -m flows.")]
    return sorted(split, key=lambda words: LOOP.index(words[2].removeprefix("flows.")))


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make ")])
def test_a_make_command_is_a_target(command):
    done = subprocess.run(
        ["make", "--dry-run", *command.split()[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [c for c in commands() if not c.startswith(("make ", "python -m flows."))],
)
def test_a_plain_command_works(command, tmp_path):
    words = shlex.split(command)
    assert words[0] == "python", f"nobody runs {command!r}"
    done = subprocess.run(
        [sys.executable, *words[1:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_commands_of_the_flows_work_one_after_the_other(demo_home, world_of):
    world = world_of(demo_home)
    codes = {" ".join(words): world.run(words[2][6:], *words[3:]) for words in flow_commands()}
    assert len(codes) > 8
    assert not {command: code for command, code in codes.items() if code not in (0, 3)}


@pytest.mark.slow
def test_the_flow_of_ones_own_runs_as_it_is_printed(world, monkeypatch, capsys):
    snippets = blocks(ROOT / "docs" / "own_flow.md", "python")
    monkeypatch.setenv("HEADRACE_HOME", str(world.home))
    names: dict[str, object] = {"__name__": "own_flow"}
    for snippet in snippets:
        exec(compile(snippet, "docs/own_flow.md", "exec"), names)
    printed = capsys.readouterr().out
    assert re.search(r"^\d{4,} flights scored$", printed, flags=re.MULTILINE), printed


def test_the_flow_of_ones_own_is_fifteen_lines():
    snippet = blocks(ROOT / "docs" / "own_flow.md", "python")[0]
    body = snippet[snippet.index("@flow") :].strip().splitlines()
    assert len(body) <= 15


def links() -> list[tuple[Path, str]]:
    return [
        (page, target)
        for page in PAGES
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in target
    ]


@pytest.mark.parametrize(("page", "target"), links(), ids=lambda part: str(part)[-40:])
def test_a_link_leads_somewhere(page, target):
    assert (page.parent / target).exists()


def test_the_settings_page_lists_every_setting():
    from headrace.settings import PREFIX, Settings

    page = (ROOT / "docs" / "settings.md").read_text()
    told = set(re.findall(r"`(HEADRACE_[A-Z_]+)`", page))
    assert told == {PREFIX + name.upper() for name in Settings.model_fields}


def test_no_page_or_file_names_a_folder_of_anyone():
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    own = Path(__file__).relative_to(ROOT).as_posix()
    telling = re.compile(r"/(?:home|Users)/[a-z]|/root/|/work/")
    named = [
        name
        for name in files
        if name not in (own, "tests/test_packaging.py")
        and telling.search((ROOT / name).read_text(errors="replace"))
    ]
    assert not named


def test_the_readme_shows_the_two_commands_of_a_newcomer():
    (block,) = blocks(ROOT / "README.md", "console")
    assert block == "$ make demo\n$ make test\n"
