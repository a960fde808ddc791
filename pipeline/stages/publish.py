"""publish: a voice that passed its gate becomes a release: files first, record next, channel last."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from models.loading.bases import Base, find_base
from pipeline.errors import GateBlocked
from pipeline.io.card import render_card
from pipeline.io.files import write_atomically
from pipeline.io.store import copy_checked, digest_of_marks
from pipeline.io.voices import check_consent
from pipeline.records.adapter import ADAPTER_FOLDER, PARTS, AdapterRecord
from pipeline.records.clip_report import ClipReport
from pipeline.records.feature import FeatureRecord
from pipeline.records.job import Input, Job
from pipeline.records.quality import QualityReport
from pipeline.records.release import Channel, Provenance, Release
from pipeline.records.settings import PublishSettings
from pipeline.records.voice import VoiceManifest

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
CARD_FILE = "card.md"


class Inputs(TypedDict):
    """All stages before: the adapters and the report are published, and all have to lie where it runs."""

    validate: Input[ClipReport]
    extract: Input[FeatureRecord]
    finetune: Input[AdapterRecord]
    evaluate: Input[QualityReport]


class Parameters(TypedDict):
    """``content`` and ``recipe`` are digests; ``manifest`` is a ``VoiceManifest`` as plain data."""

    base: str
    version: str
    content: str
    recipe: str
    manifest: dict[str, Any]
    channel: Channel


PublishJob = Job[PublishSettings, Inputs, Parameters]


def work(job: PublishJob) -> Release:
    """Lay the release's files together, store it and move its channel.

    Raises:
        GateBlocked: no passed report of exactly this version, and of this very adapter.
        ConsentError: the consent ran out meanwhile.
        DamagedResult: a file to be published is not the one that a stage left.
    """
    destination = job.destination
    if destination is None:
        raise ValueError("publish needs a registry")
    manifest = VoiceManifest.model_validate(job.parameters["manifest"])
    check_consent(manifest, job.voice)
    base = find_base(job.parameters["base"], job.machine.bases, job.machine.replaced_bases)
    report = passed_report(job, base)
    release = build_release(job, base, manifest, report, destination.provenance)
    channel = release.channel(job.parameters["channel"])
    card = render_card(release, report, manifest, base.description, base.license.name, job.inputs["extract"].record)
    write_atomically(job.folder / CARD_FILE, card.encode())
    return destination.registry.publish(
        job.voice,
        release,
        {**_checked_copies(job.inputs, job.folder), CARD_FILE: job.folder / CARD_FILE},
        channel=channel,
        actor=destination.provenance.author or "unknown",
        reason="; ".join(report.review),
    )


def passed_report(job: PublishJob, base: Base) -> QualityReport:
    """The report of this very version, if it passed. Raises GateBlocked."""
    version = job.parameters["version"]
    report = job.inputs["evaluate"].record
    if (report.voice, report.version, report.base_digest) != (job.voice, version, base.digest):
        raise GateBlocked(
            f"{job.voice} {version}: the report is of {report.voice} {report.version}",
            hint=f"voxline evaluate {job.voice}",
        )
    if not report.passed:
        raise GateBlocked(f"{job.voice} {version}: {'; '.join(report.reasons)}")
    if job.inputs["evaluate"].read.get("finetune") != digest_of_marks(job.inputs["finetune"].files):
        raise GateBlocked(
            f"{job.voice} {version}: the report judged another adapter than the one trained now",
            hint=f"voxline evaluate {job.voice}",
        )
    return report


def build_release(
    job: PublishJob, base: Base, manifest: VoiceManifest, report: QualityReport, provenance: Provenance
) -> Release:
    """The record of the release; the registry adds the files."""
    return Release(
        voice=job.voice,
        version=job.parameters["version"],
        created_at=datetime.now(UTC).replace(microsecond=0),
        base=base.name,
        content_digest=job.parameters["content"],
        base_digest=base.digest,
        recipe_digest=job.parameters["recipe"],
        language=manifest.language,
        license=manifest.license,
        copyright_notice=manifest.copyright_notice,
        consent=manifest.consent,
        review="required" if report.review else manifest.review,
        provenance=provenance,
        metrics=report.metrics,
        voxline_version=job.voxline_version,
    )


def _checked_copies(inputs: Inputs, target: Path) -> dict[str, Path]:
    """Path inside the release -> copy of the file: both adapters, the reference clip, the report.

    Copied first and compared then, so that nothing can be swapped between the look and the publication.
    """
    adapters = [f"{ADAPTER_FOLDER}/{part}/{name}" for part in PARTS for name in ADAPTER_FILES]
    trained, judged = inputs["finetune"], inputs["evaluate"]
    chosen = {**dict.fromkeys(adapters, trained), **dict.fromkeys(sorted(judged.files), judged)}
    for name, source in chosen.items():
        copy_checked(source.folder, name, source.files, target / name)
    return {name: target / name for name in chosen}
