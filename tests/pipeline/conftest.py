"""A small Git repository with voices, and a registry beside it, for everything that reads them."""

from __future__ import annotations

import fcntl
import gc
import hashlib
import importlib
import os
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest
from releases import BASE_DIGEST, CONTENTS, RECIPE_DIGEST, version_of

from pipeline.cli.main import run_command
from pipeline.io import report, validation_report
from pipeline.io.audio import encode_for_listening
from pipeline.io.memory import Memory
from pipeline.io.provenance import find_provenance
from pipeline.io.registry.registry import Registry, open_registry
from pipeline.io.voices import content_digest, load_manifest
from pipeline.records.plan import Plan, PlanEntry
from pipeline.records.release import Release, recipe_digest, release_version
from pipeline.records.voice import Consent
from pipeline.signal import dnsmos, gate, quality
from pipeline.stages.plan import Identifier, Revisions, make_plan
from pipeline.stages.validate import tools

# A base whose digest needs no weights on this machine.
LIGHT_BASE = "gpt-sovits-v2"

MANIFEST = f"""\
display_name: Somebody
language: en
base: {LIGHT_BASE}
consent:
  speaker: Somebody
  granted_on: 2026-01-09
license: CC-BY-4.0
"""


def safetensors_file(path: Path, content: bytes = b"\0" * 8) -> Path:
    """The smallest adapter: one tensor of bytes."""
    header = b'{"lora":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (len(content), len(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header + content)
    return path


def a_release(voice: str = "ana", version: str | None = None, **changes: object) -> Release:
    """A manifest. ``version``: one of ``version_of``; else the one that the digests give."""
    told = {
        "voice": voice,
        "created_at": datetime(2026, 1, 10, tzinfo=UTC),
        "base": LIGHT_BASE,
        "content_digest": CONTENTS.get(version or version_of(1), ""),
        "base_digest": BASE_DIGEST,
        "recipe_digest": RECIPE_DIGEST,
        "language": "en",
        "license": "CC-BY-4.0",
        "consent": Consent(speaker="Somebody", granted_on=date(2026, 1, 9)),
    }
    told |= changes
    digests = (str(told[f"{kind}_digest"]) for kind in ("content", "base", "recipe"))
    return Release.model_validate({"version": version or release_version(*digests), **told})


