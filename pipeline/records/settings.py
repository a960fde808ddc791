"""What can be set, per stage: the keys of ``pipeline.toml``, of ``voice.yaml`` and of ``VOXLINE_<SECTION>_<KEY>``.

Defaults are the design's. Every number carries its unit in its name.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, create_model

from pipeline.records.base import Record
from pipeline.records.metrics import Metric, settable

PublicKey = Annotated[str, StringConstraints(pattern=r"^ed25519:[A-Za-z0-9+/]{43}=$")]

SWITCHES = ("avx512", "bf16", "int8", "onednn")


def switched_off(processor: str) -> tuple[str, ...]:
    """The names in `no bf16, no AVX-512`; none of `auto`. Raises ValueError for anything else."""
    if processor.strip().lower() == "auto":
        return ()
    names = []
    for part in processor.lower().replace("-", "").split(","):
        no, _, name = part.strip().partition(" ")
        if no != "no" or name.strip() not in SWITCHES:
            raise ValueError(f"write auto, or what to do without: {', '.join(f'no {name}' for name in SWITCHES)}")
        names.append(name.strip())
    return tuple(names)


def _switches(processor: str) -> str:
    return ", ".join(f"no {name}" for name in switched_off(processor)) or "auto"


def _network(text: str) -> str:
    ipaddress.ip_network(text, strict=False)
    return text


NetworkText = Annotated[str, AfterValidator(_network)]


class GeneralSettings(Record):
    """Where things lie and which base is used; section ``[voxline]`` of pipeline.toml."""

    voices: str = Field("voices", description="Folder with one folder per voice.")
    work: str = Field("work", description="Folder for intermediate results; safe to delete.")
    registry: str = Field(
        "file:registry",
        description="Where releases are published: file:FOLDER, git:REMOTE, s3://BUCKET/FOLDER or hf://ORGANISATION.",
    )
    base: str = Field("nano", description="Base model of voices that name none.")
    bases: str = Field("bases", description="Folder of the repository's own bases, beside those of the package.")
    replaced_bases: tuple[str, ...] = Field(
        (), description="Packaged bases that a base of the same name in that folder replaces."
    )
    cache: str = Field("~/.cache/voxline", description="Folder for pulled bases; shared by all repositories.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where networks run. auto takes CUDA where there is one."
    )
    threads: int = Field(0, ge=0, description="CPU threads for networks; 0 leaves the choice to torch.")
    processor: Annotated[str, AfterValidator(_switches)] = Field(
        "auto",
        description="auto tries what the processor can; `no bf16, no avx512, no int8, no onednn` does without these.",
    )

    @property
    def cache_folder(self) -> Path:
        """``cache`` with ``~`` spelled out."""
        return Path(self.cache).expanduser()


class RegistrySettings(Record):
    """Whom to believe about what a registry holds; section ``[registry]``. docs/registry.md says what that proves."""

    trusted_keys: tuple[PublicKey, ...] = Field(
        (),
        description="Public keys, as `voxline keys list` shows them; releases and moves that none of them signed are"
        " refused. Empty: signatures must be valid where there are any, and none is required.",
    )


class ValidateSettings(Record):
    """Limits of the recordings; section ``[validate]``. docs/notes/validation.md says where each limit comes from."""

    speech_min_s: float = Field(60.0, ge=1.0, description="Seconds of good speech a voice needs.")
    target_rms_dbfs: float = Field(-16.0, ge=-40.0, le=-6.0, description="Speech level after normalisation.")
    true_peak_max_dbfs: float = Field(-1.0, ge=-12.0, le=0.0, description="Highest true peak after normalisation.")
    denoise: Literal["auto", "on", "off"] = Field(
        "auto", description="DeepFilterNet: auto = when the measured noise asks for it."
    )
    denoise_below_snr_db: float = Field(
        20.0, ge=0.0, le=60.0, description="auto: clips noisier than this are denoised."
    )
    denoise_weights: str = Field(
        "", description="Folder with DeepFilterNet; empty: what `voxline artifacts pull deepfilternet3` left."
    )
    dnsmos: bool = Field(True, description="Ask DNSMOS P.835 for its opinion of every clip.")
    speakers: bool = Field(True, description="Compare speakers by GE2E embeddings.")
    strict: bool = Field(False, description="Refuse what could not be measured.")
    file_max_bytes: int = Field(1 << 30, ge=1024, description="Larger files are not read.")
    file_max_s: float = Field(1800.0, gt=0, description="Longer files are not read.")
    clip_min_s: float = Field(0.8, gt=0, description="Shorter speech does not count as a sentence.")
    clip_max_s: float = Field(30.0, gt=2, description="Longer files are cut at pauses.")
    slice_max_s: float = Field(12.0, gt=2, description="Longest slice of a file that is cut.")
    pause_max_s: float = Field(0.8, gt=0.1, description="Longer pauses are shortened to this.")
    sample_rate_min_hz: int = Field(16000, ge=8000, description="Lowest sample rate.")
    bandwidth_min_hz: float = Field(5500.0, ge=1000.0, description="A recording must hold sound up to this frequency.")
    snr_min_db: float = Field(10.0, ge=-10.0, le=60.0, description="Speech over the noise of its pauses.")
    snr_warn_db: float = Field(15.0, ge=-10.0, le=60.0, description="Below this a warning is given.")
    range_snr_min_db: float = Field(13.0, ge=0.0, le=60.0, description="Loud speech over the dips within speech.")
    rt60_max_s: float = Field(0.8, gt=0, description="Longest reverberation time.")
    rt60_warn_s: float = Field(0.5, gt=0, description="Above this a warning is given.")
    clipped_share_max: float = Field(0.002, ge=0, le=1, description="Clipped samples among the loud ones.")
    silence_dbfs: float = Field(
        -65.0, le=-20.0, description="Speech quieter than this is lost in the converter's noise."
    )
    low_level_dbfs: float = Field(
        -50.0, le=-20.0, description="Speech quieter than this is amplified, and the report says so."
    )
    dnsmos_background_min: float = Field(2.0, ge=1.0, le=5.0, description="Lowest DNSMOS opinion of the background.")
    dnsmos_overall_warn: float = Field(
        2.2, ge=1.0, le=5.0, description="Below this overall opinion a warning is given."
    )
    speaker_similarity_min: float = Field(0.70, ge=0.0, le=1.0, description="Cosine of a clip to the voice's mean.")
    within_similarity_min: float = Field(0.70, ge=0.0, le=1.0, description="Cosine of one part of a clip to the other.")
    acoustic: bool = Field(True, description="Compare English texts with the phones that base nano's encoder hears.")
    phone_error_max: float = Field(0.75, gt=0, description="Phone errors per phone of the text; more is another text.")
    phones_per_s_min: float = Field(3.5, gt=0, description="Slowest plausible reading, phones per second of speech.")
    phones_per_s_max: float = Field(20.0, gt=0, description="Fastest plausible reading.")


class NotifySettings(Record):
    """Who is told that a voice was refused; section ``[notify]``. Secrets are environment variables, see docs."""

    webhook_url: str = Field(
        "", description="POST the report there as JSON, signed with VOXLINE_NOTIFY_SECRET; https, no redirects."
    )
    webhook_allowed: tuple[NetworkText, ...] = Field(
        (), description="Addresses or networks a webhook may reach though they are not public, e.g. 10.2.0.0/16."
    )
    email_to: tuple[str, ...] = Field((), description="Addresses that get the report by e-mail.")
    email_from: str = Field("", description="Sender; the first recipient where empty.")
    smtp_host: str = Field("localhost", description="Mail server.")
    smtp_port: int = Field(25, ge=1, le=65535)
    smtp_starttls: bool = Field(False, description="Encrypt before anything is sent.")
    smtp_user: str = Field("", description="User; the password is VOXLINE_SMTP_PASSWORD.")
    command: tuple[str, ...] = Field((), description="Program and arguments; it gets the JSON on standard input.")
    command_variables: tuple[str, ...] = Field(
        (), description="Environment variables the command is given besides PATH, HOME and the like."
    )


class ExtractSettings(Record):
    """Section ``[extract]``: nothing to set yet; clips are extracted one by one."""


class FinetuneSettings(Record):
    """LoRA training; section ``[finetune]``, overridable in voice.yaml."""

    rank: int = Field(8, ge=1, le=256, description="LoRA rank.")
    alpha: float = Field(16.0, gt=0, description="LoRA scale; the update is multiplied by alpha / rank.")
    dropout: float = Field(0.0, ge=0.0, le=0.9)
    epochs: int = Field(12, ge=1, le=1000, description="Passes over the training clips, at most.")
    batch_size: int = Field(8, ge=1, le=256, description="Effective batch: clips per optimiser step.")
    synthesizer_learning_rate: float = Field(5e-4, gt=0, le=1.0)
    # Measured on nano, 8 free sentences: phone errors 0.57 bare, 0.56 at 1e-4, 0.60 at 3e-4, 0.67 at 1e-3.
    text2semantic_learning_rate: float = Field(1e-4, gt=0, le=1.0)
    heldout_clips: int = Field(3, ge=1, le=50, description="Clips never trained on; the gate is measured on them.")
    checkpoint_every_s: float = Field(20.0, gt=0, description="Seconds between checkpoints.")
    seed: int = Field(20260109, ge=0)


class _GateMinima(Record):
    """Minima of the quality gate; section ``[gate]``. voice.yaml can raise them, never lower them.

    A value of None takes the floor that the base's card declares, or that of the official bases where it declares none.
    """

    def minimum(self, metric: Metric) -> float | None:
        """What is asked of a metric; None leaves it to the base's card."""
        chosen: float | None = getattr(self, metric.setting) if metric.setting else None
        return chosen


