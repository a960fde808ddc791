"""A stage starts and ends in one place: once per key, complete or not at all, resumable after any kill."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import TransientError
from pipeline.io.store import DamagedResult, Store
from pipeline.line import run_stage as run
from pipeline.line import table
from pipeline.records.base import Record
from pipeline.records.job import FileMark
from pipeline.records.settings import ExtractSettings


class Counted(Record):
    steps: int


class Silent:
    def track(self, items, *, description, total=None):
        return items

    def log(self, message):
        pass


def count_to_ten(job):
    """A stage that checkpoints each step and, when told to, hangs at one of them."""
    state = job.checkpoint / "step"
    step = int(state.read_text()) if state.exists() else 0
    while step < 10:
        if job.is_stopping():
            raise TransientError("stopped at a checkpoint")
        step += 1
        state.write_text(str(step))
        with (job.voice_folder / "trace").open("a") as trace:
            trace.write(f"{step}\n")
        if step == job.parameters.get("hang_at") and not (job.voice_folder / "released").exists():
            time.sleep(60)
    told = job.voice_folder / "numbers"
    (job.folder / "numbers.txt").write_text(told.read_text() if told.exists() else "1..10")
    return Counted(steps=step)


def judge_numbers(job):
    numbers = (job.inputs["count"].folder / "numbers.txt").read_text()
    (job.folder / "sum.txt").write_text(f"{numbers} is fine")
    return Counted(steps=1)


STAGE = table.Stage(
    "count", "a number", "1", f"{__name__}:count_to_ten", f"{__name__}:Counted", hands_on=("numbers.txt",)
)
JUDGE = table.Stage(
    "judge", "a sum", "1", f"{__name__}:judge_numbers", f"{__name__}:Counted", hands_on=("sum.txt",), is_verdict=True
)


def mark(content: bytes) -> FileMark:
    return FileMark(size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


@pytest.fixture(autouse=True)
def counting_stage(monkeypatch):
    monkeypatch.setitem(table.STAGES, "count", STAGE)
    monkeypatch.setitem(table.STAGES, "judge", JUDGE)
    monkeypatch.setattr(run, "load", lambda reference: globals()[reference.rpartition(":")[2]])


def count(folder: Path, check=lambda: None, **parameters):
    task = run.Task(STAGE, "ana", ExtractSettings(), {"content": "abc"}, parameters=parameters)
    return run.run_stage(task, run.Place(Store(folder / "work"), folder, Silent(), check=check))


def steps_done(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "trace").read_text().split()]


def test_a_second_identical_run_does_nothing(tmp_path):
    first, second = count(tmp_path), count(tmp_path)
    assert (first.was_cached, second.was_cached) == (False, True)
    assert first.folder == second.folder
    assert second.record == Counted(steps=10)
    assert steps_done(tmp_path) == list(range(1, 11))


def test_another_setting_is_another_key(tmp_path):
    assert count(tmp_path).result.key != count(tmp_path, speed=2).result.key


def test_what_is_visible_is_complete(tmp_path):
    outcome = count(tmp_path)
    assert sorted(entry.name for entry in outcome.folder.iterdir()) == ["numbers.txt", "result.json"]
    written = json.loads((outcome.folder / "result.json").read_text())
    assert written["output"] == {"steps": 10}
    assert written["stage"] == "count"


def test_a_damaged_result_is_computed_again(tmp_path):
    folder = count(tmp_path).folder
    (folder / "result.json").write_text('{"stage": "count"')
    again = count(tmp_path)
    assert not again.was_cached
    assert again.record.steps == 10


def judge(folder: Path, counted: run.Outcome) -> run.Outcome:
    """A stage that gives a verdict on the numbers."""
    task = run.Task(JUDGE, "ana", ExtractSettings(), {}, {"count": counted})
    return run.run_stage(task, run.Place(Store(folder / "work"), folder, Silent()))


def test_a_result_lists_what_the_stage_wrote_and_what_it_read(tmp_path):
    counted = count(tmp_path)
    assert counted.result.files == {"numbers.txt": mark(b"1..10")}
    verdict = judge(tmp_path, counted)
    assert verdict.result.files == {"sum.txt": mark(b"1..10 is fine")}
    assert list(verdict.result.read) == ["count"]
    assert judge(tmp_path, count(tmp_path)).was_cached


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: path.write_text("1..99"), "is not what the stage wrote"),
        (lambda path: path.write_text("1.."), "is not what the stage wrote"),
        (lambda path: path.unlink(), "is missing"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/hostname")), "symbolic link"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "named pipe"),
        (lambda path: (path.unlink(), path.mkdir(), (path / "x").touch()), "is missing|not written by the stage"),
    ],
)
def test_a_stage_reads_nothing_but_what_the_one_before_it_wrote(tmp_path, spoil, told):
    counted = count(tmp_path)
    spoil(counted.folder / "numbers.txt")
    with pytest.raises(DamagedResult, match=told) as caught:
        judge(tmp_path, count(tmp_path))
    assert caught.value.folder == counted.folder
    Store(tmp_path / "work").discard(caught.value)
    again = count(tmp_path)
    assert not again.was_cached
    assert not judge(tmp_path, again).was_cached


def test_a_verdict_on_other_files_is_given_again(tmp_path):
    verdict = judge(tmp_path, count(tmp_path))
    (tmp_path / "numbers").write_text("0..9")
    Store(tmp_path / "work").discard(DamagedResult(count(tmp_path).folder, "numbers.txt", "gone"))
    again = judge(tmp_path, count(tmp_path))
    assert not again.was_cached
    assert again.result.key == verdict.result.key
    assert (again.folder / "sum.txt").read_text() == "0..9 is fine"


def test_results_that_list_no_files_are_used_as_they_lie_but_verdicts_are_given_again(tmp_path):
    """Versions before this one listed none; nobody should train again for that."""
    verdict = judge(tmp_path, count(tmp_path))
    for folder in (count(tmp_path).folder, verdict.folder):
        written = json.loads((folder / "result.json").read_text())
        del written["files"], written["read"]
        (folder / "result.json").write_text(json.dumps(written))
    counted = count(tmp_path)
    assert counted.was_cached
    assert counted.handed_on == {"numbers.txt": mark(b"1..10")}
    assert not judge(tmp_path, counted).was_cached
    assert judge(tmp_path, counted).was_cached


def test_what_changed_while_it_was_read_is_not_kept(tmp_path):
    def changed() -> None:
        raise TransientError("changed while it was read")

    with pytest.raises(TransientError):
        count(tmp_path, check=changed)
    assert not count(tmp_path).was_cached


def start(folder: Path, hang_at: int) -> subprocess.Popen[bytes]:
    """The same stage in a process of its own."""
    code = (
        "import sys, importlib.util, pathlib\n"
        f"spec = importlib.util.spec_from_file_location('counting', {str(Path(__file__))!r})\n"
        "counting = importlib.util.module_from_spec(spec); spec.loader.exec_module(counting)\n"
        "from pipeline.line import run_stage as run, table\n"
        "table.STAGES['count'] = counting.STAGE\n"
        "run.load = lambda reference: vars(counting)[reference.rpartition(':')[2]]\n"
        "from pipeline.errors import PipelineError\n"
        f"try: counting.count(pathlib.Path({str(folder)!r}), hang_at={hang_at})\n"
        "except PipelineError as error: sys.exit(error.exit_code)\n"
    )
    return subprocess.Popen([sys.executable, "-c", code])


def run_in_background(folder: Path, hang_at: int) -> subprocess.Popen[bytes]:
    """A run that has reached the step at which it hangs, so that it can be killed there."""
    process = start(folder, hang_at)
    deadline = time.monotonic() + 60
    while not (folder / "trace").exists() or (steps_done(folder) or [0])[-1] < hang_at:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_killed_job_leaves_nothing_visible_and_continues_from_its_checkpoint(tmp_path, sent, code):
    process = run_in_background(tmp_path, hang_at=4)
    os.kill(process.pid, sent)
    assert process.wait(30) == code
    assert not list((tmp_path / "work").rglob("result.json"))
    (tmp_path / "released").touch()
    assert count(tmp_path, hang_at=4).record.steps == 10
    assert steps_done(tmp_path) == list(range(1, 11))


def test_sigterm_stops_at_the_next_checkpoint_with_the_code_that_ci_retries(tmp_path):
    process = run_in_background(tmp_path, hang_at=4)
    process.terminate()
    time.sleep(0.2)
    process.terminate()  # a second one does not wait for the checkpoint
    assert process.wait(30) == 75


@pytest.mark.slow
def test_two_runs_at_once_do_the_work_once(tmp_path):
    first = run_in_background(tmp_path, hang_at=4)
    os.kill(first.pid, signal.SIGSTOP)
    (tmp_path / "released").touch()
    waiting = start(tmp_path, hang_at=4)
    time.sleep(1.0)
    assert waiting.poll() is None, "the second run did not wait for the first"
    os.kill(first.pid, signal.SIGKILL)
    os.kill(first.pid, signal.SIGCONT)
    first.wait(30)
    assert waiting.wait(30) == 0
    assert steps_done(tmp_path) == list(range(1, 11))


def test_a_full_disk_is_a_clear_temporary_failure_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(TransientError, match="no space left") as failure:
        patched.setattr(os, "fsync", full)
        count(tmp_path)
    assert failure.value.exit_code == 75
    left = {path.name for path in (tmp_path / "work").rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert left == {"step"}, "only the checkpoint stays, from which the next run continues"
    assert count(tmp_path).record.steps == 10
    assert steps_done(tmp_path) == list(range(1, 11))
