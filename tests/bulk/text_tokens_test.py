"""Texts become the tokens that transformers gives them."""

import json
import logging
import sys

import pytest
import tokenizers

from bulk import text_tokens, text_tower
from tests.bulk import checkpoints
from tests.zoo import oracles

FAMILIES = {"clip": text_tower.CLIP, "siglip": text_tower.SIGLIP}
TEXTS = (
    *("two dogs on a beach", "Two  DOGS,\ton a\nbeach!", "dogs' cat's", "42 dogs"),
    *("cafe\u0301 dogs", "\N{DOG FACE}", "\u4e8c dogs \u2014 \u00bf?", "dogs " * 40),
)


def folder_of(path, kind, config=None, change=lambda made: None):
    made = checkpoints.tokenizer(kind)
    change(made)
    made.save(str(path / "tokenizer.json"))
    if config is not None:
        (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


def tokenizer_of(path, kind, max_tokens=checkpoints.POSITIONS):
    return text_tokens.Tokenizer(path, family=FAMILIES[kind], max_tokens=max_tokens)


def test_clip_has_the_tokens_of_transformers(tmp_path):
    transformers = oracles.transformers()
    made = json.loads(checkpoints.tokenizer("clip").to_str())["model"]
    merges = [tuple(pair) for pair in made["merges"]]
    theirs = transformers.CLIPTokenizer(
        vocab=made["vocab"], merges=merges, model_max_length=12
    )
    theirs.save_pretrained(tmp_path)
    for folder in (tmp_path, folder_of(tmp_path / "..", "clip")):
        ours = tokenizer_of(folder, "clip")
        for text in TEXTS:
            expected = theirs(text, truncation=True)["input_ids"]
            assert ours.encode(text) == expected, text


def test_clip_keeps_the_end_of_a_text_that_is_cut(tmp_path, caplog):
    ours = tokenizer_of(folder_of(tmp_path, "clip"), "clip")
    dogs = ours.encode("dogs")
    assert len(dogs) == 3
    with caplog.at_level(logging.WARNING):
        assert ours.encode("dogs " * 10) == [dogs[0], *10 * [dogs[1]], dogs[2]]
        assert not caplog.records
        assert ours.encode("dogs " * 11) == [dogs[0], *10 * [dogs[1]], dogs[2]]
    (record,) = caplog.records
    assert "has 13 tokens, and the text tower takes 12" in record.message


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    folder = folder_of(tmp_path, "clip")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match="run tools/setup bulk"):
        tokenizer_of(folder, "clip")


def test_limits_in_the_file_do_not_count(tmp_path):
    """Files of transformers may have the limits of the last call."""

    def limit(made):
        made.enable_truncation(4)
        made.enable_padding(length=40)

    ours = tokenizer_of(folder_of(tmp_path, "clip", change=limit), "clip")
    assert len(ours.encode("two dogs on a beach")) == 7


ON_A_BEACH = [4, 5, 6, 7, 8, 1]  # two dogs on a beach </s>


@pytest.mark.parametrize(
    "text",
    ["two dogs on a beach", "Two DOGS, on\ta\n (beach)!", "  two dogs on a beach.  "],
)
def test_siglip_leaves_out_capitals_and_punctuation(tmp_path, text):
    ours = tokenizer_of(folder_of(tmp_path, "siglip"), "siglip")
    assert ours.encode(text) == ON_A_BEACH + [1] * 6


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ON_A_BEACH + [1] * 6),
        ({"pad_token": "<pad>"}, ON_A_BEACH + [0] * 6),
        ({"pad_token": {"content": "<pad>"}}, ON_A_BEACH + [0] * 6),
        ({"padding_side": "left"}, [1] * 6 + ON_A_BEACH),
    ],
)
def test_siglip_is_padded(tmp_path, config, expected):
    ours = tokenizer_of(folder_of(tmp_path, "siglip", config), "siglip")
    assert ours.encode("two dogs on a beach") == expected


def test_siglip_keeps_the_end_of_a_text_that_is_cut(tmp_path, caplog):
    ours = tokenizer_of(folder_of(tmp_path, "siglip"), "siglip")
    assert ours.encode("dogs " * 11) == [5] * 11 + [1]
    assert not caplog.records
    assert ours.encode("dogs " * 30) == [5] * 11 + [1]
    assert "has 31 tokens, and the text tower takes 12" in caplog.text


def test_siglip_2_keeps_punctuation(tmp_path):
    """Its tokenizer is Gemma's, whose texts are only lower-cased."""
    words = {"<pad>": 0, "<eos>": 1, "<unk>": 2, "d": 3, "o": 4, "!": 5}
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE(words, [], unk_token="<unk>", fuse_unk=True)
    )
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    made.save(str(tmp_path / "tokenizer.json"))
    ours = tokenizer_of(tmp_path, "siglip", max_tokens=8)
    assert ours.encode("DO!") == [3, 4, 5, 1, 0, 0, 0, 0]


def test_unknown_parts_are_told(tmp_path, caplog):
    ours = tokenizer_of(folder_of(tmp_path, "siglip"), "siglip")
    ours.encode("two dogs")
    assert not caplog.records
    ours.encode("two \N{DOG FACE}")
    assert "does not know a part of 'two \N{DOG FACE}'" in caplog.text


@pytest.mark.parametrize("kind", checkpoints.KINDS)
@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_text_is_refused(tmp_path, kind, text):
    ours = tokenizer_of(folder_of(tmp_path, kind), kind)
    with pytest.raises(ValueError, match="has no words"):
        ours.encode(text)


def test_a_text_of_punctuation_is_empty_for_siglip_only(tmp_path):
    ours = tokenizer_of(folder_of(tmp_path, "siglip"), "siglip")
    with pytest.raises(ValueError, match=r"the text '\?!' has no words"):
        ours.encode("?!")
    assert len(tokenizer_of(folder_of(tmp_path, "clip"), "clip").encode("?!")) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "tokenizer.json is missing: texts need the tokenizer of the checkpo"),
        ("", "tokenizer.json is not a usable tokenizer"),
        ("{}", "tokenizer.json is not a usable tokenizer"),
        ("\udcff", "tokenizer.json is not a usable tokenizer"),
    ],
)
def test_a_damaged_tokenizer_is_refused(tmp_path, content, message):
    if content is not None:
        data = content.encode(errors="surrogateescape")
        (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        tokenizer_of(tmp_path, "clip")


def test_a_tokenizer_that_panics_is_refused(tmp_path, capfd):
    made = json.loads(checkpoints.tokenizer("siglip").to_str())
    made["post_processor"]["single"][1]["SpecialToken"]["id"] = "missing"
    (tmp_path / "tokenizer.json").write_text(json.dumps(made))
    with pytest.raises(ValueError, match="is not a usable tokenizer: no entry found"):
        tokenizer_of(tmp_path, "siglip")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "tokenizer_config.json is not readable"),
        ("[]", "tokenizer_config.json holds no JSON object"),
        ('{"pad_token": "missing"}', "can't pad texts by the token 'missing' on"),
        ('{"pad_token": [1]}', r"can't pad texts by the token \[1\] on"),
        ('{"padding_side": "up"}', "by the token '</s>' on the side 'up'"),
    ],
)
def test_damaged_settings_are_refused(tmp_path, content, message):
    folder = folder_of(tmp_path, "siglip")
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        tokenizer_of(folder, "siglip")
