"""Joins the stages for one voice: what a command line names, what each stage is handed, and what comes of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import (
    GateBlocked,
    Interrupted,
    PipelineError,
    ReviewPending,
    SettingsError,
    TransientError,
    VoiceRefused,
)

if TYPE_CHECKING:
    from models.loading.bases import Base
    from pipeline.io.registry import Registry
    from pipeline.io.store import Store
    from pipeline.io.voices import Voice
    from pipeline.records.job import Machine, Reporter
    from pipeline.records.quality import Floors, QualityReport
    from pipeline.records.release import Channel
    from pipeline.records.settings import GeneralSettings, Settings
    from pipeline.run import Outcome

Made = TypeVar("Made")

STAGE_ORDER = ("validate", "extract", "finetune", "evaluate", "publish")

# Which exit code speaks for a run of several voices: what a person must mend comes before what another try may mend.
SEVERITY = (130, 1, 3, 2, 13, 10, 11, 20, 75, 12, 0)


@dataclass(frozen=True)
class StageLine:
    """One stage of one voice, as the summary shows it."""

    stage: str
    duration_s: float
    was_cached: bool


@dataclass
class VoiceRun:
    """What became of one voice.

    Attributes:
        status: published, republished, unchanged, superseded (a later commit was faster), done (stopped at --until), or
            the title of an error.
        channel: the one that serves the version now; none when nothing does.
        report: the quality report, where there is one.
    """

    voice: str
    version: str = ""
    status: str = ""
    exit_code: int = 0
    message: str = ""
    hint: str = ""
    channel: str = ""
    report: str = ""
    stages: list[StageLine] = field(default_factory=list)

    def fail(self, error: PipelineError) -> None:
        self.status, self.exit_code, self.message, self.hint = error.title, error.exit_code, error.message, error.hint


def worst_exit_code(runs: list[VoiceRun]) -> int:
    """The exit code that speaks for all."""
    return min((run.exit_code for run in runs), key=SEVERITY.index, default=0)


@dataclass(frozen=True)
class Line:
    """A voice with everything its stages need, resolved once. Nothing in here has imported torch."""

    voice: Voice
    settings: Settings
    base: Base
    content_digest: str
    recipe_digest: str
    version: str
    root: Path
    store: Store
    registry: Registry
    machine: Machine
    reporter: Reporter

    def run_until(self, last: str, run: VoiceRun | None = None) -> dict[str, Outcome]:
        """Run the stages up to ``last`` (not ``publish``), each only if it was not done before.

        Raises:
            VoiceRefused, GateBlocked: the report says no; it is kept and can be looked at.
        """
        return self._mending(lambda: self._run_stages(last, run))

    def _mending(self, attempt: Callable[[], Made]) -> Made:
        """Make a stage again whose files are not what it left: a cache cut short, or somebody else's.

        Raises:
            DamagedResult: it happens again and again.
        """
        from pipeline.io.store import DamagedResult

        for _ in STAGE_ORDER:
            try:
                return attempt()
            except DamagedResult as damaged:
                self.reporter.log(f"{self.voice.name}: warning: {damaged.message}; made again")
                self.store.discard(damaged)
        return attempt()

    def _run_stages(self, last: str, run: VoiceRun | None) -> dict[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        if run is not None:
            run.stages.clear()
        for name in STAGE_ORDER[: STAGE_ORDER.index(last) + 1]:
            clock = time.perf_counter()
            outcome = outcomes[name] = self._run_stage(name, outcomes)
            if run is not None:
                run.stages.append(StageLine(name, round(time.perf_counter() - clock, 2), outcome.was_cached))
                if name == "evaluate":
                    run.report = str(outcome.folder / "report" / "index.html")
            if name == "validate" and not outcome.was_cached:
                self._tell(outcome)
            _judge(self.voice.name, name, outcome)
        return outcomes

    def _tell(self, outcome: Outcome) -> None:
        from pipeline.cli.common import notify_here

        notify_here(outcome.record, self.settings.notify, self.reporter)

    def validate(self) -> Outcome:
        """The report on the recordings, accepted or not."""
        return self._run_stage("validate", {})

    def _check_unchanged(self) -> None:
        """A file saved while the voice was read would be trained on under the version of the old one."""
        from pipeline.io.voices import content_digest

        if content_digest(self.voice.folder) != self.content_digest:
            raise TransientError(f"{self.voice.folder}: changed while it was read", hint="run again")

    def walk(self, run: VoiceRun) -> None:
        """Do what the plan says for this version: nothing, put it back on its channel, or train and publish it.

        Raises:
            ReviewPending: the version waits on the candidate channel for a person.
        """
        from pipeline.io.provenance import find_mover
        from pipeline.stages.plan import FoundVoice, decide

        needs_review = self.channel == "candidate"
        found = FoundVoice(self.voice.name, self.version, needs_review=needs_review)
        entry = decide({self.voice.name: found}, {}, self.registry.states())[0]
        run.channel = self.channel
        if entry.action == "skip":
            run.status, run.message, run.channel = "unchanged", entry.reason, self._present_channel()
        elif self._is_superseded():
            run.status, run.message = "superseded", f"{self.channel} holds the work of a later commit"
            return
        elif entry.action == "republish":
            mover = find_mover(self.root, os.environ, entry.reason)
            self.registry.republish(self.voice.name, self.version, channel=self.channel, mover=mover)
            run.status, run.message = "republished", entry.reason
        else:
            self._mending(lambda: self._train_and_publish(run))
            run.status = "published"
        if needs_review and run.channel == "candidate":
            raise ReviewPending(
                f"{self.voice.name} {self.version} is on channel candidate",
                hint=f"listen to it, then: voxline registry promote {self.voice.name}",
            )

    def _train_and_publish(self, run: VoiceRun) -> None:
        with self.recording_refusal():
            outcomes = self._run_stages("evaluate", run)
        self._publish(outcomes, run)

    def _present_channel(self) -> str:
        """The channel that serves this version, production before candidate; none when a person took it off."""
        from pipeline.records.release import CHANNELS

        for channel in reversed(CHANNELS):
            pointer = self.registry.pointer(self.voice.name, channel)
            if pointer is not None and pointer.version == self.version:
                return channel
        return ""

    @contextmanager
    def recording_refusal(self, *, wanted: bool = True) -> Iterator[None]:
        """Note in the registry that this version was refused, so that the next plan does not try the same again."""
        try:
            yield
        except (VoiceRefused, GateBlocked) as error:
            if wanted:
                self.record_refusal(error)
            raise

    def record_refusal(self, error: VoiceRefused | GateBlocked) -> None:
        """Whatever happens here, the verdict stays: without the note the next plan only tries again."""
        from datetime import UTC, datetime

        from pipeline.io.provenance import find_mover
        from pipeline.records.release import Refusal, judges_digest
        from pipeline.run import judging_code

        mover = find_mover(self.root, os.environ, error.message)
        refusal = Refusal(
            voice=self.voice.name,
            version=self.version,
            judges=judges_digest(self.settings, judging_code()),
            exit_code=10 if isinstance(error, VoiceRefused) else 11,
            reason=mover.reason.removeprefix(f"{self.voice.name}: "),
            at=datetime.now(UTC),
            actor=mover.actor,
            git_revision=mover.git_revision,
            pipeline=mover.pipeline,
        )
        try:
            self.registry.refuse(refusal)
        except (SettingsError, TransientError) as failure:
            self.reporter.log(f"the refusal could not be noted in {self.registry.url}: {failure.message}")

    def _is_superseded(self) -> bool:
        """Whether a pipeline of a later commit was faster than this one: an old voice must not come back by itself."""
        from pipeline.io.git import find_repository

        pointer = self.registry.pointer(self.voice.name, self.channel)
        repository = find_repository(self.root)
        here = repository.commit("HEAD") if repository else None
        if repository is None or here is None or pointer is None or pointer.event.git_revision in ("", here):
            return False
        return repository.is_ancestor(here, pointer.event.git_revision)

    @property
    def channel(self) -> Channel:
        """Where a passed version goes: to production, unless a person wants to hear it first."""
        return "candidate" if self.voice.manifest.review == "required" else self.settings.publish.channel

    def _publish(self, outcomes: Mapping[str, Outcome], run: VoiceRun) -> None:
        from pipeline.io.provenance import find_provenance
        from pipeline.run import stage_span, voxline_version
        from pipeline.stages.publish import Publication, publish

        clock = time.perf_counter()
        with stage_span(self.voice.name, "publish"):
            publish(
                Publication(
                    voice=self.voice,
                    version=self.version,
                    content_digest=self.content_digest,
                    recipe_digest=self.recipe_digest,
                    base=self.base,
                    channel=self.channel,
                    provenance=find_provenance(self.voice.folder, os.environ),
                    voxline_version=voxline_version(),
                ),
                {name: outcome.as_input() for name, outcome in outcomes.items()},
                self.registry,
            )
        run.stages.append(StageLine("publish", round(time.perf_counter() - clock, 2), was_cached=False))

    def find_until(self, last: str) -> dict[str, Outcome]:
        """What earlier runs of the present version left, up to ``last`` or the first stage that was not done."""
        from pipeline.run import find_stage

        outcomes: dict[str, Outcome] = {}
        for name in STAGE_ORDER[: STAGE_ORDER.index(last) + 1]:
            found = find_stage(name, **self._job(name, outcomes))
            if found is None:
                break
            outcomes[name] = found
        return outcomes

    def _run_stage(self, name: str, earlier: Mapping[str, Outcome]) -> Outcome:
        from pipeline.run import run_stage

        return run_stage(
            name,
            voice_folder=self.voice.folder,
            reporter=self.reporter,
            machine=self.machine,
            check=self._check_unchanged if name == "validate" else lambda: None,
            **self._job(name, earlier),
        )

    def _job(self, name: str, earlier: Mapping[str, Outcome]) -> dict[str, Any]:
        """What names a stage's job: the same of all these, the same result."""
        from pipeline.records.plan import READS

        sections = {"validate": self.settings.validate_}
        digests = self._validate_reads() if name == "validate" else {"base": self.base.digest}
        return {
            "store": self.store,
            "voice": self.voice.name,
            "settings": sections.get(name) or getattr(self.settings, name),
            "digests": digests,
            "inputs": {stage: earlier[stage] for stage in READS[name]},
            "parameters": self._parameters(name),
        }

    def _validate_reads(self) -> dict[str, str]:
        """The recordings, and the networks that judge them: with other weights they are judged again."""
        from pipeline.stages.validate.digests import tool_digests

        tools = tool_digests(self.settings.validate_, self.machine.cache)
        return {"content": self.content_digest, **{f"tool:{name}": digest for name, digest in tools.items()}}

    def _parameters(self, name: str) -> dict[str, Any]:
        if name == "validate":
            manifest = self.voice.manifest
            return {"language": manifest.language, "statement": manifest.consent.statement}
        parameters: dict[str, Any] = {"base": self.base.name}
        if name == "evaluate":
            floors = gate_floors(self.settings, self.base)
            parameters |= {
                "version": self.version,
                "language": self.voice.manifest.language,
                "floors": floors.model_dump(mode="json"),
            }
        return parameters


