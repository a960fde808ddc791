"""evaluate: is this voice good enough to be published?

Copy-synthesis and resynthesis of recordings that training never saw, and sentences nobody recorded; every measurement
goes to `signal/gate.py`, which decides. The report is written whatever the verdict.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from pipeline.errors import TransientError
from pipeline.io.answers import remembered
from pipeline.io.audio import decode_listened, encode_audio
from pipeline.io.files import write_atomically
from pipeline.io.report import Sound, render_html
from pipeline.io.report_sounds import sentences_of
from pipeline.io.report_summary import SUMMARY_FILE, render_junit, render_markdown
from pipeline.records.job import Served
from pipeline.records.metrics import METRICS
from pipeline.records.quality import DATA_FILE, JUNIT_FILE, REPORT_FILE, AudioFile, Check, QualityReport, Sample
from pipeline.records.reference import REFERENCE_AUDIO, REFERENCE_FOLDER, REFERENCE_RECORD
from pipeline.signal import gate
from pipeline.stages.evaluate.ears import Ears, Speaker, Utterance, open_ears
from pipeline.stages.evaluate.floors import explain
from pipeline.stages.evaluate.measures import Measuring, Resounded, heard_faults, measure, take
from pipeline.stages.evaluate.studio import (
    AS_PUBLISHED,
    Casting,
    EvaluateJob,
    Studio,
    Wave,
    base_of,
    resound,
    speak_sentences,
)

LIKENESS = "free_speech.likeness"


@contextmanager
def single_threaded() -> Iterator[None]:
    """One thread for each network: many small clips are heard side by side, which is quicker than each in pieces."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def listen(
    job: EvaluateJob, studio: Studio, ears: Ears | None = None, casting: Casting = AS_PUBLISHED
) -> tuple[Resounded, Measuring]:
    """The voice through every path and in sentences of its own, and everybody who listens to it.

    Args:
        ears: those that know its recordings already.

    Raises TransientError when stopped.
    """
    clips = {}
    for index in job.reporter.track(studio.heldout, description=f"{job.voice}: resynthesis"):
        if job.is_stopping():
            raise TransientError("stopped while measuring", hint="run again")
        clips[studio.features.clips[index].clip] = resound(studio, index, job.settings.seeds + index)
    spoken = speak_sentences(studio, job, casting)
    takes = take(studio, clips, spoken, ears or ears_of(job, studio))
    hear(job, takes.ears, [*takes.spoken.values(), *takes.recorded.values()])
    return clips, takes


def ears_of(job: EvaluateJob, studio: Studio) -> Ears:
    """Everybody who listens to this voice."""
    recorded = remembered(job.machine.answers)
    return open_ears(studio, job.parameters["language"], job.settings.recogniser, _threads(job), recorded)


def hear(job: EvaluateJob, ears: Ears, said: Iterable[Utterance]) -> None:
    """Let every ear hear all of it, several sounds side by side; what was heard is then remembered."""
    with single_threaded():
        ears.listen(said, _threads(job))
    ears.recorded.save()


def _threads(job: EvaluateJob) -> int:
    return job.machine.threads or os.cpu_count() or 1


def work(job: EvaluateJob) -> QualityReport:
    """Measure everything, decide, and write report/, sounds/ and reference/.

    A blocked gate is a report, not an error. Raises TransientError when stopped.
    """
    clock = time.perf_counter()
    if job.machine.threads:
        torch.set_num_threads(job.machine.threads)
    base = base_of(job)
    studio, floors = Studio(job, base), explain(job.parameters["floors"], job.parameters["waived"], base)
    clips, takes = listen(job, studio)
    rows = job.reporter.track(METRICS.values(), description=f"{job.voice}: measuring")
    checks = gate.judge_all({metric.id: measure(metric, takes) for metric in rows}, floors)
    checks = [_naming_strangers(check, takes.ears.speaker) for check in checks]
    passed, reasons = gate.verdict(checks)
    samples, sounds = _samples(clips, takes, studio, job.served)
    report = QualityReport(
        voice=job.voice,
        version=job.parameters["version"],
        base=base.name,
        base_digest=base.digest,
        language=job.parameters["language"],
        passed=passed,
        reasons=reasons,
        floors=floors,
        checks=tuple(checks),
        samples=tuple(samples),
        heldout_clips=studio.adapter.heldout_clips,
        duration_s=round(time.perf_counter() - clock, 2),
        review=gate.asks_for_review(checks),
        base_speech=base.gate.speech,
        ears=takes.ears.digests,
    )
    report = gate.with_comparison(report, job.served.report if job.served else None)
    for check in report.checks:
        if check.evidence != "base" and check.limit is not None:
            job.reporter.log(f"{job.voice}: {check.line}")
    _write(job, studio, report, sounds)
    return report


