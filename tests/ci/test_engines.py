"""Every CI engine runs the same commands, retries the same exit codes, and keeps forks away from training."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_lines import unknown_words
from gitlab_rules import effective, forwarded, jobs_created

from pipeline.line.plan_formats import Frame, github_matrix, gitlab_pipeline, jenkins_branches, steps_of
from pipeline.records.plan import FOLDER_DELETED, Plan, PlanEntry

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent
VERSION = "0123456789ab"


def an_entry(voice: str, action: str, reason: str = "because; $(reasons) 'quote'") -> PlanEntry:
    return PlanEntry(voice=voice, action=action, reason=reason, change="unknown", version=VERSION)


PLAN = Plan(
    base=None,
    head=None,
    registry="file:registry",
    entries=(
        an_entry("ana", "train"),
        an_entry("back", "republish"),
        an_entry("done", "skip"),
        an_entry("gone", "retire", FOLDER_DELETED),
        an_entry("out", "retire", "consent expired on 2026-01-01"),
    ),
)
STRANGER = Frame(only_validate=True, is_untrusted=True)
EXPECTED = {
    "ana": [
        "voxline validate ana --record",
        "voxline extract ana",
        "voxline finetune ana",
        "voxline evaluate ana --record",
        "voxline publish ana",
    ],
    "back": ["voxline publish back"],
    "gone": ["voxline registry retire gone --reason 'folder deleted'"],
    "out": ["voxline registry retire out --reason 'consent missing or expired'"],
}


def gitlab_jobs(text: str) -> dict[str, dict]:
    return {name: job for name, job in yaml.safe_load(text).items() if isinstance(job, dict) and "script" in job}


def gitlab_commands(jobs: dict[str, dict]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, job in jobs.items():
        found.setdefault(name.partition(":")[2], []).extend(job["script"])
    return found


def jenkins_commands(text: str) -> dict[str, list[str]]:
    return {branch["voice"]: [step["command"] for step in branch["steps"]] for branch in json.loads(text)["branches"]}


def github_commands(text: str) -> dict[str, list[str]]:
    parts = ("before", "gpu", "after")
    return {
        row["voice"]: [line for part in parts if row[part] for line in row[part].split(" && ")]
        for row in json.loads(text)["include"]
    }


def test_every_engine_gets_the_same_commands_for_each_voice():
    assert gitlab_commands(gitlab_jobs(gitlab_pipeline(PLAN))) == EXPECTED
    assert jenkins_commands(jenkins_branches(PLAN)) == EXPECTED
    assert github_commands(github_matrix(PLAN)) == EXPECTED


def test_what_plan_was_told_is_told_to_its_jobs_and_cannot_break_their_command_lines():
    frame = Frame(registry="file:/srv/it's; $(reboot)", base="nano")
    found = gitlab_commands(gitlab_jobs(gitlab_pipeline(PLAN, frame)))
    assert jenkins_commands(jenkins_branches(PLAN, frame)) == github_commands(github_matrix(PLAN, frame)) == found
    words = {tuple(shlex.split(line)[1:3]): shlex.split(line)[1:] for lines in found.values() for line in lines}
    registry, base = ["--registry", "file:/srv/it's; $(reboot)"], ["--base", "nano"]
    assert words["validate", "ana"] == ["validate", "ana", "--record", *registry]
    assert words["extract", "ana"] == ["extract", "ana", *base]
    assert words["finetune", "ana"] == ["finetune", "ana", *base]
    assert words["evaluate", "ana"] == ["evaluate", "ana", "--record", *registry, *base]
    assert words["publish", "ana"] == ["publish", "ana", *registry, *base]
    assert words["registry", "retire"][-2:] == registry
    plain = Frame(registry="file:/srv/voices", base="nano")
    lines = [line for lines in gitlab_commands(gitlab_jobs(gitlab_pipeline(PLAN, plain))).values() for line in lines]
    assert {line: words for line in lines if (words := unknown_words(line))} == {}


def test_every_command_of_a_stranger_s_pipeline_says_so_and_none_writes():
    commands = ["voxline validate ana --report reports/ana --untrusted"]
    for lines in (
        gitlab_commands(gitlab_jobs(gitlab_pipeline(PLAN, STRANGER))),
        jenkins_commands(jenkins_branches(PLAN, STRANGER)),
        github_commands(github_matrix(PLAN, STRANGER)),
    ):
        assert lines == {"ana": commands}
    assert unknown_words(commands[0]) == []
    for name in (".gitlab-ci.yml", "Jenkinsfile"):
        for line in plan_lines(name):
            assert ("--untrusted" in line) == ("--through validate" in line), line


def test_every_command_that_an_engine_calls_exists_with_its_options():
    """The words of each command line are those of the real command's own help."""
    lines = (
        {line for commands in EXPECTED.values() for line in commands}
        | set(plan_lines(".gitlab-ci.yml"))
        | set(plan_lines("Jenkinsfile"))
    )
    assert {line: words for line in lines if (words := unknown_words(line))} == {}


