"""publish: a voice that passed its gate becomes a release: files first, record next, channel last."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.loading.bases import Base
from pipeline.errors import GateBlocked
from pipeline.io.card import render_card
from pipeline.io.files import write_atomically
from pipeline.io.registry import Registry
from pipeline.io.store import copy_checked, digest_of_marks
from pipeline.io.voices import Voice, check_consent
from pipeline.records.adapter import ADAPTER_FOLDER, PARTS
from pipeline.records.feature import FeatureRecord
from pipeline.records.job import Input
from pipeline.records.quality import QualityReport
from pipeline.records.release import Channel, Provenance, Release

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True)
class Publication:
    """What is to be published, and where it comes from."""

    voice: Voice
    version: str
    content_digest: str
    recipe_digest: str
    base: Base
    channel: Channel
    provenance: Provenance
    voxline_version: str


def publish(what: Publication, inputs: Mapping[str, Input[Any]], registry: Registry) -> Release:
    """Store the release and move its channel.

    Raises:
        GateBlocked: no passed report of exactly this version, and of this very adapter.
        ConsentError: the consent ran out meanwhile.
        DamagedResult: a file to be published is not the one that a stage left.
    """
    check_consent(what.voice.manifest, what.voice.name)
    report = passed_report(what, inputs)
    features: FeatureRecord = inputs["extract"].record
    release = build_release(what, report)
    with tempfile.TemporaryDirectory() as folder:
        card = Path(folder) / "card.md"
        text = render_card(
            release, report, what.voice.manifest, what.base.description, what.base.license.name, features
        )
        write_atomically(card, text.encode())
        files = _checked_copies(inputs, Path(folder) / "files")
        return registry.publish(
            what.voice.name,
            release,
            {**files, "card.md": card},
            channel=what.channel,
            actor=what.provenance.author or "unknown",
        )


def passed_report(what: Publication, inputs: Mapping[str, Input[Any]]) -> QualityReport:
    """The report of this very version, if it passed. Raises GateBlocked."""
    if "evaluate" not in inputs:
        raise GateBlocked(f"{what.voice.name}: was never evaluated", hint=f"voxline evaluate {what.voice.name}")
    report: QualityReport = inputs["evaluate"].record
    if (report.voice, report.version, report.base_digest) != (what.voice.name, what.version, what.base.digest):
        raise GateBlocked(
            f"{what.voice.name} {what.version}: the report is of {report.voice} {report.version}",
            hint=f"voxline evaluate {what.voice.name}",
        )
    if not report.passed:
        raise GateBlocked(f"{what.voice.name} {what.version}: {'; '.join(report.reasons)}")
    if inputs["evaluate"].read.get("finetune") != digest_of_marks(inputs["finetune"].files):
        raise GateBlocked(
            f"{what.voice.name} {what.version}: the report judged another adapter than the one trained now",
            hint=f"voxline evaluate {what.voice.name}",
        )
    return report


def build_release(what: Publication, report: QualityReport) -> Release:
    """The record of the release; the registry adds the files."""
    manifest = what.voice.manifest
    return Release(
        voice=what.voice.name,
        version=what.version,
        created_at=datetime.now(UTC).replace(microsecond=0),
        base=what.base.name,
        content_digest=what.content_digest,
        base_digest=what.base.digest,
        recipe_digest=what.recipe_digest,
        language=manifest.language,
        license=manifest.license,
        copyright_notice=manifest.copyright_notice,
        consent=manifest.consent,
        review=manifest.review,
        provenance=what.provenance,
        metrics=report.metrics,
        voxline_version=what.voxline_version,
    )


def _checked_copies(inputs: Mapping[str, Input[Any]], target: Path) -> dict[str, Path]:
    """Path inside the release -> copy of the file: both adapters, the reference clip, the report.

    Copied first and compared then, so that nothing can be swapped between the look and the publication.
    """
    adapters = [f"{ADAPTER_FOLDER}/{part}/{name}" for part in PARTS for name in ADAPTER_FILES]
    chosen = {"finetune": adapters, "evaluate": sorted(inputs["evaluate"].files)}
    for stage, names in chosen.items():
        for name in names:
            copy_checked(inputs[stage].folder, name, inputs[stage].files, target / name)
    return {name: target / name for names in chosen.values() for name in names}
