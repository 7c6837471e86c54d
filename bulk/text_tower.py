"""Text embeddings of CLIP and SigLIP: tokens -> blocks -> norm -> pool -> projection.

Reads the text tower of a Hugging Face checkpoint and computes it in NumPy: a few
queries take well under a second, and transformers would need PyTorch.

Source: arXiv:2103.00020, section 2.4, for CLIP; arXiv:2303.15343, section 4, for
SigLIP. Reference code: `modeling_clip.py` and `modeling_siglip.py` of transformers.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import pathlib
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from zoo.weights import safetensors_files

CLIP, SIGLIP = "CLIP", "SigLIP"
"""Families of text towers, by the class of the spec of their image towers."""

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_INDEX = f"model{safetensors_files.INDEX_ENDING}"
_PICKLED = ("pytorch_model*.bin*", "*.pt", "*.pth")
_LARGEST_CONFIG = 1_000_000  # bytes
_OLD_END = 2  # `eos_token_id` of OpenAI's checkpoints, which is not that of their end
_FAMILIES = {"clip": CLIP, "siglip": SIGLIP}  # by `model_type`
_DEFAULTS: dict[str, dict[str, typing.Any]] = {  # of transformers; files leave them out
    CLIP: {
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "eos_token_id": 49407,
    },
    SIGLIP: {
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    },
}
_erf = np.vectorize(math.erf, otypes=[np.float32])
_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
    "gelu": lambda x: x * (1 + _erf(x / math.sqrt(2))) / 2,
    "gelu_pytorch_tanh": lambda x: (
        x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))) / 2
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a text tower that its weights don't show.

    Attributes:
      family: `CLIP` or `SIGLIP`.
      layers: number of blocks.
      heads: attention heads of each block.
      activation: activation of the MLPs, a name of transformers.
      epsilon: of the norms.
      end: id of CLIP's last token; None if it is the largest id of a text.
    """

    family: str
    layers: int
    heads: int
    activation: str
    epsilon: float
    end: int | None = None


