import pytest
import torch

from models.adapters.lora import inject
from models.configs.text2semantic import SamplingConfig, Text2SemanticConfig
from models.errors import ModelsError
from models.machine.processor import ProcessorError, works
from models.text2semantic.decoding import Decoder, Request, compare_weights
from models.text2semantic.network import Text2Semantic, TextAndTokens

pytestmark = [pytest.mark.processor, pytest.mark.slow]

CONFIG = Text2SemanticConfig(
    phoneme_vocab_size=30, vocab_size=41, hidden_dim=64, heads=4, layers=3, feedforward_dim=128, bert_dim=0
)
FREE = SamplingConfig(top_k=8, max_tokens=40)


@pytest.fixture(scope="module")
def network() -> Text2Semantic:
    torch.manual_seed(3)
    return Text2Semantic(CONFIG).eval()


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    torch.manual_seed(4)
    sizes = [(9, 5), (4, 0), (12, 8), (3, 2), (7, 7)]
    return [
        Request(torch.randint(0, 30, (phones,)), seed=seed, prompt=torch.randint(0, 40, (tokens,)) if tokens else None)
        for seed, (phones, tokens) in enumerate(sizes)
    ]


def test_the_step_by_step_logits_are_those_of_the_whole_network(network, requests):
    decoder = Decoder(network)
    for request in requests:
        prompt = torch.empty(0, dtype=torch.long) if request.prompt is None else request.prompt
        new = torch.arange(20) % 40
        tokens = torch.cat([prompt, new])[None]
        with torch.no_grad():
            lengths = torch.tensor([len(request.phones)]), torch.tensor([tokens.shape[1]])
            whole = network(TextAndTokens(request.phones[None], lengths[0], tokens, lengths[1]))
        stepwise = decoder.score(request, new.tolist())
        torch.testing.assert_close(stepwise, whole.logits[0, len(prompt) :], atol=2e-5, rtol=0)


def test_a_seed_gives_the_same_tokens_whatever_the_batch(network, requests):
    decoder = Decoder(network)
    alone = [decoder.generate([request], FREE)[0] for request in requests]
    assert decoder.generate(requests, FREE) == alone
    assert decoder.generate(requests[::-1], FREE) == alone[::-1]
    assert len({found.tokens for found in alone}) == len(alone)


def test_another_seed_gives_other_tokens(network, requests):
    decoder = Decoder(network)
    first = requests[0]
    other = Request(first.phones, seed=first.seed + 1, prompt=first.prompt)
    assert decoder.generate([first], FREE)[0].tokens != decoder.generate([other], FREE)[0].tokens


def test_streaming_yields_the_tokens_of_the_batch_and_tells_the_end(network, requests):
    decoder = Decoder(network)
    stream = decoder.stream(requests[0], FREE)
    tokens = []
    while True:
        try:
            tokens.append(next(stream))
        except StopIteration as stop:
            ended = stop.value
            break
    (whole,) = decoder.generate([requests[0]], FREE)
    assert (tuple(tokens), ended) == (whole.tokens, whole.ended)


def test_generation_beyond_the_first_cache_goes_on_correctly(network, requests):
    decoder = Decoder(network)
    long = SamplingConfig(top_k=1, max_tokens=400, min_tokens=400, repetition_penalty=1.0)
    both = decoder.generate(requests[:2], long)
    assert [len(found.tokens) for found in both] == [400, 400]
    assert not both[0].ended
    logits = decoder.score(requests[0], both[0].tokens[:-1])
    logits[:, CONFIG.end_token] = -torch.inf
    assert logits.argmax(-1).tolist() == list(both[0].tokens)


def test_rows_that_end_leave_the_others_untouched(network, requests):
    eager = Text2Semantic(CONFIG).eval()
    eager.load_state_dict(network.state_dict())
    with torch.no_grad():
        eager.ar_predict_layer.weight[CONFIG.end_token] *= 3
    decoder = Decoder(eager)
    settings = SamplingConfig(top_k=8, min_tokens=2, max_tokens=60)
    alone = [decoder.generate([request], settings)[0] for request in requests]
    assert len({len(found.tokens) for found in alone}) > 1, "the rows must end at different steps for this test"
    assert decoder.generate(requests, settings) == alone


@pytest.mark.parametrize(("kind", "limit"), [("bf16", 0.003), ("int8", 0.01)])
def test_lighter_weights_lose_little_and_not_nothing(network, requests, kind, limit):
    if not works(kind):
        with pytest.raises(ProcessorError, match=kind):
            Decoder(network, kind)
        return
    exact, lighter = Decoder(network), Decoder(network, kind)
    loss = compare_weights(exact, lighter, requests[0], list(range(20)))
    assert 0 < loss.kl_nats < limit
    assert loss.same_best_token >= 0.8
    assert len(lighter.generate(requests, FREE)) == len(requests)


def test_an_adapter_acts_without_being_merged(network, requests):
    adapted = Text2Semantic(CONFIG).eval()
    adapted.load_state_dict(network.state_dict())
    inject(adapted, adapted.adaptable_modules(), rank=4)
    plain = Decoder(network).score(requests[0], [1, 2, 3])
    assert torch.equal(Decoder(adapted).score(requests[0], [1, 2, 3]), plain)  # a fresh adapter has no effect
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    assert not torch.allclose(Decoder(adapted).score(requests[0], [1, 2, 3]), plain, atol=1e-2)


def test_nothing_to_decode_is_refused(network):
    with pytest.raises(ModelsError, match="no requests"):
        Decoder(network).generate([])
