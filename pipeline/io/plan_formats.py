"""A plan as jobs for a CI engine. Every engine gets the same command lines; only the frame differs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.records.plan import COMMANDS, FOLDER_DELETED, Plan, PlanEntry

# The exit codes that are worth another try, and how often: out of memory after degrading, and transient failures.
RETRY = {"max": 2, "exit_codes": [20, 75]}
NEEDS_GPU = frozenset({"finetune"})
JUDGES = frozenset({"validate", "evaluate"})  # the stages that refuse, and leave a JUnit report
KEEP_FOR = "2 weeks"
IS_PROTECTED = '$CI_COMMIT_REF_PROTECTED == "true"'


@dataclass(frozen=True)
class Step:
    """One job of a voice's chain."""

    name: str
    command: str
    needs_gpu: bool


def steps_of(entry: PlanEntry, *, only_validate: bool) -> list[Step]:
    """The commands of one voice, in order. With ``only_validate`` nothing that trains, publishes or retires is left."""
    names = [name for name in COMMANDS[entry.action] if name == "validate" or not only_validate]
    return [Step(name, _command(name, entry, records=not only_validate), name in NEEDS_GPU) for name in names]


def _command(name: str, entry: PlanEntry, *, records: bool) -> str:
    # Only checked names and fixed words may stand in a command line: reasons quote what users wrote.
    if name == "retire":
        reason = FOLDER_DELETED if entry.reason == FOLDER_DELETED else "consent missing or expired"
        return f"voxline registry retire {entry.voice} --reason '{reason}'"
    # A merge request must not write into the registry, not even that a voice was refused.
    note = " --record" if records and name in JUDGES else ""
    return f"voxline {name} {entry.voice}{note}"


def gitlab_pipeline(plan: Plan, *, only_validate: bool = False) -> str:
    """A child pipeline: one chain of jobs per voice, so that one voice's failure stops no other."""
    jobs: dict[str, Any] = {}
    for entry in plan.to_do():
        previous = None
        for step in steps_of(entry, only_validate=only_validate):
            jobs[f"{step.name}:{entry.voice}"] = _gitlab_job(entry.voice, step, previous)
            previous = step.name
    if not jobs:
        jobs["nothing to do"] = {"stage": "validate", "script": ["voxline registry list"]}
    document = {
        "stages": ["validate", "extract", "finetune", "evaluate", "publish"],
        "default": {"image": "$CPU_IMAGE", "retry": RETRY, "interruptible": True},
        **jobs,
    }
    return yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True)


def _gitlab_job(voice: str, step: Step, previous: str | None) -> dict[str, Any]:
    is_writing = step.name in ("publish", "retire")
    job: dict[str, Any] = {
        "stage": "publish" if is_writing else step.name,
        "needs": [f"{previous}:{voice}"] if previous else [],
    }
    if step.needs_gpu:
        job["image"] = "$GPU_IMAGE"
        job["tags"] = ["gpu"]
        # A job stopped in the middle leaves its checkpoint here; the retry continues from it.
        unfinished = f"work/{voice}/{step.name}/*.partial/"
        job["cache"] = {"key": f"{voice}-$CI_COMMIT_REF_SLUG", "paths": [unfinished], "when": "always"}
    if is_writing:
        job["resource_group"] = f"voice/{voice}"
        job["interruptible"] = False
    if step.name != "validate":
        job["rules"] = [{"if": IS_PROTECTED}]
    job["script"] = [step.command]
    if not is_writing:
        job["artifacts"] = {
            "when": "always",
            "expire_in": KEEP_FOR,
            "paths": [f"work/{voice}/"],
            "exclude": [f"work/{voice}/**/.*.lock", f"work/{voice}/*/*.partial/**/*"],
        }
        if step.name in JUDGES:
            job["artifacts"]["reports"] = {"junit": [f"work/{voice}/{step.name}/**/junit.xml"]}
    return job


def jenkins_branches(plan: Plan, *, only_validate: bool = False) -> str:
    """The branches of a ``parallel`` step: voices, each with its steps (name, command, whether it needs a GPU)."""
    branches = []
    for entry in plan.to_do():
        steps = steps_of(entry, only_validate=only_validate)
        told = [{"name": step.name, "command": step.command, "gpu": step.needs_gpu} for step in steps]
        if told:
            branches.append({"voice": entry.voice, "action": entry.action, "steps": told})
    return json.dumps({"branches": branches}, indent=2) + "\n"


def github_matrix(plan: Plan, *, only_validate: bool = False) -> str:
    """A matrix for ``fromJSON``: one line; each voice with its commands joined, since a matrix job is one chain."""
    include = []
    for entry in plan.to_do():
        steps = steps_of(entry, only_validate=only_validate)
        if steps:
            commands = " && ".join(step.command for step in steps)
            needs_gpu = any(step.needs_gpu for step in steps)
            include.append({"voice": entry.voice, "action": entry.action, "commands": commands, "gpu": needs_gpu})
    return json.dumps({"include": include}) + "\n"