@dataclass
class Line:
    """A repository in a temporary folder, with the environment its commands see."""

    root: Path
    environment: Mapping[str, str]

    def git(self, *arguments: str) -> str:
        command = [
            "git",
            "-c",
            "user.name=Ana Perez",
            "-c",
            "user.email=ana@example.org",
            "-c",
            "protocol.file.allow=always",
        ]
        return subprocess.run(
            [*command, *arguments], cwd=self.root, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self, message: str = "change") -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def write_voice(self, name: str, *, sound: bytes = b"take one", manifest: str = MANIFEST) -> Path:
        folder = self.root / "voices" / name
        (folder / "wavs").mkdir(parents=True, exist_ok=True)
        (folder / "voice.yaml").write_text(manifest)
        (folder / "metadata.csv").write_text("file_name,text\nwavs/1.wav,Hello there.\n")
        (folder / "wavs" / "1.wav").write_bytes(sound)
        return folder

    @property
    def registry(self) -> Registry:
        return open_registry("file:registry", root=self.root)

    def identifier(self) -> Identifier:
        return Identifier(self.root, self.environment, {})

    def version(self, name: str) -> str:
        folder = self.root / "voices" / name
        return self.identifier().identify(name, load_manifest(folder), content_digest(folder), name).version

    def publish(self, name: str, *, channel: str = "production", review: str = "none", reason: str = "") -> Release:
        """What the line leaves behind when this voice goes through it."""
        from pipeline.config import resolve
        from pipeline.stages.plan import load_known_base

        folder = self.root / "voices" / name
        settings = resolve(root=self.root, environment=self.environment).settings
        release = a_release(
            name,
            self.version(name),
            content_digest=content_digest(folder),
            base_digest=load_known_base(LIGHT_BASE, self.root, settings.voxline).digest,
            recipe_digest=recipe_digest(settings),
            provenance=find_provenance(folder, self.environment),
            review=review,
        )
        weights = safetensors_file(self.root.parent / "staged.safetensors", name.encode())
        files = {"adapter/synthesizer/adapter_model.safetensors": weights}
        channel = release.channel(channel)
        return self.registry.publish(name, release, files, channel=channel, actor="Ana Perez", reason=reason)

    def plan(
        self, base: str | None = None, *, head: str = "HEAD", is_worktree: bool = False, retries_refused: bool = False
    ) -> Plan:
        return make_plan(
            self.identifier(),
            self.registry,
            Revisions(base, head, is_worktree),
            retries_refused=retries_refused,
            memory=self.memory,
        )

    @property
    def memory(self) -> Memory:
        return Memory(self.root.parent / "home" / "trees.json")

    def planned(self, base: str | None = None, **options: object) -> dict[str, PlanEntry]:
        return {entry.voice: entry for entry in self.plan(base, **options).entries}

    def actions(self, base: str | None = None, **options: object) -> dict[str, str]:
        return {name: entry.action for name, entry in self.planned(base, **options).items()}


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    """An empty repository; the current folder is inside it."""
    root = tmp_path / "repository"
    root.mkdir()
    for variable in ("GITLAB_CI", "GITHUB_ACTIONS", "JENKINS_URL", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(variable, raising=False)
    made = Line(root, {})
    made.git("init", "-q", "-b", "main")
    (root / ".gitignore").write_text("/work/\n/registry/\n*.partial/\n")
    monkeypatch.chdir(root)
    return made


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def voxline(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run a command line as the console script does: exit code, standard output, standard error."""

    def run(*arguments: str) -> Answer:
        capsys.readouterr()
        code = run_command(list(arguments))
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Answer(code, captured.out, captured.err)

    return run


@pytest.fixture
def make_release() -> Callable[..., Release]:
    return a_release


@pytest.fixture
def make_weights() -> Callable[..., Path]:
    return safetensors_file


@pytest.fixture
def manifest_text() -> str:
    return MANIFEST


_WRITES = frozenset({"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "shutil.copyfile"})


def fork(action: Callable[[], int], log: Path) -> int:
    """Begin ``action`` in a child process that writes to ``log`` and ends with the code that is returned.

    A process of its own, like that of a command in a shell, but one that need not import anything again.
    """
    child = os.fork()
    if child:
        return child
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    code = 99
    try:
        code = action()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def struck(action: Callable[[], int], signal_number: int, at: int, within: Path, log: Path) -> tuple[int, bool]:
    """Run ``action`` in a child process that sends itself a signal at its ``at``-th file operation below ``within``.

    Returns:
        The exit status as ``os.waitstatus_to_exitcode`` gives it, and whether the signal was sent.
    """

    def watched() -> int:
        seen, place = 0, str(within)

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal seen
            if event in _WRITES and any(str(argument).startswith(place) for argument in arguments[:2]):
                seen += 1
                if seen == at:
                    os.kill(os.getpid(), signal_number)

        sys.addaudithook(hook)
        code = action()
        return code if seen < at else code + 100

    _, status = os.waitpid(fork(watched, log), 0)
    code = os.waitstatus_to_exitcode(status)
    return (code - 100, True) if code >= 100 else (code, code < 0)


@pytest.fixture(scope="session")
def imported() -> None:
    """What the stages import, once: child processes that are forked inherit it."""
    for module in ("peft", "transformers", "scipy.signal", "scipy.stats", "onnxruntime", "pesq", "matplotlib"):
        importlib.import_module(module)
    for stage in ("validate.stage", "extract", "finetune", "evaluate", "publish"):
        importlib.import_module(f"pipeline.stages.{stage}")
    importlib.import_module("pipeline.jobs.speak")
    gc.collect()
    gc.freeze()  # a collection in a child would otherwise touch, and so copy, every page of them


@pytest.fixture
def begin(tmp_path: Path, imported: None) -> Callable[..., Callable[[], tuple[int, str]]]:
    """Begin an action in a process of its own; the answer waits for its end, and tells its exit status and output."""

    def run(action: Callable[[], int]) -> Callable[[], tuple[int, str]]:
        log = tmp_path / f"begun-{len(list(tmp_path.glob('begun-*')))}.log"
        log.touch()
        child = fork(action, log)

        def ended() -> tuple[int, str]:
            _, status = os.waitpid(child, 0)
            return os.waitstatus_to_exitcode(status), log.read_text()

        return ended

    return run


@pytest.fixture
def strike(tmp_path: Path, imported: None) -> Callable[..., tuple[int, bool]]:
    """``struck`` with its log in the test's folder, checked for tracebacks."""

    def run(action: Callable[[], int], signal_number: int, at: int, within: Path) -> tuple[int, bool]:
        log = tmp_path / "struck.log"
        answer = struck(action, signal_number, at, within, log)
        assert "Traceback" not in log.read_text(), log.read_text()
        return answer

    return run


# --- a voice of real speech and a base small enough to train in a test ------------------------------

TINY_BASE = """\
name: tiny
description: Random numbers in the shape of a base, for tests
family: v2pro
sample_rate_hz: 16000
hop_samples: 320
text: {symbols: v2, languages: [en]}
synthesizer:
  spectrogram: {sample_rate_hz: 16000, n_fft: 1024, win_samples: 1024, hop_samples: 320}
  mel: {sample_rate_hz: 16000, n_fft: 1024, win_samples: 1024, hop_samples: 160, n_mels: 40}
  segment_frames: 16
  ssl_dim: 43
  codebook_size: 32
  inter_channels: 16
  hidden_channels: 16
  filter_channels: 32
  n_heads: 2
  n_layers: 2
  p_dropout: 0.1
  mrte_hidden: 16
  mrte_heads: 2
  style_bins: 513
  style_hidden: 16
  gin_channels: 16
  speaker_dim: 256
  posterior_layers: 2
  flow_steps: 2
  flow_layers: 1
  decoder:
    {resblock_kernel_sizes: [3], resblock_dilation_sizes: [[1]], upsample_rates: [10, 8, 4],
     upsample_kernel_sizes: [16, 16, 8], upsample_initial_channel: 32}
text2semantic: {vocab_size: 33, hidden_dim: 32, heads: 2, layers: 2, feedforward_dim: 64, bert_dim: 0,
  sampling: {min_tokens: 6, max_tokens: 60}}
content: {kind: phones, channels: 32, front_blocks: 1, layers: 1, heads: 2, feedforward: 32}
license: {name: CC0-1.0}
gate: {pesq_wb: 1.0, stoi: 0.2, measured: made up for tests}
"""

TINY_VOICE = """\
display_name: Sample
language: en
base: tiny
consent: {speaker: synthetic, granted_on: 2026-01-09, scope: [tests]}
license: CC0-1.0
copyright_notice: Generated speech, synthetic
finetune: {epochs: 1, rank: 2, batch_size: 4, checkpoint_every_s: 0.001}
"""

TINY_SETTINGS = """\
[voxline]
threads = 1
device = "cpu"
[validate]
speech_min_s = 10
[finetune]
heldout_clips = 2
[evaluate]
sentences = 1
"""


@pytest.fixture(scope="session")
def write_tiny_base() -> Callable[[Path], Path]:
    """Put ``bases/tiny/base.yaml`` into a repository, the shape of v2Pro in a few thousand random numbers.

    And a pipeline.toml that is content with ten seconds of speech.
    """

    def write(root: Path) -> Path:
        folder = root / "bases" / "tiny"
        folder.mkdir(parents=True, exist_ok=True)
        (root / "pipeline.toml").write_text(TINY_SETTINGS)
        (folder / "base.yaml").write_text(TINY_BASE)
        return folder

    return write


@pytest.fixture(scope="session")
def write_tiny_voice(repository: Path) -> Callable[..., Path]:
    """Copy the first clips of the repository's sample voice into ``voices/<name>``."""

    def write(root: Path, name: str = "ana", clips: int = 6, manifest: str = TINY_VOICE) -> Path:
        sample, folder = repository / "voices" / "sample", root / "voices" / name
        lines = (sample / "metadata.csv").read_text().splitlines()[: clips + 1]
        (folder / "wavs").mkdir(parents=True, exist_ok=True)
        (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
        (folder / "voice.yaml").write_text(manifest)
        for line in lines[1:]:
            recording = line.partition(",")[0]
            (folder / recording).write_bytes((sample / recording).read_bytes())
        return folder

    return write


# --- done once in a run, whichever of its processes comes first ---------------------------------------


@pytest.fixture(scope="session")
def folder_of_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run of the tests share, and no other run."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


MEASURES = ("pesq_wb", "stoi", "align_globally", "mel_cepstral_distortion", "pitch_error")


@pytest.fixture(scope="session", autouse=True)
def judged_once(folder_of_run: Path) -> Iterator[None]:
    """Measures of two sounds, ears of validation and Opus are asked the same in many tests: each is answered once in a run.

    They are nothing but functions of their samples, so the answer is kept under a digest of what was asked. A test of
    one of them asks a question of its own, and has it answered.
    """
    answers = folder_of_run / "judged"
    answers.mkdir(exist_ok=True)

    def remembering(load: Callable[..., Any]) -> Callable[..., Any]:
        def loaded(*how: Any) -> Callable[..., Any] | None:
            from models.machine.precision import quick_dtype

            ear = load(*how)
            return ear and remembered(ear, answers, load.__name__, quick_dtype())

        return loaded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dnsmos, "_run", remembered(dnsmos._run, answers))
        for measure in MEASURES:
            patch.setattr(quality, measure, remembered(getattr(quality, measure), answers))
        for load in (tools._load_dnsmos, tools._load_embedder, tools._load_recogniser):
            patch.setattr(tools, load.__name__, remembering(load))
        for page in (validation_report, report):
            patch.setattr(page, "encode_for_listening", remembered(encode_for_listening, answers))
        if "PYTEST_XDIST_WORKER" in os.environ:  # imports torch, which a look at a few commands does not pay for
            from pipeline.stages.evaluate import ears

            open_dnsmos = ears.dnsmos
            patch.setattr(ears, "dnsmos", lambda: remembered(open_dnsmos(), answers, "exact"))
        yield


def remembered(function: Callable[..., Any], folder: Path, *how: Any) -> Callable[..., Any]:
    """The same function; `how`: what its answers depend on besides its arguments."""

    def asked(*arguments: Any, **named: Any) -> Any:
        question = hashlib.sha256(pickle.dumps((function.__name__, how, arguments, named))).hexdigest()
        kept = folder / question
        if not kept.exists():
            written = folder / f"{question}.{os.getpid()}.{get_ident()}"
            written.write_bytes(pickle.dumps(function(*arguments, **named)))
            written.replace(kept)
        return pickle.loads(kept.read_bytes())

    return asked


@pytest.fixture(scope="session")
def once(folder_of_run: Path) -> Callable[[str, Callable[[Path], object]], Path]:
    """A folder that one process of this run makes, and the others find."""

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder = folder_of_run / name
        with (folder_of_run / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder_of_run / f"{name}.done").exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                with pytest.MonkeyPatch.context() as patch:
                    patch.chdir(folder)
                    make(folder)
                (folder_of_run / f"{name}.done").touch()
        return folder

    return made


@pytest.fixture(scope="session")
def walked_once(
    once: Callable[..., Path], write_tiny_base: Callable[[Path], Path], write_tiny_voice: Callable[..., Path]
) -> Path:
    """A repository whose voice ``ana`` was walked up to its gate; only to be copied."""

    def walk(root: Path) -> None:
        write_tiny_base(root)
        write_tiny_voice(root)
        assert run_command(["run", "ana"]) == 11

    return once("walked", walk)


@pytest.fixture(scope="session")
def published_once(once: Callable[..., Path], walked_once: Path) -> Path:
    """The same, judged by a gate that lets everything pass, and published; only to be copied."""

    def publish(root: Path) -> None:
        shutil.copytree(walked_once, root, dirs_exist_ok=True)
        shutil.rmtree(root / "work" / "ana" / "evaluate")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gate, "verdict", lambda checks: (True, ()))
            assert run_command(["run", "ana"]) == 0

    return once("published", publish)


@pytest.fixture(scope="session")
def repository_with_voice(walked_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose voice ``ana`` was walked up to its gate."""
    return shutil.copytree(walked_once, tmp_path_factory.mktemp("line"), dirs_exist_ok=True)
