"""Tests of class-index definitions: loading, reading, writing and validation."""

import json
import pathlib

import pytest

from zoo import taxonomy

FACTS = pathlib.Path(__file__).parent.parent / "data" / "efficientnet_lite0.json"


def test_ilsvrc_2012_has_1000_classes_in_synset_order():
    classes = taxonomy.load("ilsvrc_2012").classes
    assert len(classes) == 1000
    assert [c.id for c in classes] == sorted(c.id for c in classes)
    assert classes[0] == taxonomy.ClassDefinition("n01440764", "tench")
    assert classes[999] == taxonomy.ClassDefinition("n15075141", "toilet tissue")


def test_names_agree_with_what_the_reference_predictions_call_them():
    named = {
        index: name
        for image in json.loads(FACTS.read_text())["images"]
        for index, name, _ in image["top5"]
    }
    classes = taxonomy.load("ilsvrc_2012").classes
    assert len(named) > 30
    assert {index: classes[index].name for index in named} == named


def test_background_comes_first_and_shifts_the_rest():
    plain = taxonomy.load("ilsvrc_2012")
    shifted = taxonomy.load("ilsvrc_2012", background_class=True)
    assert shifted.num_classes == 1001
    assert shifted.classes[0].id == "background"
    assert shifted.classes[1:] == plain.classes
    assert shifted.with_background() == shifted


def test_tsv_is_read_back_as_written(tmp_path):
    classes = taxonomy.load("ilsvrc_2012", background_class=True)
    path = tmp_path / "class_index.tsv"
    path.write_text(classes.to_tsv())
    assert taxonomy.read_tsv(path) == classes.classes
    assert path.read_text().splitlines()[:2] == [
        "index\tid\tname",
        "0\tbackground\tbackground",
    ]


@pytest.mark.parametrize("newline", ["\n", "\r", "\r\n", "\v", "\x85", "\u2028"])
def test_any_text_is_a_name(tmp_path, newline):
    fragments = [
        "a",
        "\\",
        "\\t",
        "\t",
        "\\\t",
        '"',
        "'",
        "[(,)]",
        "",
        " ",
        "x" * 500,
        newline,
    ]
    names = [f"{one}{other}" for one in fragments for other in fragments if one + other]
    names = list(dict.fromkeys(names))
    classes = tuple(taxonomy.ClassDefinition(f"id {n}", n) for n in names)
    path = tmp_path / "class_index.tsv"
    path.write_bytes(taxonomy.Taxonomy("own", classes).to_tsv().encode())
    assert taxonomy.read_tsv(path) == classes
    lines = path.read_bytes().decode().split("\n")
    assert {line.count("\t") for line in lines[:-1]} == {2}
    assert len(lines) == 1 + len(names) + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line"),
        ("id\tname\n", "first line"),
        ("index\tid\tname\n1\ta\tA\n", "expected class 0"),
        ("index\tid\tname\n0\ta\n", "expected class 0"),
        ("index\tid\tname\n0\ta\tA\n1\ta\tB\n", "ids must be unique"),
    ],
)
def test_malformed_files_are_refused(tmp_path, text, message):
    path = tmp_path / "bad.tsv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        taxonomy.read_tsv(path)


def test_unknown_names_and_scores_are_refused():
    with pytest.raises(ValueError, match=r"Did you mean 'ilsvrc_2012'\?"):
        taxonomy.load("ilsvrc2012")
    with pytest.raises(ValueError, match="softmax, sigmoid, not 'relu'"):
        taxonomy.Taxonomy("x", (taxonomy.BACKGROUND,), scores="relu")
    with pytest.raises(ValueError, match="no classes"):
        taxonomy.Taxonomy("x", ())
    with pytest.raises(ValueError, match="two classes with the id 'background'"):
        taxonomy.Taxonomy("x", (taxonomy.BACKGROUND, taxonomy.BACKGROUND))


def test_one_s_own_is_found_by_its_name():
    custom_taxonomy = taxonomy.Taxonomy("pets", (taxonomy.ClassDefinition("c", "cat"),))
    assert taxonomy.load("pets", custom=custom_taxonomy) is custom_taxonomy
    assert (
        taxonomy.load("pets", custom=custom_taxonomy, background_class=True).num_classes
        == 2
    )
    assert taxonomy.load("cifar10", custom=custom_taxonomy).name == "cifar10"
    with pytest.raises(ValueError, match="Unknown taxonomy 'pet'"):
        taxonomy.load("pet", custom=custom_taxonomy)


def test_names_of_classes_are_read_from_lines(tmp_path):
    path = tmp_path / "pets.txt"
    path.write_bytes(b"\xef\xbb\xbftabby cat\r\n pug \r\n")  # as Windows writes it
    read = taxonomy.read_names(path, scores="sigmoid")
    assert (read.name, read.scores) == ("pets", "sigmoid")
    assert [c.name for c in read.classes] == ["tabby cat", "pug"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "names no classes"),
        (b"cat\n\ndog\n", "line 2: the name of a class is empty"),
        (b"dog\ncat\ncat\n", "line 3: 'cat' is the name of line 2 too"),
        (b"\xff\xfe", "is not UTF-8 text"),
    ],
)
def test_damaged_names_of_classes_are_refused(content, message, tmp_path):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        taxonomy.read_names(tmp_path / "a.txt", scores="softmax")
