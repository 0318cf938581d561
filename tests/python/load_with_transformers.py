"""Loads a merged model with transformers and compares it with a merge in torch.

    load_with_transformers.py CP CHAT BASE LAMBDA OUT

Nothing may be warned of while loading, every weight must be the one computed
here in float64, the logits must be the same, and the tokenizer must work.
"""

import logging
import sys
import warnings

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


class Recorder(logging.Handler):
    """Keeps what is logged as a warning or worse."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


def load_quietly(folder):
    """The model and its tokenizer; ends the program if anything was warned of."""
    recorder = Recorder()
    # The library's logger keeps its messages from the root logger.
    logging.getLogger("transformers").addHandler(recorder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, tokenizer = load(folder), AutoTokenizer.from_pretrained(folder)
    messages = recorder.messages + [str(warning.message) for warning in caught]
    if messages:
        raise SystemExit("warned of while loading:\n" + "\n".join(messages))
    return model, tokenizer


def merge(cp, chat, base, scale):
    """Merges into `cp` what chat learnt, rounding once."""
    chat, base = chat.state_dict(), base.state_dict()
    for name, tensor in cp.state_dict().items():
        if tensor.is_floating_point():
            change = scale * (chat[name].double() - base[name].double())
            exact = tensor.double() + change
            tensor.copy_(torch.where(change == 0, tensor, round_once(exact, tensor.dtype)))
    return cp


def round_once(exact, dtype):
    """float64 to `dtype`; torch itself would go by way of float32 and round twice."""
    if dtype != torch.bfloat16:
        return exact.to(dtype)
    single = exact.float()
    # Cut towards zero and set the last bit where something was lost: the next
    # rounding then decides as if it had seen the whole number.
    bits = single.view(torch.int32)
    bits = torch.where(single.double().abs() > exact.abs(), bits - 1, bits)
    lost = bits.view(torch.float32).double() != exact
    return torch.where(lost, bits | 1, bits).view(torch.float32).to(dtype)


def main():
    cp, chat, base, scale, out = sys.argv[1:]
    torch.manual_seed(0)
    merged, tokenizer = load_quietly(out)
    expected = merge(load(cp), load(chat), load(base), float(scale))

    wanted, found = expected.state_dict(), merged.state_dict()
    if wanted.keys() != found.keys():
        raise SystemExit(f"names differ: {sorted(wanted.keys() ^ found.keys())}")
    for name in wanted:
        if not torch.equal(wanted[name], found[name]):
            raise SystemExit(f"`{name}` differs")

    text = "the thing and the other"
    tokens = tokenizer(text, return_tensors="pt").input_ids
    if tokenizer.decode(tokens[0], skip_special_tokens=True) != text:
        raise SystemExit("the tokenizer does not return its text")
    with torch.no_grad():
        same = torch.equal(expected(tokens).logits, merged(tokens).logits)
    if not same:
        raise SystemExit("logits differ")
    print(f"{len(wanted)} tensors and the logits are the same; nothing was warned of")


if __name__ == "__main__":
    main()
