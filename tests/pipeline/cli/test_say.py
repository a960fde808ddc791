"""voxline say: what it is given, where the sound goes, and who may be heard."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile


@pytest.fixture
def published(published_once: Path, tmp_path: Path, monkeypatch) -> Path:
    """A copy of the repository whose voice was published."""
    monkeypatch.chdir(root := shutil.copytree(published_once, tmp_path / "copy"))
    return root


# Each of them takes longer to import than a short sentence to speak.
TOO_SLOW = ("peft", "transformers", "matplotlib", "onnxruntime", "torch._dynamo", "sympy")
SAYS_WHAT_IT_NEEDS = f"""
import sys
from pipeline.cli.main import run_command
code = run_command(sys.argv[1:])
print([name for name in {TOO_SLOW!r} if name in sys.modules] or "needs none of it", file=sys.stderr)
sys.exit(code)
"""


# --- the text --------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["ana", ""], ["ana", " \n"], ["ana", "?!"], ["ana", "-"], ["ana"]])
def test_an_empty_text_is_told_before_anything_is_loaded(walked: Path, warm_python, arguments) -> None:
    code = (
        "import sys\nfrom pipeline.cli.main import run_command\n"
        f"code = run_command(['say', *{arguments!r}])\n"
        "assert not {'torch', 'numpy'} & sys.modules.keys()\nsys.exit(code)\n"
    )
    done = warm_python.run(code, folder=walked)
    assert done.returncode == 2, done.stderr


def test_the_name_of_a_file_is_not_spoken(walked: Path, voxline, tmp_path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("Hello.")
    answer = voxline("say", "ana", str(lines))
    assert answer.code == 2 and f"--text-file {lines}" in answer.err


@pytest.mark.parametrize(
    ("content", "told"), [(None, "no file"), (b"caf\xe9", "UTF-8"), (b"  \n", "empty"), (b"x" * 100_000, "100000")]
)
def test_a_text_file_that_cannot_be_read_is_named(walked: Path, voxline, tmp_path, content, told) -> None:
    path = tmp_path / "lines.txt"
    if content is not None:
        path.write_bytes(content)
    answer = voxline("say", "ana", "--text-file", str(path))
    assert answer.code in (2, 3) and told in answer.err, answer.err


def test_scripts_and_languages_the_base_does_not_speak_are_refused(published: Path, voxline, tmp_path) -> None:
    output = tmp_path / "said.wav"
    refused = voxline("say", "ana", "おはようございます。", "-o", str(output))
    assert (refused.code, "English (en)" in refused.err) == (10, True), refused.err
    wrong = voxline("say", "ana", "Guten Morgen.", "--language", "de", "-o", str(output))
    assert (wrong.code, "--language en" in wrong.err, "English (en)" in wrong.err) == (2, True, True)
    assert not output.exists()


# --- where the sound goes ----------------------------------------------------------------------------


def test_a_file_that_is_there_is_kept_and_the_sound_can_go_to_stdout(published: Path, voxline, tmp_path) -> None:
    (tmp_path / "lines.txt").write_text("\ufeffHello there.\n", encoding="utf-8")
    mine = tmp_path / "mine[" / "x].wav"  # [/x] once more
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    kept = voxline("say", "ana", "Hello there.", "-o", str(mine))
    assert (kept.code, "--force" in kept.err, mine.read_bytes()) == (2, True, b"mine")
    answer = voxline("say", "ana", "--text-file", str(tmp_path / "lines.txt"), "-o", str(mine), "--force")
    assert answer.code == 0 and str(mine) in answer.out, answer.err
    assert soundfile.info(mine).frames > 0

    (published / "out.wav").write_bytes(b"mine")
    assert "out-2.wav" in voxline("say", "ana", "Hello there.").out
    assert (published / "out.wav").read_bytes() == b"mine"

    command = [sys.executable, "-c", SAYS_WHAT_IT_NEEDS, "say", "ana", "Hello there.", "-o", "-"]
    piped = subprocess.run(command, cwd=published, capture_output=True, check=True)
    assert b"needs none of it" in piped.stderr, piped.stderr
    sound, rate_hz = soundfile.read(io.BytesIO(piped.stdout))
    assert len(sound) == soundfile.info(mine).frames and rate_hz == soundfile.info(mine).samplerate
    assert b"standard output" in piped.stderr


def test_json_and_sound_do_not_share_a_stream(walked: Path, voxline) -> None:
    answer = voxline("say", "ana", "Hello.", "-o", "-", "--json")
    assert (answer.code, "standard output" in answer.err) == (2, True)


# --- what is not published ---------------------------------------------------------------------------


def test_a_blocked_voice_is_heard_and_marked(walked: Path, voxline, tmp_path) -> None:
    advice = voxline("run", "ana")
    assert (advice.code, "--candidate" in advice.err) == (11, True), advice.err
    silent = voxline("say", "ana", "Hello.")
    assert silent.code == 2 and "blocked by the gate" in silent.err and "--candidate" in silent.err
    assert "voxline run" not in silent.err
    output = tmp_path / "blocked.wav"
    heard = voxline("say", "ana", "Hello there.", "--candidate", "-o", str(output))
    assert heard.code == 0, heard.err
    assert "blocked by the gate" in heard.err and "not for use" in heard.err
    assert soundfile.info(output).frames > 0
    told = json.loads(voxline("say", "ana", "Hi.", "--candidate", "-o", str(tmp_path / "b.wav"), "--json").out)
    assert told["is_published"] is False


def test_what_was_changed_since_or_never_trained_is_not_spoken_as_the_candidate(copy: Path, voxline) -> None:
    text = (copy / "voices" / "ana" / "metadata.csv").read_text()
    (copy / "voices" / "ana" / "metadata.csv").write_text("\n".join(text.splitlines()[:-1]) + "\n")
    answer = voxline("say", "ana", "Hello.", "--candidate")
    assert answer.code == 2 and "nothing trained of version" in answer.err
    assert "voxline run ana --until evaluate" in answer.err


def test_an_adapter_that_was_swapped_is_not_spoken(copy: Path, voxline) -> None:
    adapter = next((copy / "work" / "ana" / "finetune").rglob("adapter_model.safetensors"))
    adapter.write_bytes(adapter.read_bytes()[:-1] + b"x")
    answer = voxline("say", "ana", "Hello.", "--candidate")
    assert answer.code == 3 and "adapter_model.safetensors" in answer.err


def test_what_waits_for_review_is_heard(waiting: Path, voxline, walk, tmp_path) -> None:
    silent = voxline("say", "ana", "Hello.")
    assert silent.code == 2 and "waits for review" in silent.err and "--channel candidate" in silent.err
    here = voxline("say", "ana", "Hello there.", "--candidate", "-o", str(tmp_path / "a.wav"))
    assert here.code == 0 and "waits for review" in here.err
    walk.forget(waiting, *walk.stages)  # on another machine there is only the registry
    there = voxline("say", "ana", "Hello there.", "--candidate", "-o", str(tmp_path / "b.wav"))
    assert there.code == 0 and "waits for review" in there.err
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_outside_its_repository_nobody_is_sent_to_train_it(published: Path, voxline, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    nowhere = voxline("say", "ana", "Hello.")
    assert (nowhere.code, "--registry" in nowhere.err, "voxline run" in nowhere.err) == (2, True, False)
    other = voxline("say", "ben", "Hello.", "--registry", f"file:{published / 'registry'}")
    assert (other.code, "published there: ana" in other.err) == (2, True)
    answer = voxline("say", "ben", "Hello.", "--candidate")
    assert (answer.code, "voxline run" in answer.err) == (2, False)
