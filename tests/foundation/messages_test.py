"""Messages suggest the most similar choice and never control a terminal."""

import pytest

from foundation import messages


@pytest.mark.parametrize(
    ("word", "suggestion"),
    [
        ("mobilnet_v2", " Did you mean 'mobilenet_v2'?"),
        ("v2", " Did you mean 'mobilenet_v2'?"),  # a part of the name
        ("zzz", ""),
        ("", ""),
    ],
)
def test_the_most_similar_choice_is_suggested(word, suggestion):
    assert messages.did_you_mean(word, {"mobilenet_v2", "resnet_d_50"}) == suggestion


def test_nothing_that_controls_a_terminal_is_printed():
    text = "a\x1b[2Jb\u202ec\r\udc80 é"
    assert messages.printable(text) == "a\ufffd[2Jb\ufffdc\ufffd\ufffd é"


def test_reports_keep_lines_and_escape_the_rest():
    text = "a\n\tb\x1b\u202e\udc80 é"
    escaped = messages.escape(text)
    assert escaped == "a\n\tb\\x1b\\u202e\\udc80 é"
    escaped.encode("utf-8")
