"""How well a small base speaks: the table of its model card, on any voice folders.

    python benchmarks/nano.py --voices ../shared/data/voices/en_vctk_p226 ../shared/data/voices/en_libri_533
    python benchmarks/nano.py --table docs/nano.md     # the table again, from the numbers stored before

A voice folder has `metadata.csv` with `file|language|text` (or `file_name,text`); its speaker must not have been
trained on. Phone error rates are of the words that PocketSphinx hears, spelled by the dictionary. It gave the training
data their phone times, but taught no network to speak; human recordings of the same speaker stand beside. "By the
gate's ear" is nano's own content encoder, the judge of `voxline evaluate`, and the only one for Mandarin.
Speakers are compared by GE2E alone: no installed package brings a second encoder of speakers with its weights.
Signals are compared at 16 kHz.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)  # this file's name would hide nothing, its neighbours' might

import numpy as np  # noqa: E402
import torch  # noqa: E402

from models.bases import load_base  # noqa: E402
from models.content import PhoneEncoder  # noqa: E402
from models.decoding import Decoder  # noqa: E402
from models.finetuning import SynthesizerLearner, Text2SemanticLearner  # noqa: E402
from models.ge2e import embed_speaker  # noqa: E402
from models.lora import merge  # noqa: E402
from models.networks import load_content_encoder, load_synthesizer, load_text2semantic  # noqa: E402
from models.sounds import sounds_of_symbols  # noqa: E402
from models.spectrogram import Spectrogram  # noqa: E402
from models.synthesizer import Synthesizer  # noqa: E402
from models.text2semantic import Text2Semantic  # noqa: E402
from models.voice import Reference, Sentence, Voice  # noqa: E402
from models.voice_loading import VoiceOptions, vits_renderer  # noqa: E402
from pipeline.io.audio import read_audio, resample, write_audio  # noqa: E402
from pipeline.records.settings import FinetuneSettings  # noqa: E402
from pipeline.signal.dnsmos import measure_dnsmos  # noqa: E402
from pipeline.signal.quality import (  # noqa: E402
    align_globally,
    mel_cepstral_distortion,
    pesq_wb,
    pitch_error,
    stoi,
)
from pipeline.signal.speaker import speaker_mel  # noqa: E402
from pipeline.stages.evaluate import gate_sentences  # noqa: E402
from pipeline.stages.finetune import Training  # noqa: E402
from pipeline.stages.pretrain.align import WORD, Recogniser  # noqa: E402
from pipeline.stages.pretrain.prepare import normalise_level  # noqa: E402
from pipeline.text.edits import edit_distance  # noqa: E402
from pipeline.text.english import word_phones  # noqa: E402
from pipeline.text.frontend import phonemize  # noqa: E402
from pipeline.text.symbols import symbol_ids  # noqa: E402

RATE_HZ = 16_000
MAX_DELAY = 1600
HELD_OUT = 3
PROMPT_S = (2.5, 6.5)


@dataclass
class Recording:
    file: str
    language: str
    text: str
    wave: np.ndarray
    tensors: dict[str, torch.Tensor]

    @property
    def seconds(self) -> float:
        return len(self.wave) / RATE_HZ


class Networks:
    """The base's networks, and a synthesizer with random weights as the control."""

    def __init__(self, name: str) -> None:
        self.base, self.cache = load_base(name), Path()
        self.synthesizer = load_synthesizer(self.base, self.cache)
        self.content = load_content_encoder(self.base, self.cache)
        self.text2semantic = load_text2semantic(self.base, self.cache)
        torch.manual_seed(0)
        self.untrained = Synthesizer(self.base.synthesizer).eval()
        self.spectrogram = Spectrogram(self.base.synthesizer.spectrogram)

    @torch.no_grad()
    def features(self, wave: np.ndarray, text: str, language: str) -> dict[str, torch.Tensor]:
        sound = torch.from_numpy(wave)
        spec = self.spectrogram(sound[None])[0]
        content = self.content(sound[None])
        frames = min(spec.shape[1], content.shape[2]) // 2 * 2
        hop = self.base.hop_samples
        return {
            "wave": sound[: frames * hop],
            "spectrogram": spec[:, :frames],
            "tokens": self.synthesizer.extract_tokens(content[:, :, :frames])[0, 0],
            "phones": torch.tensor(symbol_ids(phonemize(text, language).symbols)),
            "speaker": embed_speaker(torch.from_numpy(speaker_mel(wave))),
        }


