"""Converts the networks FARGAN and PitchDNN out of the source archive of opus 1.5.2 to models/fargan/*.safetensors.

    curl -O https://downloads.xiph.org/releases/opus/opus-1.5.2.tar.gz
    .venv/bin/python scripts/convert_fargan.py opus-1.5.2.tar.gz   # or Debian's opus_1.5.2.orig.tar.gz

The weights are C arrays in two files of the archive. They are read as text; nothing of the archive is run or kept.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

FOLDER = Path(__file__).resolve().parent.parent / "models" / "fargan"
SHA256 = {
    "fargan": "a1939c859a41f4352ad427fa0fa3348306fdd6cfd64a9bf6493bae96b322d323",
    "pitchdnn": "c1608282cbc2669a61901a1d64412c1f3537b6ae96f4cd7c0542ebd32ee44c0f",
}
ARRAY = re.compile(r"static const (float|opus_int8) (\w+)\[(\d+)\] = \{([^}]*)\};")
LAYER = re.compile(r"linear_init\(&model->(\w+),.*,(\d+),(\d+)\)\) return 1;")

CONDITION = 80
ROUNDED, PLAIN = "rounded", "plain"
LAYERS = {  # the archive's name -> ours and what kind of layer it is
    "fargan": {
        "cond_net_fdense1": ("condition.dense", PLAIN),
        "cond_net_fconv1": ("condition.convolution", ROUNDED),
        "cond_net_fdense2": ("condition.out", ROUNDED),
        "sig_net_cond_gain_dense": ("signal.gain", PLAIN),
        "sig_net_fwc0_conv": ("signal.seen", ROUNDED),
        "sig_net_fwc0_glu_gate": ("signal.gate", ROUNDED),
        "sig_net_gain_dense_out": ("signal.echo_gates", PLAIN),
        **{f"sig_net_gru{n}_input": (f"signal.gru{n}.input", ROUNDED) for n in (1, 2, 3)},
        **{f"sig_net_gru{n}_recurrent": (f"signal.gru{n}.recurrent", ROUNDED) for n in (1, 2, 3)},
        **{f"sig_net_gru{n}_glu_gate": (f"signal.gru{n}_gate", ROUNDED) for n in (1, 2, 3)},
        "sig_net_skip_dense": ("signal.skip", ROUNDED),
        "sig_net_skip_glu_gate": ("signal.skip_gate", ROUNDED),
        "sig_net_sig_dense_out": ("signal.out", ROUNDED),
    },
    "pitchdnn": {
        "dense_if_upsampler_1": ("phases1", ROUNDED),
        "dense_if_upsampler_2": ("phases2", ROUNDED),
        "dense_downsampler": ("joined", ROUNDED),
        "gru_1_input": ("gru.input", ROUNDED),
        "gru_1_recurrent": ("gru.recurrent", ROUNDED),
        "dense_final_upsampler": ("out", ROUNDED),
    },
}

Arrays = dict[str, NDArray[np.generic]]


def read_member(archive: Path, name: str) -> str:
    """`dnn/<name>_data.c` of the archive, checked."""
    with tarfile.open(archive) as files:
        member = next((m for m in files if m.name.endswith(f"/dnn/{name}_data.c")), None)
        stream = files.extractfile(member) if member else None
        if stream is None:
            raise SystemExit(f"{archive}: no file dnn/{name}_data.c in it")
        content = stream.read()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        raise SystemExit(f"{archive}: dnn/{name}_data.c has sha256 {found}, that of opus 1.5.2 has {SHA256[name]}")
    return content.decode()


def read_arrays(source: str) -> Arrays:
    """C arrays by name, flat."""
    arrays: Arrays = {}
    for kind, name, size, body in ARRAY.findall(source):
        numbers = [float(number) for number in body.split(",") if number.strip()]
        if len(numbers) != int(size):
            raise SystemExit(f"{name}: {len(numbers)} numbers, {size} declared")
        arrays[name] = np.array(numbers, dtype=np.float32 if kind == "float" else np.int8)
    return arrays


def layers(source: str, arrays: Arrays, names: dict[str, tuple[str, str]]) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Tensors of the dense layers, recurrent units and convolutions over time."""
    sizes = {name: (int(inputs), int(outputs)) for name, inputs, outputs in LAYER.findall(source)}
    for theirs, (ours, kind) in names.items():
        inputs, outputs = sizes[theirs]
        bias = arrays.get(f"{theirs}_bias", np.zeros(outputs, np.float32))
        if kind == PLAIN:
            weight = arrays[f"{theirs}_weights_float"].reshape(inputs, outputs).T
        else:  # stored in blocks of eight outputs by four inputs
            blocks = arrays[f"{theirs}_weights_int8"].reshape(outputs // 8, inputs // 4, 8, 4)
            weight = blocks.transpose(0, 2, 1, 3).reshape(outputs, inputs)
            yield f"{ours}.scale", arrays[f"{theirs}_scale"]
        yield f"{ours}.weight", weight
        yield f"{ours}.bias", bias


def convert_fargan(source: str) -> Arrays:
    arrays = read_arrays(source)
    tensors = dict(layers(source, arrays, LAYERS["fargan"]))
    tensors["condition.pitch.weight"] = arrays["cond_net_pembed_weights_float"].reshape(-1, 12)
    told, seen = split_convolution(tensors["signal.seen.weight"])
    parts = {"signal.told.weight": told, "signal.told.scale": tensors["signal.seen.scale"], "signal.seen.weight": seen}
    return tensors | parts


def split_convolution(weight: NDArray[np.generic]) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Columns for the conditions, and for the signal, of two subframes each."""
    earlier, later = np.split(weight, 2, axis=1)
    told = np.concatenate([earlier[:, :CONDITION], later[:, :CONDITION]], axis=1)
    return told, np.concatenate([earlier[:, CONDITION:], later[:, CONDITION:]], axis=1)


def convert_pitchdnn(source: str) -> Arrays:
    arrays = read_arrays(source)
    tensors = dict(layers(source, arrays, LAYERS["pitchdnn"]))
    for n, shape in ((1, (4, 1, 3, 3)), (2, (1, 4, 3, 3))):  # outputs, inputs, time, lag
        tensors[f"lags{n}.weight"] = arrays[f"conv2d_{n}_weight_float"].reshape(shape)
        tensors[f"lags{n}.bias"] = arrays[f"conv2d_{n}_bias"]
    return tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="opus-1.5.2.tar.gz")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, convert in (("fargan", convert_fargan), ("pitchdnn", convert_pitchdnn)):
        tensors = convert(read_member(options.archive, name))
        path = options.out / f"{name}.safetensors"
        save_file({key: np.ascontiguousarray(value) for key, value in sorted(tensors.items())}, path)
        print(f"{path}: {sum(value.size for value in tensors.values())} numbers, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
