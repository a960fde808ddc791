"""Whatever a CI engine's variables hold: a command works or says what is wrong, and nothing of it is run or believed."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import unicodedata
from unittest import mock

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.cli.main import run_command
from pipeline.config import SECTIONS, resolve
from pipeline.errors import SettingsError
from pipeline.io import git
from pipeline.io.ci import annotation, describe_run
from pipeline.io.git import short_repository_name
from pipeline.trust import is_untrusted, protected_revisions

NAMES = [
    *("CI_MERGE_REQUEST_ID", "CI_MERGE_REQUEST_IID", "CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "CI_DEFAULT_BRANCH"),
    *("CI_MERGE_REQUEST_TARGET_BRANCH_PROTECTED", "CI_MERGE_REQUEST_TARGET_BRANCH_SHA", "CI_PIPELINE_SOURCE"),
    *("CI_MERGE_REQUEST_DIFF_BASE_SHA", "CI_COMMIT_SHA", "CI_COMMIT_BEFORE_SHA", "CI_COMMIT_REF_PROTECTED"),
    *("CI_PIPELINE_URL", "CI_PROJECT_PATH", "GITLAB_CI", "GITLAB_USER_LOGIN", "CI"),
    *("CHANGE_ID", "CHANGE_TARGET", "CHANGE_AUTHOR", "CHANGE_FORK", "BUILD_URL", "JENKINS_URL"),
    *("GITHUB_EVENT_NAME", "GITHUB_BASE_REF", "GITHUB_ACTIONS", "GITHUB_ACTOR", "GITHUB_REPOSITORY"),
    *("GITHUB_RUN_ID", "GITHUB_SERVER_URL", "VOXLINE_PROTECTED_BRANCH", "VOXLINE_SIGNING_KEY"),
    *(f"VOXLINE_{key}".upper() for key in SECTIONS["voxline"].model_fields if key not in ("work", "cache")),
    *(
        f"VOXLINE_{section}_{key}".upper()
        for section in ("notify", "gate", "validate")
        for key in SECTIONS[section].model_fields
    ),
    *("VOXLINE_", "VOXLINE_NO_SUCH", "VOXLINE_GATE", "VOXLINE_FINETUNE_RANK"),
]
TRAPS = [
    *("--upload-pack=touch PWNED", "-c core.fsmonitor=touch", "--output=PWNED", "-", "--", "--end-of-options"),
    *(
        "main\n::error::forged",
        "\x1b]0;title\x07\x1b[2J",
        "::set-output name=x::y",
        "[/bold]",
        "[link=x]",
        "\u202egnirts",
    ),
    *(
        "$(touch PWNED)",
        "`touch PWNED`",
        "'; touch PWNED; '",
        '"\n  script: [touch PWNED]\n',
        "{{7*7}}",
        "%s%n",
        "\udcff\udcfe",
    ),
    *(
        "HEAD",
        "HEAD~1",
        "main",
        "refs/heads/main",
        "main@{1}",
        "origin/main",
        ":/theirs",
        "HEAD:pipeline.toml",
        "^HEAD",
    ),
    *("0" * 40, "f" * 40, "true", "false", "1", "push", "merge_request_event", "pull_request_target", "nano"),
    *(
        "../../../etc",
        "/dev/zero",
        "file:registry",
        "file:/proc/self/mem",
        "s3://",
        "nan",
        "-1",
        "1e999",
        "[1",
        "[[[[",
        "x" * 20_000,
    ),
]
VALUES = st.one_of(
    st.sampled_from(TRAPS),
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40),
    st.binary(max_size=20).map(lambda found: os.fsdecode(found.replace(b"\0", b""))),
)
ENVIRONMENTS = st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1, max_size=6)
COMMANDS = (
    ("plan", "--json", "--all"),
    ("plan", "--format", "gitlab", "--base", "$CI_MERGE_REQUEST_DIFF_BASE_SHA", "--head", "HEAD"),
    ("plan", "--format", "jenkins", "--base", "origin/$CHANGE_TARGET"),
    ("plan", "--format", "github", "--base", "$CI_COMMIT_BEFORE_SHA", "--head", "$CI_COMMIT_SHA"),
    ("settings", "--json"),
    ("settings", "--explain"),
    ("registry", "history", "ana"),
    ("registry", "retire", "ana"),
    ("bases", "list"),
)
# What one of our own lines may hold: sections of GitLab's log and GitHub's annotations are written by us.
FOLDS = re.compile(r"\x1b\[0Ksection_(start|end):\d+:\w*\r\x1b\[0K|\x1b\[[0-9;]*m")
JOB = re.compile(
    r"voxline (validate|extract|finetune|evaluate|publish) ana( --(record|untrusted|registry|base))*|voxline registry \w+.*"
)


def typed(command: tuple[str, ...], environment: dict[str, str]) -> list[str]:
    """The command line as the engine's shell makes it: variables within quotes."""
    return [re.sub(r"\$(\w+)", lambda name: environment.get(name[1], ""), word) for word in command]


