"""Reads what `torch.save` wrote, without `torch.load`: a zip of one pickle and one stored entry per storage.

The zip is checked before anything in it is believed: one root, plain unique names, nothing compressed or encrypted,
entries that do not overlap and whose local headers agree with the directory. A tensor may only look at bytes that are
in the file.
"""

from __future__ import annotations

import math
import os
import struct
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from models.errors import WeightsError, shorten
from models.upstream.unpickler import Construct, Mapped, Record, Unpickler

MAX_FILE_BYTES = 16 * 2**30
MAX_ENTRIES = 20_000
MAX_PICKLE_BYTES = 32 * 2**20
MAX_DIMENSIONS = 8
MAX_READ_BYTES = 64 * 2**20  # at once, of the zip's directory
MAX_PATH = 4096
LOCAL_HEADER = struct.Struct("<4s5H3I2H")

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_torch_archive(path: Path, first_bytes: bytes = b"PK") -> Any:
    """The object in a file written by `torch.save`: dicts, lists, tuples, strings, numbers and tensors.

    Args:
        first_bytes: what stands in the place of the zip's own "PK" (GPT-SoVITS writes its version there).

    Raises:
        WeightsError: naming the file and what is wrong with it, a refused global among other things.
    """
    try:
        with path.open("rb") as file:
            return _read(path, file, first_bytes)
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}") from error


def _read(path: Path, file: IO[bytes], first_bytes: bytes) -> Any:
    archive = _Archive(path, file, first_bytes)
    tensors = _Tensors(archive)
    unpickler = Unpickler(str(path), tensors.constructors(), tensors.storage)
    return unpickler.load(archive.read("data.pkl", limit=MAX_PICKLE_BYTES))


class _Bounded:
    """A file whose readers cannot be talked into taking all of it into memory: zipfile believes sizes it is told."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        start, end = self.tell(), self.seek(0, os.SEEK_END)
        self.seek(start)
        if (end - start if size < 0 else min(size, end - start)) > MAX_READ_BYTES:
            raise ValueError(f"its directory claims {size} bytes")
        return self.file.read(size)


class _Archive:
    """The checked zip directory of one file."""

    def __init__(self, path: Path, file: IO[bytes], first_bytes: bytes) -> None:
        self.path, self.file, self.first_bytes = path, file, first_bytes
        size = file.seek(0, 2)
        if size > MAX_FILE_BYTES:
            raise self.refused(f"is larger than {MAX_FILE_BYTES >> 30} GiB")
        try:
            directory = zipfile.ZipFile(_Bounded(file))
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
            raise self.refused(f"is not a file of torch.save since 1.6 (not a zip: {error})") from error
        entries = directory.infolist()
        if len(entries) > MAX_ENTRIES:
            raise self.refused(f"has {len(entries)} entries")
        self._check_names(entries)
        self.places = self._check_places(entries, directory.start_dir)
        if "data.pkl" not in self.places:
            raise self.refused("is a zip, but holds no weights (no data.pkl)")
        if "byteorder" in self.places and self.read("byteorder", limit=16) != b"little":
            raise self.refused("was written on a big-endian machine")

    def refused(self, why: str) -> WeightsError:
        return WeightsError(f"{self.path}: refused, it {why}")

    def _check_names(self, entries: list[zipfile.ZipInfo]) -> None:
        names = [entry.filename for entry in entries]
        roots = {name.split("/", 1)[0] for name in names}
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise self.refused(f"holds the entry {shorten(twice[0])!r} twice")
        if len(roots) != 1 or any("/" not in name for name in names):
            raise self.refused("has entries outside one folder")
        for entry in entries:
            parts = entry.filename.split("/")
            if entry.orig_filename != entry.filename or "\\" in entry.filename or {"", ".", ".."} & set(parts):
                raise self.refused(f"holds an entry with the path {shorten(entry.orig_filename)!r}")
            if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise self.refused(f"compresses {shorten(entry.filename)!r}; torch.save never does")
            if entry.flag_bits & 0x1:
                raise self.refused(f"encrypts {shorten(entry.filename)!r}")

    def _check_places(self, entries: list[zipfile.ZipInfo], directory_start: int) -> dict[str, tuple[int, int, int]]:
        """(start, length, crc) of every entry's bytes, by its name below the root."""
        ordered = sorted(entries, key=lambda entry: entry.header_offset)
        ends = [entry.header_offset for entry in ordered[1:]] + [directory_start]
        if ordered and ordered[0].header_offset != 0:
            raise self.refused("does not begin with its first entry")
        places = {}
        for entry, end in zip(ordered, ends, strict=True):
            start = self._data_start(entry)
            if start + entry.file_size > end:
                raise self.refused(f"has entries that overlap at {shorten(entry.filename)!r}")
            places[entry.filename.split("/", 1)[1]] = (start, entry.file_size, entry.CRC)
        return places

    def _data_start(self, entry: zipfile.ZipInfo) -> int:
        self.file.seek(entry.header_offset)
        header = self.file.read(LOCAL_HEADER.size)
        if len(header) < LOCAL_HEADER.size:
            raise self.refused(f"ends before {shorten(entry.filename)!r}")
        magic, _, flags, method, *_, name_length, extra_length = LOCAL_HEADER.unpack(header)
        expected = (self.first_bytes if entry.header_offset == 0 else b"PK") + b"\x03\x04"
        name = self.file.read(name_length)
        encoding = "utf-8" if entry.flag_bits & 0x800 else "cp437"  # as zipfile decoded it
        if magic != expected or method != 0 or flags & 0x1 or name != entry.orig_filename.encode(encoding):
            raise self.refused(f"describes {shorten(entry.filename)!r} in two ways")
        return entry.header_offset + LOCAL_HEADER.size + name_length + extra_length

    def length(self, name: str) -> int | None:
        """Bytes of an entry, None if there is no such entry."""
        return self.places[name][1] if name in self.places else None

    def read(self, name: str, limit: int | None = None) -> bytearray:
        """The bytes of an entry, checked against their sum."""
        start, length, crc = self.places[name]
        if limit is not None and length > limit:
            raise self.refused(f"has an entry {name!r} of {length} bytes")
        self.file.seek(start)
        data = bytearray(length)
        if self.file.readinto(data) != length or zlib.crc32(data) != crc:  # type: ignore[attr-defined]
            raise self.refused(f"is damaged: the checksum of {name!r} is wrong")
        return data


