"""How a base that speaks through FARGAN is trained: its acoustic model; the vocoder is published."""

from __future__ import annotations

import torch

from models.synthesizer.fargan_synthesizer import FarganSynthesizer
from models.synthesizer.tokens import SemanticTokens
from pipeline.pretrain.acoustic import HeardClip, HeardClips, fargan_features, heard_clip, train_acoustic
from pipeline.pretrain.family import FamilyTraining
from pipeline.pretrain.features import clip_symbols, clip_tokens
from pipeline.pretrain.gpt import set_guide
from pipeline.pretrain.loop import load_network
from pipeline.pretrain.session import Session

SPREADING_EVERY = 8  # clip: enough to measure how much recordings vary


def acoustic(session: Session) -> None:
    """The stage `acoustic`."""
    network, run = _with_reader(session, session.new_synthesizer()), session.run("acoustic")
    clips = HeardClips(*(_heard(session, name, network) for name in ("train", "held_out")))
    train_acoustic(network.acoustic.to(session.device), clips, run)


def finish(session: Session, network: SemanticTokens) -> int:
    """Weights of the acoustic model, and how much recordings vary."""
    whole = _with_reader(session, network)
    steps = load_network(whole.acoustic, session.work / "acoustic")
    recorded = [one for one in _heard(session, "train", whole) if not one.synthetic]
    whole.eval().set_spreading([(one.spoken, one.own, one.features) for one in recorded[::SPREADING_EVERY]])
    return steps


FARGAN = FamilyTraining(stages={"acoustic": acoustic}, finish=finish)


def _with_reader(session: Session, network: SemanticTokens) -> FarganSynthesizer:
    assert isinstance(network, FarganSynthesizer)
    session.load_codebook(network)
    set_guide(network.reader, network.quantizer.codebook.embed, session.corpora[0])
    return network


def _heard(session: Session, name: str, network: FarganSynthesizer) -> list[HeardClip]:
    """The transcribed clips of a corpus, their phones laid along tokens that say them."""
    corpus = session.corpora[0 if name == "train" else 1]
    said_tokens = session.cached(name, "said_tokens.npz")
    tokens = clip_tokens(session.encoder(), network, corpus, said_tokens, session.guide(network))
    features = fargan_features(corpus, session.cached(name, "fargan.npz"))
    found = []
    for clip, said, rows in zip(corpus.clips, tokens, features, strict=True):
        if clip.text and not clip.guessed and "synthesizer" in clip.uses:
            heard = heard_clip(network, clip, torch.from_numpy(said), clip_symbols(clip), rows)
            found += [heard] if heard else []
    return found
