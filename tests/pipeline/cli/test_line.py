"""The line from a folder to the gate and the registry."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.cli.main import run_command

pytestmark = pytest.mark.slow


def test_a_random_base_is_blocked_and_the_report_says_why(walked: Path, voxline) -> None:
    answer = voxline("run", "ana")
    assert answer.code == 11
    assert "random numbers" in (report := next((walked / "work").rglob("index.html")).read_text())
    assert "Blocked" in report
    assert "Base has trained weights" in answer.err
    assert "index.html" in answer.out
    assert not (walked / "registry" / "ana").exists()


def test_what_is_done_costs_nothing_and_needs_no_networks(walked: Path, warm_python) -> None:
    code = (
        "import sys\nfrom pipeline.cli.main import run_command\n"
        "code = run_command(['run', 'ana', '--json'])\n"
        "loaded = [name for name in ('torch', 'numpy', 'scipy', 'soundfile', 'jinja2') if name in sys.modules]\n"
        "assert not loaded, loaded\nsys.exit(code)\n"
    )
    done = warm_python.run(code, folder=walked)
    assert done.returncode == 11, done.stderr
    (run,) = json.loads(done.stdout)
    assert [stage["stage"] for stage in run["stages"]] == ["validate", "extract", "finetune", "evaluate"]
    assert all(stage["was_cached"] for stage in run["stages"])
    assert run["exit_code"] == 11


@pytest.mark.parametrize(
    ("stage", "code", "told"),
    [
        ("validate", 0, "accepted"),
        ("extract", 0, "6 clips"),
        ("finetune", 0, "held-out"),
        ("evaluate", 11, "Base has trained weights"),
        ("publish", 11, "Base has trained weights"),
    ],
)
def test_each_stage_is_a_command_of_its_own_as_ci_calls_it(walked: Path, voxline, stage, code, told) -> None:
    answer = voxline(stage, "ana")
    assert (answer.code, told in answer.out + answer.err) == (code, True), answer


@pytest.mark.parametrize(("name", "told"), [("ben", "there are: ana"), ("no/such/place", "check the path")])
def test_a_voice_that_is_not_there_is_told_with_those_that_are(walked: Path, voxline, name, told) -> None:
    answer = voxline("extract", name)
    assert (answer.code, told in answer.err) == (2, True), answer


def test_json_has_the_whole_report_of_an_evaluation(walked: Path, voxline) -> None:
    answer = voxline("evaluate", "ana", "--json")
    report = json.loads(answer.out)
    assert answer.code == 11
    assert report["passed"] is False
    assert {check["id"] for check in report["checks"]} >= {"copy_synthesis.pesq_wb", "copy_synthesis.stoi"}


def test_until_stops_after_the_stage(walked: Path, voxline) -> None:
    answer = voxline("run", "ana", "--until", "extract", "--json")
    (run,) = json.loads(answer.out)
    assert answer.code == 0
    assert [stage["stage"] for stage in run["stages"]] == ["validate", "extract"]


def test_one_bad_voice_does_not_stop_the_others_and_the_worst_code_speaks(
    walked: Path, voxline, write_tiny_voice
) -> None:
    refused = write_tiny_voice(walked, "ben", clips=1)
    no_consent = write_tiny_voice(walked, "eva", clips=1)
    manifest = (no_consent / "voice.yaml").read_text().replace("consent:", "#")
    (no_consent / "voice.yaml").write_text(manifest)
    answer = voxline("run", "ben", "eva", "ana", "--json")
    codes = {run["voice"]: run["exit_code"] for run in json.loads(answer.out)}
    assert codes == {"ben": 10, "eva": 13, "ana": 11}
    assert answer.code == 13
    told = next(run["message"] for run in json.loads(answer.out) if run["voice"] == "ben")
    assert "10 s needed" in told
    subprocess.run(["rm", "-rf", str(refused), str(no_consent)], check=True)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run"], 2),
        (["run", "nobody"], 2),
        (["run", "ana", "--until", "lunch"], 2),
        (["run", "ana", "--plan", "auto"], 2),
        (["run", "--plan", "missing.json"], 2),
        (["run", "../x"], 2),
        (["run", "ana", "--base", "nonsense"], 2),
        (["finetune", "ana", "--rank", "0"], 2),
        (["finetune", "ana", "--device", "abacus"], 2),
        (["bases", "show", "nonsense"], 2),
        (["say", "ana", "Hello."], 2),
        (["say", "../x", "Hello."], 2),
        (["publish", "ana"], 11),
    ],
)
def test_wrong_command_lines_are_told_in_one_sentence(walked: Path, voxline, arguments, code) -> None:
    answer = voxline(*arguments)
    assert answer.code == code, answer.err
    assert answer.err.strip()


def test_two_runs_at_once_do_the_work_once(copy: Path, walk, begin) -> None:
    before = walk.results(copy)
    walk.forget(copy, "finetune", "evaluate")
    ends = [ended() for ended in [begin(lambda: run_command(["run", "ana", "--json"])) for _ in range(2)]]
    assert [code for code, _ in ends] == [11, 11], ends
    assert walk.results(copy) == before
    runs = [json.loads(told[told.index("[\n") :])[0] for _, told in ends]
    cached = [{stage["stage"]: stage["was_cached"] for stage in run["stages"]} for run in runs]
    assert sorted(run["finetune"] for run in cached) == [False, True]


def test_a_passed_voice_is_published_and_speaks(passed: Path, voxline, tmp_path: Path, monkeypatch) -> None:
    answer = voxline("run", "ana", "--json")
    assert answer.code == 0, answer.err
    (run,) = json.loads(answer.out)
    assert (run["status"], run["channel"]) == ("published", "production")

    again = voxline("run", "ana", "--json")
    assert (again.code, json.loads(again.out)[0]["status"]) == (0, "unchanged")

    said = [
        voxline("say", "ana", "Hello there, 42 times.", "-o", str(tmp_path / f"{i}.wav"), "--seed", "7", "--json")
        for i in (1, 2)
    ]
    assert [answer.code for answer in said] == [0, 0], said[0].err
    spoken = json.loads(said[0].out)
    assert spoken["version"] == run["version"]
    assert spoken["duration_s"] > 0
    assert (tmp_path / "1.wav").read_bytes() == (tmp_path / "2.wav").read_bytes()

    monkeypatch.setenv("VOXLINE_PROCESSOR", "no bf16")
    lacking = voxline("say", "ana", "Hello.", "-o", str(tmp_path / "3.wav"), "--precision", "bf16")
    assert (lacking.code, "--precision bf16: it is switched off" in lacking.err) == (3, True), lacking
    monkeypatch.delenv("VOXLINE_PROCESSOR")

    shown = json.loads(voxline("registry", "show", "ana", "--json").out)
    assert set(shown["files"]) >= {
        "card.md",
        "adapter/text2semantic/adapter_model.safetensors",
        "adapter/synthesizer/adapter_config.json",
        "reference/reference.flac",
        "report/index.html",
        "report/junit.xml",
        "report/summary.md",
    }
    card = (passed / "registry" / "ana" / "releases" / run["version"] / "card.md").read_text()
    assert "| Speaker | synthetic |" in card
    assert "CC0-1.0" in card and "PESQ-WB" in card and "Generated speech, synthetic" in card
    assert voxline("registry", "verify").code == 0

    (note,) = (passed / "work" / "ana" / "publish").glob("*/result.json")
    assert json.loads(note.read_text())["output"]["version"] == run["version"]
    assert list(note.parent.iterdir()) == [note], "the files lie in the registry"
    subprocess.run(["rm", "-rf", str(passed / "registry")], check=True)
    told = json.loads(voxline("run", "ana", "--json").out)[0]
    assert (told["status"], told["stages"][-1]["was_cached"]) == ("published", False), "the registry says what is done"

    for left in ("channels", "events", f"releases/{run['version']}/release.json"):
        subprocess.run(["rm", "-rf", str(passed / "registry" / "ana" / left)], check=True)
    torn = voxline("run", "ana", "--json")
    assert json.loads(torn.out)[0]["status"] == "published", "a folder without its record is no release"
    assert voxline("registry", "verify").code == 0


def test_the_next_version_is_heard_beside_what_production_says(passed: Path, voxline, open_gate) -> None:
    first = json.loads(voxline("run", "ana", "--json").out)[0]
    manifest = passed / "voices" / "ana" / "voice.yaml"
    manifest.write_text(manifest.read_text() + "# another version\n")
    second = json.loads(voxline("run", "ana", "--json").out)[0]
    assert (first["status"], second["status"]) == ("published", "published") and first["version"] != second["version"]
    players = [re.findall(r"<audio [^>]*", Path(run["report"]).read_text()) for run in (first, second)]
    production = [[one for one in found if 'aria-label="In production"' in one] for found in players]
    assert [len(found) for found in production] == [0, 1]
    spoken = next(one for one in players[0] if 'aria-label="The voice now"' in one)
    assert production[1][0].split("src=")[1] == spoken.split("src=")[1], "as its own report played it"
    assert "Production serves no release" in Path(first["report"]).read_text()


def test_a_reviewed_voice_waits_as_a_candidate(waiting: Path, waiting_once: Path, voxline, open_gate) -> None:
    copy, (first,) = waiting, json.loads((waiting_once / "told.json").read_text())
    assert (first["exit_code"], first["channel"]) == (12, "candidate")
    assert voxline("say", "ana", "Hello.", "-o", str(copy / "a.wav")).code == 2
    assert voxline("say", "ana", "Hello.", "-o", str(copy / "a.wav"), "--channel", "candidate").code == 0
    assert voxline("run", "ana").code == 12
    assert voxline("registry", "promote", "ana").code == 0
    assert voxline("run", "ana").code == 0


def test_a_voice_that_one_ear_alone_failed_waits_as_a_candidate(
    published_once: Path, tmp_path, voxline, monkeypatch
) -> None:
    copy = shutil.copytree(published_once, tmp_path / "copy")
    monkeypatch.chdir(copy)
    shutil.rmtree(copy / "registry")
    (result,) = (copy / "work" / "ana" / "evaluate").glob("*/result.json")
    judged = json.loads(result.read_text())
    judged["output"]["review"] = ["Naturalness (DistillMOS): 2.1 is below 3"]
    result.write_text(json.dumps(judged))

    (told,) = json.loads(voxline("run", "ana", "--json").out)
    assert (told["exit_code"], told["channel"]) == (12, "candidate"), told
    (entry,) = json.loads(voxline("plan", "--worktree", "--json").out)["entries"]
    assert (entry["action"], "2.1 is below 3" in entry["reason"]) == ("skip", True), entry
    (again,) = json.loads(voxline("run", "ana", "--json").out)
    assert (again["exit_code"], again["stages"], "2.1 is below 3" in again["message"]) == (12, [], True), again
    assert voxline("registry", "promote", "ana").code == 0
    assert voxline("run", "ana").code == 0


def test_a_refusal_is_noted_by_run_and_on_request_and_the_plan_skips_the_voice(
    copy: Path, voxline, write_tiny_voice
) -> None:
    write_tiny_voice(copy, "ben", clips=1)
    subprocess.run(["rm", "-rf", str(copy / "registry")], check=True)

    def planned() -> dict[str, tuple[str, str]]:
        entries = json.loads(voxline("plan", "--worktree", "--json").out)["entries"]
        return {entry["voice"]: (entry["action"], entry["reason"]) for entry in entries}

    assert voxline("validate", "ben").code == 10
    assert voxline("evaluate", "ana").code == 11
    assert {action for action, _ in planned().values()} == {"train"}, "looking at a voice leaves no note"
    assert voxline("validate", "ben", "--record").code == 10
    assert voxline("evaluate", "ana", "--record").code == 11
    assert {name: action for name, (action, _) in planned().items()} == {"ana": "skip", "ben": "skip"}
    assert "Base has trained weights" in planned()["ana"][1]
    assert "10 s needed" in planned()["ben"][1]
    assert json.loads(voxline("run", "--plan", "auto", "--json").out) == []
    assert voxline("run", "ben").code == 10, "who names a voice wants to see it tried"
    subprocess.run(["rm", "-rf", str(copy / "registry")], check=True)
    assert voxline("run", "ana").code == 11
    assert planned()["ana"][0] == "skip"


def test_a_registry_that_cannot_be_written_does_not_hide_the_verdict(copy: Path, voxline) -> None:
    (copy / "occupied").write_text("no folder")
    answer = voxline("evaluate", "ana", "--record", "--registry", "file:occupied/below")
    assert answer.code == 11
    assert "could not be noted" in answer.err
