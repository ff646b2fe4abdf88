"""all-MiniLM-L6-v2 in numpy, one core, in turn with `fanfold bench`: tokens per second of texts of 128 tokens.

usage: minilm.py FANFOLD MODEL [ROUNDS]

FANFOLD is the program, MODEL the folder that `tests/minilm.rs` fetches. Before anything is timed, both embed one text and must agree.
Needs the packages numpy (with OpenBLAS) and tokenizers.
"""

import json
import os
import subprocess
import sys
import time

os.environ["OPENBLAS_NUM_THREADS"] = "1"
import numpy as np
from tokenizers import Tokenizer

FANFOLD, MODEL = sys.argv[1], sys.argv[2]
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 7
LENGTH = 128
# One thread: lavapipe then computes on the thread that submits to it.
ENVIRONMENT = dict(os.environ, LP_NUM_THREADS="0")


def weights():
    with open(os.path.join(MODEL, "model.safetensors"), "rb") as file:
        data = file.read()
    length = int.from_bytes(data[:8], "little")
    found = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = entry["data_offsets"]
            values = np.frombuffer(data, np.float32, (end - start) // 4, 8 + length + start)
            found[name.removeprefix("bert.")] = values.reshape(entry["shape"])
    return found


W = weights()
CONFIG = json.load(open(os.path.join(MODEL, "config.json")))
HEADS, EPSILON = CONFIG["num_attention_heads"], CONFIG["layer_norm_eps"]


def norm(x, prefix):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON)
    return x * W[prefix + ".weight"] + W[prefix + ".bias"]


def linear(x, prefix):
    return x @ W[prefix + ".weight"].T + W[prefix + ".bias"]


def gelu(x):
    # The error function by Abramowitz and Stegun's formula 7.1.26, which differs by 1.5e-7 at most.
    z = np.abs(x) * np.float32(0.70710678)
    t = 1 / (1 + np.float32(0.3275911) * z)
    p = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    erf = np.sign(x) * (1 - p * np.exp(-z * z))
    return x * np.float32(0.5) * (1 + erf)


def hidden(ids):
    """The last hidden states of one text, [tokens, width]."""
    n = len(ids)
    x = W["embeddings.word_embeddings.weight"][ids] + W["embeddings.position_embeddings.weight"][:n]
    x = norm(x + W["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(CONFIG["num_hidden_layers"]):
        at = f"encoder.layer.{layer}."
        q, k, v = (
            linear(x, at + "attention.self." + part).reshape(n, HEADS, -1).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 2, 1) / np.float32(q.shape[-1] ** 0.5)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        mixed = linear(mixed.transpose(1, 0, 2).reshape(n, -1), at + "attention.output.dense")
        x = norm(x + mixed, at + "attention.output.LayerNorm")
        inner = gelu(linear(x, at + "intermediate.dense"))
        x = norm(x + linear(inner, at + "output.dense"), at + "output.LayerNorm")
    return x


def fanfold(*words):
    run = subprocess.run([FANFOLD, *words], capture_output=True, text=True, env=ENVIRONMENT)
    if run.returncode != 0:
        sys.exit(f"fanfold {words[0]}: {run.stderr.strip()}")
    return run.stdout


TEXT = "The quick brown fox jumps over the lazy dog."
tokenizer = Tokenizer.from_file(os.path.join(MODEL, "tokenizer.json"))
tokenizer.no_padding()
mean = hidden(tokenizer.encode(TEXT).ids).mean(0)
mean /= np.sqrt((mean * mean).sum())
theirs = np.array(json.loads(fanfold("embed", MODEL, TEXT, "--json", "--devices", "llvmpipe"))[0], np.float32)
difference = float(np.abs(mean - theirs).max())
if difference > 1e-4:
    sys.exit(f"the embeddings differ by {difference:.1e}")
print(f"embeddings differ by {difference:.1e}", file=sys.stderr)
blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
if "openblas" not in blas["name"]:
    sys.exit(f"numpy computes with {blas['name']}, and not with OpenBLAS")
print(f"numpy {np.__version__}, {blas['name']} {blas['version']}, one thread; fanfold on llvmpipe, one thread")

ids = np.arange(LENGTH) * 7 % CONFIG["vocab_size"]
hidden(ids)
ratios, rates = [], []
for _ in range(ROUNDS):
    started = time.perf_counter()
    count = 0
    while time.perf_counter() - started < 1:
        hidden(ids)
        count += 1
    numpy = count / (time.perf_counter() - started)
    rows = json.loads(fanfold("bench", MODEL, "-p", str(LENGTH), "-n", "0", "-r", "5", "-o", "json", "--devices", "llvmpipe"))
    ours = sorted(rows[0]["samples_ts"])[2] / LENGTH
    rates.append((ours, numpy))
    ratios.append(ours / numpy)
middle = lambda values: sorted(values)[len(values) // 2]
print(f"fanfold {middle([a for a, _ in rates]):.2f}, numpy {middle([b for _, b in rates]):.2f} texts/s of {LENGTH} tokens")
print(f"ratio {middle(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