def read_voice(folder: Path, networks: Networks, limit: int) -> list[Recording]:
    text = (folder / "metadata.csv").read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(text, delimiter="|" if "|" in text[0] else ",")
    found = []
    for row in rows:
        name, spoken = row.get("file") or row["file_name"], row["text"]
        audio = read_audio(folder / name)
        wave = normalise_level(resample(audio.mono, audio.sample_rate_hz, RATE_HZ).astype(np.float32))
        if 1.2 < len(wave) / RATE_HZ < 16:
            spoken = spoken if spoken.rstrip()[-1:] in ".?!" else spoken + "."
            language = row.get("language") or "en"
            found.append(Recording(name, language, spoken, wave, networks.features(wave, spoken, language)))
    return found[:limit]


def condition(network: Synthesizer, clip: Recording) -> torch.Tensor:
    return network.condition(clip.tensors["spectrogram"][None], speaker=clip.tensors["speaker"][None])


@torch.no_grad()
def copy_synthesis(network: Synthesizer, clips: Sequence[Recording]) -> dict[str, Any]:
    """Posterior and decoder alone, the clip as its own reference."""
    scores = []
    for clip in clips:
        ge = condition(network, clip)
        wave = network.copy_synthesis(clip.tensors["spectrogram"][None], ge)[0, 0].float().numpy()
        pair = align_globally(clip.wave, wave, MAX_DELAY)
        scores.append((pesq_wb(pair.reference, pair.other) or 1.0, stoi(pair.reference, pair.other, RATE_HZ) or 0.0))
    return {"clips": len(scores), "pesq_wb": spread([s[0] for s in scores]), "stoi": spread([s[1] for s in scores])}


@torch.no_grad()
def resynthesis(
    network: Synthesizer, clips: Sequence[Recording], judge: Judge, shuffle: bool = False
) -> dict[str, Any]:
    """Tokens and phones through prior, flow and decoder, another clip as the reference."""
    rows = []
    for index, clip in enumerate(clips):
        tokens = clip.tensors["tokens"]
        if shuffle:
            tokens = tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(index))]
        ge = condition(network, clips[index - 1])
        wave = network.decode(tokens[None, None], clip.tensors["phones"][None], ge)[0, 0].float().numpy()
        pair = align_globally(clip.wave, wave, MAX_DELAY)
        pitch = pitch_error(clip.wave, wave, RATE_HZ)
        rows.append(
            {
                "stoi": stoi(pair.reference, pair.other, RATE_HZ) or 0.0,
                "mcd_db": mel_cepstral_distortion(clip.wave, wave, RATE_HZ) or float("nan"),
                "f0_correlation": pitch.correlation if pitch and pitch.correlation is not None else 0.0,
                "f0_rmse_cents": pitch.rmse_cents if pitch else float("nan"),
                "phone_error_rate": judge.error_rate(wave, clip.text, clip.language),
            }
        )
    return {key: round(float(np.nanmean([row[key] for row in rows])), 4) for key in rows[0]}


class Judge:
    """Counts phone errors: of what PocketSphinx hears, and of what nano's own encoder hears."""

    def __init__(self, encoder: PhoneEncoder) -> None:
        self.recogniser, self.encoder, self.ids = Recogniser(), encoder, dict[str, int]()

    def number(self, sounds: Sequence[str]) -> list[int]:
        return [self.ids.setdefault(sound, len(self.ids)) for sound in sounds]

    def phones(self, text: str) -> list[int]:
        words = [word_phones(word.strip("'")) for word in WORD.findall(text.lower())]
        return self.number([sound for word in words for phone in word for sound in sounds_of_symbols()[phone]])

    def error_rate(self, wave: np.ndarray, text: str, language: str) -> float:
        """By PocketSphinx; not a number in a language that it does not know."""
        if language != "en":
            return float("nan")
        level = normalise_level(wave.astype(np.float32)) if len(wave) > 3200 else wave
        heard = self.recogniser.words((np.clip(level, -1, 1) * 32767).astype(np.int16))
        wanted = self.phones(text)
        return min(1.0, edit_distance(self.phones(heard), wanted) / len(wanted))

    def gate_error_rate(self, wave: np.ndarray, text: str, language: str) -> float:
        """By the content encoder, as the gate counts."""
        symbols = phonemize(text, language).symbols
        wanted = self.number([sound for symbol in symbols for sound in sounds_of_symbols()[symbol]])
        heard = self.encoder.recognise(torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32)))
        return edit_distance(self.number(heard), wanted) / len(wanted)


