"""Merges in numpy as the contract says; compares a merged checkpoint, or writes one.

    reference.py compare CP OUT CHAT BASE LAMBDA [CHAT BASE LAMBDA]…
    reference.py write CP OUT CHAT BASE LAMBDA [CHAT BASE LAMBDA]…

Sums are float64 in the order of the vectors, and the result is rounded once, to
nearest, ties to even. Where the sum of the deltas is zero, cp's own bits remain.
`compare` ends with status 1 and the first differences if any element is not the
same; `write` writes one file of weights.
"""

import json
import pathlib
import sys

import numpy as np

FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
BITS = {8: "<u8", 4: "<u4", 2: "<u2", 1: "u1"}
BUFFERS = ("rotary_emb.inv_freq", ".cos_cached", ".sin_cached", "position_ids", "masked_bias")


def bf16_from_f64(values):
    """float64 rounded once to bfloat16, as unsigned 16-bit patterns.

    By way of float32 rounded to odd: a value that float32 cannot hold is cut and
    its last bit set, which no later rounding to fewer bits mistakes for a tie.
    """
    values = np.asarray(values, dtype="<f8")
    with np.errstate(over="ignore", under="ignore"):
        single = values.astype("<f4")
    finite = np.isfinite(values)
    too_far = finite & (np.abs(single.astype("<f8")) > np.abs(values))
    bits = single.view("<u4").astype("<u8")
    bits = np.where(too_far, bits - 1, bits)
    cut = bits.astype("<u4").view("<f4").astype("<f8")
    bits = np.where(finite & (cut != values), bits | 1, bits)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet = (bits >> 16) | 0x40
    return np.where(np.isnan(values), quiet, rounded).astype("<u2")


def round_once(values, kind):
    """float64 in a type, as unsigned bit patterns."""
    if kind == "BF16":
        return bf16_from_f64(values)
    # numpy converts float64 to float32 and to float16 directly, rounding once.
    with np.errstate(over="ignore", under="ignore"):
        narrow = np.asarray(values, dtype="<f8").astype(FLOATS[kind])
    return narrow.view(BITS[narrow.dtype.itemsize])


def widen(raw, kind):
    """The exact float64 values of raw bytes in a type."""
    array = np.frombuffer(raw, dtype=FLOATS[kind])
    if kind == "BF16":
        array = (array.astype("<u4") << 16).view("<f4")
    return array.astype("<f8")


def read(folder):
    """name → (type, shape, bytes) of every tensor of a checkpoint.

    Reads the format itself: the library for Python knows no bfloat16 in numpy.
    """
    folder = pathlib.Path(folder)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        files = ["model.safetensors"]
    tensors = {}
    for file in files:
        content = (folder / file).read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        header.pop("__metadata__", None)
        for name, info in header.items():
            begin, end = info["data_offsets"]
            data = content[start + begin : start + end]
            tensors[name] = (info["dtype"], info["shape"], data)
    return tensors


def is_buffer(name, shape):
    """Whether a float tensor is copied: a known buffer, or a causal mask that is
    stored under the name of a bias."""
    is_mask = len(shape) == 4 and shape[:2] == [1, 1] and shape[2] == shape[3]
    is_bias = name.endswith(("attn.bias", "attention.bias"))
    return name.endswith(BUFFERS) or (is_bias and is_mask)


def merged(name, cp, vectors):
    """The bit patterns that the output ought to hold for one tensor of cp."""
    kind, shape, raw = cp
    if kind not in FLOATS or is_buffer(name, shape):
        return np.frombuffer(raw, dtype="u1")
    total = None
    for chat, base, scale in vectors:
        if scale == 0.0:
            continue
        operands = []
        for role, tensors in (("chat", chat), ("base", base)):
            if name not in tensors:
                raise SystemExit(f"`{name}` is not in {role}")
            other_kind, other_shape, other_raw = tensors[name]
            if other_shape != shape:
                raise SystemExit(f"`{name}` has shape {other_shape} in {role}, {shape} in cp")
            operands.append(widen(other_raw, other_kind))
        share = scale * (operands[0] - operands[1])
        total = share if total is None else total + share
    bits = np.frombuffer(raw, dtype=BITS[np.dtype(FLOATS[kind]).itemsize])
    if total is None:
        return bits
    return np.where(total == 0.0, bits, round_once(widen(raw, kind) + total, kind))


def compare(cp, out, vectors):
    """Prints what differs; the number of elements that do."""
    if cp.keys() != out.keys():
        raise SystemExit(f"names differ: {sorted(cp.keys() ^ out.keys())}")
    differing = 0
    for name, tensor in cp.items():
        kind, shape, raw = out[name]
        if (kind, shape) != tensor[:2]:
            raise SystemExit(f"`{name}` is {kind} {shape}, expected {tensor[0]} {tensor[1]}")
        expected = merged(name, tensor, vectors)
        found = np.frombuffer(raw, dtype=expected.dtype)
        wrong = np.flatnonzero(found != expected)
        differing += wrong.size
        for place in wrong[:3]:
            print(f"`{name}` element {place}: expected {expected[place]:#x}, found {found[place]:#x}")
    print(f"{len(cp)} tensors: {differing} elements differ")
    return differing


def write(cp, folder, vectors):
    """Writes the merged checkpoint as one file."""
    header, blocks, offset = {}, [], 0
    for name, tensor in cp.items():
        kind, shape, raw = tensor
        block = merged(name, tensor, vectors).tobytes()
        assert len(block) == len(raw)
        end = offset + len(block)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, end]}
        blocks.append(block)
        offset = end
    text = json.dumps(header).encode()
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.writelines(blocks)


def main():
    if len(sys.argv) < 7 or len(sys.argv) % 3 != 1 or sys.argv[1] not in ("compare", "write"):
        raise SystemExit(__doc__)
    action, cp_folder, out_folder, *rest = sys.argv[1:]
    vectors = [
        (read(rest[i]), read(rest[i + 1]), float(rest[i + 2])) for i in range(0, len(rest), 3)
    ]
    cp = read(cp_folder)
    if action == "write":
        write(cp, out_folder, vectors)
    elif compare(cp, read(out_folder), vectors):
        sys.exit(1)


if __name__ == "__main__":
    main()