class TextTower:
    """The text tower of a checkpoint.

    Args:
      folder: Hugging Face checkpoint with both towers of CLIP or SigLIP: `config.json`,
        and `model.safetensors` or its shards.

    Attributes:
      family: `CLIP` or `SIGLIP`.
      max_tokens: most tokens of a text.
      vocabulary: number of token ids.
      embedding_size: length D of the embeddings.
      tensors: all tensors of the checkpoint by name, the image tower's too.

    Raises:
      ValueError: a file is missing or damaged, or the towers are of another kind.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        if not folder.is_dir():
            raise ValueError(
                f"{folder} is not a folder: download the checkpoint, with {_CONFIG}, "
                f"{_WEIGHTS} and tokenizer.json."
            )
        self._settings = _read_settings(folder / _CONFIG)
        self.family = self._settings.family
        self._path, self.tensors = _open_weights(folder)
        shapes = _shapes(self._settings, self.tensors, self._path)
        self._weights = {name: self._read(name, shape) for name, shape in shapes}
        self.vocabulary = len(self._weights["embeddings.token_embedding.weight"])
        self.max_tokens = len(self._weights["embeddings.position_embedding.weight"])
        self.embedding_size = len(self._weights[_projection(self.family)])

    def embed(self, tokens: Sequence[int]) -> np.ndarray:
        """Returns the embedding of a text, [D] float32, before the L2 normalisation.

        Args:
          tokens: ids of the tokens, 1 to `max_tokens`. SigLIP's are padded.

        Raises:
          ValueError: there are too many tokens, an id is unknown, CLIP's last token is
            missing, or the embedding is not finite.
        """
        if len(tokens) > self.max_tokens:
            raise ValueError(
                f"tokenizer.json gives {len(tokens)} tokens, but the text tower of "
                f"{self._path} takes {self.max_tokens}."
            )
        if max(tokens) >= self.vocabulary:
            raise ValueError(
                f"tokenizer.json gives the token {max(tokens)}, but the text tower of "
                f"{self._path} has {self.vocabulary} tokens."
            )
        x = self._weights["embeddings.token_embedding.weight"][np.asarray(tokens)]
        x = x + self._weights["embeddings.position_embedding.weight"][: len(tokens)]
        with np.errstate(over="ignore", invalid="ignore"):  # see the check at the end
            for layer in range(self._settings.layers):
                x = self._block(x, f"encoder.layers.{layer}")
            x = self._norm(x, "final_layer_norm")
            x = self._project(x[self._pooled(tokens)])
        if not np.isfinite(x).all():
            raise ValueError(f"The embedding by {self._path} is not finite.")
        return x

    def _read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the values of a tensor of the text tower."""
        full_name = _full_name(name)
        tensor = self.tensors[full_name]
        if tensor.shape != shape:
            raise ValueError(
                f"{self._path}: {full_name} must have the shape {list(shape)}, not "
                f"{list(tensor.shape)}."
            )
        try:
            values = np.asarray(tensor).astype(np.float32, copy=False)
        except ValueError as error:
            raise ValueError(f"{self._path}: {error}.") from error
        if not np.isfinite(values).all():
            raise ValueError(f"{self._path}: {full_name} has NaN or infinite values.")
        return values

    def _block(self, x: np.ndarray, name: str) -> np.ndarray:
        """Norm -> attention -> add -> norm -> MLP -> add."""
        x = x + self._attention(self._norm(x, f"{name}.layer_norm1"), name)
        y = self._dense(self._norm(x, f"{name}.layer_norm2"), f"{name}.mlp.fc1")
        y = _ACTIVATIONS[self._settings.activation](y)
        return x + self._dense(y, f"{name}.mlp.fc2")

    def _attention(self, x: np.ndarray, name: str) -> np.ndarray:
        """Attention between tokens [T, C]; CLIP's only to the tokens before."""
        count, channels = x.shape
        queries, keys, values = (
            self._dense(x, f"{name}.self_attn.{part}_proj")
            .reshape(count, self._settings.heads, -1)
            .swapaxes(0, 1)
            for part in "qkv"
        )
        scores = queries @ keys.swapaxes(1, 2) / math.sqrt(queries.shape[-1])
        if self.family == CLIP:
            scores[:, ~np.tri(count, dtype=bool)] = -np.inf
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        y = (scores @ values).swapaxes(0, 1).reshape(count, channels)
        return self._dense(y, f"{name}.self_attn.out_proj")

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        mean = x.mean(axis=-1, keepdims=True)
        variance = x.var(axis=-1, keepdims=True)
        x = (x - mean) / np.sqrt(variance + self._settings.epsilon)
        return x * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]

    def _dense(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _pooled(self, tokens: Sequence[int]) -> int:
        """Returns the position of the token that stands for the text."""
        if self.family == SIGLIP:
            return len(tokens) - 1
        end = max(tokens) if self._settings.end is None else self._settings.end
        if end not in tokens:
            raise ValueError(
                f"tokenizer.json does not end a text by the token {end}, the "
                f"eos_token_id in {_CONFIG}."
            )
        return [*tokens].index(end)

    def _project(self, x: np.ndarray) -> np.ndarray:
        if self.family == SIGLIP:
            return self._dense(x, "head")
        return x @ self._weights[_projection(CLIP)].T


def _read_settings(path: pathlib.Path) -> Settings:
    """Reads the settings of a text tower.

    Raises:
      ValueError: the file is missing, damaged, or of other towers.
    """
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise ValueError(f"it has more than {_LARGEST_CONFIG} bytes")
        config = json.loads(path.read_bytes())
        if not isinstance(config, dict):
            raise ValueError("it holds no JSON object")
    except FileNotFoundError:
        raise ValueError(f"{path} is missing.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable: {error}.") from error
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in _FAMILIES:
        raise ValueError(
            f"{path}: model_type must be one of {', '.join(_FAMILIES)}, not "
            f"{kind!r:.80}."
        )
    family = _FAMILIES[kind]
    text_config = config.get("text_config_dict")  # transformers prefers this old name
    if text_config is None or family == SIGLIP:
        text_config = config.get("text_config")
    if not isinstance(text_config, dict):
        raise ValueError(
            f"{path} has no text_config: the checkpoint must have both towers."
        )
    values = {**_DEFAULTS[family], **text_config}
    check = functools.partial(_checked, path, values)
    activation = values["hidden_act"]
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise ValueError(
            f"{path}: hidden_act must be one of {', '.join(_ACTIVATIONS)}, not "
            f"{activation!r:.80}."
        )
    end = check("eos_token_id", int, 0) if family == CLIP else None
    return Settings(
        family=family,
        layers=check("num_hidden_layers", int, 1),
        heads=check("num_attention_heads", int, 1),
        activation=activation,
        epsilon=check("layer_norm_eps", (int, float), 0),
        end=None if end == _OLD_END else end,
    )


def _checked(
    path: pathlib.Path,
    values: Mapping[str, typing.Any],
    name: str,
    kind: typing.Any,
    smallest: float,
) -> typing.Any:
    value = values[name]
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    if not is_number or not smallest <= value < math.inf:
        what = "a whole number" if kind is int else "a number"
        raise ValueError(
            f"{path}: {name} must be {what} of at least {smallest}, not {value!r:.80}."
        )
    return value


def _open_weights(
    folder: pathlib.Path,
) -> tuple[pathlib.Path, Mapping[str, typing.Any]]:
    """Returns the file of the weights, or of their index, and the tensors by name."""
    for name in (_WEIGHTS, _INDEX):
        if (folder / name).is_file():
            return folder / name, safetensors_files.read(folder / name)[0]
    pickled = sorted(path.name for kind in _PICKLED for path in folder.glob(kind))
    if pickled:
        raise ValueError(
            f"{folder} has only pickled weights, {pickled[0]}, which may run code when "
            f"they are read: give a checkpoint with {_WEIGHTS}, or convert it, for "
            "example by save_pretrained of transformers."
        )
    raise ValueError(f"{folder} has no {_WEIGHTS}.")


def _shapes(
    settings: Settings, tensors: Mapping[str, typing.Any], path: pathlib.Path
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields the name and the shape of each tensor of a text tower.

    Raises:
      ValueError: a tensor is missing, or the settings don't fit the tensors.
    """

    def rank(name: str, rank: int) -> tuple[int, ...]:
        tensor = tensors.get(_full_name(name))
        if tensor is None:
            raise ValueError(f"{path} has no {_full_name(name)}.")
        if len(tensor.shape) != rank or not all(tensor.shape):
            raise ValueError(
                f"{path}: {_full_name(name)} can't have the shape {list(tensor.shape)}."
            )
        return tuple(tensor.shape)

    vocabulary, width = rank("embeddings.token_embedding.weight", 2)
    if width % settings.heads:
        raise ValueError(
            f"{path}: {settings.heads} attention heads do not divide {width} channels."
        )
    start = _full_name("encoder.layers.")
    parts = {n[len(start) :].partition(".")[0] for n in tensors if n.startswith(start)}
    if len(parts) != settings.layers:
        raise ValueError(
            f"{path} has {len(parts)} layers of a text tower, but "
            f"{_CONFIG} says {settings.layers}."
        )
    max_tokens, _ = rank("embeddings.position_embedding.weight", 2)
    hidden, _ = rank("encoder.layers.0.mlp.fc1.weight", 2)
    projection = _projection(settings.family)
    size, _ = rank(projection, 2)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.token_embedding.weight": (vocabulary, width),
        "embeddings.position_embedding.weight": (max_tokens, width),
        projection: (size, width),
    }
    if settings.family == SIGLIP:
        shapes["head.bias"] = (size,)
    dense = {f"self_attn.{part}_proj": (width, width) for part in (*"qkv", "out")}
    dense |= {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
    norms = ["final_layer_norm"]
    for layer in range(settings.layers):
        block = f"encoder.layers.{layer}"
        norms += [f"{block}.layer_norm1", f"{block}.layer_norm2"]
        for name, (outputs, inputs) in dense.items():
            shapes[f"{block}.{name}.weight"] = (outputs, inputs)
            shapes[f"{block}.{name}.bias"] = (outputs,)
    for name in norms:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)
    for name, shape in shapes.items():
        rank(name, len(shape))
        yield name, shape


def _projection(family: str) -> str:
    """Returns the name of the last tensor, whose rows are the embedding's numbers."""
    return "text_projection.weight" if family == CLIP else "head.weight"


def _full_name(name: str) -> str:
    """Returns the name of a tensor in the file; CLIP's projection has no prefix."""
    return name if name == _projection(CLIP) else f"text_model.{name}"