def _minimum(metric: Metric) -> Any:
    low, high = metric.bounds
    return (float | None, Field(None, ge=low, le=high, description=metric.asks))


if TYPE_CHECKING:  # a model whose fields are the rows
    GateSettings = _GateMinima
else:
    GateSettings = create_model(
        "GateSettings",
        __base__=_GateMinima,
        __doc__=_GateMinima.__doc__,
        __module__=__name__,
        **{metric.setting: _minimum(metric) for metric in settable()},
    )


class EvaluateSettings(Record):
    """Section ``[evaluate]``."""

    sentences: int = Field(
        12, ge=1, le=200, description="Free sentences spoken for the report; fewer make its verdict a matter of luck."
    )
    seeds: int = Field(1, ge=1, le=20, description="Seeds per sentence.")
    recogniser: str = Field(
        "", description="Whisper or CTC model for character errors: a folder, or its name on the hub; empty: none."
    )


class PublishSettings(Record):
    """Section ``[publish]``."""

    channel: Literal["candidate", "production"] = Field(
        "production", description="Channel that a release is put on when it passes."
    )


class ServeSettings(Record):
    """The server of published voices; section ``[serve]``. docs/serving.md."""

    host: str = Field("127.0.0.1", description="Address to listen on; another than this machine's own needs API keys.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    poll_s: float = Field(0.5, ge=0.05, le=1.0, description="Seconds between two looks at the registry for a voice.")
    rows: int = Field(32, ge=2, le=256, description="Candidates of sentences that are drawn at once.")
    adapter_mb: int = Field(256, ge=1, description="Memory for voices; those used least recently leave it.")
    queue: int = Field(64, ge=1, le=10_000, description="Requests under way and waiting; one more gets 429.")
    deadline_s: float = Field(120.0, ge=1.0, description="Longest time from a request to the end of its answer.")
    drain_s: float = Field(30.0, ge=0.0, le=600.0, description="After SIGTERM, time for requests under way to end.")
    characters: int = Field(4096, ge=1, le=20_000, description="Longest text of one request.")
    cache_mb: int = Field(
        0, ge=0, description="Answers kept in memory; 0: none. Never those of voices whose consent has a scope."
    )
    keys: str = Field("", description="File of API keys; empty: serve-keys.json in the user's configuration folder.")


class Settings(Record):
    """All sections, resolved. A stage is handed its own section only."""

    voxline: GeneralSettings = GeneralSettings()
    registry: RegistrySettings = RegistrySettings()
    validate_: ValidateSettings = Field(ValidateSettings(), alias="validate")
    notify: NotifySettings = NotifySettings()
    extract: ExtractSettings = ExtractSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    gate: GateSettings = GateSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    publish: PublishSettings = PublishSettings()
    serve: ServeSettings = ServeSettings()
