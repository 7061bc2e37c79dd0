"""The page in a real browser: it sorts, filters and saves, without errors and without a network."""

import base64
import time
from pathlib import Path

import pytest

from asrprune import cli
from tests.report.browser import Browser, find_chromium
from tests.report.pages import STRANGE, record_run, with_strange_cut

HARDEST = 12
CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
IDS = "[...document.querySelectorAll('#cuts tbody tr')].filter(r => !r.hidden)"


@pytest.fixture(scope="module")
def path(tiny_corpus, tmp_path_factory) -> Path:
    """A page of the hardest cuts without a model."""
    root = tmp_path_factory.mktemp("page")
    manifest = with_strange_cut(
        tiny_corpus.manifests / "tones_cuts_train.jsonl.gz", root / "cuts.jsonl.gz"
    )
    exp = record_run(root / "exp", manifest)
    assert cli.main(["report", "data", str(exp), "--hardest", str(HARDEST)]) == 0
    return exp / "pruning" / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(CHROMIUM, tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def page(browser, path) -> Browser:
    """The page, freshly loaded."""
    browser.events.clear()
    browser.open(path)
    return browser


def column(page: Browser, number: int) -> list[str]:
    """The sorting values of a column, in the rows that are shown."""
    return page.evaluate(f"{IDS}.map(r => r.cells[{number}].dataset.value)")


def click(page: Browser, selector: str) -> None:
    page.evaluate(f"document.querySelector({selector!r}).click()")


def type_into_filter(page: Browser, text: str) -> None:
    page.evaluate(
        f"(() => {{ const f = document.getElementById('filter'); f.value = {text!r};"
        "f.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def count(page: Browser) -> str:
    return page.evaluate("document.getElementById('count').textContent")


def test_nothing_is_complained_of_and_nothing_is_asked_for(page, path):
    assert page.complaints() == []
    assert page.requests() == [path.resolve().as_uri()]
    assert count(page) == f"{HARDEST} of {HARDEST} cuts shown, 0 chosen"
    # markup in a transcript is text
    assert page.evaluate("document.querySelectorAll('#cuts b, #cuts i, #cuts img').length") == 0
    assert column(page, 1)[0] == STRANGE["id"]


@pytest.mark.parametrize(("number", "numeric"), [(1, False), (2, True), (3, True), (8, False)])
def test_a_click_sorts_and_another_one_turns_the_order(page, number, numeric):
    head = f"#cuts th:nth-child({number + 1})"
    before = column(page, number)
    found = {}
    for _ in range(2):
        click(page, f"{head} button")
        direction = page.evaluate(f"document.querySelector({head!r}).ariaSort")
        found[direction] = column(page, number)
    assert page.evaluate("document.querySelectorAll('#cuts [aria-sort]').length") == 1
    ascending = found["ascending"]
    if numeric:
        assert [float(one) for one in ascending] == sorted(map(float, before))
        assert [float(x) for x in found["descending"]] == sorted(map(float, before), reverse=True)
    else:
        order = page.evaluate(
            f"{before!r}.sort(new Intl.Collator(undefined, {{numeric: true}}).compare)"
        )
        assert ascending == order and sorted(found["descending"]) == sorted(before)
        assert found["descending"][0] == ascending[-1]
    assert page.complaints() == []


def test_cuts_without_a_value_come_last(page):
    """There is no model, so no cut has word errors; one of them gets some."""
    page.evaluate("document.querySelector('#cuts tbody').rows[5].cells[7].dataset.value = '3'")
    for _ in range(2):
        click(page, "#cuts th:nth-child(8) button")
        assert column(page, 7) == ["3", *[""] * (HARDEST - 1)]


def test_the_filter_shows_rows_with_all_words(page):
    texts = dict(zip(column(page, 1), column(page, 8), strict=True))
    word = list(texts.values())[3].split()[0].lower()
    name = list(texts)[3]
    type_into_filter(page, f" {word}  {name.upper()}")
    assert column(page, 1) == [name]
    assert count(page) == f"1 of {HARDEST} cuts shown, 0 chosen"
    type_into_filter(page, "<b> &")
    assert column(page, 1) == [STRANGE["id"]]
    type_into_filter(page, "no such words")
    assert column(page, 1) == []
    type_into_filter(page, "")
    assert len(column(page, 1)) == HARDEST


def test_the_chosen_ids_reach_a_file(page, tmp_path):
    """Also those that the filter hides at the moment; in the order of the table."""
    assert page.evaluate("document.getElementById('save').disabled")
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    ids = column(page, 1)
    for row in (1, 5):
        click(page, f"#cuts tbody tr:nth-child({row}) input")
    type_into_filter(page, ids[3])
    click(page, "#choose-all")
    assert count(page) == f"1 of {HARDEST} cuts shown, 3 chosen (2 of them not shown)"
    click(page, "#save")
    file = tmp_path / "suspected_label_errors.txt"
    for _ in range(300):
        if file.exists() and file.read_text():
            break
        time.sleep(0.1)
    assert file.read_text() == "".join(f"{ids[row]}\n" for row in (0, 3, 4))
    click(page, "#choose-all")
    assert count(page) == f"1 of {HARDEST} cuts shown, 2 chosen (2 of them not shown)"
    assert page.complaints() == []


def test_the_audio_plays(page):
    """Chromium decodes it, and it is as long as the cut."""
    seconds = page.evaluate(
        """Promise.all([...document.querySelectorAll('audio')].slice(0, 3).map(audio =>
        new Promise((done, failed) => {
          audio.addEventListener('loadedmetadata', () => done(audio.duration));
          audio.addEventListener('error', () => failed(audio.error));
          audio.preload = 'metadata'; audio.load();
        })))"""
    )
    # a browser may count a block of Vorbis more
    assert seconds == pytest.approx([float(one) for one in column(page, 3)[:3]], abs=0.03)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1000, 1300])
def test_the_page_fits_its_window(page, scheme, width):
    """The page does not scroll sideways, and its text stands out from the paper."""
    page.call(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=900, deviceScaleFactor=1, mobile=False,
    )  # fmt: skip
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.call("Emulation.setEmulatedMedia", features=features)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colours = page.evaluate(
        "['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name])"
    )
    ink, paper = (sum(map(int, one[4:-1].split(", "))) for one in colours)
    assert (ink < paper) == (scheme == "light") and abs(ink - paper) > 500
    image = base64.b64decode(page.call("Page.captureScreenshot")["data"])
    assert image.startswith(b"\x89PNG")
