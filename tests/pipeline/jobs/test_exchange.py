"""Voices to GPT-SoVITS and back, on small networks in the exact layout of the real ones."""

from __future__ import annotations

import io
import json
import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from small_networks import DIT, PRO, SYNTHESIZER, TEXT2SEMANTIC
from torch import Tensor, nn

from models.adapters.lora import inject, merge, save_adapter, set_adapter_state
from models.families.vits import load_synthesizer
from models.loading.bases import Base, load_base
from models.loading.networks import build_network, load_text2semantic
from models.upstream.files import (
    read_upstream,
    synthesizer_config,
    text2semantic_config,
    write_synthesizer,
    write_text2semantic,
)
from models.upstream.lora import upstream_lora_merge, upstream_lora_split, upstream_lora_weights
from pipeline.cli.main import run_command
from pipeline.errors import ConsentError, SettingsError, UsageError
from pipeline.io.registry.registry import Registry, open_registry
from pipeline.io.registry.trust import Digester
from pipeline.jobs.exchange import export_release, import_files, inspect_file
from pipeline.records.release import Release, ReleaseFile, release_version

pytestmark = pytest.mark.slow

CFM: dict[str, Any] = {
    "encoder": SYNTHESIZER,
    "mel": {"sample_rate_hz": 32000, "n_fft": 1280, "win_samples": 1280, "hop_samples": 320, "n_mels": 6},
    "bridge_channels": 8,
    "condition_layers": 2,
    "dit": DIT,
}
ALPHA, RANK = 8, 4  # a scale of 2, which GPT-SoVITS's files cannot say


def make_base(root: Path, version: str) -> Base:
    """A small base of a version, whose weights are pulled already."""
    network = {"cfm": CFM} if version in ("v3", "v4") else {"synthesizer": SYNTHESIZER}
    if version == "v2Pro":
        network = {"synthesizer": PRO}
    content = {
        "name": f"small-{version.lower()}",
        "family": {"v2Pro": "v2pro"}.get(version, version),
        "upstream_version": version,
        "sample_rate_hz": 32000,
        "hop_samples": 640,
        **network,
        "text2semantic": TEXT2SEMANTIC,
        "weights": {
            role: {"repository": "someone/voices", "path": f"{role}.pth", "layout": "upstream"}
            for role in ("synthesizer", "text2semantic")
        },
        "license": {"name": "MIT"},
    }
    folder = root / "bases" / content["name"]
    folder.mkdir(parents=True)
    (folder / "base.yaml").write_text(yaml.safe_dump(content))
    base = load_base(content["name"], root / "bases")
    torch.manual_seed(5)
    for role in base.weights:
        path = base.weight_path(role, root / "cache")
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {name: value.half().float() for name, value in build_network(base, role).state_dict().items()}
        save_file({name: value.clone() for name, value in state.items()}, path)
    return base


def fill(network: nn.Module) -> None:
    """An adapter with an effect: fresh ones have none."""
    state = {name: torch.randn_like(value) * 0.1 for name, value in network.state_dict().items() if "lora_" in name}
    set_adapter_state(network, {name.replace(".default.", "."): value for name, value in state.items()}, "test")


def make_adapters(base: Base, root: Path) -> Path:
    """Both adapters of a voice on this base, in a release's layout."""
    cache, folder = root / "cache", root / "files"
    gpt = load_text2semantic(base, cache)
    networks: dict[str, tuple[nn.Module, list[str]]] = {"text2semantic": (gpt, gpt.adaptable_modules())}
    if base.cfm is not None:
        flow = build_network(base, "synthesizer")
        targets = [name for name, _ in flow.named_modules() if name.endswith((".to_q", ".to_k", ".to_v", ".to_out.0"))]
        networks["synthesizer"] = (flow, targets)
    else:
        synthesizer = load_synthesizer(base, cache)
        networks["synthesizer"] = (synthesizer, synthesizer.adaptable_modules())
    for part, (network, targets) in networks.items():
        inject(network, targets, RANK, ALPHA)
        fill(network)
        save_adapter(network, folder / "adapter" / part, base.name)
    (folder / "reference").mkdir()
    (folder / "reference" / "0.txt").write_text("Good morning.")
    (folder / "card.md").write_text("# ana\n")
    return folder


DIGESTS = {f"{kind}_digest": "0" * 64 for kind in ("content", "base", "recipe")}
VERSION = release_version(*DIGESTS.values())


