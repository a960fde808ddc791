"""A short run of the fuzzer, and again everything that the long runs of `make fuzz` ever found."""

import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
FOUND = sorted(path for path in (HERE / "found").glob("*") if path.suffix)


def load_fuzzer():
    specification = importlib.util.spec_from_file_location("fuzz_validation", HERE / "fuzz_validation.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_two_hundred_mutants_end_in_a_clear_answer(capfd):
    told = []
    assert load_fuzzer().run(200, seed=2, keep=None, log=told.append) == 0, "\n".join(told)
    capfd.readouterr()  # the decoders' own complaints


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_what_was_found_once_stays_mended(path, tmp_path, capfd):
    load_fuzzer().try_one(path.name.split("-", 2)[-1], path.read_bytes(), tmp_path)
    capfd.readouterr()