def free_speech(
    voice: Voice, prompt: Recording, sentences: Sequence[str], judge: Judge, folder: Path | None
) -> dict[str, Any]:
    """Sentences nobody of the voice has read; also says how like every speaker they are, by their vectors."""
    reference = Reference(
        torch.from_numpy(prompt.wave), RATE_HZ, prompt.tensors["phones"], speaker=prompt.tensors["speaker"]
    )
    voice.prepare(reference)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    errors, gate_errors, opinions, vectors = [], [], [], []
    audio_s, spent_s, unsound, tried, language = 0.0, 0.0, 0, 0, prompt.language
    for index, text in enumerate(sentences):
        begun = time.perf_counter()
        phones = torch.tensor(symbol_ids(phonemize(text, language).symbols))
        speech = voice.speak([Sentence(phones)], reference, seed=index)
        spent_s += time.perf_counter() - begun
        wave = speech.wave.numpy()
        audio_s += len(wave) / RATE_HZ
        unsound += not speech.is_sound
        tried += len(speech.sentences[0].attempts) - 1
        errors.append(judge.error_rate(wave, text, language))
        gate_errors.append(judge.gate_error_rate(wave, text, language))
        opinions.append(measure_dnsmos(wave).ovr)
        vectors.append(embed_speaker(torch.from_numpy(speaker_mel(wave))))
        if folder:
            write_audio(folder / f"free-{index:02d}.wav", wave, RATE_HZ)
    return {
        "sentences": len(sentences),
        "phone_error_rate": round(float(np.mean(errors)), 4),
        "gate_phone_error_rate": round(float(np.mean(gate_errors)), 4),
        "dnsmos_ovr": spread(opinions),
        "rtf": round(spent_s / audio_s, 4),
        "tried_again": tried,
        "unsound": unsound,
        "vectors": torch.stack(vectors),
    }


def finetune(networks: Networks, clips: Sequence[Recording]) -> tuple[Synthesizer, Text2Semantic, float]:
    """Adapters as the stage finetune makes them, merged; the last clips are held out. Also the seconds it took."""
    settings, device = FinetuneSettings(), torch.device("cpu")
    tensors = [clip.tensors for clip in clips]
    learners = (
        SynthesizerLearner(copy.deepcopy(networks.synthesizer), None, device),
        Text2SemanticLearner(copy.deepcopy(networks.text2semantic), device),
    )
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for part, learner in zip(("synthesizer", "text2semantic"), learners, strict=True):
            training = Training(part, learner, settings, torch.float32)
            checkpoint = Path(folder) / f"{part}.safetensors"
            for _ in training.run(tensors[:-HELD_OUT], tensors[-HELD_OUT:], checkpoint, lambda: False):
                pass
            print(part, [(name, curve) for name, curve in training.progress.curves.items()], file=sys.stderr)
    spent_s = time.perf_counter() - begun
    return merge(learners[0].network), merge(learners[1].network), spent_s


def build_voice(networks: Networks, synthesizer: Synthesizer, text2semantic: Text2Semantic) -> Voice:
    renderer = vits_renderer(copy.deepcopy(synthesizer), torch.device("cpu"), VoiceOptions())
    return Voice(Decoder(text2semantic), renderer, networks.content)


def own_is_nearest(vectors: torch.Tensor, own: str, speakers: dict[str, torch.Tensor]) -> float:
    """Share of sentences whose vector is nearer to their own speaker than to every other."""
    names = list(speakers)
    nearest = (vectors @ torch.stack([speakers[name] for name in names]).T).argmax(1)
    return round(float((nearest == names.index(own)).float().mean()), 4)


def spread(values: Sequence[float]) -> dict[str, float]:
    array = np.array(values)
    return {
        "mean": round(float(array.mean()), 4),
        "min": round(float(array.min()), 4),
        "p5": round(float(np.percentile(array, 5)), 4),
    }


