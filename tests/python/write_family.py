"""Writes a family of small checkpoints the way Python programs do.

    write_family.py FOLDER [SEED]

The files come from the safetensors library for Python, except where a file that
it would not write is wanted. They hold what real checkpoints surprise readers
with: types that differ from tensor to tensor and from member to member,
integers, booleans, scalars, empty tensors, values at the edges of their format,
names beyond ASCII, and a header whose length is no multiple of eight.
"""

import json
import pathlib
import sys

import numpy as np
from safetensors import TensorSpec, serialize_file

from reference import bf16_from_f64

# name: (shape, type in cp, type in chat, type in base)
FLOATS = {
    "model.embed_tokens.weight": ((96, 64), "BF16", "BF16", "BF16"),
    "model.layers.0.self_attn.q_proj.weight": ((64, 64), "BF16", "F32", "F16"),
    "model.layers.0.self_attn.k_proj.weight": ((32, 64), "F16", "F16", "F16"),
    "model.layers.0.mlp.up_proj.weight": ((101, 64), "F32", "F32", "F32"),
    "model.layers.0.mlp.down_proj.weight": ((64, 101), "F32", "BF16", "BF16"),
    "model.layers.0.input_layernorm.weight": ((63,), "BF16", "BF16", "BF16"),
    "model.layers.0.attn.bias": ((64,), "BF16", "BF16", "BF16"),
    "model.layers.0.scale": ((), "F32", "F32", "F32"),
    "model.layers.0.empty": ((0, 64), "BF16", "BF16", "BF16"),
    "model.layers.0.gewicht_ä_重み": ((17,), "BF16", "BF16", "BF16"),
    "model.layers.0.wide.weight": ((33,), "F64", "F64", "F64"),
    "model.norm.weight": ((64,), "BF16", "BF16", "BF16"),
    "lm_head.weight": ((96, 64), "BF16", "BF16", "BF16"),
}
MEMBERS = ("cp", "chat", "base")
NUMPY = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def encode(values, kind):
    """The little-endian bytes of float64 `values` in a type."""
    if kind == "BF16":
        return bf16_from_f64(values).tobytes()
    return values.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[kind]).tobytes()


def values_of(rng, shape, member, base):
    """base, or base and a small change, with edges of the formats mixed in."""
    if member == "base":
        values = rng.normal(0.0, 0.02, shape)
    else:
        values = base + rng.normal(0.0, 0.001 if member == "chat" else 0.002, shape)
        # Half of the elements do not change: their delta is zero.
        values = np.where(rng.random(shape) < 0.5, base, values)
    if values.ndim == 2 and values.size:
        edges = [0.0, -0.0, 1e-7, -1e-7, 6e-8, 1e-40, -1e-40, 60000.0, -1.0]
        values.reshape(-1)[: len(edges)] = edges
    return values


def floats(seed):
    """member → name → float64 values."""
    rng = np.random.default_rng(seed)
    family = {member: {} for member in MEMBERS}
    for name, (shape, *_) in FLOATS.items():
        base = values_of(rng, shape, "base", None)
        family["base"][name] = base
        for member in ("chat", "cp"):
            family[member][name] = values_of(rng, shape, member, base)
    return family


def others(member):
    """Tensors that are copied from cp: (shape, type, bytes)."""
    shift = MEMBERS.index(member)
    return {
        "model.position_ids": ((8,), "I64", (np.arange(8, dtype="<i8") + shift).tobytes()),
        "model.mask": ((5,), "BOOL", bytes([1, 0, 1, 1, shift % 2])),
        "model.codes": ((3, 3), "U8", bytes(range(shift, 9 + shift))),
        "model.layers.0.rotary_emb.inv_freq": (
            (4,),
            "F32",
            (np.arange(4, dtype="<f4") + shift).tobytes(),
        ),
        "model.layers.1.attn.bias": (
            (1, 1, 3, 3),
            "F32",
            (np.tri(3, dtype="<f4") + np.float32(shift)).astype("<f4").tobytes(),
        ),
    }


def tensors_of(member, values):
    """name → (shape, type, bytes) of all tensors of a member."""
    tensors = {}
    for name, (shape, *kinds) in FLOATS.items():
        kind = kinds[MEMBERS.index(member)]
        tensors[name] = (shape, kind, encode(values[member][name], kind))
    tensors.update(others(member))
    return tensors


def write_with_library(path, tensors):
    # The library takes addresses: the arrays must outlive the call.
    arrays = {name: np.frombuffer(data, dtype="u1") for name, (_, _, data) in tensors.items()}
    specs = {
        name: TensorSpec(
            dtype=library_name(kind),
            shape=list(shape),
            data_ptr=arrays[name].ctypes.data,
            data_len=arrays[name].nbytes,
        )
        for name, (shape, kind, _) in tensors.items()
    }
    serialize_file(specs, path, {"format": "pt"})


def library_name(kind):
    return NUMPY.get(kind) or {"I64": "int64", "BOOL": "bool", "U8": "uint8"}[kind]


def write_unaligned(path, tensors):
    """A file with a header of odd length and tensors in order of their names."""
    header, offset = {}, 0
    for name, (shape, kind, data) in sorted(tensors.items()):
        end = offset + len(data)
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, ensure_ascii=True).encode()
    text += b" " * (1 - len(text) % 2)
    assert len(text) % 2 == 1
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, (_, _, data) in sorted(tensors.items()):
            file.write(data)


def write_member(folder, member, tensors):
    folder.mkdir(parents=True, exist_ok=True)
    if member == "chat":
        write_unaligned(folder / "model.safetensors", tensors)
    elif member == "base":
        write_with_library(folder / "model.safetensors", tensors)
    else:
        names = list(tensors)
        halves = {1: names[: len(names) // 2], 2: names[len(names) // 2 :]}
        weight_map = {}
        for number, half in halves.items():
            file = f"model-{number:05}-of-00002.safetensors"
            write_with_library(folder / file, {name: tensors[name] for name in half})
            weight_map.update(dict.fromkeys(half, file))
        total = sum(len(data) for _, _, data in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 96}
    (folder / "config.json").write_text(json.dumps(config, indent=2))


def main():
    root = pathlib.Path(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    values = floats(seed)
    for member in MEMBERS:
        write_member(root / member, member, tensors_of(member, values))


if __name__ == "__main__":
    main()