def plan_lines(file_name: str) -> list[str]:
    text = (REPOSITORY / file_name).read_text(encoding="utf-8")
    return [line.strip() for line in re.findall(r"(?<!`)voxline plan [^\n']*", text)]


def shape_of(line: str) -> str:
    plain = re.sub(r'"[^"]*"', "REVISION", line)
    return re.sub(r"--format \w+ --output \S+", "--format ENGINE --output FILE", plain)


def test_gitlab_and_jenkins_plan_alike():
    """The same two lines, once the engine's own names for revisions and its format are put aside."""
    shapes = [{shape_of(line) for line in plan_lines(name)} for name in (".gitlab-ci.yml", "Jenkinsfile")]
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) == 2


def test_merge_requests_only_validate_and_the_default_branch_must_be_protected():
    pipeline = yaml.safe_load((REPOSITORY / ".gitlab-ci.yml").read_text(encoding="utf-8"))
    for name, job in pipeline.items():
        commands = job.get("script", []) if isinstance(job, dict) else []
        for command in commands:
            if command.startswith("voxline plan") and "--through validate" not in command:
                assert all("CI_COMMIT_REF_PROTECTED" in rule["if"] for rule in job["rules"]), name
    assert any("--through validate" in line and "MERGE_REQUEST" in line for line in plan_lines(".gitlab-ci.yml"))
    assert any("--through validate" in line and "CHANGE_TARGET" in line for line in plan_lines("Jenkinsfile"))
    for job in gitlab_jobs(gitlab_pipeline(PLAN)).values():
        assert job["rules"] == [{"if": '$CI_COMMIT_REF_PROTECTED == "true"'}]


def test_jobs_that_write_ask_for_protected_runners_and_a_stranger_s_never_do():
    pipeline = yaml.safe_load((REPOSITORY / ".gitlab-ci.yml").read_text(encoding="utf-8"))
    assert pipeline["plan"]["tags"] == pipeline["images"]["tags"] == ["voxline"]
    assert "tags" not in pipeline["plan-merge-request"] and "tags" not in pipeline["test"]
    for name, job in gitlab_jobs(gitlab_pipeline(PLAN)).items():
        assert job["tags"] == (["gpu"] if name == "finetune:ana" else ["voxline"])
    for job in gitlab_jobs(gitlab_pipeline(PLAN, STRANGER)).values():
        assert not job.keys() & {"tags", "cache", "resource_group"}


def test_a_stranger_s_jobs_fetch_the_branch_whose_settings_count_before_anything_else():
    pipeline = yaml.safe_load((REPOSITORY / ".gitlab-ci.yml").read_text(encoding="utf-8"))
    fetch, plan = pipeline["plan-merge-request"]["script"]
    assert plan.startswith("voxline plan --untrusted")
    for job in gitlab_jobs(gitlab_pipeline(PLAN, STRANGER)).values():
        assert job["before_script"] == [fetch]
    for branch in ("$CI_DEFAULT_BRANCH", "$CI_MERGE_REQUEST_TARGET_BRANCH_NAME"):
        assert f'"+refs/heads/{branch}:refs/remotes/origin/{branch}"' in fetch