def measure_voice(
    folder: Path, networks: Networks, clips: list[Recording], speakers: dict[str, torch.Tensor],
    options: argparse.Namespace, judge: Judge,
) -> dict[str, Any]:  # fmt: skip
    held_out = clips[-HELD_OUT:]
    prompts = [clip for clip in clips[:-HELD_OUT] if PROMPT_S[0] < clip.seconds < PROMPT_S[1]] or clips[:1]
    sentences = sentences_in(clips[0].language)[: options.sentences]
    result: dict[str, Any] = {"voice": folder.name, "language": clips[0].language, "clips": len(clips)}
    result["human"] = human(clips, folder.name, speakers, judge)
    result["copy_synthesis"] = copy_synthesis(networks.synthesizer, clips)
    result["copy_synthesis_held_out"] = copy_synthesis(networks.synthesizer, held_out)
    result["copy_synthesis_untrained"] = copy_synthesis(networks.untrained, held_out)
    result["resynthesis"] = resynthesis(networks.synthesizer, clips, judge)
    result["resynthesis_untrained"] = resynthesis(networks.untrained, held_out, judge)
    result["resynthesis_shuffled"] = resynthesis(networks.synthesizer, held_out, judge, shuffle=True)
    listen = options.audio / folder.name if options.audio else None
    bare = build_voice(networks, networks.synthesizer, networks.text2semantic)
    result["free_speech"] = _named(free_speech(bare, prompts[0], sentences, judge, listen), folder.name, speakers)
    if options.finetune:
        synthesizer, text2semantic, spent_s = finetune(networks, clips)
        result["finetune_s"] = round(spent_s, 1)
        result["copy_synthesis_finetuned"] = copy_synthesis(synthesizer, held_out)
        result["resynthesis_finetuned"] = resynthesis(synthesizer, held_out, judge)
        result["resynthesis_held_out"] = resynthesis(networks.synthesizer, held_out, judge)
        tuned = build_voice(networks, synthesizer, text2semantic)
        listen = options.audio / f"{folder.name}-finetuned" if options.audio else None
        spoken = free_speech(tuned, prompts[0], sentences, judge, listen)
        result["free_speech_finetuned"] = _named(spoken, folder.name, speakers)
        pairs = zip(result["free_speech_finetuned"]["ge2e"], result["free_speech"]["ge2e"], strict=True)
        result["nearer_than_bare"] = round(float(np.mean([tuned > untuned for tuned, untuned in pairs])), 4)
    return result


def sentences_in(language: str) -> list[str]:
    """Sentences that nobody of the voices has read: 30 English ones, the gate's in other languages."""
    if language == "en":
        return (HERE / "nano_sentences.txt").read_text(encoding="utf-8").splitlines()
    return gate_sentences(language)


def human(clips: Sequence[Recording], own: str, speakers: dict[str, torch.Tensor], judge: Judge) -> dict[str, Any]:
    """The speaker's recordings by the same tools, and how near the nearest other speaker's mean vector is."""
    vectors = torch.stack([clip.tensors["speaker"] for clip in clips])
    others = [float(vector @ speakers[own]) for name, vector in speakers.items() if name != own]
    return {
        "phone_error_rate": mean([judge.error_rate(clip.wave, clip.text, clip.language) for clip in clips]),
        "gate_phone_error_rate": mean([judge.gate_error_rate(clip.wave, clip.text, clip.language) for clip in clips]),
        "dnsmos_ovr": spread([measure_dnsmos(clip.wave).ovr for clip in clips]),
        "ge2e_own": mean((vectors @ speakers[own]).tolist()),
        "ge2e_nearest_other": round(max(others), 4) if others else None,
    }


def mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)


def _named(spoken: dict[str, Any], own: str, speakers: dict[str, torch.Tensor]) -> dict[str, Any]:
    vectors = spoken.pop("vectors")
    likeness = [round(value, 4) for value in (vectors @ speakers[own]).tolist()]
    nearest = own_is_nearest(vectors, own, speakers)
    return {**spoken, "ge2e": likeness, "ge2e_own": mean(likeness), "own_is_nearest": nearest}


