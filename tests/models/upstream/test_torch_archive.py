"""Hostile and damaged weight files are refused, named, and have no effect."""

from __future__ import annotations

import io
import pickle
import struct
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.errors import WeightsError
from models.upstream.files import read_upstream
from models.upstream.torch_archive import read_torch_archive


class Calls:
    """Pickles as a call of `function` when the file is opened."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def archive(data: bytes, storages: dict[str, bytes] | None = None, root: str = "archive") -> bytes:
    """A file as torch.save writes it, around any pickle."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as file:
        file.writestr(f"{root}/data.pkl", data)
        file.writestr(f"{root}/byteorder", b"little")
        for key, content in (storages or {}).items():
            file.writestr(f"{root}/data/{key}", content)
    return made.getvalue()


def saved(value: Any, **options: Any) -> bytes:
    made = io.BytesIO()
    torch.save(value, made, **options)
    return made.getvalue()


def tensor_pickle(size: str, stride: str, *, count: int = 4, key: str = "0", kind: str = "FloatStorage") -> bytes:
    """The pickle of {"w": tensor}, spelled by hand so that it can lie. `size` and `stride` are pickle source."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def number(value: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", value)

    def numbers(values: str) -> bytes:
        return b"(" + b"".join(number(int(value)) for value in values.split(",") if value) + b"t"

    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(count) + b"tQ"
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + numbers(size) + numbers(stride)
    return b"\x80\x02}" + text("w") + rebuild + b"\x89ccollections\nOrderedDict\n)RtRs."


FLOATS = struct.pack("<4f", 1, 2, 3, 4)


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    """A file that appears if a pickle manages to run something."""
    return tmp_path / "ran"


@pytest.fixture
def refuse(tmp_path: Path, sentinel: Path) -> Callable[..., str]:
    """Asserts that a file is refused, with its path, without effect; returns the message."""

    def check(content: bytes, *words: str) -> str:
        path = tmp_path / "given.pth"
        path.write_bytes(content)
        with pytest.raises(WeightsError) as raised:
            read_upstream(path)
        message = str(raised.value)
        assert str(path) in message
        for word in words:
            assert word in message
        assert not sentinel.exists()
        return message

    return check


def test_hand_made_archives_are_read_so_that_the_refusals_below_mean_something(tmp_path: Path) -> None:
    path = tmp_path / "good.pth"
    path.write_bytes(archive(tensor_pickle("2,2", "2,1"), {"0": FLOATS}))
    assert read_torch_archive(path)["w"].tolist() == [[1, 2], [3, 4]]


# -- globals ------------------------------------------------------------------------------------------------------


def run_system(path: Path) -> Calls:
    import os

    return Calls(os.system, f"touch {path}")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_os_system_is_refused_in_every_protocol(refuse: Any, sentinel: Path, protocol: int) -> None:
    refuse(archive(pickle.dumps(run_system(sentinel), protocol)), "posix system")


def test_eval_is_refused(refuse: Any, sentinel: Path) -> None:
    refuse(archive(pickle.dumps(Calls(eval, f"open({str(sentinel)!r}, 'w')"), 2)), "__builtin__ eval")


def test_a_global_hidden_deep_in_a_good_file_is_refused(refuse: Any, sentinel: Path) -> None:
    state = OrderedDict(weight=OrderedDict(w=torch.ones(2)), config={"model": {"a": [1, (2, run_system(sentinel))]}})
    refuse(saved(state), "posix system")


def test_a_chain_of_getattr_is_refused(refuse: Any, sentinel: Path) -> None:
    refuse(archive(pickle.dumps(Calls(getattr, "", "__class__"), 4)), "builtins getattr")
    refuse(archive(b"\x80\x04cutils\nHParams.__init__\nX\x0b\x00\x00\x00__globals__\x85R."), "utils HParams.__init__")


@pytest.mark.parametrize(
    "name",
    [
        "torch load",
        "torch.serialization load",
        "torch.hub load",
        "torch._utils _rebuild_device_tensor_from_numpy",
        "collections OrderedDict.fromkeys",
        "utils HParams.__init__.__globals__",
        "pickle loads",
        "functools partial",
        "operator attrgetter",
        "types CodeType",
        "subprocess Popen",
        "importlib import_module",
        "builtins exec",
        "codecs decode",
        "copyreg _reconstructor",
        "numpy.core.multiarray _reconstruct",
    ],
)
def test_any_other_global_is_refused_and_named(refuse: Any, name: str) -> None:
    refuse(archive(f"c{name.replace(' ', chr(10), 1)}\n.".encode()), repr(name))


def test_a_global_whose_name_is_put_together_on_the_stack_is_refused(refuse: Any) -> None:
    data = b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R."
    refuse(archive(data), "os system")


def test_allowed_names_are_not_callable_with_other_arguments(refuse: Any) -> None:
    refuse(archive(b"\x80\x02cutils\nHParams\nK\x01\x85R."), "HParams")
    refuse(archive(b"\x80\x02ctorch\nFloatStorage\nK\x01\x85R."), "storage")
    refuse(archive(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nK\x01\x85R."), "tensor")
    refuse(archive(b"\x80\x02ctorch._utils\n_rebuild_parameter\nK\x01\x85R."), "parameter")
    refuse(archive(b"\x80\x02ctorch\nSize\nK\x01\x85R."), "torch.Size")


def test_a_global_may_not_be_left_as_a_value(refuse: Any) -> None:
    refuse(archive(b"\x80\x02}X\x01\x00\x00\x00acutils\nHParams\ns."), "utils HParams")


def test_attributes_of_a_global_may_not_be_set(refuse: Any) -> None:
    refuse(archive(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb."), "attributes")


@pytest.mark.parametrize(
    ("data", "opcode"),
    [
        (b"(cutils\nHParams\no.", "OBJ"),
        (b"(iutils\nHParams\n.", "INST"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02K\x01\x85\x852.", "DUP"),
        (b"P123\n.", "PERSID"),
        (b"\x80\x04)}\x92.", "NEWOBJ_EX"),
        (b"S'a'\n.", "STRING"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
    ],
)
def test_operations_that_weight_files_do_not_need_are_refused(refuse: Any, data: bytes, opcode: str) -> None:
    refuse(archive(data), opcode)


# -- size and shape -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "stride"),
    [
        ("1000000000,1000000000", "0,0"),  # much out of little
        ("5", "1"),  # one number too many
        ("2,2", "4,1"),  # the last row lies outside
        ("-1", "1"),
        ("2", "-1"),
        ("2,2", "1"),
        ("9223372036854775807", "1"),
        ("1,1,1,1,1,1,1,1,1", "1,1,1,1,1,1,1,1,1"),
        ("140737488355328,140737488355328,0", "1,1,1"),  # no numbers at all, but more than torch can count
    ],
)
def test_a_tensor_that_claims_more_than_its_storage_is_refused(refuse: Any, size: str, stride: str) -> None:
    refuse(archive(tensor_pickle(size, stride), {"0": FLOATS}), "claims")


def test_a_storage_that_claims_another_length_is_refused(refuse: Any) -> None:
    refuse(archive(tensor_pickle("5", "1", count=5), {"0": FLOATS}), "storage 0", "16 bytes")
    refuse(archive(tensor_pickle("4", "1", count=4, kind="DoubleStorage"), {"0": FLOATS}), "storage 0")
    refuse(archive(tensor_pickle("4", "1", count=-4), {"0": FLOATS}), "storage")


@pytest.mark.parametrize("key", ["../byteorder", "/etc/passwd", "0/../0", "", "٣"])
def test_a_storage_key_that_is_a_path_is_refused(refuse: Any, key: str) -> None:
    refuse(archive(tensor_pickle("4", "1", key=key), {"0": FLOATS}), "storage")


def test_views_cannot_make_much_memory_out_of_a_small_file(refuse: Any) -> None:
    many = {str(index): None for index in range(400)}
    shared = torch.ones(1000)
    data = saved({name: shared[: 999 - index] for index, name in enumerate(many)})
    refuse(data, "more numbers than the file")


def test_two_names_for_one_tensor_are_fine(tmp_path: Path) -> None:
    tied = torch.arange(6.0)
    path = tmp_path / "tied.pth"
    path.write_bytes(saved({"a": tied, "b": tied, "part": tied.view(2, 3)[:, 1]}))
    read = read_torch_archive(path)
    assert read["a"].tolist() == read["b"].tolist() == tied.tolist()
    assert read["part"].tolist() == [1, 4]


def test_nesting_without_end_is_refused(refuse: Any) -> None:
    refuse(archive(b"\x80\x02]q\x00h\x00a."), "nested")
    refuse(archive(b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b"."), "nested")


def test_references_that_multiply_cost_nothing(tmp_path: Path) -> None:
    """Thirty lists of ten references to the one before: 10^30 items if they were copied."""
    value: Any = ["end"]
    for _ in range(30):
        value = [value] * 10
    path = tmp_path / "laughs.pth"
    path.write_bytes(archive(pickle.dumps(value, 2)))
    started = time.monotonic()
    assert len(read_torch_archive(path)) == 10
    assert time.monotonic() - started < 60  # without sharing it would not end


def doubled(times: int) -> bytes:
    """Pickle source of a tuple that refers to the one before it twice, so often: 2^times items if it is spelled out."""
    return b")" + b"q\x000h\x00h\x00\x86" * times


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04" + doubled(60) + doubled(60) + b"\x93.",  # as the module and the name of a global
        b"\x80\x02" + doubled(60) + b"Q.",  # as the id of a storage
        b"\x80\x02ctorch\nSize\n" + doubled(60) + b"\x85R.",
        tensor_pickle("", "").replace(b"(t(t", doubled(60) + b")", 1),  # as the size of a tensor
    ],
    ids=["global", "storage", "size", "tensor"],
)
def test_a_message_never_spells_out_what_a_file_only_refers_to(refuse: Any, data: bytes) -> None:
    started = time.monotonic()
    assert len(refuse(archive(data, {"0": FLOATS}), "refused")) < 500
    assert time.monotonic() - started < 60  # spelled out it would not end


def test_paths_cannot_be_multiplied_into_memory(refuse: Any) -> None:
    part = b"X" + struct.pack("<I", 100_000) + b"a" * 100_000
    refuse(archive(b"\x80\x02cpathlib\nPosixPath\n(" + part + b"q\x00" + b"h\x00" * 100_000 + b"tR."), "path")


def test_pouring_a_large_dictionary_into_another_again_and_again_is_refused(refuse: Any) -> None:
    entries = b"".join(b"M" + struct.pack("<H", number) + b"K\x00" for number in range(50_000))
    state = b"}(" + entries + b"uq\x00"
    data = b"\x80\x02" + state + b"cutils\nHParams\n)\x81" + b"h\x00b" * 200_000 + b"\x86."
    refuse(archive(data), "too many operations")


def test_what_a_file_calls_itself_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "given.pth"
    path.write_bytes(
        saved({"weight": {"enc_p.x": torch.ones(1)}, "config": {}, "info": "\x1b]0;owned\x07" + "a" * 9999})
    )
    info = read_upstream(path).info
    assert info.isprintable() and len(info) < 200
    path.write_bytes(saved({"weight": {"\x1b[2J" + "a" * 9999: 1}, "config": {}, "info": ""}))
    with pytest.raises(WeightsError) as raised:
        read_upstream(path)
    assert str(raised.value).isprintable() and len(str(raised.value)) < 400


def test_a_huge_integer_is_refused(refuse: Any) -> None:
    refuse(archive(pickle.dumps(1 << 200, 2)), "201 bits")


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80\x02", b"\x80\x02]]", b"\x80\x02.", b"\x80\x02e.", b"\x80\x02h\x05.", b"\x80\x02KK", b"\xff\xff."],
)
def test_damaged_pickles_are_refused(refuse: Any, data: bytes) -> None:
    refuse(archive(data), "refused")


# -- the zip ------------------------------------------------------------------------------------------------------

GOOD = tensor_pickle("2,2", "2,1")


def zipped(entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as file:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            file.writestr(info, content)
    return made.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_that_is_there_twice_is_refused(refuse: Any) -> None:
    refuse(zipped([("a/data.pkl", GOOD), ("a/data.pkl", b"."), ("a/data/0", FLOATS)]), "a/data.pkl", "twice")


def test_a_compressed_entry_is_refused(refuse: Any) -> None:
    refuse(zipped([("a/data.pkl", GOOD), ("a/data/0", bytes(10_000_000))], zipfile.ZIP_DEFLATED), "compresses")


@pytest.mark.parametrize("name", ["a/../../x", "a//x", "a/./x", "a\\b/x", "/a/x", "b/data.pkl", "x"])
def test_entries_with_odd_paths_are_refused(refuse: Any, name: str) -> None:
    refuse(zipped([("a/data.pkl", GOOD), ("a/data/0", FLOATS), (name, b"")]), "refused")


def test_something_in_front_of_the_zip_is_refused(refuse: Any) -> None:
    refuse(b"PK" + bytes(100) + archive(GOOD, {"0": FLOATS}))


def test_a_name_that_differs_in_the_two_headers_is_refused(refuse: Any) -> None:
    content = bytearray(archive(GOOD, {"0": FLOATS}))
    first = content.index(b"archive/data/0")
    content[first : first + 14] = b"archive/data/1"
    refuse(bytes(content), "two ways")


def test_a_directory_that_wants_all_memory_is_refused(refuse: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.upstream.torch_archive.MAX_READ_BYTES", 100_000)
    content = archive(GOOD, {str(number): FLOATS for number in range(2000)})
    refuse(content, "directory")


def test_entries_that_share_bytes_are_refused(refuse: Any) -> None:
    """The directory is made to point a second storage at the bytes of the first."""
    content = bytearray(archive(GOOD, {"0": FLOATS, "1": FLOATS}))
    directory = content.index(b"PK\x01\x02")
    records = [index for index in range(directory, len(content)) if content[index : index + 4] == b"PK\x01\x02"]
    content[records[3] + 42 : records[3] + 46] = content[records[2] + 42 : records[2] + 46]
    refuse(bytes(content), "refused")


def test_a_wrong_checksum_is_refused(refuse: Any) -> None:
    content = archive(GOOD, {"0": FLOATS})
    refuse(content.replace(FLOATS, struct.pack("<4f", 9, 9, 9, 9)), "checksum")


def test_a_file_that_ends_early_is_refused_wherever_it_ends(refuse: Any) -> None:
    content = archive(GOOD, {"0": FLOATS})
    for length in range(2, len(content), 37):
        refuse(content[:length])


def test_one_flipped_bit_never_does_anything_but_a_refusal_or_other_numbers(tmp_path: Path) -> None:
    """Every byte of a small file, damaged in turn: WeightsError or a plain value, nothing else."""
    content = archive(GOOD, {"0": FLOATS})
    path = tmp_path / "flipped.pth"
    refused = 0
    for index in range(len(content)):
        damaged = bytearray(content)
        damaged[index] ^= 0x15
        path.write_bytes(damaged)
        try:
            read_torch_archive(path)
        except WeightsError:
            refused += 1
    assert refused > len(content) // 2


def test_other_files_are_called_what_they_are(refuse: Any) -> None:
    refuse(b"RIFF....WAVEfmt ", "begins with b'RI'")
    refuse(b"PK", "not a zip")
    refuse(zipped([("word/document.xml", b"<w/>")]), "no data.pkl")
    refuse(saved({"w": torch.ones(2)}, _use_new_zipfile_serialization=False), "begins with")
    refuse(saved([torch.ones(2)]), "list")
    refuse(saved({"a": 1}), "'a' is a int")
    refuse(saved({}), "no weights")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.pth: No such file"):
        read_upstream(tmp_path / "absent.pth")


# -- what is read -------------------------------------------------------------------------------------------------


def test_every_kind_of_number_arrives_exactly(tmp_path: Path) -> None:
    kinds = [
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    ]
    state = {str(kind): torch.tensor([[0, 1, 2], [3, 4, 5]]).to(kind) for kind in kinds}
    state |= {"turned": torch.arange(6.0).view(2, 3).T, "empty": torch.empty(0, 3), "one": torch.tensor(7.0)}
    state |= {"parameter": torch.nn.Parameter(torch.ones(3))}
    path = tmp_path / "kinds.pth"
    path.write_bytes(saved(state))
    read = read_torch_archive(path)
    assert all(read[name].dtype == value.dtype and torch.equal(read[name], value) for name, value in state.items())


@pytest.mark.parametrize("name", ["小明_e8.pth", "Zoë e15.ckpt", "plain.pth"])
def test_the_name_a_file_was_saved_under_does_not_matter(tmp_path: Path, name: str) -> None:
    """torch.save names the archive's folder after the file, in the file system's encoding."""
    path = tmp_path / name
    torch.save({"w": torch.ones(2)}, path)
    assert read_torch_archive(path.rename(tmp_path / "renamed.pth"))["w"].tolist() == [1, 1]


def test_the_metadata_of_a_state_dict_and_paths_in_a_config_are_harmless(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 3)
    path = tmp_path / "linear.pth"
    path.write_bytes(saved({"weight": network.state_dict(), "config": {"where": Path("a/b"), "size": torch.Size([2])}}))
    read = read_torch_archive(path)
    assert type(read["weight"]) is dict
    assert read["config"] == {"where": "a/b", "size": (2,)}
