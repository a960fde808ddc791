"""What a processor can is tried, can be switched off, and is refused or replaced in plain words."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from models.blocks.linear import linear
from models.errors import ConfigError
from models.machine import kernels, precision, processor
from models.machine.precision import quick_dtype
from models.machine.processor import ProcessorError, instructions, lack, works
from models.machine.switches import SWITCHES, WITHOUT_AVX512, switch_off
from models.speaking.options import PRECISIONS, choose_options
from models.text2semantic.projections import FloatProjection, build_projection
from pipeline.records import settings

pytestmark = [pytest.mark.processor, pytest.mark.slow]
CPU = torch.device("cpu")
ERROR = "mkldnn_reorder_linear_weight: bf16 path needs the cpu support avx512bw, avx512vl and avx512dq"


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch):
    """As in a new process, before and after: nothing tried, nothing told."""
    processor.fault.cache_clear()
    precision._warn.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    processor.fault.cache_clear()
    precision._warn.cache_clear()


def broken(*_: object) -> torch.Tensor:
    raise RuntimeError(f"{ERROR}\nand a trace of C++")


def test_a_run_of_tests_without_something_is_really_without_it():
    """`make test` runs the marked tests a second time like this; on the same kernels that would prove nothing."""
    for name in settings.switched_off(os.environ.get("VOXLINE_PROCESSOR", "auto")):
        assert name == "avx512" or not works(name)
    if os.environ.get("ATEN_CPU_CAPABILITY") == "avx2" and platform.machine() == "x86_64":
        assert instructions() == "AVX2"
    if os.environ.get("ONEDNN_MAX_CPU_ISA") == "AVX2" and platform.machine() == "x86_64":
        with pytest.raises(RuntimeError):
            kernels.pack(torch.ones(32, 64, dtype=torch.bfloat16))


def test_the_switches_of_the_settings_are_those_of_the_networks():
    assert settings.SWITCHES == SWITCHES
    with pytest.raises(ConfigError, match="mmx"):
        switch_off(["mmx"], {})


@pytest.mark.parametrize("name", ["bf16", "int8", "onednn"])
def test_what_is_switched_off_does_not_work(name):
    switch_off([name], {})
    assert lack(name) == "it is switched off"


def test_without_avx512_torch_is_told_so_and_what_the_user_set_stays(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    environment = {"ONEDNN_MAX_CPU_ISA": "AVX2_VNNI"}
    switch_off(["avx512"], environment)
    assert environment == {**WITHOUT_AVX512, "ONEDNN_MAX_CPU_ISA": "AVX2_VNNI"}
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    switch_off(["avx512"], environment := {})
    assert environment == {}


@pytest.mark.parametrize(
    ("flags", "off", "claimed"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_f": True}, (), False),  # AVX-512 alone would emulate it
        ({"architecture": "x86_64", "avx512_bf16": True}, (), True),
        ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": True}, ("avx512",), False),
        ({"architecture": "arm64", "neon": True, "bf16": False}, (), False),
        ({"architecture": "arm64", "neon": True, "bf16": True}, ("avx512",), True),
        ({"architecture": "arm64", "neon": True, "bf16": True}, ("bf16",), False),
        ({}, (), False),
    ],
)
def test_bfloat16_needs_a_processor_that_multiplies_it(monkeypatch, flags, off, claimed):
    monkeypatch.setattr(processor, "_flags", lambda: flags)
    switch_off(off, {})
    assert processor.claims_bfloat16() is claimed


def test_an_arm_processor_is_described_by_its_own_words(monkeypatch):
    monkeypatch.setattr(processor, "_flags", lambda: {"architecture": "arm64", "neon": True, "bf16": False})
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    switch_off([], {})
    assert lack("bf16") == "this processor has no bfloat16 arithmetic (arm64, NEON)"


def test_a_kernel_that_fails_is_found_by_trying_it_and_told_once(fresh, caplog):
    """As with ONEDNN_MAX_CPU_ISA, or in a virtual machine whose processor claims what its host forbids."""
    fresh.setattr(processor, "_flags", lambda: {"architecture": "x86_64", "avx512_bf16": True})
    fresh.setattr(processor, "pack", broken)
    switch_off([], {})
    assert (quick_dtype(), quick_dtype()) == (torch.float32, torch.float32)
    assert [record.message for record in caplog.records] == [
        "bf16 does not work on this processor, though it claims to have it: float32 instead (voxline doctor)"
    ]
    assert lack("bf16") == f"its kernels fail on this processor ({processor.architecture()}, {instructions()})"
    assert processor.fault("bf16") == ERROR


def test_a_kernel_whose_numbers_are_wrong_does_not_work(fresh):
    fresh.setattr(processor, "int8_product", lambda x, weight, scale: kernels.int8_product(x, weight, scale) * 1.1)
    switch_off([], {})
    assert not works("int8") and "wrong by" in (processor.fault("int8") or "")


def test_a_build_without_the_kernel_does_not_work(fresh):
    fresh.setattr(processor, "product", lambda *_: torch.ops.mkldnn._no_such_kernel())
    switch_off([], {})
    assert not works("onednn") and "_no_such_kernel" in (processor.fault("onednn") or "")


def test_trying_leaves_the_random_numbers_of_others_alone(fresh):
    state = torch.random.get_rng_state()
    for part in ("onednn", "bf16", "int8"):
        works(part)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_without_onednn_products_are_those_of_torch():
    switch_off(["onednn"], {})
    torch.manual_seed(0)
    x, weight, bias = torch.randn(40, 24), torch.randn(33, 24), torch.randn(33)
    assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))
    projection = FloatProjection(weight, bias)
    assert torch.equal(projection(x), F.linear(x, weight, bias))
    assert projection.packed is None


@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_weights_of_a_missing_kind_are_refused_in_plain_words(kind):
    switch_off([kind], {})
    with pytest.raises(ProcessorError, match=f"^{kind}: it is switched off$"):
        build_projection(kind, torch.ones(8, 4), None)
    with pytest.raises(ProcessorError, match=f"^{kind}: it is switched off$"):
        choose_options(kind, CPU)


@pytest.mark.parametrize("rows", [1, 8, 40])
def test_int8_does_without_bfloat16(rows):
    """Its kernel works on AVX2; only what is multiplied row by row in other numbers (the prefill) is float32 there."""
    switch_off(["bf16"], {})
    if not works("int8"):
        pytest.fail(f"int8 is expected on every processor so far: {lack('int8')}")
    torch.manual_seed(0)
    x, weight, bias = torch.randn(rows, 64), torch.randn(48, 64), torch.randn(48)
    projection, exact = build_projection("int8", weight, bias), F.linear(x, weight, bias)
    assert isinstance(projection.many, FloatProjection)
    error = (projection(x) - exact).abs().max() / exact.abs().max()
    assert error < (0.02 if rows < 40 else 1e-5)


def test_what_int8_computes_otherwise_is_said_in_one_line():
    switch_off(["bf16"], {})
    options, differences = choose_options("int8", CPU)
    assert (options.text2semantic_weights, options.wave_precision) == ("int8", "f32")
    assert differences == ["int8: this processor has no bf16 for the rest of the work; that is computed in float32"]
    assert choose_options("f32", CPU) == (PRECISIONS["f32"], [])
    assert choose_options("bf16", torch.device("cuda")) == (PRECISIONS["bf16"], [])
    with pytest.raises(ProcessorError, match=r"^int8: its weights are for decoding on a CPU, not on cuda$"):
        choose_options("int8", torch.device("cuda"))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the two variables are about x86-64")
@pytest.mark.parametrize(
    "variables", [WITHOUT_AVX512, {"VOXLINE_PROCESSOR": "no bf16, no AVX-512"}], ids=["tried", "told"]
)
def test_doctor_tells_what_a_processor_without_avx512_can(tmp_path: Path, variables):
    """By itself where torch and oneDNN were restricted behind our back, and by the setting, which restricts them."""
    command = [sys.executable, "-m", "pipeline.cli.main", "doctor", "--json"]
    environment = {name: value for name, value in os.environ.items() if name not in WITHOUT_AVX512}
    environment |= {"VOXLINE_PROCESSOR": "auto", **variables}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    rows = {one["name"]: one for one in json.loads(done.stdout)["findings"] if one["topic"] == "processor"}
    assert list(rows) == ["architecture", "instructions", "onednn", "bf16", "int8", "precision"]
    assert rows["instructions"]["detail"] == "AVX2, as torch uses them"
    assert (rows["bf16"]["state"], rows["int8"]["state"], rows["onednn"]["state"]) == ("note", "ok", "ok")
    assert rows["precision"]["detail"] == "float32; say --precision int8 on request"
    assert ("settings --explain" in rows["bf16"]["advice"]) == ("VOXLINE_PROCESSOR" in variables)
