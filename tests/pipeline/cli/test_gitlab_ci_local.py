"""The shipped .gitlab-ci.yml and what it generates, run by gitlab-ci-local in fresh copies of a repository.

``VOXLINE_REGISTRY`` is a variable of the project and nothing else. gitlab-ci-local hands the parent's yaml variables to a
child as GitLab does, so a default in the yaml would win here, too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from pipeline.io.registry.registry import Registry, open_registry

pytestmark = pytest.mark.slow

VENV = Path(sys.executable).parents[1]
GITLAB_CI_LOCAL = VENV / "node" / "node_modules" / "gitlab-ci-local" / "dist" / "index.js"
PROJECT = "group/voices"


@dataclass(frozen=True)
class Answer:
    code: int
    log: str


@dataclass
class Project:
    """A project on GitLab: a remote, its settings page, and a clone to push from."""

    line: object
    place: Path

    @property
    def registry(self) -> Registry:
        return open_registry(f"file:{self.place / 'voices-of-the-project'}")

    def git(self, *arguments: str) -> str:
        return self.line.git(*arguments)

    def push(self) -> Answer:
        """A pipeline of the protected default branch for what was committed since the last push."""
        before = self.git("rev-parse", "origin/main")
        self.git("push", "-q", "origin", "main")
        return self._run(
            "push", {"CI_COMMIT_BRANCH": "main", "CI_COMMIT_REF_PROTECTED": "true", "CI_COMMIT_BEFORE_SHA": before}
        )

    def merge_request(self) -> Answer:
        """A pipeline of a merge request into the default branch for the branch that is checked out."""
        return self._run(
            "merge_request_event",
            {
                "CI_COMMIT_REF_PROTECTED": "false",
                "CI_MERGE_REQUEST_ID": "7",
                "CI_MERGE_REQUEST_IID": "7",
                "CI_MERGE_REQUEST_DIFF_BASE_SHA": self.git("merge-base", "HEAD", "origin/main"),
                "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
                "CI_MERGE_REQUEST_TARGET_BRANCH_PROTECTED": "true",
            },
        )

    def _run(self, source: str, predefined: dict[str, str]) -> Answer:
        home = self.place / "home"
        settings = home / ".gitlab-ci-local" / "variables.yml"
        settings.parent.mkdir(parents=True, exist_ok=True)
        known = {"CI_PROJECT_PATH": PROJECT, "CI_DEFAULT_BRANCH": "main", **predefined}
        settings.write_text(yaml.safe_dump({"global": {"VOXLINE_REGISTRY": self.registry.url, **known}}))
        command = ["node", str(GITLAB_CI_LOCAL), "--force-shell-executor", "--shell-isolation"]
        command += [
            "--no-json-schema-validation",
            f"--ignore-predefined-vars={','.join([*known, 'CI_PIPELINE_SOURCE'])}",
        ]
        command += ["--variable", f"CI_PIPELINE_SOURCE={source}"]
        environment = {
            "HOME": str(home),
            "PATH": f"{VENV / 'bin'}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        done = subprocess.run(command, cwd=self.line.root, env=environment, capture_output=True, text=True, check=False)
        return Answer(done.returncode, done.stdout + done.stderr)

    def contents(self) -> dict[str, bytes]:
        place = self.place / "voices-of-the-project"
        return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.fixture
def project(line, repository, tmp_path, monkeypatch) -> Project:
    """A repository with the files that ship and one published voice, ``ana``."""
    if not GITLAB_CI_LOCAL.exists() or not all(map(shutil.which, ("node", "rsync"))):
        pytest.skip("needs node, npm and rsync where `make test` sets the environment up")
    made = Project(line, tmp_path)
    monkeypatch.setattr(type(line), "registry", property(lambda self: made.registry))
    line.environment = {"GITLAB_CI": "true", "CI_PROJECT_PATH": PROJECT}
    shutil.copy(repository / ".gitlab-ci.yml", line.root)
    (line.root / "pipeline.toml").write_text('[voxline]\nregistry = "file:registry"\n[validate]\nspeech_min_s = 2\n')
    (line.root / ".gitignore").write_text("/work/\n/registry/\n/reports/\n/voices.yml\n.gitlab-ci-local/\n")
    line.write_voice("ana")
    line.commit("Add ana")
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", tmp_path / "origin.git"], check=True)
    made.git("remote", "add", "origin", str(tmp_path / "origin.git"))
    made.git("push", "-q", "origin", "main")
    made.git("remote", "set-head", "origin", "main")
    line.publish("ana")
    return made


def test_a_deletion_a_revert_and_a_push_reach_the_registry_that_only_the_project_s_variable_names(project):
    version = project.registry.resolve("ana").version
    shutil.rmtree(project.line.root / "voices" / "ana")
    project.line.commit("Remove ana")
    answer = project.push()
    assert answer.code == 0, answer.log
    assert project.registry.pointer("ana", "production").version is None, answer.log

    project.git("revert", "--no-edit", "HEAD")
    project.line.write_voice("ben", sound=b"no sound at all")
    project.line.commit("Add ben")
    answer = project.push()
    assert project.registry.resolve("ana").version == version, answer.log
    # gitlab-ci-local's own exit code leaves child pipelines out.
    assert re.search(r"validate:ben finished in .* FAIL 10", answer.log), answer.log
    assert "extract:ben starting" not in answer.log
    assert list(project.registry.refusals()) == ["ben"]
    assert not list(project.line.root.rglob("registry")), "file:registry of pipeline.toml was used"


def test_a_merge_request_is_judged_in_its_child_pipeline_and_writes_nothing(project, repository):
    before = project.contents()
    project.git("checkout", "-q", "-b", "topic")
    folder = project.line.root / "voices" / "ben"
    (folder / "wavs").mkdir(parents=True)
    sample = repository / "voices" / "sample"
    rows = (sample / "metadata.csv").read_text().splitlines()[:2]
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    (folder / "voice.yaml").write_text((sample / "voice.yaml").read_text())
    recording = rows[1].partition(",")[0]
    (folder / recording).write_bytes((sample / recording).read_bytes())
    project.line.commit("Add ben")
    answer = project.merge_request()
    assert answer.code == 0, answer.log
    assert "voxline validate ben --report reports/ben --untrusted" in answer.log
    assert "ben: accepted" in answer.log
    kept = {path.name for path in (project.line.root / ".gitlab-ci-local" / "artifacts").rglob("*") if path.is_file()}
    assert kept == {"voices.yml", "report.html"}
    assert project.contents() == before
