"""The hash of sources changes with code, but not with comments or docstrings."""

import pathlib

import pytest

from foundation import source_hash

ROOT = pathlib.Path(__file__).resolve().parents[2]
CODE = '''"""A module."""

import math

SIZE = 224  # pixels
"""Of an image."""

NAMES = """one
# two

three"""


class Block:
    """A block."""

    def width(self, rate):
        """Its width."""
        # Rounded.
        return f"{rate * 1.5:.2f} of {math.floor(rate)}" + "#"
'''


@pytest.fixture
def hashed(tmp_path):
    def hashed(text, name="block.py"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return source_hash.hash_files([tmp_path / name], root=tmp_path)

    return hashed


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""', '"""Another,\n\nand longer."""'),
        ('"""A module."""\n', ""),
        ("  # pixels", ""),
        ('"""Of an image."""', "# of an image"),
        ('"""A block."""', "r'A bl' 'ock'"),
        ("        # Rounded.\n", "\n\n\n"),
        ("import math", "import   math  # for floor"),
        ("(self, rate)", "(\n        self, rate)"),
    ],
)
def test_words_do_not_count(hashed, old, new):
    assert old in CODE
    assert hashed(CODE) == hashed(CODE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("224", "225"),
        ("SIZE = 224", "SIZE = 224.0"),
        ('"""A module."""', '"""A module."""; SIZE = 1'),
        ('"""A block."""', '"""A block.""".strip()'),
        ("\n# two\n", "\n# too\n"),
        ("one\n", "one\n\n"),
        ("1.5", "1.25"),
        (".2f", ".3f"),
        ("floor(rate)", "floor(rate + 1)"),
        ('"#"', '"##"'),
        ("        return", "        if rate:\n            rate += 1\n        return"),
        ("rate):", "rate=2):"),
        ("class Block:", "@final\nclass Block:"),
    ],
)
def test_code_counts(hashed, old, new):
    assert old in CODE
    assert hashed(CODE) != hashed(CODE.replace(old, new))


def test_indentation_counts(hashed):
    inside = "for x in y:\n    a()\n    b()\n"
    assert hashed(inside) != hashed(inside.replace("    b", "b"))
    assert hashed(inside) == hashed(inside.replace("    ", "\t"))


def test_a_string_before_code_in_its_line_counts(hashed):
    """A string that begins a statement is a docstring only if nothing follows it."""
    assert hashed('"doc"; "a".join(x)') != hashed('"doc"; "b".join(x)')
    assert hashed('"é"; "a"; y = 1') != hashed('"é"; "a"; y = 2')
    assert hashed('"doc"; y = 1') == hashed("y = 1")


def test_names_and_other_files_count(hashed):
    assert hashed("a = 1") != hashed("a = 1", "other.py")
    assert hashed("a = 1 # b", "a.json") != hashed("a = 1 # c", "a.json")


def test_gin_without_comments():
    gin = "# MobileNetV2\nimport zoo.model\nmodel.backbone = @MobileNetV2()  # spec\n"
    other = "import zoo.model\n\nmodel.backbone = @MobileNetV2()\n"
    assert source_hash.hash_gin_texts([gin]) == source_hash.hash_gin_texts([other])
    assert source_hash.hash_gin_texts([gin]) != source_hash.hash_gin_texts(
        [gin.replace("V2()", "V3()")]
    )
    assert source_hash.hash_gin_texts([gin, gin]) != source_hash.hash_gin_texts([gin])


def test_of_all_our_sources_each_is_other_than_the_rest():
    """Guards against files whose code is taken for empty or for another file's."""
    paths = [
        p for package in ("zoo", "exporters") for p in (ROOT / package).rglob("*.py")
    ]
    texts = {path: path.read_text("utf-8") for path in paths}
    codes = {path: source_hash._code(text) for path, text in texts.items()}
    filled = [code for code in codes.values() if code]
    assert len(set(filled)) == len(filled) > 50
    for path, code in codes.items():
        assert code or path.name == "__init__.py", path  # only docstrings
    for path, code in codes.items():
        commented = "# a comment\n" + texts[path].replace("\n\n", "\n\n\n")
        if '"""\n\n' in texts[path] or not code:
            continue
        assert source_hash._code(commented) == code, path
