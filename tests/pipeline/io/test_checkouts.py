"""What may not stand in a checkout."""

from __future__ import annotations

import pytest

from pipeline.errors import SettingsError
from pipeline.io.checkouts import refuse_committed_results, refuse_converted
from pipeline.io.voices import content_digest

CONVERSIONS = {
    "* text=auto eol=crlf\n": "text=auto, eol=crlf",
    "*.csv text eol=crlf\n": "text=set, eol=crlf",
    "*.csv text working-tree-encoding=UTF-16LE-BOM\n": "working-tree-encoding=UTF-16LE-BOM",
    "*.csv ident\n": "ident=set",
}
KEPT = "voices/** -text -ident -working-tree-encoding\n"


def check_out(line, attributes: str) -> str:
    """The voice as a fresh clone has it, with these attributes; returns its digest on disk."""
    line.write_voice("ana")
    rows = line.root / "voices" / "ana" / "metadata.csv"
    rows.write_text("file_name,text\nwavs/0.wav,$Id$ and more\n")
    (line.root / ".gitattributes").write_text(attributes)
    line.commit()
    rows.unlink()
    line.git("checkout", "--", "voices")
    assert line.git("status", "--porcelain") == ""
    return content_digest(rows.parent)


def planned(line) -> str:
    return line.plan().entries[0].version


@pytest.mark.parametrize(("attributes", "told"), CONVERSIONS.items())
def test_a_file_that_git_writes_otherwise_than_it_keeps_it_is_refused(line, attributes, told):
    digest, folder = check_out(line, attributes), line.root / "voices" / "ana"
    with pytest.raises(SettingsError) as refused:
        refuse_converted(folder, digest, line.memory)
    assert refused.value.exit_code == 3
    assert refused.value.message.startswith("voices/ana/metadata.csv: Git keeps other bytes")
    assert told in refused.value.message
    assert KEPT.strip() in (refused.value.hint or "")


@pytest.mark.parametrize("attributes", CONVERSIONS)
def test_after_the_next_step_plan_and_run_agree(line, attributes):
    check_out(line, attributes)
    (line.root / ".gitattributes").write_text(attributes + KEPT)
    line.git("rm", "-rq", "--cached", "voices/ana")
    line.git("add", "voices/ana")
    line.commit()
    folder = line.root / "voices" / "ana"
    refuse_converted(folder, content_digest(folder), line.memory)
    assert planned(line) == line.version("ana")


def test_core_autocrlf_is_named(line):
    line.git("config", "core.autocrlf", "true")
    with pytest.raises(SettingsError, match=r"core\.autocrlf=true"):
        refuse_converted(line.root / "voices" / "ana", check_out(line, ""), line.memory)


def test_what_nobody_compares_is_not_refused(line, tmp_path):
    """As it is kept, changed since, not committed, or in no repository."""
    digest, folder = check_out(line, "voices/** -text\n"), line.root / "voices" / "ana"
    refuse_converted(folder, digest, line.memory)
    (folder / "metadata.csv").write_text("file_name,text\r\n")
    refuse_converted(folder, content_digest(folder), line.memory)
    line.write_voice("ben")
    refuse_converted(folder.parent / "ben", "0" * 64, line.memory)
    refuse_converted(tmp_path, "0" * 64, line.memory)


def test_results_that_come_with_a_commit_are_refused(line, voxline):
    """Whoever opens a merge request could bring an adapter of another voice, and its result.json with it."""
    line.write_voice("ana")
    work = line.root / "work"
    forged = work / "ana" / "finetune" / ("0" * 32 + ".partial") / "checkpoint" / "synthesizer.safetensors"
    forged.parent.mkdir(parents=True)
    forged.write_bytes(b"x")
    line.commit()
    refuse_committed_results(line.root, work)
    line.git("add", "-f", "work")
    line.commit()
    for command in (["validate", "ana"], ["run", "ana"], ["evaluate", "ana"]):
        answer = voxline(*command)
        assert (answer.code, "lies in the repository" in answer.err) == (3, True), answer
    line.git("rm", "-rq", "--cached", "work")
    refuse_committed_results(line.root, work)


def test_a_work_folder_that_is_a_link_of_the_repository_is_refused(line):
    (line.root / "elsewhere").mkdir()
    (line.root / "work").symlink_to("elsewhere")
    line.git("add", "-f", "work")
    line.commit()
    with pytest.raises(SettingsError, match="work: lies in the repository"):
        refuse_committed_results(line.root, line.root / "work")
