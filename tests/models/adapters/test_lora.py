import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.adapters import lora
from models.configs.synthesizer import SynthesizerConfig
from models.configs.text2semantic import Text2SemanticConfig
from models.errors import WeightsError
from models.synthesizer.vits import Noise, Synthesizer
from models.text2semantic.network import Text2Semantic, TextAndTokens

pytestmark = pytest.mark.slow

CONFIG = Text2SemanticConfig(
    phoneme_vocab_size=30, vocab_size=41, hidden_dim=32, heads=4, layers=2, feedforward_dim=64, bert_dim=8
)


def network(seed: int = 3) -> Text2Semantic:
    torch.manual_seed(seed)
    return Text2Semantic(CONFIG).eval()


@torch.no_grad()
def logits(model: Text2Semantic) -> Tensor:
    torch.manual_seed(9)
    phones, tokens, bert = torch.randint(0, 30, (2, 6)), torch.randint(0, 40, (2, 7)), torch.randn(2, 8, 6)
    return model(TextAndTokens(phones, torch.tensor([6, 4]), tokens, torch.tensor([7, 5]), bert)).logits


def adapted(seed: int = 3) -> Text2Semantic:
    model = network(seed)
    lora.inject(model, model.adaptable_modules(), rank=4, alpha=8)
    train(model)
    return model


@torch.no_grad()
def train(model: torch.nn.Module) -> None:
    """Stands in for training: every adapter gets an effect."""
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=0.1)


def test_an_adapter_acts_in_eval_mode_and_can_be_switched_off():
    plain, model = logits(network()), adapted()
    assert (logits(model) - plain).abs().max() > 0.01
    with lora.adapters_off(model):
        assert torch.equal(logits(model), plain)
    assert (logits(model) - plain).abs().max() > 0.01


def test_only_the_adapter_trains():
    model = adapted().train()
    torch.manual_seed(0)
    phones, tokens = torch.randint(0, 30, (1, 6)), torch.randint(0, 40, (1, 7))
    prediction = model(TextAndTokens(phones, torch.tensor([6]), tokens, torch.tensor([7])))
    prediction.loss.backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == {name for name, _ in model.named_parameters() if "lora_" in name}
    assert (
        len(lora.adapter_parameters(model))
        == 2 * len(lora.adapted_modules(model))
        == 2 * len(network().adaptable_modules())
    )


def test_merging_changes_no_number_and_gives_the_plain_names_back():
    model = adapted()
    before = logits(model)
    names = list(network().state_dict())
    lora.merge(model)
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=0)
    assert sorted(model.state_dict()) == sorted(names)
    assert lora.adapted_modules(model) == []


def in_float16(model):
    """Weights of adapters as files keep them."""
    with torch.no_grad():
        for weight in lora.adapter_parameters(model):
            weight.copy_(weight.half())
    return model


def test_a_saved_adapter_is_loaded_exactly(tmp_path):
    model = in_float16(adapted())
    lora.save_adapter(model, tmp_path, base="tiny")
    other = network()
    assert lora.load_adapter(other, tmp_path) == "tiny"
    assert torch.equal(logits(other), logits(model))
    assert lora.adapter_state(other).keys() == lora.adapter_state(model).keys()


def test_files_keep_half_the_bytes_and_nothing_of_what_has_no_effect(tmp_path):
    model = adapted()
    name = next(name for name, _ in model.named_parameters() if "lora_B" in name)
    with torch.no_grad():
        model.get_parameter(name).zero_()
    lora.save_adapter(model, tmp_path, base="tiny")
    kept = load_file(tmp_path / lora.WEIGHTS_FILE)
    assert {value.dtype for value in kept.values()} == {torch.float16}
    short = lora.FILE_PREFIX + name.replace(f".{lora.ADAPTER}.", ".").replace("lora_B", "lora_A")
    assert [other for other, value in kept.items() if "lora_A" in other and not value.any()] == [short]
    other = network()
    lora.load_adapter(other, tmp_path)
    assert {weight.dtype for weight in lora.adapter_parameters(other)} == {torch.float32}
    assert torch.allclose(logits(other), logits(model), atol=1e-3)


