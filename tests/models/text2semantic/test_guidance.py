"""Following a text with tokens: the network is told in steps what training told it at once, and sampling keeps to it."""

import pytest
import torch
from pydantic import ValidationError

from models.configs.text2semantic import GuideConfig, SamplingConfig, Text2SemanticConfig
from models.phones.symbols import phones_to_ids
from models.text2semantic.attempts import Effort, Task, find_misreadings, generate_checked, listen
from models.text2semantic.coverage import compare
from models.text2semantic.decoding import Decoder, Request
from models.text2semantic.guidance import FORBIDDEN, LONGEST_PAUSE, TextGuide
from models.text2semantic.network import Text2Semantic, TextAndTokens

CODES = 120
NUMBERS = {"vocab_size": CODES + 1, "hidden_dim": 32, "heads": 2, "layers": 2, "feedforward_dim": 64, "bert_dim": 0}


def text(*symbols: str) -> torch.Tensor:
    return torch.tensor(phones_to_ids(list(symbols), "v2"))


HELLO = text("HH", "AH0", "L", "OW1", ",", "W", "ER1", "L", "D", ".")
MANDARIN = text("n", "i3", "h", "ao3", ".")


def fill(guide: TextGuide) -> TextGuide:
    """Three codes for every class, phones of one to four tokens."""
    classes = len(guide.config.classes)
    guide.said.copy_(torch.eye(classes).repeat(3, 1)[:CODES] * 0.9 + 0.1 / classes)
    lasting = torch.zeros_like(guide.lasting)
    lasting[:, 1:5] = 0.25
    guide.lasting.copy_(lasting)
    return guide


@pytest.fixture(scope="module")
def network() -> Text2Semantic:
    torch.manual_seed(0)
    network = Text2Semantic(Text2SemanticConfig(**NUMBERS, prompted=False, guide=GuideConfig(embedding_dim=8))).eval()
    fill(network.guide)
    return network


def test_a_guide_needs_a_network_without_a_prompt():
    with pytest.raises(ValidationError, match="prompted"):
        Text2SemanticConfig(**NUMBERS, guide=GuideConfig())


@torch.no_grad()
def test_what_the_network_is_told_step_by_step_is_what_training_told_it(network):
    tokens = torch.randint(0, CODES, (2, 14), generator=torch.Generator().manual_seed(1))
    phones = torch.nn.utils.rnn.pad_sequence([HELLO, MANDARIN], batch_first=True)
    lengths = torch.tensor([len(HELLO), len(MANDARIN)])
    at_once = network.guide.teach(phones, lengths, tokens)
    followed = network.guide.follow([HELLO, MANDARIN])
    for step in range(tokens.shape[1]):
        followed.push(tokens[:, step])
        torch.testing.assert_close(followed.told(), at_once[:, step], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_generation_computes_what_training_computes(network):
    tokens = torch.randint(0, CODES, (1, 12), generator=torch.Generator().manual_seed(2))
    trained = network(TextAndTokens(HELLO[None], torch.tensor([len(HELLO)]), tokens, torch.tensor([12]))).logits[0]
    torch.testing.assert_close(
        Decoder(network).score(Request(HELLO, 0), tokens[0].tolist()), trained, atol=1e-4, rtol=1e-3
    )


def test_the_end_fits_only_after_the_text(network):
    followed, end = network.guide.follow([HELLO]), CODES
    assert followed.weights()[0, end] < -10
    states = network.guide.states(HELLO)
    assert states is not None
    for place, name in enumerate(states.classes[:-1].tolist()):
        assert followed.weights()[0, end] < -4, f"the end before state {place}"
        followed.push(torch.tensor([name]))
    for _ in range(3):
        followed.push(torch.tensor([0]))
    assert followed.weights()[0, end] > -2


def test_an_untrained_network_says_the_text_when_it_is_guided_and_not_otherwise(network):
    guided = Decoder(network).generate([Request(t, seed=3) for t in (HELLO, MANDARIN)], SamplingConfig(top_k=0))
    said = network.guide.said.double().numpy()
    for phones, one in zip((HELLO, MANDARIN), guided, strict=True):
        assert one.ended
        assert compare(one.tokens, network.guide.classes_of(phones), said).error_rate < 0.4
    torch.manual_seed(0)
    free = Text2Semantic(Text2SemanticConfig(**NUMBERS)).eval()
    babble = Decoder(free).generate([Request(HELLO, seed=3)], SamplingConfig(top_k=0, max_tokens=60))[0]
    assert compare(babble.tokens, network.guide.classes_of(HELLO), said).error_rate > 0.8


def test_a_language_that_nobody_can_follow_is_left_free(network):
    japanese = text("k", "o", "N", "n", "i", "ch", "i", "w", "a")
    followed = network.guide.follow([japanese, HELLO])
    assert not followed.weights()[0].any() and followed.weights()[1].any()
    assert not followed.told()[0].any()
    assert listen([1, 2, 3], japanese, network.guide) is None


def test_more_candidates_say_the_text_at_least_as_well(network):
    tasks = [Task(phones, len(phones), None, None) for phones in (HELLO, MANDARIN)]
    errors = []
    for candidates in (1, 4):
        settings = SamplingConfig(top_k=0, candidates=candidates)
        tries = generate_checked(Decoder(network), tasks, Effort(5, settings, attempts=1, batch_size=8))
        errors.append([one[-1].coverage.error_rate for one in tries])
        alone = generate_checked(Decoder(network), tasks[1:], Effort(5, settings, attempts=1, batch_size=1))
        assert alone[0] == tries[1]  # whatever stands beside it
    assert all(many <= one for one, many in zip(*errors, strict=True))


def test_what_recordings_do_not_do_is_named(network):
    said = network.guide.said.double().numpy()
    spoken = network.guide.classes_of(HELLO)
    assert find_misreadings(compare(spoken, spoken, said), network.guide) == ()
    assert find_misreadings(compare(spoken[:2], spoken, said), network.guide) == ("dropped", "unclear")
    repeated = [one for one in spoken[:4] for _ in range(4)] * 3 + spoken[4:]
    assert "added" in find_misreadings(compare(repeated, spoken, said), network.guide)


@torch.no_grad()
def test_a_pause_ends_however_much_the_network_likes_silence(network):
    followed = network.guide.follow([HELLO, HELLO])
    silent, spoken = torch.tensor([0, 0]), torch.tensor([0, 5])  # the second row says something in between
    for step in range(LONGEST_PAUSE):
        assert not (followed.weights() == FORBIDDEN).any()
        followed.push(spoken if step == 3 else silent)
    weights = followed.weights()
    is_silence = torch.arange(CODES + 1) % len(network.guide.config.classes) == 0
    is_silence[-1] = False
    assert (weights[0, is_silence] == FORBIDDEN).all() and (weights[0, ~is_silence] > FORBIDDEN).all()
    assert (weights[1] > FORBIDDEN).all()
    followed.keep(torch.tensor([0]))
    followed.push(torch.tensor([5]))
    assert (followed.weights() > FORBIDDEN).all()
