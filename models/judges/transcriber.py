"""A speech recogniser of another lineage, to count what a listener would misread: Whisper or a CTC model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from models.compat import prepare_torchaudio
from models.errors import WeightsError

SAMPLE_RATE_HZ = 16_000


def load_recogniser(source: str, device: torch.device, language: str) -> Callable[[Tensor], str]:
    """A function from 16 kHz speech (N,) to its text.

    Args:
        source: folder, or name on the hub, of a model that transformers can transcribe with; taken from its cache where
            it was fetched before.
        language: told to models that know several; those for one language have no use for it.

    Raises:
        WeightsError: it cannot be loaded, or does not transcribe.
    """
    prepare_torchaudio()
    from transformers import pipeline
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        transcribe = pipeline("automatic-speech-recognition", model=source, device=device)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(f"speech recogniser {source!r} cannot be loaded: {reason}") from error
    generation = getattr(transcribe.model, "generation_config", None)  # a CTC model generates nothing
    is_multilingual = bool(getattr(generation, "is_multilingual", False))
    options = {"generate_kwargs": {"language": language}} if is_multilingual else {}

    def recognise(speech: Tensor) -> str:
        answer: Any = transcribe({"raw": speech.cpu().numpy(), "sampling_rate": SAMPLE_RATE_HZ}, **options)
        return str(answer["text"])

    return recognise