def described(folder: Path) -> dict[str, ReleaseFile]:
    """The files of a release's folder, as its manifest names them."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): Digester().of(path) for path in paths}


def make_release(base: Base, **changes: Any) -> Release:
    consent = {"speaker": "Ana", "granted_on": date(2026, 1, 1), "scope": ["tests"]}
    told: dict[str, Any] = {
        "voice": "ana",
        "version": VERSION,
        "created_at": datetime(2026, 1, 2, tzinfo=UTC),
        "base": base.name,
        **DIGESTS,
        "language": "en",
        "license": "CC0-1.0",
        "consent": consent,
        **changes,
    }
    return Release.model_validate(told)


def loaded_as_upstream_does(path: Path) -> dict[str, Any]:
    return torch.load(io.BytesIO(b"PK" + path.read_bytes()[2:]), weights_only=True)


def publish(root: Path, base: Base) -> Registry:
    registry = open_registry("file:registry", root=root)
    folder = make_adapters(base, root)
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    registry.publish("ana", make_release(base), files, actor="tests")
    return registry


TODAY = date(2026, 6, 1)


@pytest.mark.parametrize(("version", "header"), [("v2", b"PK"), ("v2Pro", b"05")])
def test_an_exported_v2_voice_is_the_merged_voice_in_half_precision(
    tmp_path: Path, version: str, header: bytes
) -> None:
    base = make_base(tmp_path, version)
    folder, target, cache = make_adapters(base, tmp_path), tmp_path / "out", tmp_path / "cache"
    written = export_release(
        make_release(base, files=described(folder)), folder, base, target, cache=cache, today=TODAY
    )
    names = [f"ana-{VERSION}.ckpt", f"ana_{VERSION}.pth", "card.md", "reference"]
    assert [path.name for path in written] == names
    assert (target / "reference" / "0.txt").read_text() == "Good morning."

    pth = target / f"ana_{VERSION}.pth"
    assert pth.read_bytes()[:2] == header
    content = loaded_as_upstream_does(pth)
    expected = build_network(base, "synthesizer").state_dict().keys()
    assert content["weight"].keys() == {name for name in expected if not name.startswith("enc_q")}
    assert content["config"]["model"]["gin_channels"] == base.synthesizer.gin_channels  # type: ignore[union-attr]

    from models.adapters.lora import load_adapter

    adapted = load_synthesizer(base, cache)
    load_adapter(adapted, folder / "adapter" / "synthesizer")
    merged = merge(adapted).state_dict()
    assert_convolutions_equal(content["weight"], merged)

    gpt = load_text2semantic(base, cache)
    load_adapter(gpt, folder / "adapter" / "text2semantic")
    theirs = loaded_as_upstream_does(target / f"ana-{VERSION}.ckpt")["weight"]
    for name, value in merge(gpt).state_dict().items():
        assert torch.equal(theirs[f"model.{name}"], value.half()), name


def assert_convolutions_equal(written: dict[str, Tensor], merged: dict[str, Tensor]) -> None:
    """Every weight, whether stored as such or as weight norm's pair, within the rounding to half."""
    compared = 0
    for name, value in merged.items():
        if name.startswith("enc_q"):
            continue
        if name in written:
            assert torch.equal(written[name], value.half()), name
        else:
            g, v = (written[f"{name}_{part}"].float() for part in "gv")
            norm = v.flatten(1).norm(dim=1).view_as(g)
            assert torch.allclose(v * g / norm, value, rtol=4e-3, atol=1e-4), name
        compared += 1
    assert compared > 50


@pytest.mark.parametrize(("version", "header"), [("v3", b"03"), ("v4", b"04")])
def test_an_exported_v3_or_v4_voice_is_a_lora_file_with_the_scale_in_it(
    tmp_path: Path, version: str, header: bytes
) -> None:
    base = make_base(tmp_path, version)
    folder, target = make_adapters(base, tmp_path), tmp_path / "out"
    export_release(make_release(base), folder, base, target, cache=tmp_path / "cache", today=TODAY)
    path = target / f"ana_{VERSION}_l{RANK}.pth"
    assert path.read_bytes()[:2] == header
    assert loaded_as_upstream_does(path)["lora_rank"] == RANK

    network = build_network(base, "synthesizer")
    network.load_state_dict(load_file(base.weight_path("synthesizer", tmp_path / "cache")))
    merged = upstream_lora_merge(network.state_dict(), upstream_lora_split(read_upstream(path)))
    from models.adapters.lora import load_adapter

    load_adapter(network, folder / "adapter" / "synthesizer")
    ours = merge(network).state_dict()
    changed = [name for name in ours if not torch.equal(merged[name], build_zero(base, tmp_path)[name])]
    assert len(changed) == 8
    assert all(torch.allclose(merged[name], ours[name], atol=1e-3) for name in ours)


