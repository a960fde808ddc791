"""The table of stages: nothing else names them, their keys stay what they were, and a row is all that a stage needs."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest

from models.loading.bases import GateFloors
from pipeline.errors import GateBlocked, ReviewPending, VoiceRefused
from pipeline.line import run_stage, table
from pipeline.line.workspace import Workspace
from pipeline.records.adapter import ADAPTER_FOLDER
from pipeline.records.feature import FEATURES_FILE
from pipeline.records.job import Input
from pipeline.records.reference import REFERENCE_FOLDER
from pipeline.records.settings import Settings
from pipeline.records.voice import VoiceManifest

REPOSITORY = Path(__file__).resolve().parents[3]

# Taken before the stages moved into their table. Another key trains every voice of everybody again: it changes with a
# stage's version or its settings, and never by moving code. (evaluate's was taken again when the wording of limits left
# it and when the gate learned to measure length; a verdict takes seconds.)
KEYS = {
    "validate": "5d62bd48b6edea2d62dc0ec0c07865a0",
    "extract": "a60b101ac82fb1b232b3dc5e95378049",
    "finetune": "d815520e9ab1681226a6a69da1f7048b",
    "evaluate": "62506b4111de435f8a005393414a4b31",
}


class Pinned(Workspace):
    version, recipe_digest = "0123456789ab", "d" * 64


def a_workspace() -> Workspace:
    """Everything that a key covers, and nothing else."""
    consent = {"speaker": "Ana", "granted_on": "2026-01-09", "statement": "statement.wav"}
    manifest = VoiceManifest.model_validate({"language": "en", "consent": consent, "license": "CC0-1.0"})
    return Pinned(
        voice=SimpleNamespace(name="ana", folder=Path("voices/ana"), manifest=manifest),
        settings=Settings(),
        base=SimpleNamespace(name="tiny", digest="b" * 64, gate=GateFloors()),
        content_digest="c" * 64,
        root=Path(),
        registry=None,
        machine=SimpleNamespace(cache=Path("cache")),
        reporter=None,
    )


def test_every_stage_has_the_key_that_it_had_before_it_stood_in_the_table(monkeypatch):
    monkeypatch.setattr("pipeline.stages.validate.digests.tool_digests", lambda *_: {"judge": "5" * 64})
    monkeypatch.setattr("pipeline.io.artifacts.ears.ear_digests", lambda _: {"speaker": "e" * 64})
    workspace, outcomes, keys = a_workspace(), {}, {}
    for stage in table.STAGES.values():
        keys[stage.name] = workspace.task(stage, outcomes).key
        outcomes[stage.name] = SimpleNamespace(result=SimpleNamespace(key=keys[stage.name]))
    assert {name: keys[name] for name in KEYS} == KEYS
    assert set(keys) - set(KEYS) == {"publish"}, "the registry says whether it was done; its key may move"


def test_another_wording_of_a_limit_judges_nobody_again_and_another_limit_does():
    """Cards are written anew more often than measured anew."""

    def key(**card: object) -> str:
        base = SimpleNamespace(name="tiny", digest="b" * 64, folder=Path(), gate=GateFloors.model_validate(card))
        workspace = replace(a_workspace(), base=base)
        earlier = {name: SimpleNamespace(result=SimpleNamespace(key="0")) for name in table.STAGES["evaluate"].reads}
        return workspace.task(table.STAGES["evaluate"], earlier).key

    waived = {"free_speech.cer": "nobody to hear it"}
    written = key(stoi=0.8, waived=waived, measured="on three voices", evidence={"stoi": "12 copies"})
    assert written == key(stoi=0.8, waived={"free_speech.cer": "no ear"}, measured="on 3 voices", speech="It is good.")
    assert written != key(stoi=0.81, waived=waived)
    assert written != key(stoi=0.8)


def test_who_judged_is_said_by_the_stages_with_a_version_and_no_others():
    """Another word here, and every refused voice is tried again."""
    versions = run_stage.judging_code().removeprefix(f"{run_stage.voxline_version()} ")
    assert versions == "validate:2 extract:3 finetune:2 evaluate:3"


def test_what_a_row_points_to_is_there():
    for stage in table.STAGES.values():
        for reference in filter(None, (stage.entry, stage.record, stage.verdict, stage.notice)):
            assert callable(table.load(reference)), reference
        assert not stage.section or hasattr(Settings(), stage.section)
        earlier = table.names()[: table.names().index(stage.name)]
        assert set(stage.reads) <= set(earlier), f"{stage.name} reads what comes after it"


def test_a_stage_is_typed_as_its_row_says():
    """Its settings, the records that it reads, its parameters and its own record: mypy checks the stage with these."""
    for stage in table.STAGES.values():
        told = get_type_hints(table.load(stage.entry))
        settings, inputs, parameters = get_args(told["job"])
        assert isinstance(getattr(Settings(), stage.section), settings), stage.name
        assert get_type_hints(inputs) == {name: Input[table.load(table.STAGES[name].record)] for name in stage.reads}
        assert set(get_type_hints(parameters)) == set(stage.parameters), stage.name
        assert told["return"] is table.load(stage.record), stage.name


def test_the_files_that_rows_name_are_called_as_the_records_call_them():
    assert table.STAGES["extract"].hands_on == (FEATURES_FILE,)
    assert table.STAGES["finetune"].hands_on == (ADAPTER_FOLDER,)
    assert table.STAGES["evaluate"].hands_on[0] == REFERENCE_FOLDER


def test_a_verdict_leaves_with_the_exit_code_of_its_row(make_release):
    refused = SimpleNamespace(
        accepted=False, speech_usable_s=1.0, speech_needed_s=60.0, findings=(), lacks_texts_only=False
    )
    blocked = SimpleNamespace(passed=False, reasons=("too quiet",), checks=())
    waiting = make_release(review="required")
    result = SimpleNamespace(settings={"parameters": {"channel": "production"}})
    judged = {
        "validate": (refused, VoiceRefused),
        "evaluate": (blocked, GateBlocked),
        "publish": (waiting, ReviewPending),
    }
    assert set(judged) == {stage.name for stage in table.STAGES.values() if stage.stops is not None}
    for name, (record, error) in judged.items():
        stage = table.STAGES[name]
        outcome = SimpleNamespace(record=record, page=Path("report.html"), result=result)
        with pytest.raises(error) as caught:
            table.load(stage.verdict)("ana", outcome)
        assert caught.value.exit_code == stage.stops
        assert not stage.is_judge or table.refusing(caught.value.exit_code) is stage


def test_no_other_module_lists_the_stages():
    """A tuple, list, set or table of theirs elsewhere would have to be found and changed for every new one."""
    lists = {}
    for path in sorted((REPOSITORY / "pipeline").rglob("*.py")):
        if path == REPOSITORY / "pipeline/line/table.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found = _stages_in(node)
            if len(found) > 2:  # two may be what somebody reads, or sections of the settings
                lists[f"{path.relative_to(REPOSITORY)}:{node.lineno}"] = sorted(found)
    assert lists == {}


def _stages_in(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        children = node.elts
    elif isinstance(node, ast.Dict):
        children = [key for key in node.keys if key is not None]
    elif isinstance(node, ast.Call):
        children = node.args
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r", extract,", node.value):
        return set(re.findall(r"\w+", node.value)) & set(table.STAGES)
    else:
        return set()
    return {child.value for child in children if isinstance(child, ast.Constant)} & set(table.STAGES)


def test_the_architecture_page_tells_every_row():
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \| (.*) \|$", page, re.M)
    expected = [(one.name, one.record.rpartition(":")[2], one.settles) for one in table.STAGES.values()]
    assert [row for row in rows if row[0] != "plan"] == expected
