"""What we take from, and give to, a CI engine's log."""

from __future__ import annotations

import pytest

from pipeline.io.ci import actor, address_of, describe_run, detect_engine, fold, repository_name, summarise
from pipeline.io.git import find_repository

GITLAB = {
    "GITLAB_CI": "true",
    "GITLAB_USER_LOGIN": "ana",
    "CI_PIPELINE_URL": "https://g/p/1",
    "CI_PROJECT_PATH": "group/voices",
}
GITHUB = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_ACTOR": "ana",
    "GITHUB_REPOSITORY": "group/voices",
    "GITHUB_RUN_ID": "1",
    "GITHUB_SERVER_URL": "https://g",
}
JENKINS = {"JENKINS_URL": "https://j", "CHANGE_AUTHOR": "ana", "BUILD_URL": "https://j/1"}


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        (GITLAB, ("gitlab", "ana", "https://g/p/1", "group/voices")),
        (GITHUB, ("github", "ana", "https://g/group/voices/actions/runs/1", "group/voices")),
        (JENKINS, ("jenkins", "ana", "https://j/1", "")),
        ({}, ("none", "", "", "")),
    ],
)
def test_each_engine_says_who_runs_which_pipeline(environment, told):
    run = describe_run(environment)
    assert (detect_engine(environment), run.author, run.pipeline, run.repository) == told


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({**GITLAB, "CI_JOB_URL": "https://g/-/jobs/7", "CI_PROJECT_DIR": "TOP"}, "https://g/-/jobs/7/artifacts/file/"),
        ({**JENKINS, "BUILD_URL": "https://j/1/", "WORKSPACE": "TOP"}, "https://j/1/artifact/"),
    ],
)
def test_a_report_is_told_by_the_address_where_the_engine_keeps_it(environment, address, tmp_path, monkeypatch):
    environment = {name: str(tmp_path) if value == "TOP" else value for name, value in environment.items()}
    monkeypatch.chdir(tmp_path)
    for page in ("work/ana/a b.html", tmp_path / "work" / "ana" / "a b.html"):
        assert address_of(page, environment) == f"{address}work/ana/a%20b.html"
    assert address_of("/elsewhere/x.html", environment) == "/elsewhere/x.html", "the engine keeps nothing of it"
    half = {name: value for name, value in environment.items() if not name.endswith(("JOB_URL", "BUILD_URL"))}
    assert address_of("work/x.html", half) == "work/x.html"


def test_on_github_it_is_the_run_s_list_and_elsewhere_the_path():
    assert address_of("work/x.html", GITHUB) == "https://g/group/voices/actions/runs/1#artifacts"
    assert address_of("work/x.html", {}) == "work/x.html"


def test_a_summary_is_added_to_github_s_page_and_nowhere_else(tmp_path):
    page = tmp_path / "summary.md"
    for environment in (GITHUB, GITLAB, {}):
        summarise("## Voice ana", {**environment, "GITHUB_STEP_SUMMARY": str(page)})
    summarise("- more", {**GITHUB, "GITHUB_STEP_SUMMARY": str(page)})
    assert page.read_text() == "## Voice ana\n- more\n"


def test_without_an_engine_git_and_the_account_answer(line):
    line.git("config", "user.name", "Ana Perez")
    line.git("remote", "add", "origin", "git@example.org:group/voices.git")
    repository = find_repository(line.root)
    assert actor({"USER": "root"}, repository) == "Ana Perez"
    assert actor({"USER": "root"}, None) == "root"
    assert repository_name({}, repository) == "group/voices"
    assert repository_name({**GITLAB, "CI_PROJECT_PATH": "fork/voices"}, repository) == "fork/voices"


def test_sections_fold_in_engines_that_can_and_leave_no_trace_elsewhere(monkeypatch, capsys):
    for variable in ("GITLAB_CI", "GITHUB_ACTIONS", "JENKINS_URL"):
        monkeypatch.delenv(variable, raising=False)
    with fold("ana: finetune"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    with fold("ana: finetune"):
        pass
    assert capsys.readouterr().err == "::group::ana: finetune\n::endgroup::\n"
    monkeypatch.setenv("GITLAB_CI", "true")
    with pytest.raises(ValueError), fold("ana: finetune"):
        raise ValueError
    err = capsys.readouterr().err
    assert "section_start:" in err and "section_end:" in err and "ana__finetune" in err


def test_an_error_becomes_an_annotation_that_cannot_forge_another(line, voxline, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    answer = voxline("import", "none\n::error::forged", "--name", "lj")
    commands = [told for told in answer.err.splitlines() if told.lstrip().startswith("::")]
    assert len(commands) == 1
    assert commands[0].startswith("::error title=voxline usage::")
    assert "%0A::error::forged" in commands[0]


def test_an_error_message_cannot_drive_the_terminal(line, voxline):
    answer = voxline("import", "none\x1b[2Jhere", "--name", "lj")
    assert answer.code == 2
    assert "\x1b" not in answer.err