def build_zero(base: Base, root: Path) -> dict[str, Tensor]:
    return load_file(base.weight_path("synthesizer", root / "cache"))


@pytest.mark.parametrize("first_day_without", [date(2026, 5, 31), TODAY])
def test_an_expired_consent_stops_the_export(tmp_path: Path, first_day_without: date) -> None:
    base = make_base(tmp_path, "v2")
    consent = {"speaker": "Ana P", "granted_on": date(2025, 1, 1), "scope": ["a"], "expires_on": first_day_without}
    with pytest.raises(ConsentError, match=f"^(?!.*Ana P).*expired on {first_day_without}"):
        release = make_release(base, consent=consent)
        export_release(release, tmp_path, base, tmp_path / "out", cache=tmp_path / "cache", today=TODAY)
    assert not (tmp_path / "out").exists()


def test_a_voice_on_a_base_of_our_own_cannot_be_exported(tmp_path: Path) -> None:
    base = make_base(tmp_path, "v2").model_copy(update={"upstream_version": None})
    with pytest.raises(SettingsError, match="voxline's own"):
        export_release(make_release(base), tmp_path, base, tmp_path / "out", cache=tmp_path / "cache", today=TODAY)


def test_a_base_that_is_not_pulled_is_named(tmp_path: Path) -> None:
    base = make_base(tmp_path, "v2")
    folder = make_adapters(base, tmp_path)
    with pytest.raises(SettingsError, match=r"synthesizer|text2semantic") as raised:
        export_release(make_release(base), folder, base, tmp_path / "out", cache=tmp_path / "empty", today=TODAY)
    assert "voxline bases pull small-v2" in raised.value.hint


# -- in -----------------------------------------------------------------------------------------------------------


def upstream_files(base: Base, root: Path) -> tuple[Path, Path]:
    """What somebody's fine-tune on this base left: other weights, half precision, no posterior encoder."""
    assert base.upstream_version is not None
    folder = root / "theirs"
    folder.mkdir()
    torch.manual_seed(11)
    gpt, pth = folder / "her-e15.ckpt", folder / "her_e8_s64.pth"
    write_text2semantic(gpt, build_network(base, "text2semantic").state_dict(), {"model": {}}, "GPT-e15")
    config = synthesizer_config(base.cfm.encoder if base.cfm else base.synthesizer, base.upstream_version)
    if base.cfm is None:
        weights = build_network(base, "synthesizer").state_dict()
        write_synthesizer(pth, weights, config, "8epoch_64iteration", base.upstream_version)
        return gpt, pth
    flow = build_network(base, "synthesizer")
    pairs = {
        name: (torch.randn(3, module.in_features).half(), torch.randn(module.out_features, 3).half())
        for name, module in flow.named_modules()
        if isinstance(module, nn.Linear) and ".attn.to_" in name
    }
    layers = {name: value * 2 for name, value in flow.state_dict().items() if name.startswith("wns1.")}
    weights = upstream_lora_weights(pairs, layers, {})
    write_synthesizer(pth, weights, config, "2epoch_16iteration", base.upstream_version, lora_rank=3)
    return gpt, pth


def test_files_are_described_and_the_bases_they_fit_are_found(tmp_path: Path) -> None:
    bases = [make_base(tmp_path, version) for version in ("v2", "v2Pro", "v4")]
    gpt, pth = upstream_files(bases[1], tmp_path)
    report = inspect_file(pth, bases)
    assert (report.kind, report.version, report.info) == ("synthesizer", "v2Pro", "8epoch_64iteration")
    assert report.fits == ("small-v2pro",)
    assert inspect_file(gpt, bases).fits == ("small-v2", "small-v2pro", "small-v4")


def test_imported_v2_files_become_a_base_with_exactly_their_weights(tmp_path: Path) -> None:
    base, cache, own = make_base(tmp_path, "v2"), tmp_path / "cache", tmp_path / "bases"
    gpt, pth = upstream_files(base, tmp_path)
    folder = import_files([gpt, pth], base, "her-v2", own_bases=own, cache=cache)
    made = load_base("her-v2", own)
    assert folder == own / "her-v2"
    assert made.is_embedded and not made.missing_weights(cache)
    assert made.family == base.family and made.digest != base.digest
    assert "her_e8_s64.pth" in made.description and "consent" in made.license.notice
    stored, theirs = load_file(folder / "synthesizer.safetensors"), read_upstream(pth).weights
    assert all(torch.equal(stored[name], value) for name, value in theirs.items())
    kept = load_file(base.weight_path("synthesizer", cache))
    posterior = [name for name in stored if name.startswith("enc_q.")]
    assert posterior and all(torch.equal(stored[name], kept[name]) for name in posterior)
    load_synthesizer(made, cache)
    load_text2semantic(made, cache)