def test_peft_itself_reads_what_we_save(tmp_path):
    from models.compat import prepare_torchaudio

    prepare_torchaudio()
    from peft import PeftModel

    model = in_float16(adapted())
    lora.save_adapter(model, tmp_path, base="tiny")
    theirs = PeftModel.from_pretrained(network(), tmp_path)
    assert torch.equal(logits(theirs.base_model.model), logits(model))


@pytest.mark.parametrize("put_on", [lora.load_adapter, lora.merge_adapter])
def test_an_adapter_of_another_network_is_refused(tmp_path, put_on):
    lora.save_adapter(adapted(), tmp_path, base="tiny")
    smaller = Text2Semantic(CONFIG.model_copy(update={"layers": 1}))
    with pytest.raises(WeightsError, match="missing"):
        put_on(smaller, tmp_path)
    narrow = Text2Semantic(CONFIG.model_copy(update={"feedforward_dim": 32}))
    before = {name: value.clone() for name, value in narrow.state_dict().items()}
    with pytest.raises(WeightsError, match="shape"):
        put_on(narrow, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in narrow.state_dict().items() if name in before)


def test_an_adapter_goes_on_linear_layers_and_plain_convolutions_only(tmp_path):
    lora.save_adapter(adapted(), tmp_path, base="tiny")
    config = json.loads((tmp_path / lora.CONFIG_FILE).read_text())
    state = load_file(tmp_path / lora.WEIGHTS_FILE)
    first = config["target_modules"][0]
    renamed = {name.replace(first, "h.layers.0.norm1"): value for name, value in state.items()}
    save_file(renamed, tmp_path / lora.WEIGHTS_FILE)
    targets = ["h.layers.0.norm1", *config["target_modules"][1:]]
    (tmp_path / lora.CONFIG_FILE).write_text(json.dumps({**config, "target_modules": targets}))
    for put_on in (lora.load_adapter, lora.merge_adapter):
        with pytest.raises(WeightsError, match="norm1 is neither"):
            put_on(network(), tmp_path)


def test_damaged_adapter_files_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="not a readable adapter"):
        lora.load_adapter(network(), tmp_path)
    lora.save_adapter(adapted(), tmp_path, base="tiny")
    (tmp_path / lora.WEIGHTS_FILE).write_bytes(b"\x00" * 100)
    with pytest.raises(WeightsError, match="not a readable adapter"):
        lora.load_adapter(network(), tmp_path)
    lora.save_adapter(adapted(), tmp_path, base="tiny")
    config = json.loads((tmp_path / lora.CONFIG_FILE).read_text())
    (tmp_path / lora.CONFIG_FILE).write_text(json.dumps({**config, "use_dora": True}))
    with pytest.raises(WeightsError, match="not a plain LoRA"):
        lora.load_adapter(network(), tmp_path)


HOSTILE = {
    "r": [10**9, 100_000, -1, 0, "8", 8.5, True, None, float("nan"), [], int("9" * 4000)],
    "lora_alpha": [float("nan"), float("inf"), -1, 0, "8", None, True],
    "target_modules": ["all-linear", [1], None, {}, 3],
    "base_model_name_or_path": [3, []],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in HOSTILE.items() for value in values])
def test_a_hostile_config_is_refused_in_words_before_anything_is_allocated(tmp_path, monkeypatch, key, value):
    lora.save_adapter(adapted(), tmp_path, base="tiny")
    config = json.loads((tmp_path / lora.CONFIG_FILE).read_text())
    (tmp_path / lora.CONFIG_FILE).write_text(json.dumps({**config, key: value}))
    monkeypatch.setattr(lora, "inject", lambda *_: pytest.fail("the network was changed"))
    with pytest.raises(WeightsError, match=lora.CONFIG_FILE) as caught:
        lora.load_adapter(network(), tmp_path)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "[]", "3", "", "\ud800", '{"r": 1' + "0" * 9999])
