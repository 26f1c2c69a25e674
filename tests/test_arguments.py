"""A command line is divided into options with their values, and words that stand alone."""

import argparse

import pytest

from ssl_lightning.arguments import Option, configs_in, leading, options_in, values_in

DIVIDED = {
    "a value after =": (["--a=b"], [("a", "b")]),
    "a value as the next word": (["--a", "b"], [("a", "b")]),
    "no value": (["--a"], [("a", None)]),
    "an empty value": (["--a=", "--b", ""], [("a", ""), ("b", "")]),
    "flags": (["--a", "--b", "--c", "d", "--e"], [("a", None), ("b", None), ("c", "d"), ("e", None)]),
    "an option again": (["--a", "1", "--b=2", "--a=3"], [("a", "1"), ("b", "2"), ("a", "3")]),
    "more than one =": (["--a=b=c", "--d", "e=f"], [("a", "b=c"), ("d", "e=f")]),
    "dots and +": (["--a.b+", "x", "--a.0.c=y"], [("a.b+", "x"), ("a.0.c", "y")]),
    "negative numbers": (["--a", "-1", "--b", "-.5", "--c", "-1e-3"], [("a", "-1"), ("b", "-.5"), ("c", "-1e-3")]),
    "infinity": (["--a", "-inf", "--b", "-.inf"], [("a", "-inf"), ("b", "-.inf")]),
    "a dash alone": (["--config", "-", "--a"], [("config", "-"), ("a", None)]),
    "YAML text": (["--a", "- 1\n- 2", "--b", "{c: -1}"], [("a", "- 1\n- 2"), ("b", "{c: -1}")]),
    "a subcommand": (["fit", "--a", "b"], [("", "fit"), ("a", "b")]),
    "words that stand alone": (["x", "y", "--a=b", "z"], [("", "x"), ("", "y"), ("a", "b"), ("", "z")]),
    "a word after a value": (["--a", "b", "c"], [("a", "b"), ("", "c")]),
    "the end of options": (["--a", "--", "--b", "c"], [("a", None), ("", None), ("", "--b"), ("", "c")]),
    "options of one letter": (["-h", "--a", "b", "-h"], [("h", None), ("a", "b"), ("h", None)]),
    "config in short": (["-c", "x", "-c=y", "-cz", "-c"], [*(("config", name) for name in "xyz"), ("config", None)]),
    "nothing": ([], []),
    "an empty word": (["", "--a", ""], [("", ""), ("a", "")]),
    "surrogates": (["--a", "\udcff"], [("a", "\udcff")]),
}


@pytest.mark.parametrize(("words", "expected"), DIVIDED.values(), ids=DIVIDED)
def test_a_command_line_is_divided(words, expected):
    options = options_in(words)
    assert [(option.name, option.value) for option in options] == expected
    assert [word for option in options for word in option.words] == words


@pytest.mark.parametrize("value", ["-1", "-1.5", "-.5", "-1e-3", "-1E5", "-inf", "-.inf", "-", "- 1", "b", "a=b"])
def test_the_parser_takes_the_same_value(value):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--a")
    parser.add_argument("-c", "--config")
    for words in (["--a", value], [f"--a={value}"]):
        (option,) = options_in(words)
        assert option.value == value
        assert parser.parse_args(option.for_parser).a == value
    for words in (["-c", value], [f"-c={value}"], [f"--config={value}"]):
        (option,) = options_in(words)
        assert option.value == value
        assert parser.parse_args(option.for_parser).config == value


def test_configurations_values_and_leading_words():
    words = ["fit", "x", "--config", "a", "-c", "b", "--config=c", "--d=e=f", "-1", "--config"]
    assert configs_in(words) == ["a", "b", "c"]
    assert values_in(words) == {"fit", "x", "a", "b", "c", "e=f", "-1"}
    assert leading(options_in(words)) == ["fit", "x"]
    assert leading(options_in(["--", "a"])) == ["a"]
    assert leading([Option("a", "b", ("--a=b",))]) == []