PARENTS = {"voices": Frame(), "voices-merge-request": STRANGER}


def parent_pipeline() -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / ".gitlab-ci.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("trigger_job", PARENTS)
def test_a_project_s_variable_wins_in_every_job_of_the_child_pipelines(trigger_job):
    parent, child = parent_pipeline(), yaml.safe_load(gitlab_pipeline(PLAN, PARENTS[trigger_job]))
    handed = forwarded(parent, trigger_job)
    project = {"VOXLINE_REGISTRY": "file:/srv/voices", "CPU_IMAGE": "own:cpu", "GPU_IMAGE": "own:cuda"}
    for job in gitlab_jobs(gitlab_pipeline(PLAN, PARENTS[trigger_job])):
        assert effective(child, job, project=project, handed=handed).items() >= project.items(), job
        unset = effective(child, job, handed=handed)
        assert "VOXLINE_REGISTRY" not in unset, "the default is pipeline.toml's"
        assert (unset["CPU_IMAGE"], unset["GPU_IMAGE"]) == ("$CI_REGISTRY_IMAGE:cpu", "$CI_REGISTRY_IMAGE:cuda")
    assert parent["variables"]["CPU_IMAGE"] == child["variables"]["CPU_IMAGE"]


def test_a_default_in_the_parent_would_win_over_the_project_if_it_were_forwarded():
    """The check above can fail: this is the file as it was when published voices went nowhere."""
    parent = parent_pipeline()
    parent["variables"]["VOXLINE_REGISTRY"] = {"value": "file:registry", "description": "..."}
    parent["voices"] = {"trigger": {"include": []}}
    child = yaml.safe_load(gitlab_pipeline(PLAN))
    seen = effective(
        child, "publish:ana", project={"VOXLINE_REGISTRY": "file:/srv"}, handed=forwarded(parent, "voices")
    )
    assert seen["VOXLINE_REGISTRY"] == "file:registry"


def test_who_starts_a_pipeline_by_hand_is_heard_in_its_child_and_a_merge_request_is_not():
    by_hand = {"VOXLINE_DEVICE": "cpu"}
    assert forwarded(parent_pipeline(), "voices", by_hand) == by_hand
    assert forwarded(parent_pipeline(), "voices-merge-request", by_hand) == {}


CHILD = {"CI_PIPELINE_SOURCE": "parent_pipeline", "CI_COMMIT_REF_NAME": "main"}
MERGE_REQUEST = {**CHILD, "CI_MERGE_REQUEST_ID": "7", "CI_COMMIT_REF_PROTECTED": "false"}
PROTECTED = {**CHILD, "CI_COMMIT_BRANCH": "main", "CI_COMMIT_REF_PROTECTED": "true"}
OTHER_BRANCH = {**CHILD, "CI_COMMIT_BRANCH": "topic", "CI_COMMIT_REF_PROTECTED": "false"}


def test_gitlab_creates_the_jobs_of_a_child_pipeline_where_they_belong_and_nowhere_else():
    child, strangers = (yaml.safe_load(gitlab_pipeline(PLAN, frame)) for frame in (Frame(), STRANGER))
    assert jobs_created(strangers, MERGE_REQUEST) == ["validate:ana"]
    assert jobs_created(strangers, OTHER_BRANCH) == ["validate:ana"]
    assert jobs_created(child, PROTECTED) == list(gitlab_jobs(gitlab_pipeline(PLAN)))
    assert jobs_created(child, MERGE_REQUEST) == jobs_created(child, OTHER_BRANCH) == []
    empty = PLAN.model_copy(update={"entries": ()})
    for frame, variables in ((Frame(), PROTECTED), (STRANGER, MERGE_REQUEST)):
        assert jobs_created(yaml.safe_load(gitlab_pipeline(empty, frame)), variables) == ["nothing to do"]
    del strangers["workflow"]
    assert jobs_created(strangers, MERGE_REQUEST) == [], "as it was: a child without rules is empty there"