def test_a_config_that_is_none_is_refused_in_words(tmp_path, content):
    lora.save_adapter(adapted(), tmp_path, base="tiny")
    (tmp_path / lora.CONFIG_FILE).write_text(content, errors="surrogatepass")
    with pytest.raises(WeightsError, match="not a readable adapter"):
        lora.load_adapter(network(), tmp_path)


@pytest.mark.parametrize("name", [lora.CONFIG_FILE, lora.WEIGHTS_FILE])
def test_a_pipe_in_the_place_of_an_adapters_file_is_not_waited_for(tmp_path, name):
    lora.save_adapter(adapted(), tmp_path, base="tiny")
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(WeightsError, match="missing or no file"):
        lora.load_adapter(network(), tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_adapter_with_a_number_that_is_none_is_refused_by_its_name(tmp_path, value):
    model = adapted()
    name = next(name for name, _ in model.named_parameters() if "lora_B" in name)
    with torch.no_grad():
        model.get_parameter(name).view(-1)[3] = value
    with pytest.raises(WeightsError, match=r"lora_B\.weight: 1 of .* NaN or infinite"):
        lora.save_adapter(model, tmp_path, base="tiny")
    assert not (tmp_path / lora.WEIGHTS_FILE).exists()
    state = {lora.FILE_PREFIX + key: weight for key, weight in lora.adapter_state(model).items()}
    with torch.no_grad():
        model.get_parameter(name).view(-1)[3] = 0
    lora.save_adapter(model, tmp_path, base="tiny")
    save_file(state, tmp_path / lora.WEIGHTS_FILE)  # as others may write it
    with pytest.raises(WeightsError, match=r"lora_B\.weight: 1 of .* NaN or infinite"):
        lora.load_adapter(network(), tmp_path)


def test_targets_that_do_not_exist_are_refused():
    with pytest.raises(WeightsError, match="no_such_layer"):
        lora.inject(network(), ["no_such_layer"], rank=2)


SMALL = SynthesizerConfig(
    ssl_dim=16, codebook_size=12, mrte_hidden=16, style_hidden=8, gin_channels=16, inter_channels=8, hidden_channels=8,
    filter_channels=16, n_symbols=20,
)  # fmt: skip


@torch.no_grad()
def speak(model: Synthesizer) -> Tensor:
    torch.manual_seed(2)
    codes, text = torch.randint(0, 12, (1, 1, 6)), torch.randint(0, 20, (1, 5))
    ge = model.condition(torch.rand(1, model.config.spectrogram.bins, 12))
    return model.decode(codes, text, ge, Noise(torch.zeros(1, SMALL.inter_channels, 12)))


def test_a_synthesizer_speaks_the_same_with_its_adapter_merged():
    torch.manual_seed(1)
    model = Synthesizer(SMALL).eval()
    with pytest.raises(WeightsError, match="weight norm"):
        lora.inject(model, ["dec.ups.0"], rank=2)
    model.remove_weight_norm()
    plain = speak(model)
    lora.inject(model, model.adaptable_modules(), rank=2)
    train(model)
    unmerged = speak(model)
    assert (unmerged - plain).abs().max() > 1e-4
    torch.testing.assert_close(speak(lora.merge(model)), unmerged, atol=1e-5, rtol=0)


def synthesizer() -> Synthesizer:
    torch.manual_seed(1)
    return Synthesizer(SMALL).eval().remove_weight_norm()


@pytest.mark.parametrize("build", [network, synthesizer])
def test_without_peft_files_are_merged_to_the_bit_as_peft_merges_them(tmp_path, build):
    model = build()
    lora.inject(model, model.adaptable_modules(), rank=3, alpha=5)  # a scale that is no power of two
    train(model)
    in_float16(model)
    lora.save_adapter(model, tmp_path, base="tiny")
    theirs, ours = (
        dict(lora.merge(model).named_parameters()),
        dict(lora.merge_adapter(build(), tmp_path).named_parameters()),
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    changed = {name for name, value in build().named_parameters() if not torch.equal(ours[name], value)}
    assert changed == {f"{name}.weight" for name in build().adaptable_modules()}
