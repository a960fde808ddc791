"""A plan as jobs for a CI engine. Every engine gets the same command lines; only the frame differs."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.line import table
from pipeline.line.table import Stage
from pipeline.records.plan import FOLDER_DELETED, Plan, PlanEntry

# The exit codes that are worth another try, and how often: out of memory after degrading, and transient failures.
RETRY = {"max": 2, "exit_codes": [20, 75]}
KEEP_FOR = "2 weeks"
RETIRE = "retire"  # the one job that runs no stage

# GitLab: a yaml default in the pipeline that runs the jobs ranks below the project's variables; one that is forwarded
# from the pipeline above would win over them.
IMAGES = {"CPU_IMAGE": "$CI_REGISTRY_IMAGE:cpu", "GPU_IMAGE": "$CI_REGISTRY_IMAGE:cuda"}
IS_PROTECTED = '$CI_COMMIT_REF_PROTECTED == "true"'
IS_MERGE_REQUEST = "$CI_MERGE_REQUEST_ID"  # a child pipeline's source is parent_pipeline, whatever started the parent
IS_BRANCH = "$CI_COMMIT_BRANCH"
# Runners with these tags are protected: they take jobs of protected branches only, see docs/ci.md.
PROTECTED_TAG, GPU_TAG = "voxline", "gpu"
# The runner fetches a merge request's own commits; settings are read from the branch it is to be merged into.
FETCH_PROTECTED = (
    "git fetch --no-tags origin"
    ' "+refs/heads/$CI_DEFAULT_BRANCH:refs/remotes/origin/$CI_DEFAULT_BRANCH"'
    ' "+refs/heads/$CI_MERGE_REQUEST_TARGET_BRANCH_NAME:refs/remotes/origin/$CI_MERGE_REQUEST_TARGET_BRANCH_NAME"'
)


@dataclass(frozen=True)
class Frame:
    """What all jobs of a pipeline have in common.

    Attributes:
        only_validate: nothing that trains, publishes or retires, and nothing that writes to the registry.
        is_untrusted: the files are a stranger's, and every command says so.
        registry, base: what `plan` was told on its command line, repeated on those of the jobs.
    """

    only_validate: bool = False
    is_untrusted: bool = False
    registry: str | None = None
    base: str | None = None


@dataclass(frozen=True)
class Step:
    """One job of a voice's chain.

    Attributes:
        writes: it moves what the registry serves: one at a time for each voice, on protected machines.
        reads: earlier steps of this chain whose files it needs.
        keeps: patterns of the files that later steps read or a person opens, from the top of the repository.
        page, junit: patterns of its report for people and for the engine; empty where it leaves none.
    """

    name: str
    command: str
    needs_gpu: bool
    writes: bool = False
    reads: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    page: str = ""
    junit: str = ""


def steps_of(entry: PlanEntry, frame: Frame) -> list[Step]:
    """The jobs of one voice, in order."""
    if entry.action == "retire":
        return [] if frame.only_validate else [_retirement(entry, frame)]
    chain = [stage for stage in _stages_of(entry) if stage.takes_strangers or not frame.only_validate]
    return [_step(stage, entry.voice, chain, frame) for stage in chain]


def _stages_of(entry: PlanEntry) -> list[Stage]:
    """What an action runs: everything, or only what writes to the registry."""
    if entry.action == "skip":
        return []
    return [stage for stage in table.STAGES.values() if entry.action == "train" or stage.writes]


def _retirement(entry: PlanEntry, frame: Frame) -> Step:
    """No stage: the folder is gone, or its consent, and so is the voice."""
    reason = FOLDER_DELETED if entry.reason == FOLDER_DELETED else "consent missing or expired"
    words = ["voxline", "registry", "retire", entry.voice, "--reason", reason, *_option("--registry", frame.registry)]
    return Step(RETIRE, shlex.join(words), needs_gpu=False, writes=True)


def _step(stage: Stage, voice: str, chain: list[Stage], frame: Frame) -> Step:
    command = _command(stage, voice, frame)
    if frame.only_validate:  # no later job: what a person opens, where a link can point to
        folder = _report_folder(voice)
        page = f"{folder}/{stage.page}"
        return Step(stage.name, command, needs_gpu=False, keeps=(page,), page=page, junit=f"{folder}/junit.xml")
    folder = f"work/{voice}/{stage.name}/*"
    return Step(
        stage.name,
        command,
        needs_gpu=stage.needs_gpu,
        writes=stage.writes,
        reads=tuple(earlier.name for earlier in chain if earlier.name in stage.reads),
        keeps=tuple(f"{folder}/{kept}" for kept in stage.keeps),
        page=f"{folder}/{stage.page}" if stage.page else "",
        junit=f"work/{voice}/{stage.name}/**/junit.xml" if stage.is_judge else "",
    )


def _report_folder(voice: str) -> str:
    return f"reports/{voice}"


def _command(stage: Stage, voice: str, frame: Frame) -> str:
    # Only checked names, fixed words and what `plan` itself was told may stand in a command line: reasons quote what
    # users wrote.
    words = ["voxline", stage.name, voice]
    if stage.is_judge and not frame.only_validate:
        words.append("--record")  # a merge request must not write into the registry, not even that it was refused
    if frame.only_validate:
        words += ["--report", _report_folder(voice)]
    if frame.is_untrusted:
        words.append("--untrusted")
    if stage.is_judge or stage.writes:
        words += _option("--registry", frame.registry)
    if stage.takes_base:
        words += _option("--base", frame.base)
    return shlex.join(words)


def _option(flag: str, value: str | None) -> list[str]:
    return [] if value is None else [flag, value]


def gitlab_pipeline(plan: Plan, frame: Frame | None = None) -> str:
    """A child pipeline: one chain of jobs per voice, so that one voice's failure stops no other."""
    frame = frame or Frame()
    jobs: dict[str, Any] = {}
    for entry in plan.to_do():
        for step in steps_of(entry, frame):
            jobs[f"{step.name}:{entry.voice}"] = _gitlab_job(entry.voice, step, frame)
    if not jobs:
        jobs["nothing to do"] = {"stage": table.first().name, "script": ["voxline --version"], **_gitlab_place(frame)}
    allowed = [IS_MERGE_REQUEST, IS_BRANCH] if frame.only_validate else [IS_PROTECTED]
    document = {
        "stages": list(table.names()),
        "variables": dict(IMAGES),
        # Without it GitLab creates no job of a child pipeline whose parent is a merge request's.
        "workflow": {"rules": [{"if": condition} for condition in allowed]},
        "default": {"image": "$CPU_IMAGE", "retry": RETRY, "interruptible": True},
        **jobs,
    }
    return yaml.safe_dump(document, sort_keys=False, width=1000, allow_unicode=True)