@dataclass(frozen=True)
class _Storage:
    """Flat numbers of one entry."""

    values: Tensor


class _Tensors:
    """Builds tensors over the entries of an archive; each may only look at bytes that are there."""

    def __init__(self, archive: _Archive) -> None:
        self.archive = archive
        self.storages: dict[str, _Storage] = {}
        stored = sum(length for _, length, _ in archive.places.values())
        self.bytes_left = 2 * stored  # views may share bytes, but not to make much more out of little

    def constructors(self) -> dict[str, Construct]:
        """What a weight file may name, by "module name"."""
        allowed: dict[str, Construct] = {
            "collections OrderedDict": self._ordered,
            "torch._utils _rebuild_tensor_v2": self._tensor,
            "torch._utils _rebuild_parameter": self._parameter,
            "torch Size": self._size,
            "utils HParams": self._record,
        }
        allowed.update({f"torch {name}": self._never for name in STORAGES})
        allowed.update({f"pathlib {name}": self._path for name in ("PosixPath", "WindowsPath", "PurePosixPath")})
        return allowed

    def storage(self, identity: Any) -> _Storage:
        """The storage of a persistent id ("storage", class, key, location, numel)."""
        if not isinstance(identity, tuple) or len(identity) != 5 or identity[0] != "storage":
            raise self.archive.refused("refers to something that is not a storage")
        _, kind, key, _, count = identity
        dtype = STORAGES.get(getattr(kind, "name", "").removeprefix("torch "))
        if dtype is None or not isinstance(key, str) or not key.isdecimal() or not _is_size(count):
            raise self.archive.refused("refers to a storage in a way torch.save does not")
        length = self.archive.length(f"data/{key}")
        if length is None or length != count * dtype.itemsize:
            raise self.archive.refused(f"claims {count} numbers of {dtype} in storage {key}, which has {length} bytes")
        if key not in self.storages:
            data = self.archive.read(f"data/{key}")
            self.storages[key] = _Storage(torch.frombuffer(data, dtype=dtype) if count else torch.empty(0, dtype=dtype))
        if self.storages[key].values.dtype != dtype:
            raise self.archive.refused(f"reads storage {key} as two kinds of number")
        return self.storages[key]

    def _tensor(self, arguments: tuple[Any, ...]) -> Tensor:
        if not 6 <= len(arguments) <= 7 or not isinstance(arguments[0], _Storage):
            raise self.archive.refused("builds a tensor in a way torch.save does not")
        storage, offset, size, stride = arguments[:4]
        values = storage.values
        if not _is_size(offset) or not _are_sizes(size) or not _are_sizes(stride) or len(size) != len(stride):
            raise self.archive.refused("claims a tensor whose size, stride and offset are none")
        count = math.prod(size)
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) if count else offset
        if count > len(values) or last > max(len(values) - 1, 0) or offset > len(values):
            raise self.archive.refused(
                f"claims a tensor of size {list(size)} at {offset}, outside its storage of {len(values)} numbers"
            )
        self.bytes_left -= count * values.dtype.itemsize
        if self.bytes_left < 0:
            raise self.archive.refused("claims more numbers than the file can hold")
        try:
            view = values.as_strided(size, stride, offset)
        except RuntimeError as error:
            raise self.archive.refused(f"claims a tensor of size {list(size)} ({error})") from error
        is_whole = count == len(values) and view.is_contiguous()
        return view if is_whole else view.clone(memory_format=torch.contiguous_format)

    def _parameter(self, arguments: tuple[Any, ...]) -> Tensor:
        if not arguments or not isinstance(arguments[0], Tensor):
            raise self.archive.refused("builds a parameter out of something that is not a tensor")
        return arguments[0]

    def _ordered(self, arguments: tuple[Any, ...]) -> Mapped:
        if arguments:
            raise self.archive.refused("fills an OrderedDict in a way torch.save does not")
        return Mapped()

    def _record(self, arguments: tuple[Any, ...]) -> Record:
        if arguments:
            raise self.archive.refused("calls utils.HParams with arguments")
        return Record()

    def _size(self, arguments: tuple[Any, ...]) -> tuple[int, ...]:
        if len(arguments) != 1 or not _are_sizes(arguments[0]):
            raise self.archive.refused("holds a torch.Size that is none")
        return tuple(arguments[0])

    def _path(self, arguments: tuple[Any, ...]) -> str:
        if not all(isinstance(part, str) for part in arguments) or sum(map(len, arguments)) > MAX_PATH:
            raise self.archive.refused("holds a path that is none")
        return "/".join(arguments)

    def _never(self, arguments: tuple[Any, ...]) -> Any:
        raise self.archive.refused("calls the class of a storage")


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _are_sizes(values: Any) -> bool:
    return (
        isinstance(values, tuple | list) and len(values) <= MAX_DIMENSIONS and all(_is_size(value) for value in values)
    )
