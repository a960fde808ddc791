"""Writes tests/golden/ears.json: what SpeechBrain's ECAPA-TDNN and the package distillmos say about two signals.

Run where `speechbrain` and `distillmos` are installed (never with voxline), on the files of `voxline artifacts pull`:

    python tests/golden/make_golden_ears.py ~/.cache/voxline/artifacts tests/golden/ears.json

SpeechBrain 1.1.2, distillmos 0.9.1, torch 2.13.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from models.compat import prepare_torchaudio  # noqa: E402

prepare_torchaudio()


def signals():
    """Mono 16 kHz: a hum of harmonics in noise, 9.2 s (two windows of DistillMOS), and a clip of the sample voice."""
    from pipeline.io.audio import read_audio, resample

    rng = np.random.default_rng(12)
    t = np.arange(147_200) / 16_000
    pitch = 2 * np.pi * np.cumsum(150 + 30 * np.sin(2 * t)) / 16_000
    hum = sum(np.sin(k * pitch) / k for k in range(1, 20)) * (np.sin(9 * t) > -0.4)
    synthetic = (0.08 * hum + 0.003 * rng.standard_normal(len(t))).astype(np.float32)
    audio = read_audio(sorted((REPOSITORY / "voices/sample/wavs").glob("*"))[0])
    return {"synthetic": synthetic, "sample": resample(audio.mono, audio.sample_rate_hz, 16_000)}


def main():
    import distillmos
    from speechbrain.lobes.features import Fbank
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    artifacts, target = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    ecapa = ECAPA_TDNN(80, channels=[1024, 1024, 1024, 1024, 3072])
    ecapa.load_state_dict(load_file(artifacts / "ecapa-voxceleb/ecapa.safetensors"))
    mos = distillmos.ConvTransformerSQAModel(load_weights=False)
    mos.load_state_dict(load_file(artifacts / "distillmos/distillmos.safetensors"))
    fbank = Fbank(n_mels=80)
    told = {}
    with torch.inference_mode():
        for name, samples in signals().items():
            wave = torch.from_numpy(samples)[None]
            features = fbank(wave)
            vector = ecapa.eval()(features - features.mean(dim=1, keepdim=True))[0, 0]
            told[name] = {
                "ecapa": [round(float(value), 6) for value in vector / vector.norm()],
                "distillmos": round(float(mos.eval()(wave)), 6),
            }
    target.write_text(json.dumps(told) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
