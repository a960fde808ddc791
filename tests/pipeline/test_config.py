"""Settings: who wins, what is refused, and what the message names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.config import VoiceKeys, resolve
from pipeline.errors import SettingsError
from pipeline.records.settings import switched_off


def resolve_in(folder: Path, toml: str = "", **arguments):
    (folder / "pipeline.toml").write_text(toml, encoding="utf-8")
    return resolve(root=folder, environment=arguments.pop("environment", {}), **arguments)


def source_of(resolved, section: str, key: str) -> str:
    return next(one.source for one in resolved.origins if (one.section, one.key) == (section, key))


def test_flags_win_over_environment_over_voice_over_file_over_default(tmp_path: Path):
    toml = "[finetune]\nrank = 2\nepochs = 2\nbatch_size = 2\nseed = 2\n"
    resolved = resolve_in(
        tmp_path,
        toml,
        voice=VoiceKeys({"finetune": {"rank": 3, "epochs": 3, "batch_size": 3}}),
        environment={"VOXLINE_FINETUNE_RANK": "4", "VOXLINE_FINETUNE_EPOCHS": "4"},
        flags={"finetune.rank": 5, "finetune.alpha": None},
    )
    finetune = resolved.settings.finetune
    assert (finetune.rank, finetune.epochs, finetune.batch_size, finetune.seed) == (5, 4, 3, 2)
    assert finetune.alpha == 16.0
    assert [source_of(resolved, "finetune", key) for key in ("rank", "epochs", "batch_size", "seed", "alpha")] == [
        "flag",
        "VOXLINE_FINETUNE_EPOCHS",
        "voice.yaml",
        "pipeline.toml",
        "default",
    ]


def test_a_voice_names_its_base_at_the_top_level(tmp_path: Path):
    resolved = resolve_in(tmp_path, voice=VoiceKeys({"base": "gpt-sovits-v4"}))
    assert resolved.settings.voxline.base == "gpt-sovits-v4"


def test_general_settings_have_short_variable_names(tmp_path: Path):
    resolved = resolve_in(tmp_path, environment={"VOXLINE_REGISTRY": "s3://bucket/voices", "PATH": "/bin"})
    assert resolved.settings.voxline.registry == "s3://bucket/voices"


@pytest.mark.parametrize("text", ["a@example.org, b@example.org", '["a@example.org", "b@example.org"]'])
def test_a_list_is_written_in_a_variable_with_commas_or_as_json(tmp_path: Path, text: str):
    resolved = resolve_in(tmp_path, environment={"VOXLINE_NOTIFY_EMAIL_TO": text})
    assert resolved.settings.notify.email_to == ("a@example.org", "b@example.org")


@pytest.mark.parametrize(
    ("toml", "arguments", "expected"),
    [
        ("[finetune]\nrnk = 4\n", {}, "unknown key 'finetune.rnk'"),
        ("[finetune]\nrank = 0\n", {}, "finetune.rank"),
        ("[fintune]\nrank = 4\n", {}, "unknown section 'fintune'"),
        ("rank = 4\n", {}, "must be a table"),
        ("[finetune\n", {}, "not valid TOML"),
        ("", {"environment": {"VOXLINE_FINETUNE_RNK": "4"}}, "VOXLINE_FINETUNE_RNK"),
        ("", {"environment": {"VOXLINE_FINETUNE_RANK": "many"}}, "VOXLINE_FINETUNE_RANK"),
        ("", {"environment": {"VOXLINE_NOTIFY_COMMAND": "[1"}}, "VOXLINE_NOTIFY_COMMAND: notify.command"),
        ('[notify]\nwebhook_allowed = ["inside"]\n', {}, "notify.webhook_allowed"),
        ("", {"voice": VoiceKeys({"finetune": {"rank": -1}})}, "voice.yaml: finetune.rank"),
    ],
)
def test_a_wrong_value_is_refused_where_it_was_written(tmp_path: Path, toml: str, arguments: dict, expected: str):
    with pytest.raises(SettingsError, match=expected):
        resolve_in(tmp_path, toml, **arguments)


def test_a_voice_can_raise_the_gate_but_never_lower_it(tmp_path: Path):
    toml = "[gate]\npesq_wb_min = 3.0\n"
    raised = resolve_in(tmp_path, toml, voice=VoiceKeys({"gate": {"pesq_wb_min": 3.6}}))
    assert raised.settings.gate.pesq_wb_min == 3.6
    for weaker in (2.9, None):
        with pytest.raises(SettingsError, match=r"weaker than 3\.0"):
            resolve_in(tmp_path, toml, voice=VoiceKeys({"gate": {"pesq_wb_min": weaker}}))


@pytest.mark.parametrize(
    ("toml", "fewest", "holder"), [("", 3, "default"), ("[finetune]\nheldout_clips = 5\n", 5, "toml")]
)
def test_a_voice_can_be_judged_on_more_clips_but_never_on_fewer(tmp_path: Path, toml: str, fewest: int, holder: str):
    more = resolve_in(tmp_path, toml, voice=VoiceKeys({"finetune": {"heldout_clips": fewest + 1}}))
    assert more.settings.finetune.heldout_clips == fewest + 1
    with pytest.raises(SettingsError, match=f"heldout_clips = {fewest - 1} is weaker than {fewest} of .*{holder}"):
        resolve_in(tmp_path, toml, voice=VoiceKeys({"finetune": {"heldout_clips": fewest - 1}}))


@pytest.mark.parametrize("overrides", [{"validate": {"speech_min_s": 1}}, {"evaluate": {"sentences": 1}}])
def test_a_voice_cannot_change_what_it_is_judged_by(tmp_path: Path, overrides: dict):
    assert resolve_in(tmp_path, voice=VoiceKeys(overrides)).settings == resolve_in(tmp_path).settings


def test_a_huge_settings_file_is_not_parsed(tmp_path: Path):
    with pytest.raises(SettingsError, match="more than 262144 bytes"):
        resolve_in(tmp_path, "#" * 300_000)


@pytest.mark.parametrize(
    ("written", "off"),
    [("auto", ()), (" Auto ", ()), ("no bf16", ("bf16",)), ("no bf16, no AVX-512,no int8", ("bf16", "avx512", "int8"))],
)
def test_what_a_processor_is_to_do_without_is_written_as_it_is_said(tmp_path: Path, written, off):
    general = resolve_in(tmp_path, environment={"VOXLINE_PROCESSOR": written}).settings.voxline
    assert switched_off(general.processor) == off


@pytest.mark.parametrize("written", ["", "bf16", "no", "no mmx", "no bf16 no int8", "no bf16, auto"])
def test_a_processor_without_something_unknown_is_refused_with_what_can_be_written(tmp_path: Path, written):
    with pytest.raises(
        SettingsError, match=r"pipeline.toml: voxline.processor: .*no avx512, no bf16, no int8, no onednn"
    ):
        resolve_in(tmp_path, f'[voxline]\nprocessor = "{written}"\n')


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('[notify]\ncommand = "curl x"', 'notify.command: must be a list, like ["one", "two"] (got \'curl x\')'),
        ("[finetune]\nepochs = 1.5", "finetune.epochs: must be a whole number (got '1.5')"),
        ('[finetune]\nrank = "many"', "finetune.rank: must be a whole number (got 'many')"),
        ("[voxline]\nbase = 3", "voxline.base: must be a text in quotes (got '3')"),
        ('[validate]\nstrict = "perhaps"', "validate.strict: must be true or false (got 'perhaps')"),
        ('[finetune]\nalpha = "loud"', "finetune.alpha: must be a number (got 'loud')"),
    ],
)
def test_a_value_of_another_kind_is_told_in_plain_words(tmp_path, content, told):
    (tmp_path / "pipeline.toml").write_text(content)
    with pytest.raises(SettingsError) as caught:
        resolve(root=tmp_path, environment={})
    assert told in caught.value.message


def test_a_pipe_in_the_place_of_the_settings_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipeline.toml")
    with pytest.raises(SettingsError, match=r"pipeline\.toml: is not a regular file"):
        resolve(root=tmp_path, environment={})