def test_a_merge_request_links_the_report_by_a_path_without_a_pattern():
    """Where a pattern stands in the path, GitLab shows no link."""
    kept = gitlab_jobs(gitlab_pipeline(PLAN, STRANGER))["validate:ana"]["artifacts"]
    assert kept["expose_as"] == "report on ana"
    assert [path for path in kept["paths"] if path.endswith(".html")] == kept["paths"]
    assert not [path for path in kept["paths"] if set(path) & set("*?[$")]


def test_only_fine_tuning_asks_for_a_gpu():
    tagged = {name for name, job in gitlab_jobs(gitlab_pipeline(PLAN)).items() if "gpu" in job.get("tags", [])}
    assert tagged == {"finetune:ana"}
    steps = [step for branch in json.loads(jenkins_branches(PLAN))["branches"] for step in branch["steps"]]
    assert {step["name"] for step in steps if step["gpu"]} == {"finetune"}


def test_retries_are_two_at_most_and_only_on_exit_codes_20_and_75():
    expected = {"max": 2, "exit_codes": [20, 75]}
    assert yaml.safe_load((REPOSITORY / ".gitlab-ci.yml").read_text())["default"]["retry"] == expected
    assert yaml.safe_load(gitlab_pipeline(PLAN))["default"]["retry"] == expected
    assert json.loads(jenkins_branches(PLAN))["retry"] == expected
    from pipeline.errors import OutOfMemoryError, TransientError

    assert [OutOfMemoryError.exit_code, TransientError.exit_code] == expected["exit_codes"]


