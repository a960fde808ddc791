"""A registry on the Hugging Face Hub: cards, tags and branches for people, and who may see and write it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from hub_server import READ
from places import hub_place
from releases import version_of

from pipeline.errors import NoAccessError, SettingsError
from pipeline.io.registry import remote
from pipeline.io.registry.events import Mover
from pipeline.io.registry.registry import open_registry

ADAPTER = "adapter/synthesizer"
FIRST, SECOND = version_of(1), version_of(2)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with hub_place(tmp_path_factory.mktemp("hub")) as place:
        yield place


@pytest.fixture(autouse=True)
def impatient(monkeypatch, hub):
    monkeypatch.setattr(remote, "PAUSES_S", (0.0,))
    hub.faults.begin()


@pytest.fixture
def publish(tmp_path, make_release, make_weights):
    def published(registry, voice, version=FIRST, **told):
        (tmp_path / "card.md").write_text("---\nlicense: cc-by-4.0\n---\n# Ana\n\nSpeaker: Ana\n")
        (tmp_path / "config.json").write_text('{"peft_type": "LORA"}')
        (tmp_path / "reference.flac").write_bytes(b"fLaC" + bytes(3000))
        files = {
            "card.md": tmp_path / "card.md",
            f"{ADAPTER}/adapter_config.json": tmp_path / "config.json",
            f"{ADAPTER}/adapter_model.safetensors": make_weights(tmp_path / "w", b"\0" * 4000),
            "reference/reference.flac": tmp_path / "reference.flac",
        }
        release = make_release(
            voice,
            version,
            metrics={"free_speech.cer": 0.04, "copy_synthesis.pesq_wb": None},
            consent={"speaker": "Ana Pérez", "granted_on": "2026-01-09", "scope": ["tests"]},
        )
        return registry.publish(voice, release, files, actor="x", **told)

    return published


def card_of(hub, voice):
    repository = hub.server.repositories[f"us/{voice}"]
    return repository.commits[repository.branches["main"]]["README.md"].decode()


def test_the_card_says_what_the_hub_asks_for(hub, publish):
    publish(hub.open(), "card")
    header, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", card_of(hub, "card"), re.S).groups()
    told = yaml.safe_load(header)
    assert (told["license"], told["language"], told["library_name"]) == ("cc-by-4.0", "en", "peft")
    assert told["base_model"]
    assert told["consent_scope"] == ["tests"]
    metrics = told["model-index"][0]["results"][0]["metrics"]
    assert [(one["name"], one["value"]) for one in metrics] == [("free_speech.cer", 0.04)]
    assert "Speaker: Ana" in body
    assert f"(releases/{FIRST}/reference/reference.flac)" in body


def test_versions_are_tags_and_channels_are_branches(hub, publish):
    registry = hub.open()
    publish(registry, "refs", FIRST)
    publish(registry, "refs", SECOND, channel="candidate")
    repository = hub.server.repositories["us/refs"]
    assert repository.private
    assert set(repository.tags) == {FIRST, SECOND}
    assert repository.branches["production"] == repository.tags[FIRST]
    assert repository.branches["candidate"] == repository.tags[SECOND]
    registry.promote("refs", None, Mover("Ben"))
    assert repository.branches["production"] == repository.tags[SECOND]
    registry.retire("refs", Mover("Ben"))
    assert "production" not in repository.branches


def test_the_hub_s_own_client_finds_what_peft_loads(hub, publish, tmp_path):
    """peft asks for these two files, with ``subfolder`` and ``revision``."""
    from huggingface_hub import hf_hub_download

    publish(hub.open(), "peft")
    told = {"subfolder": f"releases/{FIRST}/{ADAPTER}", "cache_dir": tmp_path / "hub", "endpoint": hub.faults.url}
    for revision in ("production", FIRST):
        found = hf_hub_download("us/peft", "adapter_config.json", revision=revision, **told)
        assert json.loads(Path(found).read_text())["peft_type"] == "LORA"
    weights = hf_hub_download("us/peft", "adapter_model.safetensors", revision="production", **told)
    assert Path(weights).read_bytes() == (tmp_path / "w").read_bytes()


def test_a_repository_that_everybody_sees_takes_no_voice_unless_that_is_said(hub, publish):
    publish(open_registry("hf://us?public=yes", cache=hub.home / "public"), "open")
    repository = hub.server.repositories["us/open"]
    assert not repository.private
    before = dict(repository.branches)
    with pytest.raises(SettingsError, match="everybody can see") as failure:
        publish(hub.open(), "open", SECOND)
    assert failure.value.exit_code == 3
    assert repository.branches == before
    publish(open_registry("hf://us?public=yes", cache=hub.home / "public"), "open", SECOND)


def test_a_token_that_may_only_read_publishes_nothing(hub, publish, monkeypatch):
    publish(hub.open(), "rights")
    monkeypatch.setenv("HF_TOKEN", READ)
    reader = hub.open()
    assert reader.verified("rights")[0].version == FIRST
    for voice in ("rights", "rights-2"):
        with pytest.raises(NoAccessError) as failure:
            publish(reader, voice, SECOND)
        assert "HF_TOKEN" in failure.value.hint
    assert reader.versions("rights") == [FIRST]
    assert "rights-2" not in reader.voices()


def test_a_wrong_token_is_told(hub, publish, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    with pytest.raises(NoAccessError, match="hf://us/nobody"):
        publish(hub.open(), "nobody")


def test_a_commit_of_somebody_else_is_no_reason_to_lose_one(hub, publish):
    """People edit the card on the Hub: the parent is another then, and the change is made again on it."""
    registry = hub.open()
    publish(registry, "edited")
    repository = hub.server.repositories["us/edited"]
    edited = []

    def edit(request):
        if "/commit/main" in request.path and not edited:
            edited.append(repository.commit({**repository.commits[repository.branches["main"]], "README.md": b"mine"}))

    hub.faults.begin(edit)
    publish(registry, "edited", SECOND)
    assert edited
    assert [event.version for event in hub.open().history("edited")] == [FIRST, SECOND]


@pytest.mark.parametrize("url", ["hf:us", "hf://", "hf://us/ana", "hf://us?public=no", "hf://../x"])
def test_what_is_no_organisation_is_refused(url, tmp_path):
    with pytest.raises(SettingsError, match="organisation|none of"):
        open_registry(url, cache=tmp_path)


def test_plain_http_is_refused_except_on_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example.org")
    with pytest.raises(SettingsError, match="in the clear"):
        open_registry("hf://us", cache=tmp_path)
