"""Every CI engine runs the same commands, retries the same exit codes, and keeps forks away from training."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command_lines import unknown_words

from pipeline.io.plan_formats import github_matrix, gitlab_pipeline, jenkins_branches
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
    return {row["voice"]: row["commands"].split(" && ") for row in json.loads(text)["include"]}


def test_every_engine_gets_the_same_commands_for_each_voice():
    assert gitlab_commands(gitlab_jobs(gitlab_pipeline(PLAN))) == EXPECTED
    assert jenkins_commands(jenkins_branches(PLAN)) == EXPECTED
    assert github_commands(github_matrix(PLAN)) == EXPECTED


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
    return [line.strip().strip("'") for line in re.findall(r"voxline plan [^\n']*", text)]


def test_gitlab_and_jenkins_plan_alike():
    """The same two lines, once the engine's own names for revisions and its format are put aside."""

    def shape(line: str) -> str:
        plain = re.sub(r'"[^"]*"', "REVISION", line)
        return re.sub(r"--format \w+ --output \S+", "--format ENGINE --output FILE", plain)

    shapes = [{shape(line) for line in plan_lines(name)} for name in (".gitlab-ci.yml", "Jenkinsfile")]
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
    for text in (gitlab_pipeline(PLAN, only_validate=True),):
        assert gitlab_commands(gitlab_jobs(text)) == {"ana": ["voxline validate ana"]}
    for job in gitlab_jobs(gitlab_pipeline(PLAN)).values():
        if not job["script"][0].startswith("voxline validate"):
            assert job["rules"] == [{"if": '$CI_COMMIT_REF_PROTECTED == "true"'}]


def test_only_fine_tuning_asks_for_a_gpu():
    tagged = {name for name, job in gitlab_jobs(gitlab_pipeline(PLAN)).items() if "gpu" in job.get("tags", [])}
    assert tagged == {"finetune:ana"}
    steps = [step for branch in json.loads(jenkins_branches(PLAN))["branches"] for step in branch["steps"]]
    assert {step["name"] for step in steps if step["gpu"]} == {"finetune"}


def test_retries_are_two_at_most_and_only_on_exit_codes_20_and_75():
    expected = {"max": 2, "exit_codes": [20, 75]}
    assert yaml.safe_load((REPOSITORY / ".gitlab-ci.yml").read_text())["default"]["retry"] == expected
    assert yaml.safe_load(gitlab_pipeline(PLAN))["default"]["retry"] == expected
    assert "[20, 75]" in (REPOSITORY / "Jenkinsfile").read_text()
    from pipeline.errors import OutOfMemoryError, TransientError

    assert [OutOfMemoryError.exit_code, TransientError.exit_code] == expected["exit_codes"]


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
    assert jobs["publish:ana"]["needs"] == ["evaluate:ana"]
    assert jobs["publish:back"]["needs"] == []


def test_gitlab_caches_what_an_unfinished_fine_tuning_left_and_nothing_else(tmp_path):
    from pipeline.io.store import Store

    job = gitlab_jobs(gitlab_pipeline(PLAN))["finetune:ana"]
    (cached,), excluded = job["cache"]["paths"], job["artifacts"]["exclude"]
    checkpoint = Store(tmp_path / "work").begin("ana", "finetune", "0" * 32) / "checkpoint" / "state.safetensors"
    checkpoint.write_bytes(b"")
    finished = tmp_path / "work" / "ana" / "extract" / ("1" * 32) / "result.json"
    finished.parent.mkdir(parents=True)
    finished.write_bytes(b"")
    assert {path for folder in tmp_path.glob(cached) for path in folder.rglob("*.*")} == {checkpoint}
    left_out = {path for pattern in excluded for path in tmp_path.glob(pattern)}
    assert checkpoint in left_out and finished not in left_out


