"""Laws of ``tools/parse_options.sh``."""

import pytest

OPTIONS = """\
stage=download    # first stage
some_count=4      # how many of them, in a comment
                  # of two lines
limit=            # (integer) at most; empty: no limit
share=0.5         # (number) between 0 and 1
flag=false        # whether or not
kind=bpe          # (bpe|char) one of two
ways="greedy"     # (greedy|beam ...) one or more
text="two words"  # anything
"""
NAMES = ("stage", "some_count", "limit", "share", "flag", "kind", "ways", "text")
BODY = "".join(f'echo "{name}=<${name}>"\n' for name in NAMES)
BODY += "printf 'word=<%s>\\n' \"${overrides[@]}\"\n"


@pytest.fixture
def recipe(make_recipe):
    return make_recipe(OPTIONS, BODY)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "text=<two words>"),
        (["--some-count", "7"], "some_count=<7>"),
        (["--some_count", "7"], "some_count=<7>"),
        (["--some-count=7"], "some_count=<7>"),
        (["--some_count=-7"], "some_count=<-7>"),
        (["--limit", ""], "limit=<>"),
        (["--limit", "3"], "limit=<3>"),
        (["--share", ".25"], "share=<.25>"),
        (["--flag", "true"], "flag=<true>"),
        (["--kind", "char"], "kind=<char>"),
        (["--ways", "beam greedy"], "ways=<beam greedy>"),
        (["--text="], "text=<>"),
        (["--text=--dashes=a b"], "text=<--dashes=a b>"),
        (["--text", "a=b", "--text", "c"], "text=<c>"),
        (["training.epochs=3"], "word=<training.epochs=3>"),
        (["a_b=c d", "--flag", "true", "x="], "word=<x=>"),
    ],
)
def test_values_arrive(recipe, words, expected):
    assert expected in recipe.run(*words).stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--some-count", "x"], "--some-count: 'x' is no integer"),
        (["--some-count", ""], "--some-count: '' is no integer"),
        (["--some-count", "3.5"], "--some-count: '3.5' is no integer"),
        (["--share", "half"], "--share: 'half' is no number"),
        (["--flag", "yes"], "--flag: 'yes' is neither true nor false"),
        (["--flag", "--text", "x"], "--flag needs a value"),
        (["--kind", "chars"], "'chars' is not one of: bpe char (did you mean 'char'?)"),
        (["--kind", "bpe char"], "--kind: 'bpe char' is not one of: bpe char"),
        (["--ways", "greedy baem"], "'baem' is not one of: greedy beam (did you mean 'beam'?)"),
        (["--some-cuont", "3"], "unknown option --some-cuont (did you mean '--some-count'?)"),
        (["--PATH", "/"], "unknown option --PATH"),
        (["--option-names", "x"], "unknown option --option-names"),
        (["--a[$(touch hacked)]", "x"], "unknown option"),
        (["--text"], "--text needs a value"),
        (["--text=a\nb"], "--text: the value has more than one line"),
        (["word"], "'word' is neither an option"),
        (["1a=b"], "'1a=b' is no key=value word"),
    ],
)
def test_one_clear_error(recipe, words, message):
    errors = recipe.run(*words, code=2).stderr
    assert message in errors
    assert errors.startswith("run.sh: error: ") and errors.count("\n") == 1
    assert not (recipe.folder / "hacked").exists()


@pytest.mark.parametrize("value", ["$(touch hacked)", "`touch hacked`", "a'; touch hacked; '"])
def test_values_are_never_evaluated(recipe, value):
    result = recipe.run("--text", value, f"key={value}", f"--ways={'greedy'}")
    assert f"text=<{value}>" in result.stdout and f"word=<key={value}>" in result.stdout
    assert not (recipe.folder / "hacked").exists()
    recipe.run("--some-count", f"a[{value}]", code=2)
    assert not (recipe.folder / "hacked").exists()


def test_help_lists_every_option_with_default_and_comment(recipe):
    text = " ".join(recipe.run("--help").stdout.split())
    assert text.startswith("A recipe for a test.")
    for name in NAMES:
        assert f" --{name.replace('_', '-')} " in text
    assert "--some-count 4 (integer) how many of them, in a comment of two lines" in text
    assert "--text two words anything" in text
    assert '--limit "" (integer) at most; empty: no limit' in text


def test_default_yields_to_the_command_line(make_recipe):
    recipe = make_recipe("a=1 # x\nb=2 # y\n", 'default a 8\ndefault b 9\necho "$a $b"\n')
    assert recipe.run("--a", "1").stdout == "1 9\n"


SHARED = """\
. options.sh
avg=5
min_seconds=1
epochs=      # how long to train
             # in this recipe
streaming=   # (one|two) another type
mine=3       # of this recipe alone
"""


def test_shared_options_have_defaults_and_comments_of_the_recipe(make_recipe):
    recipe = make_recipe(SHARED, 'echo "$avg $min_seconds $epochs $streaming $mine $max_seconds"\n')
    given = ("--avg", "2", "--min-seconds=.5", "--streaming", "two", "--max-seconds", "9")
    assert recipe.run().stdout == "5 1   3 \n"
    assert recipe.run(*given).stdout == "2 .5  two 3 9\n"
    for words, message in (
        (("--epochs", "x"), "--epochs: 'x' is no integer"),
        (("--streaming", "true"), "'true' is not one of: one two"),
        (("--max-secodns", "3"), "unknown option --max-secodns (did you mean '--max-seconds'?)"),
    ):
        assert message in recipe.run(*words, code=2).stderr
    text = recipe.run("--help").stdout
    own, shared = text.split("\nOptions that recipes share, with the defaults of this one:\n")
    assert "\n  --mine 3\n" in own and "\n  --avg" not in own
    assert "  --avg 5\n        (integer) how many epochs to average\n" in shared
    assert "  --min-seconds 1\n        (number) shorter utterances" in shared
    assert '  --epochs ""\n        (integer) how long to train in this recipe\n' in shared
    assert text.startswith("A recipe for a test.\nStages: 0 download")