def _naming_strangers(check: Check, speaker: Speaker | None) -> Check:
    """Where a voice is not like its recordings, the clips that are not like the others are told first."""
    if check.id != LIKENESS or not check.blocks or speaker is None or not speaker.strange:
        return check
    told = f"these clips sound like another person: {', '.join(speaker.strange)}; take them out"
    return check.model_copy(update={"advice": told})


def _samples(
    clips: Resounded,
    takes: Measuring,
    studio: Studio,
    served: Served | None,
) -> tuple[list[Sample], dict[str, Sound]]:
    """What the report plays; every sound is also a file."""
    sounds: dict[str, Sound] = {}

    def sound(name: str, role: str, title: str, wave: Wave) -> AudioFile:
        path = f"sounds/{name}-{role}.flac"
        sounds[path] = Sound(wave, studio.features.sample_rate_hz)
        return AudioFile(role=role, title=title, path=path)

    samples = []
    for number, index in enumerate(studio.heldout, 1):
        name, clip = f"heldout-{number:02d}", studio.features.clips[index]
        made = clips[clip.clip]
        recording = sound(name, "recording", "Recording", studio.wave(index))
        copy = sound(name, "copy", "Copy-synthesis", made["copy"])
        samples.append(Sample(name=clip.clip, evidence="copy_synthesis", text=clip.text, sounds=(recording, copy)))
        paths = (
            recording,
            sound(name, "adapted", "From tokens, with adapter", made["adapted"]),
            sound(name, "bare", "From tokens, bare base", made["bare"]),
        )
        samples.append(Sample(name=clip.clip, evidence="resynthesis", text=clip.text, sounds=paths))
    before = _said_in_production(served)
    for name, said in takes.spoken.items():
        if said.sentence is None:
            continue
        played = [sound(f"free-{name}", "spoken", "Spoken", said.sentence.wave)]
        if served is not None and (name, said.text) in before:
            path = f"sounds/free-{name}-production.ogg"
            sounds[path] = before[name, said.text]
            played.append(AudioFile(role="production", title=f"In production, {served.report.version}", path=path))
        samples.append(
            Sample(
                name=name,
                evidence="free_speech",
                text=said.text,
                sounds=tuple(played),
                notes=(*said.sentence.problems, *heard_faults(said, takes.ears)),
                heard=takes.ears.read(said) or "",
            )
        )
    return samples, sounds


def _said_in_production(served: Served | None) -> dict[tuple[str, str], Sound]:
    """Name and text -> how the release that production serves says it, of the sentences that its page plays."""
    if served is None:
        return {}
    texts = {sample.name: sample.text for sample in served.report.samples if sample.evidence == "free_speech"}
    found = {}
    for name, data in sentences_of(served.page).items():
        sound = decode_listened(data)
        if name in texts and sound is not None:
            found[name, texts[name]] = Sound(*sound, encoded=data)
    return found


def _write(job: EvaluateJob, studio: Studio, report: QualityReport, sounds: dict[str, Sound]) -> None:
    for path, sound in sounds.items():
        samples = np.clip(sound.samples, -1.0, 1.0).astype(np.float32)
        write_atomically(job.folder / path, sound.encoded or encode_audio(samples, sound.sample_rate_hz))
    write_atomically(job.folder / SUMMARY_FILE, render_markdown(report).encode())
    page = render_html(report, studio.adapter, sounds, job.voxline_version)
    write_atomically(job.folder / REPORT_FILE, page.encode())
    write_atomically(job.folder / JUNIT_FILE, render_junit(report))
    write_atomically(job.folder / DATA_FILE, report.model_dump_json(indent=1).encode())
    clip, folder = studio.reference_clip(), job.folder / REFERENCE_FOLDER
    write_atomically(folder / REFERENCE_AUDIO, encode_audio(studio.wave(studio.reference), clip.sample_rate_hz))
    write_atomically(folder / REFERENCE_RECORD, clip.model_dump_json(indent=1).encode())
