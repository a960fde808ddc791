"""What GitLab's documentation says of variables and rules, as far as our files use it.

Variables, the higher first: those of the pipeline (a trigger job's own and forwarded ones among them), of the project, of
the job in yaml, of the top of the yaml, predefined ones. Jobs without rules run in branch pipelines only, and a child
pipeline of a merge request's is none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Variables = Mapping[str, str]


def forwarded(parent: Mapping[str, Any], trigger_job: str, pipeline: Variables | None = None) -> dict[str, str]:
    """What a trigger job hands to its child, where it ranks as the pipeline's own variables."""
    job = parent[trigger_job]
    forward = job["trigger"].get("forward", {})
    handed: dict[str, str] = {}
    if forward.get("yaml_variables", True):
        inherited = job.get("inherit", {}).get("variables", True)
        tops = _plain(parent.get("variables", {}))
        if inherited is not True:
            tops = {name: value for name, value in tops.items() if inherited and name in inherited}
        handed |= tops | _plain(job.get("variables", {}))
    if forward.get("pipeline_variables", False):
        handed |= dict(pipeline or {})
    return handed


def effective(
    pipeline_file: Mapping[str, Any],
    job: str,
    *,
    project: Variables | None = None,
    handed: Variables | None = None,
    predefined: Variables | None = None,
) -> dict[str, str]:
    """The variables that a job's script sees."""
    tops, own = _plain(pipeline_file.get("variables", {})), _plain(pipeline_file[job].get("variables", {}))
    return {**(predefined or {}), **tops, **own, **(project or {}), **(handed or {})}


def jobs_created(pipeline_file: Mapping[str, Any], variables: Variables) -> list[str]:
    """Names of the jobs that GitLab creates; none where `workflow` says no."""
    jobs = {name: job for name, job in pipeline_file.items() if isinstance(job, dict) and "script" in job}
    workflow = pipeline_file.get("workflow", {}).get("rules")
    if workflow is not None and not _matches(workflow, variables):
        return []
    is_of_merge_request = bool(variables.get("CI_MERGE_REQUEST_ID"))
    runs_by_itself = workflow is not None or not is_of_merge_request
    return [name for name, job in jobs.items() if _runs(job, variables, runs_by_itself)]


def _runs(job: Mapping[str, Any], variables: Variables, runs_by_itself: bool) -> bool:
    return _matches(job["rules"], variables) if "rules" in job else runs_by_itself


def _matches(rules: list[dict[str, Any]], variables: Variables) -> bool:
    """Whether the first rule that applies lets the job in; `changes` alone is taken for a match."""
    for rule in rules:
        if "if" not in rule or all(_holds(part, variables) for part in rule["if"].split("&&")):
            return rule.get("when", "always") != "never"
    return False


def _holds(condition: str, variables: Variables) -> bool:
    found = re.fullmatch(r'\s*\$(\w+)\s*(?:==\s*(?:"([^"]*)"|\$(\w+)))?\s*', condition)
    assert found, f"{condition!r}: not understood"
    name, text, other = found.groups()
    if text is None and other is None:
        return bool(variables.get(name))
    return variables.get(name) == (variables.get(other) if other else text)


def _plain(variables: Mapping[str, Any]) -> dict[str, str]:
    return {name: value["value"] if isinstance(value, dict) else value for name, value in variables.items()}