@pytest.mark.parametrize(
    ("codes", "ends_with", "tries"),
    [((0,), 0, 1), ((75, 20, 0), 0, 3), ((75, 75, 75, 0), 75, 3), ((20, 11), 11, 2), ((1,), 1, 1), ((130,), 130, 1)],
)
def test_github_has_a_script_of_ours_that_tries_again(tmp_path, codes, ends_with, tries):
    """What a command leaves with, one after the other, and what becomes of the step."""
    (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
    command = 'echo x >> tried; code=$(sed -n "$(wc -l < tried)p" codes); (exit "$code") && true'
    environment = {"PATH": os.environ["PATH"], "COMMANDS": command}
    done = subprocess.run([REPOSITORY / ".github/try.sh"], cwd=tmp_path, env=environment, check=False)
    assert (done.returncode, (tmp_path / "tried").read_text().count("x")) == (ends_with, tries)


def test_github_tries_every_command_again():
    for name in ("voices", "voice"):
        for job in workflow(name)["jobs"].values():
            for step in job.get("steps", []):
                if "COMMANDS" in step.get("env", {}) or "voxline" in step.get("run", ""):
                    assert step["run"].splitlines()[-1] == ".github/try.sh" or ".github/try.sh\n" in step["run"], step
                    assert "bash -euc" not in step["run"]


def test_one_voice_publishes_one_at_a_time_and_keeps_its_reports():
    jobs = gitlab_jobs(gitlab_pipeline(PLAN))
    groups = {name: job.get("resource_group") for name, job in jobs.items()}
    assert {name: group for name, group in groups.items() if group} == {
        "publish:ana": "voice/ana",
        "publish:back": "voice/back",
        "retire:gone": "voice/gone",
        "retire:out": "voice/out",
    }
    for stage in ("validate", "evaluate"):
        assert jobs[f"{stage}:ana"]["artifacts"]["reports"]["junit"] == [f"work/ana/{stage}/**/junit.xml"]
        assert jobs[f"{stage}:ana"]["artifacts"]["when"] == "always"
    assert jobs["publish:ana"]["needs"] == ["validate:ana", "extract:ana", "finetune:ana", "evaluate:ana"]
    assert jobs["publish:back"]["needs"] == []


def test_gitlab_caches_what_an_unfinished_fine_tuning_left_and_nothing_else(tmp_path):
    from pipeline.io.store import Store

    job = gitlab_jobs(gitlab_pipeline(PLAN))["finetune:ana"]
    (cached,), excluded = job["cache"]["paths"], job["artifacts"]["exclude"]
    partial = Store(tmp_path / "work").begin("ana", "finetune", "0" * 32)
    checkpoint = partial / "checkpoint" / "state.safetensors"
    half_written = partial / "adapter" / "synthesizer" / "adapter_model.safetensors"
    half_written.parent.mkdir(parents=True)
    finished = tmp_path / "work" / "ana" / "finetune" / ("1" * 32) / "result.json"
    finished.parent.mkdir(parents=True)
    for path in (checkpoint, half_written, finished):
        path.write_bytes(b"")
    assert {path for folder in tmp_path.glob(cached) for path in folder.rglob("*.*")} == {checkpoint, half_written}
    kept = {path for pattern in job["artifacts"]["paths"] for path in tmp_path.glob(pattern)}
    left_out = {path for pattern in excluded for path in tmp_path.glob(pattern)}
    assert (half_written in kept, kept - left_out) == (True, {finished})


def test_no_cache_that_a_merge_request_can_write_is_read_by_a_protected_job():
    """GitLab keeps caches of protected branches apart unless a job gives that up; the key says so, too."""
    caches = {name: job["cache"] for name, job in gitlab_jobs(gitlab_pipeline(PLAN)).items() if "cache" in job}
    assert list(caches) == ["finetune:ana"]
    assert caches["finetune:ana"]["unprotect"] is False
    assert caches["finetune:ana"]["key"].startswith("protected-")
    pipeline = parent_pipeline()
    assert not [name for name, job in pipeline.items() if isinstance(job, dict) and "cache" in job]


def test_gitlab_s_own_schema_accepts_the_pipeline_and_the_generated_ones(tmp_path):
    paths = [
        REPOSITORY / ".gitlab-ci.yml",
        tmp_path / "child.yml",
        tmp_path / "merge-request.yml",
        tmp_path / "empty.yml",
    ]
    paths[1].write_text(gitlab_pipeline(PLAN))
    paths[2].write_text(gitlab_pipeline(PLAN, STRANGER))
    paths[3].write_text(gitlab_pipeline(PLAN.model_copy(update={"entries": ()})))
    command = [str(TOOLS / "check-jsonschema"), "--builtin-schema", "vendor.gitlab-ci", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_follows_hadolint_s_rules():
    done = subprocess.run(
        [str(TOOLS / "hadolint"), str(REPOSITORY / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def dockerfile_instructions() -> list[tuple[str, str]]:
    """(instruction, words) with continued lines joined and comments left out."""
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    plain = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", text, flags=re.M))
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in plain.splitlines() if line.strip()]


def dockerfile_stages() -> dict[str, list[tuple[str, str]]]:
    """Stage -> its instructions, the first of them FROM."""
    stages: dict[str, list[tuple[str, str]]] = {}
    for name, words in dockerfile_instructions():
        if name == "FROM":
            stages[words.split()[-1]] = []
        list(stages.values())[-1].append((name, words))
    return stages


def history_of(stage: str) -> list[tuple[str, str]]:
    """What a stage is built of: its own instructions after those of the stages it continues."""
    stages = dockerfile_stages()
    parent = stages[stage][0][1].split()[0]
    return [*(history_of(parent) if parent in stages else []), *stages[stage]]


def torch_of(target: str) -> list[tuple[str, str]]:
    """The history of the stage from which a target takes its Python packages."""
    (source,) = [words.split()[0].removeprefix("--from=") for name, words in history_of(target) if "--from=" in words]
    return history_of(source)


def test_the_images_run_as_nobody_special_and_bake_no_base_unasked():
    for target in ("cpu", "cuda"):
        history = history_of(target)
        assert ("USER", "10001") in history
        after = history[history.index(("USER", "10001")) :]
        assert ("ARG", 'BAKED_BASES=""') in after, "weights are pulled by the user who reads them"
        pulled = [words for name, words in after if name == "RUN" and "artifacts pull" in words]
        assert len(pulled) == 1 and "|| echo" in pulled[0], "the gate's ears, and a build without a network goes on"
        assert not [words for name, words in after if name in ("COPY", "USER") and words != "10001"]
        assert history[-1] == ("CMD", '["voxline", "--help"]')


def test_each_image_has_a_torch_of_its_own_and_no_argument_makes_the_wrong_one():
    """The index of CPU wheels reaches the cpu target alone, and each build stops when torch is not what it should be."""
    installs = {
        target: [words for name, words in torch_of(target) if name == "RUN" and ".[all,langs]" in words]
        for target in ("cpu", "cuda")
    }
    assert [len(lines) for lines in installs.values()] == [1, 1]
    (cpu,), (cuda,) = installs.values()
    assert "--extra-index-url" in cpu and "--extra-index-url" not in cuda and "--index-url" not in cuda
    arguments = {target: [w for n, w in torch_of(target) if n == "ARG"] for target in ("cpu", "cuda")}
    assert arguments == {"cpu": ['CPU_TORCH_INDEX=""'], "cuda": []}
    for line, version, is_refused in (
        (cpu, "12.8", True),
        (cpu, None, False),
        (cuda, "12.8", False),
        (cuda, None, True),
    ):
        program = re.search(r'python -c "([^"]*)"', line).group(1)
        torch = f"import sys, types; sys.modules['torch'] = types.SimpleNamespace(version=types.SimpleNamespace(cuda={version!r}))"
        done = subprocess.run([sys.executable, "-c", f"{torch}\n{program}"], capture_output=True, check=False)
        assert bool(done.returncode) is is_refused, (line, version)


def test_everything_that_the_dockerfile_copies_installs_and_calls_exists():
    """No engine builds images where the tests run; what such a build would stumble over first is looked up instead."""
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    packages = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    for target in ("cpu", "cuda"):
        history = torch_of(target)
        copied = [words.split()[:-1] for name, words in history if name == "COPY"]
        assert not [source for sources in copied for source in sources if not (REPOSITORY / source).exists()]
        install = next(index for index, (_, words) in enumerate(history) if ".[all,langs]" in words)
        before = {source for name, words in history[:install] if name == "COPY" for source in words.split()[:-1]}
        assert before == {"pyproject.toml", "README.md", "LICENSE"}, "the layer of dependencies survives new code"
        assert packages <= {source for sources in copied for source in sources}
        extras = re.search(r"'\.\[([\w,-]+)\]'", history[install][1]).group(1).split(",")
        assert set(extras) <= project["project"]["optional-dependencies"].keys()
    assert "voxline" in project["project"]["scripts"]


def test_a_job_builds_both_images_when_what_they_hold_has_changed():
    job = parent_pipeline()["images"]
    assert job["parallel"]["matrix"] == [{"TARGET": ["cpu", "cuda"]}]
    assert {"cpu", "cuda"} <= dockerfile_stages().keys()
    (rule,) = job["rules"]
    assert "CI_COMMIT_REF_PROTECTED" in rule["if"], "whoever pushes images decides what runs with the secrets"
    for _, words in (one for one in dockerfile_instructions() if one[0] == "COPY" and "--from" not in one[1]):
        for source in words.split()[:-1]:
            is_code = (REPOSITORY / source).is_dir()
            if source not in ("README.md", "LICENSE"):
                assert (f"{source}/**/*" if is_code else source) in rule["changes"]
    build = job["script"][-1]
    for parameter in (
        "target=$TARGET",
        "build-arg:CPU_TORCH_INDEX=$CPU_TORCH_INDEX",
        "name=$CI_REGISTRY_IMAGE:$TARGET,push=true",
    ):
        assert parameter in build
    assert parent_pipeline()["stages"].index("images") < parent_pipeline()["stages"].index("plan")


WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))


def workflow(name: str) -> dict[str, Any]:
    """One file; YAML 1.1 reads its key ``on`` as true."""
    content = yaml.safe_load((REPOSITORY / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8"))
    return {"on" if key is True else key: value for key, value in content.items()}


def test_github_s_own_schema_accepts_the_workflows():
    command = [str(TOOLS / "check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (len(WORKFLOWS), done.returncode) == (3, 0), done.stdout + done.stderr


def test_a_pull_request_on_github_runs_with_no_rights_and_on_no_machine_of_ours():
    voices, voice = workflow("voices"), workflow("voice")
    assert voices["on"].keys() == {"push", "pull_request"}
    assert voices["permissions"] == voice["permissions"] == {"contents": "read"}
    assert "pull_request" not in workflow("images")["on"]
    ours = "${{ github.event_name == 'push' && 'voxline' || 'ubuntu-latest' }}"
    assert voices["jobs"]["plan"]["runs-on"] == voice["jobs"]["before"]["runs-on"] == ours
    assert {name: job["runs-on"] for name, job in voice["jobs"].items()} == {
        "before": ours,
        "finetune": "gpu",
        "after": "voxline",
    }
    for name in ("finetune", "after"):
        assert voice["jobs"][name]["environment"] == "voices", "its rules name the branches that may run there"
    for job in [*voices["jobs"].values(), *voice["jobs"].values()]:
        for step in job.get("steps", []):
            assert "${{" not in step.get("run", ""), "what a stranger writes is never pasted into a script"
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False


def test_github_plans_as_the_others_do():
    lines = plan_lines(".github/workflows/voices.yml")
    assert {shape_of(line) for line in lines} == {shape_of(line) for line in plan_lines("Jenkinsfile")}
    assert {line: words for line in lines if (words := unknown_words(line))} == {}


def test_a_row_of_the_matrix_is_what_the_workflow_of_a_voice_takes():
    rows = json.loads(github_matrix(PLAN))["include"]
    handed = workflow("voices")["jobs"]["voice"]["with"]
    taken = workflow("voice")["on"]["workflow_call"]["inputs"]
    assert handed == {name: f"${{{{ matrix.{name} }}}}" for name in taken}
    assert all(row.keys() == {*handed, "action"} for row in rows)
    ana, back = rows[0], rows[1]
    assert (ana["gpu"], back["gpu"], back["before"]) == ("voxline finetune ana", "", "")
    assert back["after"] == "voxline publish back"


@pytest.mark.parametrize("frame", [Frame(), STRANGER])
def test_on_github_each_file_travels_once(frame, tmp_path):
    """The workflow's own lines pack what the jobs keep; pages go to people apart."""
    row = json.loads(github_matrix(PLAN, frame))["include"][0]
    kept = {pattern for step in steps_of(PLAN.entries[0], frame) for pattern in step.keeps}
    for pattern in kept:
        path = tmp_path / pattern.replace("*", "x")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    packed: list[str] = []
    for name in ("before", "gpu"):
        steps = workflow("voice")["jobs"]["finetune" if name == "gpu" else name]["steps"]
        (line,) = [step["run"] for step in steps if "tar -cf" in step.get("run", "")]
        if row[f"{name}_keeps"]:
            environment = {**os.environ, "KEEPS": row[f"{name}_keeps"]}
            subprocess.run(["bash", "-euc", line], cwd=tmp_path, env=environment, check=True)
            listed = subprocess.run(
                ["tar", "-tf", tmp_path / f"{name}.tar"], capture_output=True, text=True, check=True
            )
            packed += listed.stdout.split()
    pages = row["pages"].split("\n")
    assert len(packed) == len(set(packed))
    assert not {path for path in packed if any(fnmatch(path, page) for page in pages)}
    evaluated = {pattern for pattern in kept if "/evaluate/" in pattern}  # read in the job that writes them
    assert {pattern.replace("*", "x") for pattern in kept - evaluated - set(pages)} == set(packed)


def run_jenkins(tmp_path: Path, codes: str, change: str) -> list[str]:
    """The Jenkinsfile itself, run by groovy against a double of Jenkins' steps."""
    if shutil.which("groovy") is None:
        pytest.skip("groovy is not installed")
    java = Path(shutil.which("java") or "").resolve().parents[1]
    (tmp_path / "plan.json").write_text(jenkins_branches(PLAN, STRANGER if change else None))
    double = REPOSITORY / "tests" / "ci" / "jenkins_double.groovy"
    command = ["groovy", str(double), str(REPOSITORY / "Jenkinsfile"), str(tmp_path / "plan.json"), codes, change]
    quick_to_start = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    environment = {**os.environ, "JAVA_HOME": str(java), "JAVA_OPTS": quick_to_start}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def jenkins_after_a_push(tmp_path_factory) -> list[str]:
    return run_jenkins(tmp_path_factory.mktemp("jenkins"), "", "")


def test_jenkins_runs_the_plan_s_commands_in_order(jenkins_after_a_push):
    lines = jenkins_after_a_push
    commands = [line.removeprefix("sh ") for line in lines if line.startswith("sh ")]
    assert commands[0].startswith("voxline plan")
    assert commands[1:] == [command for voice in EXPECTED.values() for command in voice]
    assert lines[lines.index("stage ana: finetune") - 1] == "node gpu"
    assert {line for line in lines if line.startswith(("node", "agent"))} == {
        "agent voxline",
        "node voxline",
        "node gpu",
    }
    assert lines.count("node gpu") == 1
    assert lines[lines.index("sh voxline publish ana") - 1] == "lock voice-ana"


def test_jenkins_retries_twice_on_75_and_20_and_not_at_all_on_others(tmp_path):
    lines = run_jenkins(tmp_path, "75,20,0,10,75,75,75,0", "")
    assert lines.count("sh voxline validate ana --record") == 3
    assert lines.count("sh voxline extract ana") == 1
    assert "failed ana: voxline extract ana: exit 10" in lines
    assert "sh voxline finetune ana" not in lines
    assert lines.count("sh voxline publish back") == 3, "one voice's failure stops no other"
    assert "failed back: voxline publish back: exit 75" in lines


def test_jenkins_tries_again_what_the_plan_names(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.line.plan_formats.RETRY", {"max": 1, "exit_codes": [42]})
    lines = run_jenkins(tmp_path, "42,75", "")
    assert lines.count("sh voxline validate ana --record") == 2
    assert "failed ana: voxline validate ana --record: exit 75" in lines


def test_jenkins_hands_each_step_what_it_reads_and_nothing_else(jenkins_after_a_push):
    lines = [line for line in jenkins_after_a_push if "stash" in line]
    steps = ["validate", "extract", "finetune", "evaluate"]
    expected = []
    for number, step in enumerate(steps):
        expected += [f"unstash ana-{earlier}" for earlier in steps[:number]] + [f"stash ana-{step}"]
    assert lines == [*expected, *(f"unstash ana-{earlier}" for earlier in steps)]


def test_a_pull_request_in_jenkins_only_validates(tmp_path):
    lines = run_jenkins(tmp_path, "", "17")
    commands = [line for line in lines if line.startswith("sh ")]
    assert "--through validate" in commands[0]
    assert "--untrusted" in commands[0]
    assert commands[1:] == ["sh voxline validate ana --report reports/ana --untrusted"]
    assert {line for line in lines if line.startswith(("node", "agent"))} == {
        "agent voxline-untrusted",
        "node voxline-untrusted",
    }
    assert "archive reports/ana/report.html" in lines


def test_the_jenkinsfile_is_balanced_and_complete_even_where_groovy_is_missing():
    text = (REPOSITORY / "Jenkinsfile").read_text(encoding="utf-8")
    code = re.sub(r"//[^\n]*|'[^'\n]*'|\"[^\"\n]*\"", "", text)
    for opening, closing in ("{}", "()", "[]"):
        assert code.count(opening) == code.count(closing)
    for step in ("readJSON", "parallel", "stash", "unstash", "junit", "archiveArtifacts", "lock("):
        assert step in text


def test_every_variable_with_our_prefix_is_a_setting():
    """voxline refuses unknown VOXLINE_* variables, so an engine file must not invent one."""
    from pipeline.config import resolve

    texts = [
        (REPOSITORY / name).read_text(encoding="utf-8") for name in (".gitlab-ci.yml", "Jenkinsfile", "Dockerfile")
    ]
    named = set(re.findall(r"VOXLINE_[A-Z]\w*", "\n".join([*texts, gitlab_pipeline(PLAN)])))
    values = {"VOXLINE_REGISTRY": "file:registry", "VOXLINE_CACHE": "/cache", "VOXLINE_DEVICE": "cuda"}
    assert named == values.keys()
    resolve(root=REPOSITORY, environment=values)
