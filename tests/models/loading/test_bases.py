"""base.yaml: what is read, what is refused with which words, what the digest covers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from models.errors import ConfigError, WeightsError
from models.loading.bases import BASES, list_bases, load_base

EMBEDDED = """
name: small
family: v2
sample_rate_hz: 16000
hop_samples: 320
weights:
  synthesizer: {path: synthesizer.safetensors}
license: {name: CC0-1.0}
"""


def write(root: Path, text: str, name: str = "small") -> Path:
    folder = root / name
    folder.mkdir(exist_ok=True)
    (folder / "base.yaml").write_text(text, encoding="utf-8")
    return folder


def test_every_shipped_base_is_read_and_has_its_own_digest() -> None:
    bases = [load_base(name) for name in list_bases()]
    assert {"gpt-sovits-v2", "gpt-sovits-v2pro", "gpt-sovits-v2proplus"} <= {base.name for base in bases}
    hub = [base for base in bases if not base.is_embedded]
    assert len({base.digest for base in hub}) == len(hub)


def test_reading_bases_does_not_load_torch() -> None:
    code = "import sys; from models.loading.bases import load_base; load_base('gpt-sovits-v2').digest; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=BASES.parents[1]
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("synthesizer: {n_headz: 3}", r"base\.yaml: synthesizer\.n_headz: unknown key \(value: 3\)"),
        ("synthesizer: {n_heads: many}", r"base\.yaml: synthesizer\.n_heads: .*integer.*\(value: 'many'\)"),
        ("synthesizer: {decoder: {kind: magic}}", r"base\.yaml: synthesizer\.decoder\.kind: .*magic"),
        ("synthesizer: {spectrogram: {hop_samples: 500}}", r"synthesizer: .*multiply to 640.*hop_samples is 500"),
        ("colour: blue", r"base\.yaml: colour: unknown key \(value: 'blue'\)"),
    ],
)
def test_a_mistake_is_named_with_file_key_and_value(tmp_path: Path, change: str, message: str) -> None:
    write(tmp_path, EMBEDDED + change)
    with pytest.raises(ConfigError, match=message):
        load_base("small", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (EMBEDDED.replace("path: s", "path: ../../s"), "leads out of its folder"),
        (EMBEDDED.replace("path: s", "path: /etc/s"), "leads out of its folder"),
        (EMBEDDED.replace("path: s", "repository: ../.., path: s"), "repository"),
        (EMBEDDED.replace("path: s", "files: {../x: 0}, path: s"), "leads out of its folder"),
        ("a: &a [x, x]\nb: [*a, *a]\n", "alias"),
        ("a: " + "[" * 5000, "base.yaml: not YAML"),
        ("x" * 400_000, "larger than"),
        ("name: \udcff", "not UTF-8"),
    ],
    ids=["up", "absolute", "repository", "file", "alias", "deep", "large", "bytes"],
)
def test_a_base_that_strangers_wrote_is_refused_before_it_is_used(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "base.yaml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=message):
        load_base("small", tmp_path)


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    write(tmp_path, EMBEDDED)
    with pytest.raises(ConfigError, match="no base 'smal'; there are: small"):
        load_base("smal", tmp_path)


def test_a_name_that_leaves_the_folder_is_not_a_base(tmp_path: Path) -> None:
    write(tmp_path, EMBEDDED)
    with pytest.raises(ConfigError, match="no base"):
        load_base("../" + tmp_path.name + "/small", tmp_path)


def test_a_name_must_be_that_of_its_folder(tmp_path: Path) -> None:
    write(tmp_path, EMBEDDED, name="other")
    with pytest.raises(ConfigError, match="'small' is not the name of its folder"):
        load_base("other", tmp_path)


def test_the_digest_follows_numbers_and_weights_and_nothing_else(tmp_path: Path) -> None:
    folder = write(tmp_path, EMBEDDED)
    weights = folder / "synthesizer.safetensors"
    weights.write_bytes(b"first")

    def digest() -> str:
        return load_base("small", tmp_path).digest

    start = digest()
    assert re.fullmatch("[0-9a-f]{64}", start)
    write(tmp_path, "# a remark\n" + EMBEDDED.replace("CC0-1.0", "MIT") + "gate: {pesq_wb: 2.0}\ndescription: words\n")
    assert digest() == start
    write(tmp_path, EMBEDDED.replace("hop_samples: 320", "hop_samples: 321"))
    assert digest() != start
    write(tmp_path, EMBEDDED)
    weights.write_bytes(b"second")
    assert digest() != start
    weights.unlink()
    with pytest.raises(WeightsError, match=r"synthesizer\.safetensors: weights of base 'small' are missing"):
        digest()


def test_a_pipe_in_the_place_of_a_base_is_not_waited_for(tmp_path):
    (tmp_path / "evil").mkdir()
    os.mkfifo(tmp_path / "evil" / "base.yaml")
    assert list_bases(tmp_path) == []
    with pytest.raises(ConfigError, match="no base 'evil'"):
        load_base("evil", tmp_path)
