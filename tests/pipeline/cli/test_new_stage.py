"""A new stage is one file, one record and one row: whoever names stages finds it in the table."""

from __future__ import annotations

import json
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from pipeline.cli import stage as stage_commands
from pipeline.cli.main import app
from pipeline.line import run_stage, table
from pipeline.line.plan_formats import Frame, github_matrix, gitlab_pipeline, jenkins_branches
from pipeline.records.base import Record
from pipeline.records.job import Job
from pipeline.records.plan import Plan, PlanEntry

PLAN = Plan(
    base=None,
    head=None,
    registry="file:registry",
    entries=(PlanEntry(voice="ana", action="train", reason="", change="added", version="0123456789ab"),),
)


class Tally(Record):
    """The record of the toy stage."""

    clips: int


def work(job: Job) -> Tally:
    """The whole of the toy stage: how many clips were turned into features."""
    clips = len(job.inputs["extract"].record.clips)
    (job.folder / "tally.txt").write_text(f"{clips}\n")
    return Tally(clips=clips)


TALLY = table.Stage(
    name="tally",
    settles="how many clips there are to learn from",
    version="1",
    entry=f"{__name__}:work",
    record=f"{__name__}:Tally",
    reads=("extract",),
    keeps=("result.json", "tally.txt"),
    needs_gpu=True,
)


@pytest.fixture(autouse=True)
def with_toy_stage(monkeypatch) -> None:
    """A copy of the table with one row more, between extract and finetune."""
    rows: dict[str, table.Stage] = {}
    for name, row in table.STAGES.items():
        rows |= {name: row, **({TALLY.name: TALLY} if name == "extract" else {})}
    monkeypatch.setattr(table, "STAGES", rows)
    found = {TALLY.entry: work, TALLY.record: Tally}
    load = table.load
    monkeypatch.setattr(run_stage, "load", lambda reference: found.get(reference) or load(reference))


def test_gitlab_gets_its_job_with_what_it_reads_keeps_and_needs():
    document = yaml.safe_load(gitlab_pipeline(PLAN, Frame(base="nano")))
    job = document["tally:ana"]
    assert document["stages"] == ["validate", "extract", "tally", "finetune", "evaluate", "publish"]
    assert (job["stage"], job["script"]) == ("tally", ["voxline tally ana --base nano"])
    assert (job["needs"], job["tags"]) == (["extract:ana"], ["gpu"])
    assert job["artifacts"]["paths"] == ["work/ana/tally/*/result.json", "work/ana/tally/*/tally.txt"]


def test_jenkins_gets_its_step():
    (branch,) = json.loads(jenkins_branches(PLAN))["branches"]
    step = branch["steps"][2]
    assert (step["name"], step["command"], step["reads"]) == ("tally", "voxline tally ana", ["extract"])
    assert (step["gpu"], step["writes"]) == (True, False)
    assert [step["name"] for step in branch["steps"] if step["writes"]] == ["publish"]


def test_github_gets_its_command_where_the_gpu_is():
    (row,) = json.loads(github_matrix(PLAN))["include"]
    assert row["gpu"] == "voxline tally ana && voxline finetune ana"
    assert "work/ana/tally/*/tally.txt" in row["gpu_keeps"]


def test_a_merge_request_does_not_run_it():
    stranger = Frame(only_validate=True, is_untrusted=True)
    document = yaml.safe_load(gitlab_pipeline(PLAN, stranger))
    assert [name for name in document if name.endswith(":ana")] == ["validate:ana"]
    (branch,) = json.loads(jenkins_branches(PLAN, stranger))["branches"]
    assert [step["name"] for step in branch["steps"]] == ["validate"]


def test_until_offers_it_and_shows_it_in_its_help(voxline):
    refused = voxline("run", "ana", "--until", "nonsense")
    assert refused.code == 2
    assert "validate, extract, tally, finetune, evaluate, publish" in refused.err
    shown = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    assert "validate, extract, tally, finetune, evaluate or publish" in shown
    completed = {"_VOXLINE_COMPLETE": "complete_bash", "COMP_WORDS": "voxline run ana --until t", "COMP_CWORD": "4"}
    assert CliRunner().invoke(app, [], prog_name="voxline", env=completed).output.split() == ["tally"]


def command(*arguments: str) -> Any:
    """The commands of the stages alone, made from the table as it is now."""
    fresh = typer.Typer()
    stage_commands.register(fresh)
    return CliRunner().invoke(fresh, list(arguments), env={"COLUMNS": "200", "TERM": "dumb"})


def test_it_has_a_command_without_a_module_for_it():
    assert "how many clips there are to learn from" in command("tally", "--help").output


@pytest.mark.slow
def test_it_runs_after_what_it_reads_once_and_is_shown_in_the_summary(copy, voxline):
    told = voxline("run", "ana", "--until", "tally", "--json")
    (run,) = json.loads(told.out)
    assert told.code == 0, told.err
    assert [(one["stage"], one["was_cached"]) for one in run["stages"]] == [
        ("validate", True),
        ("extract", True),
        ("tally", False),
    ]
    again = command("tally", "ana", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["output"] == {"clips": 6}
    assert "tally" in voxline("run", "ana", "--until", "tally").out