def gate_floors(settings: Settings, base: Base) -> Floors:
    """The minima in force: the strictest of the base's card and what the organisation or the voice ask for."""
    from pipeline.records.quality import BRIEF_PESQ_WB, BRIEF_STOI, Floor, Floors

    gate = settings.gate

    def floor(chosen: float | None, of_base: float, of_brief: float | None = None) -> Floor:
        brief = "" if of_brief is None else f"; the brief asks for {of_brief}"
        if chosen is None or chosen <= of_base:
            return Floor(value=of_base, source=f"floor of base {base.name}{brief}", measured=base.gate.measured)
        return Floor(value=chosen, source=f"settings, section gate{brief}")

    return Floors(
        pesq_wb=floor(gate.pesq_wb_min, base.gate.pesq_wb, BRIEF_PESQ_WB),
        stoi=floor(gate.stoi_min, base.gate.stoi, BRIEF_STOI),
        dnsmos_loss=floor(None, base.gate.dnsmos_loss),
        similarity_loss=floor(None, base.gate.similarity_loss),
        phone_errors_more=floor(None, base.gate.phone_errors_more),
        cer_more=floor(None, base.gate.cer_more),
        waived=base.gate.waived,
    )


def _judge(voice: str, stage: str, outcome: Outcome) -> None:
    from pipeline.io.ci import address_of

    record = outcome.record
    if stage == "validate" and not record.accepted:
        found = f"{record.speech_usable_s:.1f} s of good speech found, {record.speech_needed_s:.0f} s needed"
        details = [finding.detail or finding.code for finding in record.findings if finding.severity == "reject"]
        told = [detail for detail in dict.fromkeys(details) if detail != found]
        first = [] if record.lacks_texts_only else [found]
        raise VoiceRefused(
            f"{voice}: {'; '.join([*first, *told])}", hint=f"voxline validate {voice} lists every finding"
        )
    if stage == "evaluate" and not record.passed:
        page = address_of(outcome.folder / "report" / "index.html", os.environ)
        hint = f'{what_helps(record)}; listen: voxline say {voice} "TEXT" --candidate; look: {page}'
        raise GateBlocked(f"{voice}: {'; '.join(record.reasons)}", hint=hint)