def _gitlab_place(frame: Frame) -> dict[str, Any]:
    """Where a job may run: what writes to the registry only on protected runners, and only for protected branches."""
    return {} if frame.only_validate else {"tags": [PROTECTED_TAG], "rules": [{"if": IS_PROTECTED}]}


def _gitlab_job(voice: str, step: Step, frame: Frame) -> dict[str, Any]:
    job: dict[str, Any] = {
        "stage": table.last().name if step.name == RETIRE else step.name,
        "needs": [f"{earlier}:{voice}" for earlier in step.reads],
        **_gitlab_place(frame),
    }
    if step.needs_gpu:
        job["image"] = "$GPU_IMAGE"
        job["tags"] = [GPU_TAG]
        # A job stopped in the middle leaves its checkpoint here; the retry continues from it. GitLab keeps caches of
        # protected branches apart, and this asks for it whatever the project's default is.
        unfinished = f"work/{voice}/{step.name}/*.partial/"
        key = f"protected-{voice}-$CI_COMMIT_REF_SLUG"
        job["cache"] = {"key": key, "paths": [unfinished], "when": "always", "unprotect": False}
    if step.writes:
        job["resource_group"] = f"voice/{voice}"
        job["interruptible"] = False
    if frame.is_untrusted:
        job["before_script"] = [FETCH_PROTECTED]
    job["script"] = [step.command]
    if step.keeps:
        job["artifacts"] = _gitlab_artifacts(voice, step, frame)
    return job


def _gitlab_artifacts(voice: str, step: Step, frame: Frame) -> dict[str, Any]:
    kept: dict[str, Any] = {"when": "always", "expire_in": KEEP_FOR, "paths": list(step.keeps)}
    if frame.only_validate:
        kept["expose_as"] = f"report on {voice}"  # a link in the merge request; the path may hold no pattern
    else:
        kept["exclude"] = [f"work/{voice}/*/*.partial/**/*"]
    if step.junit:
        kept["reports"] = {"junit": [step.junit]}
    return kept


def jenkins_branches(plan: Plan, frame: Frame | None = None) -> str:
    """What to try again, and the branches of a ``parallel`` step: voices with their steps and what travels between."""
    branches = []
    for entry in plan.to_do():
        told = [
            {
                "name": step.name,
                "command": step.command,
                "gpu": step.needs_gpu,
                "writes": step.writes,
                "reads": list(step.reads),
                "keeps": ", ".join(step.keeps),
                "page": step.page,
                "junit": step.junit,
            }
            for step in steps_of(entry, frame or Frame())
        ]
        if told:
            branches.append({"voice": entry.voice, "action": entry.action, "steps": told})
    return json.dumps({"retry": RETRY, "branches": branches}, indent=2) + "\n"


def github_matrix(plan: Plan, frame: Frame | None = None) -> str:
    """A matrix for ``fromJSON``, on one line: each voice with its commands before, on and after the GPU."""
    include = []
    for entry in plan.to_do():
        steps = steps_of(entry, frame or Frame())
        first_gpu = next((index for index, step in enumerate(steps) if step.needs_gpu), None)
        # A voice that needs no GPU either only validates or only writes to the registry.
        cut = first_gpu if first_gpu is not None else sum(not step.writes for step in steps)
        parts = {
            "before": steps[:cut],
            "gpu": [step for step in steps[cut:] if step.needs_gpu],
            "after": [step for step in steps[cut:] if not step.needs_gpu],
        }
        if steps:
            row = {"voice": entry.voice, "action": entry.action}
            row |= {name: " && ".join(step.command for step in part) for name, part in parts.items()}
            # Pages go to people, each once; the rest of what a job keeps goes to the jobs after it.
            row |= {
                f"{name}_keeps": " ".join(kept for step in parts[name] for kept in step.keeps if kept != step.page)
                for name in ("before", "gpu")
            }
            row["pages"] = "\n".join(step.page for step in steps if step.page)
            include.append(row)
    return json.dumps({"include": include}) + "\n"