def test_an_imported_lora_file_is_merged_into_its_base(tmp_path: Path) -> None:
    base, cache, own = make_base(tmp_path, "v4"), tmp_path / "cache", tmp_path / "bases"
    _, pth = upstream_files(base, tmp_path)
    import_files([pth], base, "her-v4", own_bases=own, cache=cache)
    made = load_base("her-v4", own)
    assert not made.missing_weights(cache), "the other networks are taken over"
    kept = load_file(base.weight_path("synthesizer", cache))
    expected = upstream_lora_merge(kept, upstream_lora_split(read_upstream(pth)))
    stored = load_file(own / "her-v4" / "synthesizer.safetensors")
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[name], value) for name, value in expected.items())


def test_files_that_do_not_belong_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    base, other = make_base(tmp_path, "v2"), make_base(tmp_path, "v2Pro")
    cache, own = tmp_path / "cache", tmp_path / "bases"
    gpt, pth = upstream_files(base, tmp_path)

    def attempt(paths: list[Path], onto: Base, name: str) -> None:
        import_files(paths, onto, name, own_bases=own, cache=cache)

    with pytest.raises(SettingsError, match=r"her_e8_s64\.pth.*missing: ge_to512"):
        attempt([pth], other, "her")
    with pytest.raises(UsageError, match="another file"):
        attempt([gpt, gpt], base, "her")
    with pytest.raises(UsageError, match="cannot name a base"):
        attempt([gpt], base, "../her")
    with pytest.raises(UsageError, match="a base of this name"):
        attempt([gpt], base, "small-v2")
    with pytest.raises(SettingsError, match="needs the weights of base small-v2"):
        import_files([pth], base, "her", own_bases=own, cache=tmp_path / "empty")
    hostile = tmp_path / "hostile.pth"
    torch.save({"weight": {"a": torch.ones(1)}, "config": Hostile(tmp_path / "ran")}, hostile)
    with pytest.raises(SettingsError, match="posix system"):
        attempt([hostile], base, "her")
    assert not (tmp_path / "ran").exists()
    assert sorted(path.name for path in own.iterdir()) == ["small-v2", "small-v2pro"]


class Hostile:
    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> Any:
        import os

        return os.system, (f"touch {self.sentinel}",)


# -- the commands -------------------------------------------------------------------------------------------------


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pipeline.toml").write_text('[voxline]\ncache = "cache"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_walk_out_and_in_again(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = make_base(workplace, "v2")
    publish(workplace, base)
    assert run_command(["export", "ana", "--format", "gpt-sovits", "-o", "out", "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert [Path(name).name for name in files[:2]] == [f"ana-{VERSION}.ckpt", f"ana_{VERSION}.pth"]
    assert run_command(["import-adapter", *files[:2]]) == 0
    assert "fits small-v2" in capsys.readouterr().out
    assert run_command(["import-adapter", *files[:2], "--name", "ana-v2", "--base", "small-v2"]) == 0
    made = load_base("ana-v2", workplace / "bases")
    stored = load_file(made.weight_path("synthesizer", workplace / "cache"))
    assert all(torch.equal(stored[name], value) for name, value in read_upstream(Path(files[1])).weights.items())
    assert run_command(["export", "ana", "--format", "onnx"]) == 2
    assert run_command(["export", "nobody"]) == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_file_of_numbers_that_are_none_becomes_no_base(tmp_path: Path, value: float) -> None:
    base = make_base(tmp_path, "v2")
    weights = load_file(base.weight_path("text2semantic", tmp_path / "cache"))
    name = next(iter(weights))
    weights[name] = torch.full_like(weights[name], value)
    config = text2semantic_config(base.text2semantic)
    path = tmp_path / "diverged.ckpt"
    torch.save({"weight": {f"model.{name}": one for name, one in weights.items()}, "config": config, "info": ""}, path)
    with pytest.raises(SettingsError, match=f"diverged.ckpt: {name}: .* NaN or infinite"):
        inspect_file(path, [base])
    own = tmp_path / "own"
    with pytest.raises(SettingsError, match="NaN or infinite"):
        import_files([path], base, "nanbase", own_bases=own, cache=tmp_path / "cache")
    assert not (own / "nanbase").exists()


def test_a_pipe_in_the_place_of_a_checkpoint_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.ckpt")
    assert run_command(["import-adapter", str(tmp_path / "x.ckpt")]) == 3
    assert run_command(["import-adapter", str(tmp_path)]) == 3
    assert run_command(["import-adapter", str(tmp_path / "absent.ckpt")]) == 3
