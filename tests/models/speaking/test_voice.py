"""Speaking with tiny random networks of every family: what is promised about seeds, streams, references, problems."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from models.configs.cfm import CfmSynthesizerConfig, DiTConfig
from models.configs.synthesizer import HifiGanDecoderConfig, MelConfig, SynthesizerConfig
from models.configs.text2semantic import SamplingConfig, Text2SemanticConfig
from models.configs.vocoder import VocoderConfig
from models.errors import ModelsError
from models.loading.listening import ContentListener, grid_of
from models.machine.processor import ProcessorError, works
from models.speaking.options import VoiceOptions
from models.speaking.rendering import (
    CfmRenderer,
    Delivery,
    VitsRenderer,
    cross_fade,
    pieces_of,
    vits_renderer,
)
from models.speaking.voice import Manner, Reference, Sentence, Voice
from models.synthesizer.cfm_synthesizer import CfmSynthesizer
from models.synthesizer.channels_last import ChannelsLastDecoder
from models.synthesizer.vits import Synthesizer
from models.synthesizer.vocoder import MelVocoder
from models.text2semantic.decoding import Decoder
from models.text2semantic.network import Text2Semantic

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SSL, CODES, PHONES = 8, 24, 30
NUMBERS = {
    "ssl_dim": SSL, "codebook_size": CODES, "n_symbols": PHONES, "mrte_hidden": 16, "mrte_heads": 2, "style_hidden": 8,
    "gin_channels": 16, "inter_channels": 8, "hidden_channels": 8, "filter_channels": 16, "n_layers": 2,
    "decoder": HifiGanDecoderConfig(upsample_initial_channel=64),
}  # fmt: skip


class CountingContent(nn.Module):
    """A stand-in for HuBERT: 50 Hz frames of the wave, folded; counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, wave: Tensor) -> Tensor:
        self.calls += 1
        frames = wave[:, : wave.shape[1] // 320 * 320].unflatten(1, (-1, 320))
        return frames[..., :SSL].transpose(1, 2) * 50


@cache
def renderer(family: str) -> CfmRenderer | VitsRenderer:
    torch.manual_seed(1)
    if family == "v4":
        config = CfmSynthesizerConfig(
            encoder=SynthesizerConfig(**NUMBERS),
            mel=MelConfig(n_fft=1280, win_samples=1280, hop_samples=320, n_mels=6),
            bridge_channels=8, condition_layers=2, prompt_frames=40, chunk_frames=120, sampling_steps=2,
            dit=DiTConfig(mel_channels=6, condition_channels=8, dim=16, depth=1, heads=2, head_dim=8,
                          condition_layers=1, position_kernel=3, position_groups=2),
        )  # fmt: skip
        vocoder = VocoderConfig(
            mel_channels=6,
            decoder=HifiGanDecoderConfig(
                upsample_initial_channel=32, upsample_rates=(10, 6, 2, 2, 2), upsample_kernel_sizes=(20, 12, 4, 4, 4)
            ),
        )
        return CfmRenderer(CfmSynthesizer(config).eval(), MelVocoder(vocoder).eval(), 48000, CPU)
    synthesizer = Synthesizer(SynthesizerConfig(**NUMBERS, speaker_dim=4 if family == "v2pro" else None))
    return vits_renderer(synthesizer.remove_weight_norm(), CPU, VoiceOptions())


@cache
def decoder() -> Decoder:
    torch.manual_seed(2)
    config = Text2SemanticConfig(
        phoneme_vocab_size=PHONES,
        vocab_size=CODES + 1,
        hidden_dim=32,
        heads=2,
        layers=2,
        feedforward_dim=64,
        bert_dim=6,
    )
    network = Text2Semantic(config).eval()
    with torch.no_grad():
        network.ar_predict_layer.weight.mul_(0.5)
    return Decoder(network)


def voice(family: str = "v2", content: CountingContent | None = None) -> Voice:
    made = renderer(family)
    listener = ContentListener(content or CountingContent(), made.synthesizer, grid_of(made.synthesizer), CPU)
    return Voice(decoder(), made, listener.hear)


def reference(family: str = "v2", with_text: bool = True) -> Reference:
    torch.manual_seed(3)
    time = torch.arange(32000) / 32000
    wave = 0.3 * torch.sin(2 * torch.pi * 180 * time) + 0.05 * torch.randn(32000)
    return Reference(
        wave, 32000, torch.arange(12) if with_text else None, speaker=torch.ones(4) if family == "v2pro" else None
    )


def sentences() -> list[Sentence]:
    return [
        Sentence(torch.tensor([5, 9, 2, 17, 4, 8, 1, 12])),
        Sentence(torch.tensor([7, 7, 3, 22, 14, 6]), bert=torch.ones(6, 6), pause_s=0.1),
        Sentence(torch.tensor([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])),
    ]


def utterance(phones: int) -> Delivery:
    spoken = voice().prepare(reference())
    return Delivery(torch.arange(phones), spoken, 1.0, torch.Generator().manual_seed(1))


FREE = SamplingConfig(top_k=12)


@pytest.mark.parametrize("family", ["v2", "v2pro", "v4"])
def test_every_family_speaks(family):
    speech = voice(family).speak(sentences(), reference(family), Manner(seed=1, sampling=FREE, attempts=1))
    assert speech.sample_rate_hz == {"v2": 32000, "v2pro": 32000, "v4": 48000}[family]
    assert speech.wave.dtype == torch.float32
    assert speech.wave.isfinite().all()
    assert 0 < speech.wave.abs().max() <= 1
    last = speech.sentences[-1]
    assert last.start_s + last.duration_s == pytest.approx(len(speech.wave) / speech.sample_rate_hz)
    for told in speech.sentences:
        assert told.duration_s == pytest.approx(len(told.attempts[-1].tokens) / 25)


@pytest.mark.parametrize("family", ["v2", "v4"])
def test_a_seed_gives_the_same_audio_whatever_else_is_said(family):
    speaker = voice(family)
    together = speaker.speak(sentences(), reference(), Manner(seed=7, sampling=FREE, attempts=1))
    for sentence, told in zip(sentences(), together.sentences, strict=True):
        alone = speaker.speak([sentence], reference(), Manner(seed=7, sampling=FREE, attempts=1))
        start = round(told.start_s * together.sample_rate_hz)
        assert torch.equal(alone.wave, together.wave[start : start + len(alone.wave)])
    again = speaker.speak(sentences(), reference(), Manner(seed=7, sampling=FREE, attempts=1), batch_size=1)
    assert torch.equal(again.wave, together.wave)
    other = speaker.speak(sentences(), reference(), Manner(seed=8, sampling=FREE, attempts=1))
    assert not torch.equal(other.wave[:1000], together.wave[:1000])


def test_pauses_stand_between_sentences_only():
    speech = voice().speak(sentences(), reference(), Manner(sampling=FREE, attempts=1))
    first, second, third = speech.sentences
    assert second.start_s - first.start_s - first.duration_s == pytest.approx(0.3)
    assert third.start_s - second.start_s - second.duration_s == pytest.approx(0.1)
    start = round((first.start_s + first.duration_s) * 32000)
    assert not speech.wave[start : start + 9600].any()


def test_speed_shortens_the_audio_and_not_the_tokens():
    slow = voice().speak(sentences()[:1], reference(), Manner(seed=2, sampling=FREE, attempts=1))
    fast = voice().speak(sentences()[:1], reference(), Manner(seed=2, sampling=FREE, attempts=1, speed=1.5))
    assert slow.sentences[0].attempts == fast.sentences[0].attempts
    assert len(fast.wave) / len(slow.wave) == pytest.approx(1 / 1.5, abs=0.05)


def test_a_reference_is_worked_out_once_per_content():
    content = CountingContent()
    speaker = voice(content=content)
    speaker.speak(sentences()[:1], reference(), Manner(sampling=FREE, attempts=1))
    speaker.speak(sentences()[1:], reference(), Manner(sampling=FREE, attempts=1))
    assert content.calls == 1
    speaker.prepare(reference(with_text=False))
    assert content.calls == 2


def test_without_the_text_of_the_clip_v2_speaks_unprompted_and_v4_refuses():
    prepared = voice().prepare(reference(with_text=False))
    assert prepared.phones is None
    assert len(voice().speak(sentences()[:1], reference(with_text=False), Manner(sampling=FREE, attempts=1)).wave)
    with pytest.raises(ModelsError, match="text of that clip"):
        voice("v4").prepare(reference(with_text=False))


def test_what_cannot_be_spoken_is_refused():
    with pytest.raises(ModelsError, match="no sentences"):
        voice().speak([], reference())
    with pytest.raises(ModelsError, match="no phones"):
        voice().speak([Sentence(torch.empty(0, dtype=torch.long))], reference())
    with pytest.raises(ModelsError, match="one channel"):
        voice().prepare(Reference(torch.zeros(2, 100), 32000))


def test_truncated_generation_is_retried_and_reported():
    cut = SamplingConfig(top_k=12, max_tokens=3, min_tokens=3)
    speech = voice().speak(sentences()[:1], reference(), Manner(sampling=cut, attempts=3))
    assert not speech.is_sound
    assert len(speech.sentences[0].attempts) == 3
    assert all("no_end" in attempt.problems for attempt in speech.sentences[0].attempts)


@pytest.mark.parametrize(("family", "within"), [("v2", True), ("v2", False), ("v4", True)])
def test_a_stream_says_what_speak_says(family, within):
    speaker = voice(family)
    whole = speaker.speak(sentences(), reference(), Manner(seed=4, sampling=FREE, attempts=1))
    chunks = list(
        speaker.stream(sentences(), reference(), Manner(seed=4, sampling=FREE, attempts=1), within_sentences=within)
    )
    told = [chunk.sentence for chunk in chunks if chunk.sentence is not None]
    assert [one.attempts for one in told] == [one.attempts for one in whole.sentences]
    wave = torch.cat([chunk.wave for chunk in chunks])
    assert len(wave) == pytest.approx(len(whole.wave), abs=32000 * 0.01 * len(chunks))
    if not within or family == "v4":
        assert torch.equal(wave, whole.wave)
    assert [chunk.sentence_index for chunk in chunks] == sorted(chunk.sentence_index for chunk in chunks)


def test_a_long_sentence_streams_in_pieces_without_clicks():
    tokens = torch.randint(0, CODES, (150,), generator=torch.Generator().manual_seed(0)).tolist()
    vits = renderer("v2")
    assert isinstance(vits, VitsRenderer)
    waves = list(vits.render_stream(pieces_of(tokens), utterance(20)))
    assert len(waves) >= 4
    joined = torch.cat(waves)
    assert len(joined) == pytest.approx(150 * 1280, abs=320 * len(waves))
    whole = vits.render(torch.tensor(tokens), utterance(20))
    assert joined.diff().abs().max() <= 1.5 * whole.diff().abs().max()


def test_pieces_grow_and_lose_nothing():
    pieces = list(pieces_of(range(300)))
    assert [len(piece) for piece in pieces] == [20, 40, 80, 80, 80]
    assert [token for piece in pieces for token in piece] == list(range(300))
    assert list(pieces_of([])) == []


def test_two_pieces_meet_where_they_agree():
    time = torch.arange(4000) / 16000
    tone = torch.sin(2 * torch.pi * 220 * time)
    joined = cross_fade(tone[:1000], tone[37:], search=160)  # the second piece comes 37 samples early
    assert (joined[1500:3000].abs().max() - 1).abs() < 1e-3
    assert joined.diff().abs().max() < 1.1 * tone.diff().abs().max()


@pytest.mark.processor
def test_bfloat16_waves_are_an_option_that_changes_little():
    torch.manual_seed(1)
    synthesizer = Synthesizer(SynthesizerConfig(**NUMBERS)).remove_weight_norm()
    if not works("bf16"):
        with pytest.raises(ProcessorError, match="bf16"):
            vits_renderer(synthesizer, CPU, VoiceOptions(wave_precision="bf16"))
        return
    light = vits_renderer(synthesizer, CPU, VoiceOptions(wave_precision="bf16"))
    assert isinstance(light.synthesizer.dec, ChannelsLastDecoder)
    exact, rough = (one.render(torch.arange(20), utterance(9)) for one in (renderer("v2"), light))
    assert 0 < (exact - rough).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("family", ["v2", "v2pro"])
def test_several_references_are_spoken_like_their_mean(family: str) -> None:
    speaking, first = voice(family), reference(family)
    second = replace(first, wave=first.wave.flip(0) * 0.5, phones=None)
    ge = speaking.prepare(replace(first, others=(second,))).ge
    expected = (speaking.prepare(first).ge + speaking.prepare(second).ge) / 2
    torch.testing.assert_close(ge, expected)
    assert not torch.equal(ge, speaking.prepare(first).ge)
    said = speaking.speak(sentences()[:1], replace(first, others=(second,)), Manner(attempts=1))
    assert not torch.equal(said.wave, speaking.speak(sentences()[:1], first, Manner(attempts=1)).wave)


def test_v4_speaks_on_from_one_clip_and_says_so() -> None:
    first = reference("v4")
    with pytest.raises(ModelsError, match="several references are for the v2 family"):
        voice("v4").prepare(replace(first, others=(first,)))


def test_a_family_that_speaks_whole_sentences_tries_again_in_a_stream_too() -> None:
    """v4 gives nothing out before a sentence is complete, so its tokens can be checked like those of `speak`."""
    speaking, asked = voice("v4"), sentences()[:1]
    spoken = speaking.speak(asked, reference("v4"), Manner(seed=1, attempts=2))
    chunks = list(speaking.stream(asked, reference("v4"), Manner(seed=1, attempts=2)))
    assert chunks[-1].sentence is not None
    assert chunks[-1].sentence.attempts == spoken.sentences[0].attempts
    torch.testing.assert_close(torch.cat([chunk.wave for chunk in chunks]), spoken.wave)
