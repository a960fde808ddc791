"""From a reference clip and text to sound, and what a start costs (section `speech` of benchmarks/models.py)."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.models_decoding import exactly
from benchmarks.report import REPOSITORY, Measurement, fill, median_s
from models.compat import prepare_torchaudio
from models.loading.bases import Base, load_base
from models.loading.networks import build_network
from models.loading.voices import load_voice
from models.machine.processor import lack, works
from models.speaking.options import PRECISIONS, choose_options
from models.speaking.voice import Manner, Reference, Sentence, Voice
from pipeline.text.frontend import phonemize_for_synthesis
from pipeline.text.symbols import symbol_ids

BASE = "gpt-sovits-v2proplus"
# Sums of upstream's parts: it recomputes the speaker embedding in every batch, and every import is its own 6 s.
UPSTREAM_RTF, FLOOR_RTF, UPSTREAM_SPEAKER_S, UPSTREAM_IMPORT_S = 1.4, 0.3, 2.0, 6.0
SPEECH_S, REFERENCE_S = 4, 5
TEXT = "The next lecture begins at nine in the main hall, so please take your seats early."
START = """
import json, os, sys, time
from pathlib import Path
started = time.perf_counter()
from models.machine.threads import choose_waiting
choose_waiting(os.environ)
import torch
import pipeline.jobs.speak
from models.loading.bases import load_base
from models.loading.voices import load_voice
imported = time.perf_counter()
load_voice(load_base(sys.argv[1]), Path(sys.argv[2]), torch.device("cpu"))
print(json.dumps([imported - started, time.perf_counter() - imported]))
"""


def measure(repeats: int) -> list[Measurement]:
    """Peak memory here is that of three voices and of writing their base."""
    base = load_base(BASE)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        write_base(base, cache)
        return starting(cache) + speaking(base, cache, repeats)


def write_base(base: Base, cache: Path) -> None:
    """Full-size weights, made up, where `voxline bases pull` would put the real ones."""
    for role in ("synthesizer", "text2semantic", "speaker"):
        network = build_network(base, role)
        fill(network)
        path = base.weight_path(role, cache)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    prepare_torchaudio()
    from transformers import HubertConfig, HubertModel

    HubertModel(HubertConfig()).save_pretrained(base.weight_path("content", cache))


def starting(cache: Path) -> list[Measurement]:
    """A new process each time, files in the page cache: what `voxline say` does before it hears the text."""
    command = [sys.executable, "-c", START, BASE, str(cache)]
    found = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY).stdout)
        for _ in range(4)
    ][1:]
    imports, loads = (sorted(times)[1] for times in zip(*found, strict=True))
    return [
        Measurement("start: imports", round(imports, 2), "s", UPSTREAM_IMPORT_S, detail={"times_s": found}),
        Measurement("start: loading a full-size base (1.3 GB)", round(loads, 2), "s"),
    ]


def speaking(base: Base, cache: Path, repeats: int) -> list[Measurement]:
    generator = torch.Generator().manual_seed(3)
    clip = torch.randn(REFERENCE_S * 32_000, generator=generator) * 0.1
    reference = Reference(clip, 32_000, torch.randint(0, 700, (75,), generator=generator))
    found = []
    for precision in PRECISIONS:
        if precision != "f32" and not works(precision):
            print(f"{precision} is not measured: {lack(precision)}")
            continue
        options, _ = choose_options(precision, torch.device("cpu"))
        voice = load_voice(base, cache, torch.device("cpu"), options=options)
        if precision == "f32":
            found += preparing(voice, reference, repeats)
        else:
            voice.prepare(reference)
        median, detail = median_s(say(voice, reference), repeats)
        name = f"{SPEECH_S} s of speech from text, {precision}"
        rtf = round(median / SPEECH_S, 3)
        found.append(Measurement(name, rtf, "RTF", UPSTREAM_RTF, FLOOR_RTF, "<= 0.6", detail=detail))
    return found


def preparing(voice: Voice, reference: Reference, repeats: int) -> list[Measurement]:
    """A reference clip for the first time, and by its content ever after."""
    speech = torch.randn(REFERENCE_S * 16_000) * 0.1
    assert voice.embed_speaker is not None
    with torch.no_grad():
        vector, vector_detail = median_s(lambda: voice.embed_speaker(speech), repeats)  # type: ignore[misc]
    fresh, fresh_detail = median_s(lambda: voice._prepare(reference), repeats)
    kept, kept_detail = median_s(lambda: voice.prepare(reference), repeats)
    return [
        Measurement(f"speaker embedding of {REFERENCE_S} s", round(vector, 3), "s", None, detail=vector_detail),
        Measurement(f"all of a reference clip of {REFERENCE_S} s", round(fresh, 3), "s", None, detail=fresh_detail),
        Measurement("the same clip again", round(kept, 5), "s", UPSTREAM_SPEAKER_S, None, "once", detail=kept_detail),
    ]


def say(voice: Voice, reference: Reference) -> Callable[[], None]:
    """Front end, tokens and waveform of as many tokens as four seconds have."""
    length = int(SPEECH_S * voice.token_rate_hz)

    def work() -> None:
        phones = torch.tensor(symbol_ids(phonemize_for_synthesis(TEXT, "en").symbols))
        made = voice.speak([Sentence(phones)], reference, Manner(sampling=exactly(length), attempts=1))
        assert len(made.wave) == SPEECH_S * voice.sample_rate_hz, f"{len(made.wave)} samples"

    return work
