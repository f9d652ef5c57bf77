"""llama.cpp's own server, with a language model of two small layers that says random letters.

    python llamacpp_app.py PORT

The weights are drawn anew each time, by the same seed: there is nothing to download. With
`temperature = 0` it writes letters, and never its end, so that an answer has `max_tokens` tokens.
"""

import signal
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import xllamacpp

WIDTH, HEADS, LAYERS, HIDDEN = 64, 4, 2, 128
CONTEXT, AT_ONCE = 8192, 4  # tokens of a request, requests
LETTERS = range(ord("a"), ord("z") + 1)
FIRST = 3  # token of byte 0


def tokens():
    """Names, scores and types: unknown, begin, end, and one for each byte."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2, *[gguf.TokenType.BYTE] * 256]
    return names, [0.0] * len(names), kinds


def write(path):
    draw = np.random.default_rng(1)
    names, scores, kinds = tokens()
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(CONTEXT)
    out.add_embedding_length(WIDTH)
    out.add_block_count(LAYERS)
    out.add_feed_forward_length(HIDDEN)
    out.add_head_count(HEADS)
    out.add_head_count_kv(HEADS)
    out.add_rope_dimension_count(WIDTH // HEADS)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(len(names))
    out.add_tokenizer_model("llama")
    out.add_token_list(names)
    out.add_token_scores(scores)
    out.add_token_types(kinds)
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_unk_token_id(0)
    out.add_chat_template("{% for message in messages %}{{ message.content }}{% endfor %}")

    def matrix(name, rows, columns, scale=0.1):
        weights = draw.normal(0, scale, (rows, columns))
        out.add_tensor(f"{name}.weight", weights.astype(np.float32))

    def ones(name):
        out.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))

    matrix("token_embd", len(names), WIDTH, 1.0)
    for layer in range(LAYERS):
        for part in ("attn_norm", "ffn_norm"):
            ones(f"blk.{layer}.{part}")
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{layer}.{part}", WIDTH, WIDTH)
        for part in ("ffn_gate", "ffn_up"):
            matrix(f"blk.{layer}.{part}", HIDDEN, WIDTH)
        matrix(f"blk.{layer}.ffn_down", WIDTH, HIDDEN)
    ones("output_norm")
    # all but letters have the same small chance, so the likeliest is always a letter
    said = np.zeros((len(names), WIDTH), np.float32)
    for letter in LETTERS:
        said[FIRST + letter] = draw.normal(0, 1, WIDTH)
    out.add_tensor("output.weight", said)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "letters.gguf")
        write(path)
        params = xllamacpp.CommonParams()
        params.model.path = path
        params.hostnames, params.port = ["127.0.0.1"], int(sys.argv[1])
        params.n_ctx, params.n_parallel = CONTEXT * AT_ONCE, AT_ONCE
        params.cpuparams.n_threads = 1
        params.endpoint_metrics = True
        server = xllamacpp.Server(params)
        print(server.listening_address, flush=True)
        signal.sigwait([signal.SIGTERM, signal.SIGINT])


if __name__ == "__main__":
    main()
