"""Texts as the token ids that text towers take, by a checkpoint's tokenizer.json."""

from __future__ import annotations

import json
import pathlib
import string
import typing

from bulk import text_tower
from foundation import progress, stderr

if typing.TYPE_CHECKING:
    import tokenizers

_LOG = progress.logger(__name__)
_SIDES = ("right", "left")
_REMOVED = str.maketrans("", "", string.punctuation)


class Tokenizer:
    """The tokenizer of a checkpoint.

    SigLIP's texts are lower-cased, and those of its first version lose their
    punctuation, as in training: transformers does so in `SiglipTokenizer`, which not
    every tokenizer.json repeats. SigLIP 2 has Gemma's tokenizer, a BPE, and keeps
    punctuation. CLIP's tokenizer.json lower-cases by itself.

    Args:
      folder: Hugging Face checkpoint with `tokenizer.json`.
      family: `text_tower.CLIP` or `text_tower.SIGLIP`.
      max_tokens: most tokens of a text; SigLIP's texts are padded to this length.

    Raises:
      ImportError: the package tokenizers is missing.
      ValueError: a file is missing or damaged.
    """

    def __init__(self, folder: pathlib.Path, *, family: str, max_tokens: int) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise ImportError(f"{error}: run tools/setup bulk") from None
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ValueError(
                f"{path} is missing: texts need the tokenizer of the checkpoint. "
                "AutoTokenizer.save_pretrained of transformers writes it."
            )
        with stderr.silenced():  # Rust prints that it panics
            self._tokenizer = _load(path)
        self._path, self._family, self._max_tokens = path, family, max_tokens
        self._keeps_punctuation = isinstance(
            self._tokenizer.model, tokenizers.models.BPE
        )
        self._tokenizer.no_padding()
        if family == text_tower.SIGLIP:
            self._pad_to_length(folder / "tokenizer_config.json")

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text's tokens, with those of its start and end.

        A text that is too long is cut, and a warning says so.

        Raises:
          ValueError: nothing is left of the text.
        """
        words = self._canonical(text)
        if not words.strip():
            raise ValueError(f"the text {text!r:.60} has no words.")
        self._tokenizer.no_truncation()
        whole = self._tokenizer.encode(words)
        count = sum(whole.attention_mask)  # without the padding
        if count > self._max_tokens:
            _LOG.warning(
                f"the end of {text!r:.60} is left out: it has {count} tokens, and the "
                f"text tower takes {self._max_tokens}"
            )
        if self._tokenizer.token_to_id("<unk>") in whole.ids:
            _LOG.warning(f"the tokenizer does not know a part of {text!r:.60}")
        self._tokenizer.enable_truncation(self._max_tokens)
        return list(self._tokenizer.encode(words).ids)

    def _canonical(self, text: str) -> str:
        """Returns a text as its tokenizer takes it."""
        if self._family == text_tower.CLIP:
            return text
        text = text.lower()
        if not self._keeps_punctuation:
            text = text.translate(_REMOVED)
        return " ".join(text.split())

    def _pad_to_length(self, config: pathlib.Path) -> None:
        """Lets the tokenizer pad all texts, with the token that its settings name."""
        settings = _read_object(config)
        token = settings.get("pad_token")
        if isinstance(token, dict):
            token = token.get("content")
        token = token or ("<pad>" if self._keeps_punctuation else "</s>")
        number = self._tokenizer.token_to_id(token) if isinstance(token, str) else None
        side = settings.get("padding_side", "right")
        if number is None or side not in _SIDES:
            raise ValueError(
                f"{self._path} can't pad texts by the token {token!r:.60} on the side "
                f"{side!r:.60}."
            )
        self._tokenizer.enable_padding(
            direction=side, pad_id=number, pad_token=token, length=self._max_tokens
        )


def _load(path: pathlib.Path) -> tokenizers.Tokenizer:
    """Loads a tokenizer, and tries it.

    Raises:
      ValueError: the file is damaged.
    """
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        tokenizer.encode("a")
        return tokenizer
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # Rust's panics are no Exceptions
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} is not a usable tokenizer: {reason}.") from error


def _read_object(path: pathlib.Path) -> dict[str, typing.Any]:
    """Returns the JSON object of a file; empty if the file is missing."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable: {error}.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object.")
    return value
