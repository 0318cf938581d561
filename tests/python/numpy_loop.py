"""The chat vector as a short script: memory maps, float32, tensor by tensor.

    numpy_loop.py CP CHAT BASE LAMBDA OUT

What chatvec is compared with: the tightest loop that people write themselves.
"""

import json
import os
import pathlib
import sys

import numpy as np


def f32(bits):
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def bf16(values):
    bits = values.view(np.uint32)
    odd = bits >> 16
    odd &= 1
    bits += odd
    bits += 0x7FFF
    bits >>= 16
    return bits.astype(np.uint16)


def main():
    cp, chat, base, scale, out = sys.argv[1:]
    scale, out = np.float32(scale), pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for shard in sorted(pathlib.Path(cp).glob("*.safetensors")):
        sources = [np.memmap(pathlib.Path(d) / shard.name, mode="r") for d in (cp, chat, base)]
        start = 8 + int(sources[0][:8].view("<u8")[0])
        header = json.loads(bytes(sources[0][8:start]))
        header.pop("__metadata__", None)
        with open(out / shard.name, "wb") as file:
            file.write(sources[0][:start])
            for info in sorted(header.values(), key=lambda info: info["data_offsets"]):
                begin, end = (start + offset for offset in info["data_offsets"])
                a, b, c = (source[begin:end].view("<u2") for source in sources)
                result = f32(b)
                result -= f32(c)
                result *= scale
                result += f32(a)
                file.write(bf16(result))
            file.flush()
            os.fsync(file.fileno())


if __name__ == "__main__":
    main()