# What a person can do about a check that blocks, by its evidence; the first that blocks is told.
WHAT_HELPS = {
    "base": "take a base that is trained and speaks the language (voxline bases list)",
    "copy_synthesis": "training does not change how the base copies these recordings: record them with less noise and"
    " echo, or take another --base",
    "resynthesis": "more recordings of the same kind, or fewer finetune.epochs, may help",
    "free_speech": "longer and cleaner recordings, with the speaker in an even voice, may help",
}


def what_helps(report: QualityReport) -> str:
    """The advice for what blocks this voice."""
    blocking = {check.evidence for check in report.checks if check.blocks}
    told = [advice for evidence, advice in WHAT_HELPS.items() if evidence in blocking]
    return told[0] if told else "see the report"


def open_line(name: str, flags: Mapping[str, Any], reporter: Reporter) -> Line:
    """Resolve a voice by name or path. ``flags``: ``{"section.key": value}`` as for the settings.

    Raises:
        UsageError, SettingsError, ConsentError, VoiceRefused: before any stage starts.
    """
    from pipeline.cli.common import prepare_machine, registry_of, repository_root, resolve_settings, typed
    from pipeline.cli.voices import find_voice_folder
    from pipeline.io.store import Store
    from pipeline.io.voices import content_digest, load_voice
    from pipeline.records.release import recipe_digest, release_version
    from pipeline.stages.plan import forbid_below_card

    root = repository_root()
    folder = find_voice_folder(name)
    voice = load_voice(folder)
    source = f"voices/{voice.name}/voice.yaml"
    overrides = voice.manifest.settings_overrides()
    resolved = resolve_settings(flags, voice_overrides=overrides, voice_source=source)
    settings = resolved.settings
    general = settings.voxline
    work = root / general.work
    with typed(flags.get("voxline.base")):
        base = open_base(general.base, general)
    forbid_below_card(resolved, base, source)
    digest = content_digest(folder, cache=work / voice.name / ".digests.json")
    recipe = recipe_digest(settings)
    machine = prepare_machine(general)
    return Line(
        voice=voice,
        settings=settings,
        base=base,
        content_digest=digest,
        recipe_digest=recipe,
        version=release_version(digest, base.digest, recipe),
        root=root,
        store=Store(work),
        registry=registry_of(settings, flag=flags.get("voxline.registry")),
        machine=machine,
        reporter=reporter,
    )


def open_base(name: str, general: GeneralSettings) -> Base:
    """A base by name, from the package or the repository's own folder. Raises SettingsError."""
    from pipeline.cli.common import governing_here, repository_root
    from pipeline.stages.plan import load_known_base

    root, governing = repository_root(), governing_here()
    return load_known_base(name, root, general, governing)


def run_voice(name: str, flags: Mapping[str, Any], reporter: Reporter, *, until: str = "publish") -> VoiceRun:
    """Walk the whole line for one voice. Every expected failure is an outcome; Ctrl-C is not."""
    run = VoiceRun(voice=Path(name).name)
    try:
        line = open_line(name, flags, reporter)
        run.voice, run.version = line.voice.name, line.version
        if until == "publish":
            line.walk(run)
        else:
            line.run_until(until, run)
            run.status = "done"
    except Interrupted:
        raise
    except PipelineError as error:
        run.fail(error)
    except OSError as error:
        from pipeline.io.files import explain

        told = explain(error)
        if told is None:
            raise
        run.fail(told)
    return run