TABLE = (
    ("copy-synthesis PESQ-WB, mean / lowest", "copy_synthesis.pesq_wb.mean", "copy_synthesis.pesq_wb.min", "3.3"),
    ("copy-synthesis STOI, mean / lowest", "copy_synthesis.stoi.mean", "copy_synthesis.stoi.min", "0.92"),
    ("held-out clips, PESQ-WB: bare / fine-tuned", "copy_synthesis_held_out.pesq_wb.mean",
     "copy_synthesis_finetuned.pesq_wb.mean", "3.5 fine-tuned"),
    ("held-out clips, STOI: bare / fine-tuned", "copy_synthesis_held_out.stoi.mean",
     "copy_synthesis_finetuned.stoi.mean", "not falling"),
    ("control, random weights: PESQ-WB / STOI", "copy_synthesis_untrained.pesq_wb.mean",
     "copy_synthesis_untrained.stoi.mean", ""),
    ("resynthesis STOI: bare / fine-tuned (held-out clips)", "resynthesis_held_out.stoi", "resynthesis_finetuned.stoi",
     ""),
    ("controls: random weights / shuffled tokens", "resynthesis_untrained.stoi", "resynthesis_shuffled.stoi", ""),
    ("resynthesis MCD, dB / pitch correlation", "resynthesis.mcd_db", "resynthesis.f0_correlation", ""),
    ("phone errors: recordings / resynthesis", "human.phone_error_rate", "resynthesis.phone_error_rate", ""),
    ("phone errors of free speech: bare / fine-tuned", "free_speech.phone_error_rate",
     "free_speech_finetuned.phone_error_rate", "recordings + 0.15; + 0.08"),
    ("by the gate's ear: recordings / fine-tuned", "human.gate_phone_error_rate",
     "free_speech_finetuned.gate_phone_error_rate", ""),
    ("DNSMOS OVR: recordings / fine-tuned", "human.dnsmos_ovr.mean", "free_speech_finetuned.dnsmos_ovr.mean", "2.7"),
    ("GE2E to the speaker: recordings / nearest other speaker", "human.ge2e_own", "human.ge2e_nearest_other", ""),
    ("GE2E of free speech: bare / fine-tuned", "free_speech.ge2e_own", "free_speech_finetuned.ge2e_own", ""),
    ("own speaker nearest: bare / fine-tuned", "free_speech.own_is_nearest", "free_speech_finetuned.own_is_nearest",
     "0.95"),
    ("sentences nearer than the bare base's", "nearer_than_bare", "", ""),
    ("sentences / of them damaged in the end", "free_speech_finetuned.sentences", "free_speech_finetuned.unsound", "0"),
    ("text to waveform, real-time factor", "free_speech_finetuned.rtf", "", "0.15"),
    ("fine-tuning, s", "finetune_s", "", "60"),
)  # fmt: skip
"""Rows of the table: what is shown, one or two numbers of the report, the goal."""


def look_up(report: dict[str, Any], path: str) -> str:
    value: Any = report
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return "-" if value is None or value != value else f"{value:.3g}"


def render_table(report: dict[str, Any]) -> str:
    """The report as a page of Markdown."""
    voices, machine = report["voices"], report["machine"]
    head = [f"{voice['voice']} ({voice['clips']} clips)" for voice in voices]
    lines = [
        "# nano, measured",
        "",
        "Made by `benchmarks/nano.py`; what the figures mean is said there and in `models/bases/nano/README.md`.",
        f"Command: `{report['command']}`. Base digest {report['base_digest'][:12]}.",
        "Machine: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in machine.items()) + ".",
        "",
        "| | " + " | ".join(head) + " | goal |",
        "|---" * (len(head) + 2) + "|",
    ]
    for title, first, second, goal in TABLE:
        cells = [" / ".join(look_up(voice, path) for path in (first, second) if path) for voice in voices]
        lines.append(f"| {title} | " + " | ".join(cells) + f" | {goal} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voices", type=Path, nargs="+", help="folders; without them nothing is measured anew")
    parser.add_argument("--only", nargs="*", help="measure these; the other voices are then only other speakers")
    parser.add_argument("--base", default="nano")
    parser.add_argument("--sentences", type=int, default=30)
    parser.add_argument("--clips", type=int, default=40, help="at most this many recordings of a voice")
    parser.add_argument("--no-finetune", dest="finetune", action="store_false")
    parser.add_argument("--audio", type=Path, help="folder for what was spoken")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--table", type=Path, help="Markdown file to write the table to")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "nano.json")
    options = parser.parse_args()
    report = measure(options) if options.voices else json.loads(options.output.read_text(encoding="utf-8"))
    if options.table:
        options.table.write_text(render_table(report), encoding="utf-8")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything of the table for every voice, stored and printed."""
    torch.set_num_threads(options.threads)
    networks = Networks(options.base)
    judge = Judge(networks.content)
    voices = {folder: read_voice(folder, networks, options.clips) for folder in options.voices}
    speakers = {
        folder.name: torch.nn.functional.normalize(sum(clip.tensors["speaker"] for clip in clips), dim=0)
        for folder, clips in voices.items()
    }
    report = {
        "command": " ".join(["python", "benchmarks/nano.py", *sys.argv[1:]]),
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
                    "threads": options.threads, "load_at_start": round(os.getloadavg()[0], 1),
                    "python": platform.python_version(), "torch": torch.__version__,
                    "pocketsphinx": version("pocketsphinx"), "pesq": version("pesq"), "pystoi": version("pystoi")},
        "base": options.base,
        "base_digest": networks.base.digest,
        "voices": [
            measure_voice(folder, networks, clips, speakers, options, judge)
            for folder, clips in voices.items()
            if not options.only or folder.name in options.only
        ],
    }  # fmt: skip
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for voice in report["voices"]:
        print(json.dumps(voice, indent=1))
    return report


if __name__ == "__main__":
    main()