def tried(arguments: list[str], environment: dict[str, str], capsys, asked: list[list[str]]) -> tuple[int, str, str]:
    real = subprocess.run
    git._safe_directories()  # asked once in a process, before the settings below are known

    def recorded(command, **more):
        asked.append(list(command))
        return real(command, **more)

    with mock.patch.dict(os.environ, environment), mock.patch.object(git.subprocess, "run", recorded):
        code = run_command(arguments)
    return (code, *capsys.readouterr())


def judge(line, capsys, environment: dict[str, str], command: tuple[str, ...]) -> None:
    asked: list[list[str]] = []
    arguments = typed(command, environment)
    code, out, err = tried(arguments, environment, capsys, asked)
    assert code in (0, 2, 3, 75), (code, err)
    assert "Traceback" not in err
    assert code == 0 or "voxline: " in err, err
    assert not list(line.root.rglob("PWNED"))
    told = FOLDS.sub("", err)
    assert all(letter.isprintable() or letter in "\n" for letter in told), ascii(told)
    assert not re.search(r"^::(?!error title=voxline |group::|endgroup::|warning title=voxline )", told, re.M), told
    controls = {letter for letter in FOLDS.sub("", out) if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")}
    assert controls <= {"\n"}, ascii(out[:500])
    for called in asked:
        rest = called[called.index("safe.bareRepository=explicit") + 1 :]
        options = itertools.takewhile(lambda word: word not in ("--", "--end-of-options"), rest)
        assert not [word for word in options if word.startswith(("--upload", "--output")) or "touch" in word], called
    if code == 0 and "--json" in arguments:
        json.loads(out)
    if code == 0 and "jenkins" in arguments:
        commands = [step["command"] for branch in json.loads(out)["branches"] for step in branch["steps"]]
        assert all("PWNED" not in one and "\n" not in one for one in commands), commands
    if code == 0 and "gitlab" in arguments:
        jobs = yaml.safe_load(out)
        scripts = [row for job in jobs.values() if isinstance(job, dict) for row in job.get("script", [])]
        assert all("PWNED" not in row for row in scripts), scripts


@pytest.fixture
def published(line):
    line.write_voice("ana")
    line.commit()
    line.publish("ana")
    return line


def fuzz(examples: int):
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


@pytest.mark.slow
@fuzz(int(os.environ.get("FUZZ_EXAMPLES", "30")))  # `make fuzz` tries a thousand
@given(environment=ENVIRONMENTS, command=st.sampled_from(COMMANDS))
def test_variables_of_any_kind_end_in_an_answer(published, capsys, environment, command):
    judge(published, capsys, environment, command)


@pytest.mark.slow
@fuzz(1000)
@given(environment=ENVIRONMENTS)
def test_a_thousand_sets_of_variables_are_read_without_belief(tmp_path, environment):
    for revision in protected_revisions(environment):
        assert re.fullmatch(r"refs/remotes/origin/[^~^:?*\[\\\s]+|[0-9a-f]{40,64}", revision), revision
        assert "@{" not in revision and ".." not in revision
    without = {name: value for name, value in environment.items() if not name.startswith("VOXLINE_")}
    assert is_untrusted(environment) == is_untrusted(without)  # no setting turns it off
    told = describe_run(environment)
    assert isinstance(short_repository_name(told.repository), str)
    line = annotation("title", "\n".join(environment.values()), {"GITHUB_ACTIONS": "1"})
    assert line.count("\n") == 1 and line.startswith("::error title=voxline title::")
    try:
        resolve(root=tmp_path, environment=environment)
    except SettingsError as error:
        assert any(name in error.message for name in environment)
