"""What can be set, per stage: the keys of ``pipeline.toml``, of ``voice.yaml`` and of ``VOXLINE_<SECTION>_<KEY>``.

Defaults are the design's. Every number carries its unit in its name.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.records.base import Record


class GeneralSettings(Record):
    """Where things lie and which base is used; section ``[voxline]`` of pipeline.toml."""

    voices: str = Field("voices", description="Folder with one folder per voice.")
    work: str = Field("work", description="Folder for intermediate results; safe to delete.")
    registry: str = Field(
        "file:registry", description="Where releases are published: file:DIR, s3://bucket/prefix or hf://org."
    )
    base: str = Field("nano", description="Base model of voices that name none.")
    bases: str = Field("bases", description="Folder of the repository's own bases, beside those of the package.")
    cache: str = Field("~/.cache/voxline", description="Folder for pulled bases; shared by all repositories.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where networks run. auto takes CUDA where there is one."
    )
    threads: int = Field(0, ge=0, description="CPU threads for networks; 0 leaves the choice to torch.")


class ValidateSettings(Record):
    """Limits of the recordings; section ``[validate]``."""

    speech_min_s: float = Field(60.0, ge=1.0, description="Seconds of good speech a voice needs.")
    target_rms_dbfs: float = Field(-16.0, ge=-40.0, le=-6.0, description="Speech level after normalisation.")
    true_peak_max_dbfs: float = Field(-1.0, ge=-12.0, le=0.0, description="Highest true peak after normalisation.")
    denoise: Literal["auto", "on", "off"] = Field(
        "auto", description="DeepFilterNet: auto = when the measured noise asks for it."
    )
    strict: bool = Field(False, description="Refuse what could not be measured.")


class ExtractSettings(Record):
    """Section ``[extract]``."""

    batch_s: float = Field(60.0, gt=0, description="Seconds of audio in one batch.")


class FinetuneSettings(Record):
    """LoRA training; section ``[finetune]``, overridable in voice.yaml."""

    rank: int = Field(8, ge=1, le=256, description="LoRA rank.")
    alpha: float = Field(16.0, gt=0, description="LoRA scale; the update is multiplied by alpha / rank.")
    dropout: float = Field(0.0, ge=0.0, le=0.9)
    epochs: int = Field(12, ge=1, le=1000, description="Passes over the training clips, at most.")
    batch_size: int = Field(8, ge=1, le=256, description="Effective batch: clips per optimiser step.")
    synthesizer_learning_rate: float = Field(5e-4, gt=0, le=1.0)
    text2semantic_learning_rate: float = Field(1e-3, gt=0, le=1.0)
    heldout_clips: int = Field(3, ge=1, le=50, description="Clips never trained on; the gate is measured on them.")
    checkpoint_every_s: float = Field(20.0, gt=0, description="Seconds between checkpoints.")
    seed: int = Field(20260109, ge=0)


class GateSettings(Record):
    """Minima of the quality gate; section ``[gate]``. voice.yaml can raise them, never lower them.

    A value of None takes the floor that the base's card declares, or the brief's default where it declares none.
    """

    pesq_wb_min: float | None = Field(
        None, ge=1.0, le=4.64, description="Copy-synthesis PESQ-WB on held-out clips; brief: 3.5."
    )
    stoi_min: float | None = Field(
        None, ge=0.0, le=1.0, description="Copy-synthesis STOI on held-out clips; brief: 0.85."
    )


class EvaluateSettings(Record):
    """Section ``[evaluate]``."""

    sentences: int = Field(4, ge=1, le=200, description="Free sentences spoken for the report.")
    seeds: int = Field(1, ge=1, le=20, description="Seeds per sentence.")


class PublishSettings(Record):
    """Section ``[publish]``."""

    channel: Literal["candidate", "production"] = Field(
        "production", description="Channel that a passed release is put on."
    )


class Settings(Record):
    """All sections, resolved. A stage is handed its own section only."""

    voxline: GeneralSettings = GeneralSettings()
    validate_: ValidateSettings = Field(ValidateSettings(), alias="validate")
    extract: ExtractSettings = ExtractSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    gate: GateSettings = GateSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    publish: PublishSettings = PublishSettings()
