"""Whose files are under test: the protected branch's, or what a stranger wants merged. A flag and variables decide.

What a merge request brings is data. In its pipelines pipeline.toml and bases/ are the protected branch's, because they
run commands, choose addresses and lower limits; see docs/security.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# Names the protected branch where the engine's own variables do not, or may not be believed.
PROTECTED_BRANCH_VARIABLE = "VOXLINE_PROTECTED_BRANCH"

# Holds the private key that releases are signed with.
SIGNING_KEY_VARIABLE = "VOXLINE_SIGNING_KEY"

# Set by the engine, and only in pipelines of merge requests.
_OF_MERGE_REQUESTS = ("CI_MERGE_REQUEST_ID", "CI_MERGE_REQUEST_IID", "CI_EXTERNAL_PULL_REQUEST_IID", "CHANGE_ID")

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
# What git takes for a branch's name, without the characters that ask for another commit, as in `main~100` or `@{1}`.
_BRANCH = re.compile(r"(?!.*(?:\.\.|//|@\{|\.lock(?:/|$)|/\.|\.$|/$))(?![-./])[^\x00-\x20\x7f ~^:?*\[\\]{1,240}")


def is_untrusted(environment: Mapping[str, str], *, flag: bool = False) -> bool:
    """Whether the tree holds what nobody with rights on the protected branch has agreed to.

    Nothing can say the opposite: neither a file of the tree nor a variable takes the flag back.
    """
    return (
        flag
        or any(environment.get(variable) for variable in _OF_MERGE_REQUESTS)
        or environment.get("CI_PIPELINE_SOURCE") in ("merge_request_event", "external_pull_request_event")
        or environment.get("CI_COMMIT_REF_PROTECTED", "true") != "true"
        or environment.get("GITHUB_EVENT_NAME", "").startswith("pull_request")
    )


def protected_revisions(environment: Mapping[str, str]) -> list[str]:
    """Where this clone may hold the protected branch, best first; what is no name of a branch is left out.

    The author of a merge request chooses its target. GitLab says whether that one is protected; where it is not, the
    default branch counts. Jenkins and GitHub do not say it, so ``VOXLINE_PROTECTED_BRANCH`` wins over their targets.
    The commit a merge request began at was on its target once: older settings, but nobody's own.
    """
    chosen = environment.get(PROTECTED_BRANCH_VARIABLE)
    if chosen:
        return _of_origin(chosen)
    if environment.get("CI_MERGE_REQUEST_TARGET_BRANCH_PROTECTED") == "true":
        shas = (environment.get(f"CI_MERGE_REQUEST_{name}_SHA", "") for name in ("TARGET_BRANCH", "DIFF_BASE"))
        commits = [sha for sha in shas if _COMMIT.fullmatch(sha)]
        return [*_of_origin(environment.get("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "")), *commits]
    for variable in ("CI_DEFAULT_BRANCH", "CHANGE_TARGET", "GITHUB_BASE_REF"):
        if environment.get(variable):
            return _of_origin(environment[variable])
    return ["refs/remotes/origin/HEAD"]


def _of_origin(branch: str) -> list[str]:
    """As the remote had it: a branch of this clone may be anybody's."""
    return [f"refs/remotes/origin/{branch}"] if _BRANCH.fullmatch(branch) else []
