"""Who is a stranger: decided by a flag and the engine's variables, and by nothing that lies in the tree."""

from __future__ import annotations

import pytest

from pipeline.trust import is_untrusted, protected_revisions

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "environment",
    [
        {"CI_MERGE_REQUEST_ID": "17"},
        {"CI_PIPELINE_SOURCE": "merge_request_event"},
        {"CI_COMMIT_REF_PROTECTED": "false"},
        {"CHANGE_ID": "PR-3"},
        {"GITHUB_EVENT_NAME": "pull_request"},
        {"GITHUB_EVENT_NAME": "pull_request_target"},
        {"GITHUB_EVENT_NAME": "pull_request_review", "CI_COMMIT_REF_PROTECTED": "true"},
    ],
)
def test_a_merge_request_is_a_stranger_on_every_engine(environment: dict[str, str]):
    assert is_untrusted(environment)


@pytest.mark.parametrize(
    "environment",
    [{}, {"CI_COMMIT_REF_PROTECTED": "true", "CI_PIPELINE_SOURCE": "push"}, {"GITHUB_EVENT_NAME": "push"}],
)
def test_a_push_to_the_protected_branch_is_none_unless_the_flag_says_so(environment: dict[str, str]):
    assert not is_untrusted(environment)
    assert is_untrusted(environment, flag=True)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ["refs/remotes/origin/HEAD"]),
        ({"CHANGE_TARGET": "main"}, ["refs/remotes/origin/main"]),
        ({"GITHUB_BASE_REF": "release/1.x"}, ["refs/remotes/origin/release/1.x"]),
        ({"GITHUB_BASE_REF": "mine", "VOXLINE_PROTECTED_BRANCH": "main"}, ["refs/remotes/origin/main"]),
        # Whoever can push a branch can name it as the target; only a protected one speaks for the organisation.
        ({"CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "mine", "CI_DEFAULT_BRANCH": "main"}, ["refs/remotes/origin/main"]),
        (
            {
                "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "stable",
                "CI_MERGE_REQUEST_TARGET_BRANCH_PROTECTED": "true",
                "CI_MERGE_REQUEST_DIFF_BASE_SHA": SHA,
                "CI_DEFAULT_BRANCH": "main",
            },
            ["refs/remotes/origin/stable", SHA],
        ),
    ],
)
def test_the_protected_branch_is_sought_where_the_remote_had_it(environment: dict[str, str], expected: list[str]):
    assert protected_revisions(environment) == expected


@pytest.mark.parametrize(
    "name",
    ["main~100", "main@{1}", "../heads/mine", "--upload-pack=x", "a b", "a\nb", "x" * 300, "a..b", ".lock", "a/"],
)
def test_what_is_no_name_of_a_branch_is_not_asked_for(name: str):
    assert protected_revisions({"CHANGE_TARGET": name}) == []