def test_gitlab_s_own_schema_accepts_the_pipeline_and_the_generated_ones(tmp_path):
    paths = [
        REPOSITORY / ".gitlab-ci.yml",
        tmp_path / "child.yml",
        tmp_path / "merge-request.yml",
        tmp_path / "empty.yml",
    ]
    paths[1].write_text(gitlab_pipeline(PLAN))
    paths[2].write_text(gitlab_pipeline(PLAN, only_validate=True))
    paths[3].write_text(gitlab_pipeline(PLAN.model_copy(update={"entries": ()})))
    command = [str(TOOLS / "check-jsonschema"), "--builtin-schema", "vendor.gitlab-ci", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_follows_hadolint_s_rules():
    done = subprocess.run(
        [str(TOOLS / "hadolint"), str(REPOSITORY / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_images_run_as_nobody_special_and_bake_no_weights_unasked():
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    targets = re.findall(r"^FROM \S+ AS (\w+)$", text, re.M)
    assert targets == ["build", "cpu", "cuda"]
    assert re.search(r"^USER 10001$", text, re.M)
    assert 'ARG BAKED_BASES=""' in text
    assert text.index("COPY pyproject.toml") < text.index("pip install") < text.index("COPY pipeline pipeline")


def dockerfile_instructions() -> list[tuple[str, str]]:
    """(instruction, words) with continued lines joined and comments left out."""
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    plain = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", text, flags=re.M))
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in plain.splitlines() if line.strip()]


def test_everything_that_the_dockerfile_copies_installs_and_calls_exists():
    """No engine builds images where the tests run; what such a build would stumble over first is looked up instead."""
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    instructions = dockerfile_instructions()
    stages = {words.split()[-1] for name, words in instructions if name == "FROM"}
    for name, words in instructions:
        if name == "COPY" and not words.startswith("--from="):
            missing = [source for source in words.split()[:-1] if not (REPOSITORY / source).exists()]
            assert not missing
        elif name == "COPY":
            assert words.split()[0].removeprefix("--from=") in stages
    runs = " ".join(words for name, words in instructions if name == "RUN")
    extras = set(re.findall(r"'\.\[([\w,-]+)\]'", runs)[0].split(","))
    assert extras and extras <= project["optional-dependencies"].keys()
    assert "voxline bases pull" in runs and "voxline" in project["scripts"]
    # Building in two steps works only if the first does not need what the second copies.
    packages = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    copied = {words.split()[0] for name, words in instructions if name == "COPY"}
    assert set(packages["packages"]) <= copied


def run_jenkins(tmp_path: Path, codes: str, change: str) -> list[str]:
    """The Jenkinsfile itself, run by groovy against a double of Jenkins' steps."""
    if shutil.which("groovy") is None:
        pytest.skip("groovy is not installed")
    java = Path(shutil.which("java") or "").resolve().parents[1]
    (tmp_path / "plan.json").write_text(jenkins_branches(PLAN, only_validate=bool(change)))
    double = REPOSITORY / "tests" / "ci" / "jenkins_double.groovy"
    command = ["groovy", str(double), str(REPOSITORY / "Jenkinsfile"), str(tmp_path / "plan.json"), codes, change]
    environment = {**os.environ, "JAVA_HOME": str(java)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_jenkins_runs_the_plan_s_commands_in_order(tmp_path):
    lines = run_jenkins(tmp_path, "", "")
    commands = [line.removeprefix("sh ") for line in lines if line.startswith("sh ")]
    assert commands[0].startswith("voxline plan")
    assert commands[1:] == [command for voice in EXPECTED.values() for command in voice]
    assert lines[lines.index("stage ana: finetune") - 1] == "node gpu"
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


def test_a_pull_request_in_jenkins_only_validates(tmp_path):
    lines = run_jenkins(tmp_path, "", "17")
    commands = [line for line in lines if line.startswith("sh ")]
    assert "--through validate" in commands[0]
    assert commands[1:] == ["sh voxline validate ana"]


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
