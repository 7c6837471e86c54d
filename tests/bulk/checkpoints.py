"""Small checkpoints with a text tower, in the layout of Hugging Face, for tests."""

import json

import numpy as np
import safetensors.numpy

WIDTH, HIDDEN, HEADS, LAYERS, POSITIONS, SIZE = 16, 24, 4, 2, 12, 8
WORDS = ("two", "dogs", "on", "a", "beach", "cat", "the")
START, END = "<|startoftext|>", "<|endoftext|>"
KINDS = ("clip", "siglip")


def values(number, *shape):
    """Returns numbers that look random and are the same with any version of NumPy."""
    count = int(np.prod(shape))
    numbers = (np.arange(1, count + 1) * 7919 + 104729 * number) % 9973 / 9973 - 0.5
    return (numbers.reshape(shape) * 2 / np.sqrt(shape[-1])).astype(np.float32)


def text_weights(kind, *, vocabulary, size=SIZE, width=WIDTH, positions=POSITIONS):
    """Returns the tensors of a text tower by name."""
    shapes = {
        "embeddings.token_embedding.weight": (vocabulary, width),
        "embeddings.position_embedding.weight": (positions, width),
    }
    for layer in range(LAYERS):
        start = f"encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes[f"{start}.self_attn.{part}.weight"] = (width, width)
            shapes[f"{start}.self_attn.{part}.bias"] = (width,)
        shapes[f"{start}.mlp.fc1.weight"] = (HIDDEN, width)
        shapes[f"{start}.mlp.fc1.bias"] = (HIDDEN,)
        shapes[f"{start}.mlp.fc2.weight"] = (width, HIDDEN)
        shapes[f"{start}.mlp.fc2.bias"] = (width,)
        for norm in ("layer_norm1", "layer_norm2"):
            shapes[f"{start}.{norm}.weight"] = shapes[f"{start}.{norm}.bias"] = (width,)
    shapes["final_layer_norm.weight"] = shapes["final_layer_norm.bias"] = (width,)
    if kind == "siglip":
        shapes |= {"head.weight": (size, width), "head.bias": (size,)}
    tensors = {
        f"text_model.{name}": values(number, *shape)
        for number, (name, shape) in enumerate(shapes.items())
    }
    for name in tensors:
        is_scale = "layer_norm" in name and name.endswith("weight")
        if "embeddings" in name or is_scale:
            tensors[name] = tensors[name] * np.float32(4)
        # So that attention is not uniform, and activations differ.
        if any(part in name for part in ("q_proj", "k_proj", "fc1")):
            tensors[name] = tensors[name] * np.float32(3)
    if kind == "clip":
        tensors["text_projection.weight"] = values(99, size, width)
    return tensors


def config(kind, **text_config):
    """Returns the content of config.json."""
    text = {
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "hidden_size": WIDTH,
        "intermediate_size": HIDDEN,
        "max_position_embeddings": POSITIONS,
        **text_config,
    }
    return {"model_type": kind, "text_config": text, "vision_config": {}}


def tokenizer(kind):
    """Returns a tokenizer that is built as those of both kinds, with a few words."""
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers, processors

    if kind == "siglip":
        pieces = ["<pad>", "</s>", "<unk>", "▁", *(f"▁{word}" for word in WORDS), "!"]
        scores = [(piece, -float(number)) for number, piece in enumerate(pieces)]
        made = tokenizers.Tokenizer(models.Unigram(scores, unk_id=2))
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        made.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", 1)]
        )
        made.add_special_tokens(["<pad>", "</s>", "<unk>"])
        return made
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces, merges = [*letters, *(f"{letter}</w>" for letter in letters)], []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts[:2] = [parts[0] + parts[1]]
            pieces.append(parts[0])
    pieces = [*dict.fromkeys(pieces), START, END]
    numbers = {piece: number for number, piece in enumerate(pieces)}
    made = tokenizers.Tokenizer(
        models.BPE(
            numbers,
            [*dict.fromkeys(merges)],
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            unk_token=END,
        )
    )
    made.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
            normalizers.Lowercase(),
        ]
    )
    split = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                tokenizers.Regex(split), behavior="removed", invert=True
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    made.post_processor = processors.RobertaProcessing(
        (END, numbers[END]), (START, numbers[START]), False, False
    )
    made.add_special_tokens([START, END])
    return made


def write(folder, kind, *, more=None, size=SIZE, **text_config):
    """Writes a whole checkpoint; `more` are further tensors."""
    folder.mkdir(exist_ok=True)
    made = tokenizer(kind)
    made.save(str(folder / "tokenizer.json"))
    vocabulary = made.get_vocab_size()
    if kind == "clip":
        text_config = {"eos_token_id": made.token_to_id(END), **text_config}
    content = config(kind, **text_config)
    (folder / "config.json").write_text(json.dumps(content))
    tensors = text_weights(kind, vocabulary=vocabulary, size=size)
    safetensors.numpy.save_file(
        {**tensors, **(more or {})}, folder / "model.safetensors"
    )
    return folder
