"""speak: a voice says a text: a published one, or what was trained here and is only to be listened to."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.encoders.bert import BertFeatures
from models.encoders.ge2e import SAMPLE_RATE_HZ, embed_speaker
from models.errors import ModelsError
from models.loading.bases import find_base
from models.loading.family import family_of
from models.loading.networks import load_bert, prepare_device
from models.loading.voices import AdapterFolders, load_voice
from models.machine.processor import ProcessorError, works
from models.phones.symbols import phones_to_ids
from models.speaking.options import Precision, choose_options
from models.speaking.voice import Manner, Reference, Sentence, Speech, SpokenSentence
from models.text2semantic.attempts import Watch, unwatched
from pipeline.errors import ConsentError, NoAccessError, SettingsError, UsageError
from pipeline.io.audio import AudioFileError, read_audio, resample, write_audio
from pipeline.io.files import read_regular
from pipeline.io.speakers import Speaker
from pipeline.records.job import Machine, Reporter
from pipeline.records.phones import Language
from pipeline.records.reference import REFERENCE_AUDIO, REFERENCE_RECORD, ReferenceClip
from pipeline.records.release import made_by
from pipeline.records.spoken import Spoken, SpokenPart
from pipeline.signal.speaker import speaker_mel
from pipeline.text.frontend import is_silent, phonemize, phonemize_for_synthesis
from pipeline.text.languages import known_language
from pipeline.text.speakable import check_scripts, check_text, choose_language
from pipeline.text.splitting import pause_after_s, split_sentences

MAX_RECORD_BYTES = 1 << 20
WRITTEN = (".wav", ".flac", ".ogg")
SAME_SPEAKER = 0.65  # GE2E cosine of one clip to another


@dataclass(frozen=True)
class Saying:
    """What is to be said, and how.

    Attributes:
        language: of the text; None: what its letters tell, else the voice's own.
        references: more recordings of the speaker; the voice sounds like the mean of them and the published clip.
        precision: of weights and of the decoder to waves on a CPU; the lighter ones are faster and lose a little.
    """

    text: str
    language: str | None = None
    seed: int = 0
    speed: float = 1.0
    references: tuple[Path, ...] = ()
    precision: Precision = "f32"


def speak(
    speaker: Speaker, saying: Saying, *, output: Path, machine: Machine, reporter: Reporter | None = None
) -> Spoken:
    """Say a text and write it to ``output``.

    Raises:
        UsageError: nothing to say, a language the base does not speak, a file name that is not written, or references
            for v3 and v4.
        TextRefused: words in a language the base does not speak.
        ConsentError: the consent has expired since the voice was published, or a reference is of somebody else.
        SettingsError: the base is not here, or is not the one the voice was trained on; or this processor does not
            have the precision.
    """
    if output.suffix.lower() not in WRITTEN:
        raise UsageError(f"{output}: written formats are {', '.join(WRITTEN)}", hint="-o out.wav")
    _check_consent(speaker)
    check_text(saying.text)
    try:
        said = _say(speaker, saying, machine, reporter)
    except ProcessorError as error:
        raise SettingsError(f"--precision {error}", hint=_other_precisions(saying.precision)) from error
    except ModelsError as error:
        raise SettingsError(str(error), hint="voxline bases list") from error
    speech, notes, seconds = said
    output.parent.mkdir(parents=True, exist_ok=True)
    write_audio(output, speech.wave.numpy(), speech.sample_rate_hz)
    duration_s = len(speech.wave) / speech.sample_rate_hz
    return Spoken(
        voice=speaker.voice,
        version=speaker.version,
        is_published=speaker.is_published,
        path=str(output),
        seed=saying.seed,
        sample_rate_hz=speech.sample_rate_hz,
        duration_s=round(duration_s, 3),
        real_time_factor=round(seconds / max(duration_s, 1e-3), 3),
        sentences=tuple(_part(sentence) for sentence in speech.sentences),
        notes=tuple(notes),
    )


def _part(sentence: SpokenSentence) -> SpokenPart:
    last = sentence.attempts[-1]
    return SpokenPart(
        start_s=round(sentence.start_s, 3),
        duration_s=round(sentence.duration_s, 3),
        attempts=len(sentence.attempts),
        problems=last.problems,
        phone_error_rate=None if last.coverage is None else last.coverage.error_rate,
        longest_gap=None if last.coverage is None else last.coverage.longest_gap,
    )


def _check_consent(speaker: Speaker) -> None:
    if speaker.consent.has_expired(datetime.now(UTC).date()):
        raise ConsentError(
            f"{speaker.voice}: consent expired on {speaker.consent.expires_on}",
            hint=f"voxline registry retire {speaker.voice}",
        )


def _say(
    speaker: Speaker, saying: Saying, machine: Machine, reporter: Reporter | None
) -> tuple[Speech, list[str], float]:
    base = find_base(speaker.base, machine.bases, machine.replaced_bases)
    if base.digest != speaker.base_digest:
        raise SettingsError(
            f"{speaker.voice} {speaker.version} was trained on another base {base.name}"
            f" ({speaker.base_digest[:12]}, here {base.digest[:12]})",
            hint=f"{made_by(speaker.voxline_version)} speaks it; here, train it again: voxline run {speaker.voice}",
        )
    if saying.references and not family_of(base).takes_several:
        raise UsageError(
            f"base {base.name} continues from one clip: --reference is for bases of the v2 family",
            hint="leave --reference out",
        )
    known = choose_language(saying.language, speaker.language, base.text.languages, base.name)
    check_scripts(saying.text, known, base.text.languages, base.name)
    device = prepare_device(machine.device, machine.threads)
    options, differences = choose_options(saying.precision, device)
    folders = AdapterFolders.inside(speaker.adapter)
    networks = load_voice(base, machine.cache, device, folders, options)
    bert = load_bert(base, machine.cache, networks.decoder.device)
    sentences, notes = read_sentences(saying.text, known, base.text.symbols, bert)
    notes += differences
    reference = read_reference(speaker.reference, base.text.symbols, bert)
    if saying.references:
        has_encoder = networks.embed_speaker is not None
        others = tuple(read_other(path, reference, speaker.voice, has_encoder) for path in saying.references)
        reference = replace(reference, others=others)
    clock = time.perf_counter()
    speech = networks.speak(
        sentences, reference, Manner(saying.seed, saying.speed), watch=_watch(speaker.voice, reporter)
    )
    seconds = time.perf_counter() - clock
    for number, sentence in enumerate(speech.sentences, 1):
        last = sentence.attempts[-1]
        if last.problems:
            notes.append(f"sentence {number} may be damaged ({', '.join(last.problems)}); try another --seed")
        elif len(sentence.attempts) > 1:
            notes.append(f"sentence {number} was generated {len(sentence.attempts)} times until it came out whole")
    return speech, notes, seconds


def _other_precisions(precision: Precision) -> str:
    others = [name for name in ("bf16", "int8") if name != precision and works(name)]
    return " or ".join(f"--precision {name}" for name in [*others, "f32"]) + "; voxline doctor says what there is"


def _watch(voice: str, reporter: Reporter | None) -> Watch[Any]:
    if reporter is None:
        return unwatched
    return lambda items, doing: reporter.track(items, description=f"{voice}: {doing}")


def read_sentences(
    text: str, language: Language, symbols: str, bert: BertFeatures | None = None
) -> tuple[list[Sentence], list[str]]:
    """Sentences as phone ids, and what could not be read. Raises UsageError where there is nothing to say."""
    sentences, unknown = [], {}
    for piece in split_sentences(text, language):
        sentence, unread = read_sentence(piece, language, symbols, bert)
        unknown.update(dict.fromkeys(unread))
        if sentence is not None:
            sentences.append(sentence)
    if not sentences:
        raise UsageError(f"nothing to pronounce in {text[:40]!r}", hint="give words in the voice's language")
    return sentences, [f"not spoken, nobody could read: {' '.join(unknown)}"] if unknown else []


def read_sentence(
    piece: str, language: Language, symbols: str, bert: BertFeatures | None = None
) -> tuple[Sentence | None, tuple[str, ...]]:
    """One sentence as phone ids, None where there is nothing to say, and what could not be read."""
    phones = phonemize_for_synthesis(piece, language)
    if is_silent(phones):
        return None, phones.unknown
    ids = torch.tensor(phones_to_ids(list(phones.symbols), symbols))
    features = bert.of(phones.bert_spans) if bert else None
    return Sentence(ids, features, pause_after_s(piece)), phones.unknown


def read_reference(folder: Path, symbols: str, bert: BertFeatures | None = None) -> Reference:
    """The clip a release is published with. Raises SettingsError where it is damaged."""
    try:
        record = ReferenceClip.model_validate_json(read_regular(folder / REFERENCE_RECORD, MAX_RECORD_BYTES))
    except (OSError, NoAccessError, ValueError) as error:
        raise SettingsError(f"{folder}: damaged: {error}", hint="voxline registry verify") from None
    audio = read_audio(folder / REFERENCE_AUDIO)
    phones = phonemize(record.text, known_language(record.language)) if bert else None
    if phones is not None and phones.symbols != record.symbols:
        raise SettingsError(
            f"{folder}: {record.text[:40]!r} is read differently here than where the voice was published",
            hint="install the versions of the language's libraries that pyproject.toml names, or train the voice again",
        )
    return Reference(
        wave=torch.from_numpy(audio.mono),
        sample_rate_hz=audio.sample_rate_hz,
        phones=torch.tensor(phones_to_ids(list(record.symbols), symbols)),
        bert=bert.of(phones.bert_spans) if bert and phones else None,
        speaker=None if record.speaker is None else torch.tensor(record.speaker),
    )


def read_other(path: Path, published: Reference, voice: str, has_encoder: bool) -> Reference:
    """One more recording to speak like; the base embeds it where it ``has_encoder``, else GE2E does.

    Raises:
        ConsentError: it does not sound like the published clip; the consent is of that speaker only.
    """
    try:
        audio = read_audio(path)
    except AudioFileError as error:
        raise UsageError(error.message, hint="give a recording of the speaker as --reference") from None
    vector, known = (_embed(one, rate) for one, rate in ((audio.mono, audio.sample_rate_hz), _samples(published)))
    similarity = float(vector @ known)
    if similarity < SAME_SPEAKER:
        raise ConsentError(
            f"{path}: somebody else (speaker similarity {similarity:.2f}, at least {SAME_SPEAKER})",
            hint=f"the consent of {voice} covers its speaker only; give recordings of the same person",
        )
    return Reference(torch.from_numpy(audio.mono), audio.sample_rate_hz, speaker=None if has_encoder else vector)


def _samples(reference: Reference) -> tuple[npt.NDArray[np.float32], int]:
    return reference.wave.numpy(), reference.sample_rate_hz


def _embed(samples: npt.NDArray[np.float32], sample_rate_hz: int) -> torch.Tensor:
    return embed_speaker(torch.from_numpy(speaker_mel(resample(samples, sample_rate_hz, SAMPLE_RATE_HZ))))
