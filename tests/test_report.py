"""Report: one page without the network that escapes what it shows, the same bytes each time, for 1 to 100 classes."""

import base64
import csv
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_inputs import ROOT, Fabricated, add_figures, drawn_picture, fabricate

from pipelines.commands.report import report_diff
from pipelines.core.errors import InputError, count
from pipelines.core.tables import DEDUPED, PREDICTIONS, read_table
from pipelines.report.charts import PEEK, Dot, Line, chart, scatter
from pipelines.report.compare import ComparedRun, KnownPictures, changed_sides, compare_page, read_run
from pipelines.report.confusion import ConfusedPair, confused_pairs, draw_heatmap, matrix_cells, order_classes, shade
from pipelines.report.credits import NUM_CREDITS, safe_link
from pipelines.report.data_card import find_duplicates
from pipelines.report.evidence import AXIS_NAMES
from pipelines.report.galleries import ThumbnailUri, decision
from pipelines.report.inputs import CsvRow
from pipelines.report.language import JAPANESE
from pipelines.report.mistakes import MAP_COLOUR, map_uri
from pipelines.report.split_card import premium_sentence
from pipelines.report.summary import escape
from pipelines.report.wording import ensemble_sentence, headline, listed, percent, percent_range, worst_class

SECTIONS = [
    *("summary", "figures", "matrix", "pairs", "fix", "mistakes", "classes", "training", "members", "calibration"),
    *("suspects", "data", "order", "rules", "duplicates", "rejects", "split", "made", "glossary"),
]
MEASURED = ["changed", "factors", "more", "robustness", "strangers", "map"]
"""sections that stand only where figures.json has their subject"""
HOSTILE = '<script>alert("x")</script>'
GUITARS = ["Jaguar", "ジャズマスター", "🎸 gold & black", HOSTILE, "Les Paul", "SG", "Telecaster"]
GUITARS += ["Firebird", "Explorer", "Mustang", "$x_1$ | y", "Hollow", "SemiHollow"]


class Page(HTMLParser):
    """What a test asks of a page: tags with attributes, and the visible text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._unseen = 0
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._unseen += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._unseen -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.text += data

    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.tags if "id" in attributes]


@pytest.fixture(scope="module")
def guitars(tmp_path_factory: pytest.TempPathFactory) -> Fabricated:
    made = fabricate(tmp_path_factory.mktemp("guitars"), GUITARS, members=("linear_probe", "scratch"))
    made.report(title="Guitars & more")
    return made


@pytest.fixture(scope="module")
def source(guitars: Fabricated) -> str:
    return (guitars.root / "data" / "report" / "index.html").read_text()


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_every_section_is_there_once_and_every_inner_link_leads_somewhere(page: Page) -> None:
    ids = page.ids()
    assert set(SECTIONS) <= set(ids)
    assert not set(MEASURED) & set(ids)
    assert len(ids) == len(set(ids))
    links = {a["href"] or "" for tag, a in page.tags if tag == "a"}
    assert {link for link in links if link.removeprefix("#") not in ids} == set()


def test_the_page_asks_the_network_for_nothing(source: str, page: Page) -> None:
    for _, attributes in page.tags:
        for name in ("src", "href", "action", "poster", "srcset"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))
    assert "http://" not in source
    assert "https://" not in source
    assert "@import" not in source
    assert "url(" not in source
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_labels_are_shown_as_text_whatever_they_hold(source: str, page: Page) -> None:
    assert HOSTILE not in source
    assert source.count("<script>") == 1
    assert "<b>odd</b>" not in source
    for label in GUITARS:
        assert label in page.text
    assert "<b>odd</b>/x.jpg" in page.text


def test_headings_descend_in_order_and_every_picture_has_words(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    images = [a for tag, a in page.tags if tag == "img"]
    assert len(images) > 10
    assert all(a.get("alt") for a in images)


def test_the_first_screen_says_it_in_a_sentence_and_says_what_to_do(page: Page, guitars: Fabricated) -> None:
    text = re.sub(r"\s+", " ", page.text)
    assert re.search(r"\d+ of 52 test pictures were told apart correctly: \d+\.\d %", text)
    assert "Drawn, not photographed." in text
    assert "Settle 1 picture that stands under two labels" in text
    assert "data/decisions/relabel.csv" in text
    assert "Replace or remove 3 files that could not be used" in text
    assert str(guitars.root) not in text


def test_planted_flaws_are_counted_against_what_was_found(page: Page) -> None:
    text = re.sub(r"\s+", " ", page.text)
    assert "Planted and found" in text
    # two foreign files were planted, one was refused
    assert "foreign fileingest221" in text


def test_pictures_are_small_jpegs_and_the_file_stays_small(source: str, guitars: Fabricated) -> None:
    assert len(source) < 1_000_000
    assert source.count("data:image/jpeg;base64,") > 10
    assert len((guitars.root / "data" / "report" / "confusion_matrix.png").read_bytes()) < 200_000


def test_two_runs_write_the_same_bytes(guitars: Fabricated) -> None:
    def written() -> dict[str, bytes]:
        folder = guitars.report(title="Guitars & more").page.parent
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

    first = written()
    assert written() == first
    assert set(first) == {"index.html", "confusion_matrix.png", "confusion_matrix.svg", "summary.md"}


def test_the_summary_is_markdown_that_labels_cannot_break(guitars: Fabricated) -> None:
    text = (guitars.root / "data" / "report" / "summary.md").read_text()
    assert text.startswith("# Guitars &amp; more\n\n")
    assert "> The pictures are drawn, not photographed" in text
    assert "<script" not in text
    assert "| Accuracy |" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(columns) == 1


@pytest.mark.parametrize("num_classes", [1, 2, 3, 100])
def test_one_two_three_and_a_hundred_classes(tmp_path: Path, num_classes: int) -> None:
    labels = [f"kind {k}" for k in range(num_classes)]
    made = fabricate(tmp_path, labels, per_class=5 if num_classes > 3 else 20, source="0-folder")
    artifact = made.report()
    source = artifact.page.read_text()
    # of one class none is taken for another
    assert set(SECTIONS) - {"mistakes"} <= set(Page(source).ids())
    assert len(source) < 1_500_000
    assert "Drawn, not photographed" not in source
    with Image.open(artifact.matrix) as image:
        assert min(image.size) > 200


def test_nothing_to_complain_of_is_said_in_words(tmp_path: Path) -> None:
    made = fabricate(tmp_path, ["a", "b"], per_class=60, mistakes=0.0, flaws=False)
    figures = made.root / "data" / "evaluate" / "figures.json"
    known = json.loads(figures.read_text())
    known["verdict"] |= {"status": "met", "goal": 0.9}
    known["calibration"]["error"] = 0.01
    figures.write_text(json.dumps(known))
    text = Page(made.report(confused_pairs=0, gallery=0, pictures_per_pair=0).page.read_text()).text
    for sentence in (
        "Nothing stands out",
        "No picture stands in the data twice.",
        "No picture is blurred, dark, bright, grey, transparent, animated or cropped.",
        "Every file could be used.",
        "No test picture was taken for another class.",
        "The model disputes no label with confidence.",
    ):
        assert sentence in text


def credited(number: int) -> dict[str, str]:
    """Provenance of the tenth of a hundred pictures that has any: three creators, one of them hostile."""
    page = f"https://www.photos.example/{number}?a=1&b=2"
    known = {
        1: {"creator": "Ann  Lee ", "license": "CC BY 4.0", "page_url": page},
        2: {"creator": "Ann Lee", "license": "https://creativecommons.org/licenses/by/4.0/", "page_url": page},
        3: {"creator": "Ann Lee", "license": "cc-by-4.0", "url": "https://cdn.example/3.jpg"},
        4: {"creator": "Ann Lee", "license": "CC0 1.0", "page_url": page},
        5: {"creator": HOSTILE, "license": "<b>mine</b>", "page_url": "javascript:alert(1)"},
        6: {"creator": "", "license": "", "page_url": "https://a.example/6"},
        7: {"creator": "Bo", "license": "", "url": "data:text/html,x"},
        9: {"creator": "Gone", "license": "CC0", "verdict": "drop"},
    }
    return known.get(number, {})


@pytest.fixture(scope="module")
def credits_page(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page, list[list[str]]]:
    made = fabricate(tmp_path_factory.mktemp("credits"), list("abcde"), flaws=False, source="0-table", origins=credited)
    source = made.report().page.read_text()
    with (made.root / "data" / "report" / "credits.csv").open(newline="") as file:
        return source, Page(source), list(csv.reader(file))


def test_credits_are_grouped_by_creator_and_licence_whatever_their_spelling(
    credits_page: tuple[str, Page, list[list[str]]],
) -> None:
    _, page, rows = credits_page
    text = re.sub(r"\s+", " ", page.text)
    assert "7 pictures come with word of where they are from, by 3 creators." in text
    assert "The licence is known of 5 of the 100 pictures used." in text
    assert "Licence known5 of 100 pictures, credits" in text
    assert "Ann LeeCC BY 4.03cdn.example, photos.example and 1 more" in text
    assert "Ann LeeCC0 1.01photos.example" in text
    assert f"{HOSTILE}<b>mine</b>1 1 in credits.csv" in text
    assert "not knownnot known1a.example" in text
    assert "Bonot known1" in text
    assert "Gone" not in text
    assert rows == [
        ["creator", "license", "link", "pictures"],
        ["", "", "https://a.example/6", "1"],
        [HOSTILE, "<b>mine</b>", "javascript:alert(1)", "1"],
        ["Ann Lee", "CC BY 4.0", "https://cdn.example/3.jpg", "1"],
        ["Ann Lee", "CC BY 4.0", "https://www.photos.example/1?a=1&b=2", "1"],
        ["Ann Lee", "CC BY 4.0", "https://www.photos.example/2?a=1&b=2", "1"],
        ["Ann Lee", "CC0 1.0", "https://www.photos.example/4?a=1&b=2", "1"],
        ["Bo", "", "data:text/html,x", "1"],
    ]


def test_only_links_to_pages_leave_the_report_and_nothing_hostile_is_markup(
    credits_page: tuple[str, Page, list[list[str]]],
) -> None:
    source, page, _ = credits_page
    assert HOSTILE not in source
    assert "javascript:" not in source
    assert source.count("<script>") == 1
    outside = [a for tag, a in page.tags if tag == "a" and not (a["href"] or "").startswith("#")]
    assert {(a["href"] or "").split("/")[2] for a in outside} == {
        "www.photos.example", "cdn.example", "a.example", "creativecommons.org"
    }  # fmt: skip
    assert all("noopener noreferrer" in (a["rel"] or "") for a in outside)
    others = [a for tag, a in page.tags if tag != "a"]
    assert not [v for a in others for k, v in a.items() if k in ("src", "href") and not (v or "").startswith("data:")]


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "ftp://a.example/",
        "//a.example/",
        "a.example",
        "http://",
        "https:///x",
        "https://user@a.example/",
        "https://a.example/\nx",
        "https://a.example/ x",
        "https://a.example\\@b.example/",
        "https://a.example/\u202egpj",
        "http://[::1",
        "https://a.example/" + "x" * 2000,
        "",
    ],
)
def test_unsafe_links_are_not_followed(url: str) -> None:
    assert safe_link(url) is None


def test_safe_links_are_called_by_their_host() -> None:
    for url, host in (
        ("https://www.a.example/x?y=1#z", "a.example"),
        ("HTTP://A.Example:8080/", "a.example"),
        ("http://[::1]/", "::1"),
        ("https://例え.jp/写真", "例え.jp"),
    ):
        link = safe_link(url)
        assert link is not None
        assert (link.url, link.host) == (url, host)


def test_nothing_is_shown_where_no_source_says_anything(page: Page, guitars: Fabricated) -> None:
    assert "credits" not in page.ids()
    assert "Credits" not in page.text
    assert "Licence known" not in page.text
    assert not (guitars.root / "data" / "report" / "credits.csv").exists()


def test_of_many_creators_the_first_are_shown_and_all_are_written(tmp_path: Path) -> None:
    made = fabricate(
        tmp_path,
        ["a", "b"],
        per_class=150,
        flaws=False,
        source="0-crawl",
        origins=lambda n: {"creator": f"creator {n // 2 if n < 20 else n:03}", "page_url": f"https://a.example/{n}"},
    )
    source = made.report().page.read_text()
    text = re.sub(r"\s+", " ", Page(source).text)
    assert source.count('<tr><th scope="row">creator ') == NUM_CREDITS == 100
    assert "by 290 creators" in text
    assert "The 100 with the most pictures; 190 more and every link in data/report/credits.csv." in text
    assert text.index("creator 000") < text.index("creator 009") < text.index("creator 020")
    assert len((tmp_path / "data" / "report" / "credits.csv").read_text().splitlines()) == 301


def test_a_picture_from_two_places_counts_once_a_creator(tmp_path: Path) -> None:
    """Two files of equal bytes: one picture, two links."""
    made = fabricate(
        tmp_path,
        ["a", "b"],
        per_class=10,
        flaws=False,
        source="0-table",
        draw=lambda k, i: drawn_picture(k, max(i, 1)),
        origins=lambda n: {"creator": "Ann", "page_url": f"https://a.example/{n}"} if n < 2 else {},
    )
    text = re.sub(r"\s+", " ", Page(made.report().page.read_text()).text)
    assert "1 picture comes with word of where it is from, by 1 creator." in text
    assert "Annnot known1a.example and 1 more" in text


def test_quality_says_how_many_and_in_which_class(tmp_path: Path) -> None:
    flawed: dict[int, dict[str, Any]] = {
        0: {"greyscale": True, "sharpness": 99.0, "brightness": 9.0},
        1: {"greyscale": True, "sharpness": 100.0, "brightness": 10.0},
        21: {"greyscale": True, "transparent": True, "brightness": 251.0},
        22: {"num_frames": 2, "crop_left": 0.25},
        23: {"greyscale": True, "verdict": "drop"},
    }
    made = fabricate(tmp_path, ["a", "b"], flaws=False, source="0-folder", origins=lambda n: flawed.get(n, {}))
    text = re.sub(r"\s+", " ", Page(made.report().page.read_text()).text)
    assert "Blurred sharpness below 10012.6 %a 1 of 20" in text
    assert "Dark mean grey level below 1012.6 %a 1 of 20" in text
    assert "Bright mean grey level above 25012.6 %b 1 of 19" in text
    assert "Greyscale no colour to learn from37.7 %a 2 of 20" in text
    assert "Transparent laid on white12.6 %b 1 of 19" in text
    assert "Animated the first frame is used12.6 %b 1 of 19" in text
    assert "Cropped a part of the picture is used12.6 %b 1 of 19" in text


def test_a_missing_input_is_named_with_the_remedy(tmp_path: Path) -> None:
    made = fabricate(tmp_path, ["a", "b"], per_class=5)
    (tmp_path / "data" / "train" / "linear_probe-0" / "history.csv").unlink()
    with pytest.raises(InputError, match=r"history.csv does not exist: run the stage that writes it"):
        made.report()


def test_counts_of_other_classes_are_refused(tmp_path: Path) -> None:
    made = fabricate(tmp_path, ["a", "b"], per_class=5)
    confusion = tmp_path / "data" / "evaluate" / "confusion.csv"
    confusion.write_text(confusion.read_text().replace("b", "c"))
    with pytest.raises(InputError, match=r"confusion.csv counts other classes than the pack's"):
        made.report()


def test_the_stage_starts_without_heavy_libraries() -> None:
    heavy = "{'torch', 'torchvision', 'pandas', 'sklearn', 'great_expectations', 'matplotlib'}"
    check = f"import sys, pipelines.report, pipelines.evaluate; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


# the pieces --------------------------------------------------------------------------------------


def test_classes_that_are_confused_stand_together() -> None:
    counts = np.diag([10] * 5)
    counts[0, 3] = counts[3, 0] = 4
    counts[3, 1] = 2
    assert order_classes(counts) == [0, 3, 1, 2, 4]
    assert order_classes(np.diag([3, 3, 3])) == [0, 1, 2]
    assert sorted(order_classes(np.ones((40, 40), np.int64))) == list(range(40))
    assert order_classes(np.zeros((1, 1), np.int64)) == [0]


def test_pairs_count_both_ways_and_the_worst_comes_first() -> None:
    counts = np.array([[5, 1, 0], [2, 5, 4], [0, 0, 9]])
    assert confused_pairs(counts) == [ConfusedPair(1, 2, 4, 0), ConfusedPair(0, 1, 1, 2)]
    assert confused_pairs(np.diag([1, 2])) == []


def test_cells_link_to_their_pictures_and_zero_is_empty() -> None:
    cells = matrix_cells(np.array([[3, 1], [0, 0]]), [0, 1], {(0, 1): "pair-1-a"})
    right, wrong = cells[0]
    assert right is not None
    assert wrong is not None
    assert (right.count, right.share, right.right, right.target) == (3, 0.75, True, "")
    assert (wrong.count, wrong.share, wrong.right, wrong.target) == (1, 0.25, False, "pair-1-a")
    assert cells[1] == [None, None]


def test_shades_rise_and_leave_out_the_tones_that_no_text_is_readable_on() -> None:
    shades = [shade(i / 100) for i in range(1, 101)]
    assert shades == sorted(shades)
    assert shades[-1] == 1.0
    assert not [s for s in shades if 0.5 < s < 0.78]


@pytest.mark.parametrize(
    ("paper", "ink", "deep", "hues"),
    [
        ((253, 252, 249), (29, 31, 36), (255, 255, 255), [(35, 75, 138), (154, 52, 18)]),
        ((20, 22, 27), (230, 228, 222), (20, 22, 27), [(143, 180, 250), (255, 157, 107)]),
    ],
)
def test_digits_on_every_shade_have_contrast(
    paper: tuple[int, ...], ink: tuple[int, ...], deep: tuple[int, ...], hues: list[tuple[int, ...]]
) -> None:
    def luminance(colour: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
        linear = np.where(colour / 255 <= 0.04045, colour / 255 / 12.92, ((colour / 255 + 0.055) / 1.055) ** 2.4)
        return float(linear @ np.array([0.2126, 0.7152, 0.0722]))

    for hue in hues:
        for i in range(1, 101):
            s = shade(i / 100)
            back = luminance(np.array(hue) * s + np.array(paper) * (1 - s))
            text = luminance(np.array(deep if s > 0.6 else ink, float))
            assert (max(back, text) + 0.05) / (min(back, text) + 0.05) >= 4.5, (hue, s)


def drawn(*points: tuple[float, float], **options: Any) -> str:
    names = {"x_name": "C", "y_name": "Loss", "title": "a<b"}
    return str(chart([Line("val", points)], **{**names, **options}))


def test_curves_are_drawn_to_a_logarithmic_scale_where_asked() -> None:
    svg = drawn((0.01, 1.0), (0.1, 2.0), (1.0, float("nan")), x_is_log=True)
    assert 'aria-label="a&lt;b"' in svg
    assert re.findall(r'circle class="val" cx="([\d.]+)"', svg) == ["52.0", "227.0"]
    assert drawn() == ""
    assert 'cx="52.0"' in drawn((1.0, 0.5))
    crowded = drawn((132, 0.5), (1058, 0.7), (2380, 0.8), (2400, 0.9), x_is_log=True)
    assert re.findall(r'text-anchor="middle">(\d+)<', crowded) == ["132", "1058", "2400"]


def test_charts_name_both_axes_and_no_percentage_is_above_a_hundred() -> None:
    svg = drawn((1, 0.97), (2, 1.0), band=[(1, 0.9, 0.99), (2, 0.95, 1.0)], in_percent=True, y_name="Right & wrong")
    assert ">C</text>" in svg
    assert ">Right &amp; wrong, %</text>" in svg
    assert 'class="band"' in svg
    assert max(float(tick) for tick in re.findall(r'text-anchor="end">([\d.]+)<', svg)) <= 100


def test_the_map_names_classes_side_by_side_and_its_rings_lead_to_mistakes() -> None:
    dots = [Dot(0.0, 0.0, label, "", is_mistake=False) for label in ("a", "<b>")]
    shown = Dot(1.0, 1.0, "a", "m-1", is_mistake=True, picture="data:image/jpeg;base64,AAAA")
    svg = str(scatter([*dots, shown], title="a & b"))
    assert 'aria-label="a &amp; b"' in svg
    assert '<a href="#m-1" aria-label="a mistake: a"><circle class="spot" cx="876.0" cy="24.0" r="7"/><image' in svg
    assert svg.index('class="ring"') < svg.index("<text") < svg.index('class="peek"')
    left, top = (float(re.findall(rf'<image class="peek"[^>]* {axis}="([\d.]+)"', svg)[0]) for axis in "xy")
    assert (left, top) == (876 - 10 - PEEK, 0)  # in the plane, whole
    assert svg.count('class="peek"') == 1
    places = re.findall(r'<text x="(\d+)" y="(\d+)"[^>]*>([^<]*)<', svg)
    assert [name for *_, name in places] == ["&lt;b&gt;", "a"]
    assert len({(x, y) for x, y, _ in places}) == 2
    assert scatter([], title="") == ""


@pytest.mark.parametrize("num_classes", [1, 3, 31])
def test_the_picture_of_the_matrix_is_the_same_each_time(num_classes: int) -> None:
    counts = np.diag([5] * num_classes)
    classes = [f"$class_{k}^$" for k in range(num_classes)]
    assert draw_heatmap(counts, classes, range(num_classes)) == draw_heatmap(counts, classes, range(num_classes))


def test_members_are_told_alone_and_together(page: Page, guitars: Fabricated) -> None:
    metrics = json.loads((guitars.root / "data" / "evaluate" / "figures.json").read_text(encoding="utf-8"))
    text = re.sub(r"\s+", " ", page.text)
    gain = metrics["ensemble"]["gain"]["accuracy"]
    assert gain["low"] < gain["value"] < gain["high"]
    best = metrics["ensemble"]["best_member"]
    assert f"by the mean of their probabilities, 2 members tell {percent(metrics['accuracy']['value'], 1)[:4]}" in text
    assert f"{best}, the best alone on validation pictures, tells" in text
    summary = (guitars.root / "data" / "report" / "summary.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in summary.split("## Members")[1].split("## ")[0].splitlines() if "| " in line]
    assert [row[0] for row in rows] == [
        "| Member",
        "| ---",
        "| all together",
        "| linear\\_probe",
        "| scratch",
    ]
    assert rows[3][2] == percent(metrics["members"]["linear_probe"]["accuracy"]["value"])
    assert rows[3][-1] == f"{percent(0.5)} |"


def member_metrics(value: float, low: float, high: float) -> dict[str, Any]:
    figure = {"value": 0.9, "low": 0.8, "high": 0.95}
    return {
        "accuracy": figure,
        "ensemble": {
            "method": "vote",
            "num_members": 3,
            "best_member": "a",
            "gain": {"accuracy": {"value": value, "low": low, "high": high}},
        },
        "members": {"a": {"accuracy": figure}},
    }


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        ((0.02, 0.0101, 0.03), "+2.0 points (+1.0 to +3.0): together they are better."),
        ((-0.02, -0.04, -0.0101), "\u22122.0 points (\u22124.0 to \u22121.0): alone it is better."),
        ((0.0001, -0.01, 0.02), "0.0 points (\u22121.0 to +2.0): chance alone could explain that."),
        ((0.01, 0.0, 0.02), "+1.0 points (0.0 to +2.0): chance alone could explain that."),
    ],
)
def test_a_gain_is_one_only_where_its_interval_says_so(gain: tuple[float, float, float], said: str) -> None:
    sentence = ensemble_sentence(member_metrics(*gain))
    assert sentence.startswith("Together, by their votes, 3 members tell 90.0")
    assert sentence.endswith(said)


def test_one_member_is_no_ensemble(tmp_path: Path) -> None:
    made = fabricate(tmp_path, ["a", "b"])
    text = re.sub(r"\s+", " ", Page(made.report().page.read_text()).text)
    assert "Out of fold" in text
    assert "all together" not in text
    assert "taken together" not in text
    assert "Weight" not in text
    assert "## Members" not in (tmp_path / "data" / "report" / "summary.md").read_text()


def test_a_label_that_no_font_can_write_stands_as_a_number() -> None:
    # a private-use character that no font of the list has
    found = draw_heatmap(np.diag([1, 1]), ["plain", "\U0010fffd?"], [0, 1])
    assert found.png.startswith(b"\x89PNG")
    assert b"<svg" in found.svg
    assert list(found.legend) in ([], ["no. 2"])
    unwritable = draw_heatmap(np.diag([1, 1]), ["\U000e0100\u1f600\U0001fadf", "plain"], [1, 0])
    assert unwritable.png.startswith(b"\x89PNG")
    assert unwritable.legend == {"no. 1": "\U000e0100\u1f600\U0001fadf"}


def test_numbers_read_well() -> None:
    assert percent(0.9066) == "90.7\u202f%"
    assert percent(None) == "–"
    assert percent_range(0.8531, 0.9419) == "85.3 to 94.2"
    assert (count(1, "class", "classes"), count(2754, "picture")) == ("1 class", "2,754 pictures")
    assert (listed([]), listed(["a"]), listed(["a", "b", "c"])) == ("", "a", "a, b and c")


def test_decision_lines_are_quoted_and_markdown_is_escaped() -> None:
    assert decision("ab", "Les Paul, gold", 'says "no"') == 'ab,"Les Paul, gold","says ""no"""'
    assert escape("a|b <i> *c*\n_d_") == r"a\|b &lt;i&gt; \*c\* \_d\_"


@pytest.mark.browser
def test_a_browser_shows_it_without_complaint_and_without_sideways_scrolling(guitars: Fabricated) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = next((p for p in map(Path, ("/usr/bin/chromium", "/usr/bin/google-chrome")) if p.exists()), None)
    if chromium is None:
        pytest.skip("no Chromium here")
    complaints: list[str] = []
    asked: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=["--no-sandbox", "--disable-gpu"])
        for width, scheme in ((390, "light"), (1280, "dark")):
            tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            tab.on("console", lambda message: complaints.append(message.text))
            tab.on("pageerror", lambda error: complaints.append(str(error)))
            tab.on("request", lambda request: asked.append(request.url))
            tab.goto((guitars.root / "data" / "report" / "index.html").as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            tab.locator("table.matrix td.r").first.hover()
            assert "told right" in tab.locator("#readout").inner_text()
            small = tab.locator(".cards .zoom img").first
            width_before = (small.bounding_box() or {"width": 0})["width"]
            tab.locator(".cards .zoom input").first.press("Space")
            assert (small.bounding_box() or {"width": 0})["width"] > 1.5 * width_before
            tab.locator(".cards .zoom input").first.press("Space")
            tab.locator("table.sortable th button").nth(3).click()
            recalls = tab.locator("table.sortable tbody td:nth-child(4)").all_inner_texts()
            values = [float(r.split("\u202f")[0]) for r in recalls]
            assert values == sorted(values)
            tab.locator("table.matrix td.w a").first.click()
            assert re.search(r"#cell-\d+-\d+$", tab.url)
        browser.close()
    assert complaints == []
    assert all(url.startswith(("file:", "data:")) for url in asked)


@pytest.mark.browser
def test_axe_core_finds_nothing_to_complain_of(measured: Fabricated) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = next((p for p in map(Path, ("/usr/bin/chromium", "/usr/bin/google-chrome")) if p.exists()), None)
    if chromium is None:
        pytest.skip("no Chromium here")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=["--no-sandbox", "--disable-gpu"])
        for width, scheme in ((360, "light"), (1280, "dark"), (1920, "light")):
            # axe is a script, which the page's own policy refuses
            settings = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme, "bypass_csp": True}
            tab = browser.new_context(**settings).new_page()
            tab.goto(measured.report().page.as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert axe.Axe().run(tab).response["violations"] == []
            picture, link = (tab.locator(f".plane a{inside}").first for inside in (" .peek", ""))
            assert not picture.is_visible()
            link.focus()
            assert picture.is_visible()
        browser.close()


def test_fabricated_pictures_differ() -> None:
    assert len({drawn_picture(k, i) for k in range(100) for i in range(5)}) == 500


# how the pictures were divided -----------------------------------------------------------------


def changed_audit(made: Fabricated, **changes: object) -> str:
    """The text of the report with some of audit.json changed."""
    path = made.root / "data" / "split" / "audit.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return re.sub(r"\s+", " ", Page(made.report().page.read_text()).text)


def test_the_report_says_how_pictures_were_divided_and_that_nothing_leaks(page: Page) -> None:
    text = re.sub(r"\s+", " ", page.text)
    assert (
        "Leak audit: of 3 pairs that dedupe found, none lies on two sides, 1 lies on one side and 2 have a picture "
        "that takes no part."
    ) in text
    assert "Leak premium: not measured; it needs a member with a frozen backbone" in text
    assert "Furthest from its share is SemiHollow, with 0.4 pictures fewer in val than asked." in text
    assert "Copies on both sides" not in text


def test_a_leak_that_was_kept_stands_on_the_first_screen_and_in_the_summary(tmp_path: Path) -> None:
    made = fabricate(tmp_path, ["a", "b"], per_class=5)
    file = {"source_path": "<b>x</b>.jpg", "label": "a", "given_subset": "train"}
    given = {
        **{"leaks": "keep", "unassigned": "refuse", "num_groups": 1, "num_files": 2},
        **{
            "across": {"test and train": 1},
            "classes": {"a": 1},
            "examples": [[file, {**file, "given_subset": "test"}]],
        },
    }
    pairs = {
        "looked_at": 1,
        "apart": 0,
        "left_out": 0,
        "together": 0,
        "across": 1,
        "across_by_kind": {"near": 1},
        "examples": [],
    }
    text = changed_audit(made, method="predefined", given=given, pairs=pairs, worst_class=None)
    assert "1 pair of copies lies across the given split and was left there" in text
    assert "unseen in training" not in text
    assert "stands on both sides of the split" not in text
    assert text.index("Copies on both sides.") < text.index("Confusion matrix")
    assert "1 group lies across the given subsets (1 between test and train; classes a)" in text
    assert "<b>x</b>.jpg a, train; <b>x</b>.jpg a, test" in text
    assert "> **Copies on both sides.**" in (made.root / "data" / "report" / "summary.md").read_text()


def test_the_sentence_on_the_premium_says_what_was_measured() -> None:
    measured = {"value": 0.0091, "low": 0.0034, "high": 0.0152, "by_file": 0.9016, "by_group": 0.8924}
    counts = {"num_files": 818, "num_in_groups": 96, "sampled": False}
    assert premium_sentence({**measured, **counts}) == (
        "Leak premium: a random split that ignores copies would have looked 0.9 points better (0.3 to 1.5): so "
        "divided, a linear probe tells 90.2\u202f% of 818 files right; with copies kept together, 89.2\u202f%."
    )
    assert premium_sentence({**measured, **counts, "sampled": True}).endswith("on all files it is smaller.")
    assert "0.9 points worse (-0.3 to 1.5)" in premium_sentence(
        {**measured, "value": -0.0091, "low": -0.0152, "high": 0.0034, **counts}
    )
    assert "dedupe found no two pictures that belong together" in premium_sentence(
        {**measured, "num_files": 818, "num_in_groups": 0}
    )


def test_folds_rare_classes_and_groups_are_told_of(tmp_path: Path) -> None:
    text = changed_audit(
        fabricate(tmp_path, ["a", "b"], per_class=5),
        folds=[3, 4],
        group_by="creator",
        train_only=["yak"],
        merged={"label": "other", "of": [f"rare {k}" for k in range(12)]},
    )
    assert "2 folds of 3 to 4 pictures validate in turn." in text
    assert "Files of equal creator stay on one side too." in text
    assert "never tested in full: yak." in text
    assert "merged into other: rare 0, rare 1" in text
    assert "rare 9 and 2 more." in text


def test_a_missing_audit_is_named(tmp_path: Path) -> None:
    made = fabricate(tmp_path, ["a", "b"], per_class=5)
    (tmp_path / "data" / "split" / "audit.json").unlink()
    with pytest.raises(InputError, match=r"audit.json does not exist: run the stage"):
        made.report()


def pair(kind: str, verdict: str, image_a: str = "a") -> CsvRow:
    return {"image_a": image_a, "image_b": "b", "kind": kind, "score": "0.9", "verdict": verdict}


def test_pairs_are_told_apart_by_what_became_of_them() -> None:
    found = find_duplicates(
        [pair("near", "copy"), pair("exact", "copy"), pair("exact", "copy"), pair("recrop", "keep"),
         pair("similar", "keep"), pair("similar", "keep", "copy of c"), pair("similar", "keep", "elsewhere"),
         pair("near", "conflict"), pair("near", "drop"), pair("similar", "apart")],
        {"a": "a", "b": "a", "c": "c", "elsewhere": "elsewhere"},
    )  # fmt: skip
    assert found.copies_by_kind == "2 of equal bytes and 1 nearly equal"
    assert found.kept_by_kind == "1 one photograph cut differently and 1 alike but for detail or colour"
    assert (len(found.conflicts), found.num_apart) == (1, 1)
    assert found.references == []
    nothing = find_duplicates([], {})
    assert (nothing.copies, nothing.kept, nothing.copies_by_kind) == ([], [], "")


def test_pictures_of_a_reference_set_are_counted_once() -> None:
    found = find_duplicates(
        [pair("near in last month", "drop", "a"), pair("exact in last month", "drop", "a"),
         pair("near in shop in town", "keep", "c")],
        {},
    )  # fmt: skip
    assert found.copies == found.kept == []
    assert [str(one) for one in found.references] == [
        "1 picture is in last month too; 1 was left out.",
        "1 picture is in shop in town too; it stays.",
    ]


# decisions, calibration, the weakest class -------------------------------------------------------


def changed_metrics(made: Fabricated, **changes: object) -> str:
    """The text of the report with some of figures.json changed."""
    path = made.root / "data" / "evaluate" / "figures.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return re.sub(r"\s+", " ", Page(made.report().page.read_text()).text)


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Fabricated:
    """Three classes with flaws, from a folder, and two decisions that change nothing."""
    made = fabricate(tmp_path_factory.mktemp("animals"), ["cat", "dog", "owl"], mistakes=0.5, source="0-folder")
    columns = "decision,file,line,image_id,other_id,label,reason,status,path"
    (made.root / "data" / "dedupe" / "decisions.csv").write_text(
        f"{columns}\ndrop,drop.csv,2,{'a' * 64},,,blurred,left,cat/gone.jpg\n"
        f"keep,keep.csv,3,{'b' * 64},,,label is right,superseded,\nkeep,keep.csv,4,{'c' * 64},,,right,applied,\n"
    )
    return made


def test_decisions_and_what_changed_test_labels_do_are_told_on_the_page_and_in_the_summary(animals: Fabricated) -> None:
    taken = {"relabelled_test": 2, "accuracy_with_original_labels": 0.815, "kept": 1, "relabelled": 3}
    text = changed_metrics(animals, decisions={**taken, "dropped": 0, "different": 1})
    summary = (animals.root / "data" / "report" / "summary.md").read_text()
    for told in (
        "Decisions taken: 3 pictures relabelled, 1 label confirmed and 1 pair told to be different.",
        "2 test labels were changed on suspicion; without these, accuracy is 81.5 %.",
    ):
        assert told in text
        assert told.replace("%", "%") in re.sub(r"\s+", " ", summary)
    none = dict.fromkeys([*taken, "dropped", "different"], 0)
    assert "Decisions taken" not in changed_metrics(animals, decisions=none)


def test_decisions_without_effect_are_listed_with_their_pictures(animals: Fabricated) -> None:
    text = re.sub(r"\s+", " ", Page(animals.report().page.read_text()).text)
    assert "2 decisions without effect" in text
    assert "drop.csv:2 (aaaaaaaaaaaa, cat/gone.jpg): its picture has left the data" in text
    assert "keep.csv:3 (bbbbbbbbbbbb): its picture is dropped" in text
    assert "cccccccccccc" not in text
    assert "2 decisions have no effect: drop.csv:2" in (animals.root / "data" / "report" / "summary.md").read_text()


def test_calibration_stands_beside_what_a_calibrated_model_would_show(animals: Fabricated) -> None:
    known = {"error": 0.049, "calibrated_low": 0.022, "calibrated_high": 0.055, "temperature": 0.9}
    text = changed_metrics(animals, calibration=known)
    said_of = "a perfectly calibrated model with these probabilities would show 2.2 to 5.5 %"
    assert f"Calibration error: 4.9 %; {said_of}: that much, chance explains." in text
    assert said_of in re.sub(r"\s+", " ", (animals.root / "data" / "report" / "summary.md").read_text())
    text = changed_metrics(animals, calibration={**known, "error": 0.2})
    assert "would show 2.2 to 5.5 %: the probabilities are further off than chance explains." in text


def test_the_weakest_class_stands_beside_the_mean() -> None:
    figure = {"value": 0.825, "low": 0.762, "high": 0.881}
    row = {"recall_low": 0.036, "recall_high": 0.624, "num_images": 5}
    classes = {"hat": {**row, "recall": 0.6}, "skirt": {**row, "recall": 0.2}, "new": {**row, "recall": None}}
    sentence = headline({"accuracy": figure, "num_images": 143, "per_class": classes}, 118)
    assert sentence.replace("\u202f", " ") == (
        "118 of 143 test pictures were told apart correctly: 82.5 % (76.2 to 88.1). "
        "The weakest class is skirt, with 1 of 5 found: 20 % (3.6 to 62.4)."
    )
    known = {"label": "hat", "recall": 0.6, "low": 0.2, "high": 0.9, "num_images": 5}
    assert worst_class({"per_class": classes, "worst_class": known}) == known
    assert worst_class({"per_class": {"hat": classes["hat"], "cap": classes["hat"]}}) is None


def test_suspects_come_with_lines_to_copy_that_name_the_file(animals: Fabricated) -> None:
    header = "image_id,label,suggested,probability_label,probability_suggested,probability_wrong,subset,source_path"
    (animals.root / "data" / "evaluate" / "suspects.csv").write_text(
        f"{header}\n{'a1' * 32},cat,owl,0.01,0.9,,train,cat/0003.png\n{'b2' * 32},dog,owl,0.2,0.7,,val,dog/0001.png\n"
    )
    text = changed_metrics(animals, suspects={"num": 1, "num_pictures": 60, "expected_precision": 0.4})
    for line in ("owl,was cat,cat/0003.png", ",label is right,cat/0003.png", "neither cat nor owl,cat/0003.png"):
        assert f"a1a1a1a1a1a1,{line}" in text
    assert "a1" * 7 not in text
    assert "b2b2" not in text
    assert "Look at 1 suspect" in text
    assert "Pictures whose own label a model that never learnt them disputes" in text
    assert "About 40 % of them are expected to be wrong labels." in text
    assert "Validation and test pictures whose" in changed_metrics(animals, suspects={"num": 1, "num_pictures": 24})


def test_conflicts_and_copies_come_with_lines_to_copy(animals: Fabricated) -> None:
    """A conflict of equal bytes is one picture: that it is two cannot be said."""
    page, manifest = Page(animals.report().page.read_text()), animals.root / "data" / "dedupe" / "manifest.parquet"
    text = re.sub(r"\s+", " ", page.text)
    ids = dict(
        zip(*read_table(manifest, DEDUPED, columns=["source_path", "image_id"]).to_pydict().values(), strict=True)
    )
    first, copy, last = (ids[path][:12] for path in ("cat/0000.png", "cat/0001.png", "owl/0019.png"))
    assert f"{last},cat,was owl,owl/0019.png" in text
    assert f"{first},owl,was cat,cat/0000.png" in text
    assert f"{first},{copy},different pictures,cat/0000.png" in text
    assert "1 picture under two labels" in text
    assert "1 copy dropped" in text
    assert "1 pair: 1 nearly equal." in text


def test_a_title_of_the_sample_is_not_left_over_other_pictures(animals: Fabricated) -> None:
    def title(made: Fabricated, given: str | None) -> str:
        return (made.report(title=given).page.parent / "summary.md").read_text().splitlines()[0].removeprefix("# ")

    assert title(animals, "Thirteen electric guitars") == title(animals, None) == "3 classes: cat, dog and owl"
    assert title(animals, "My animals") == "My animals"


def test_the_samples_own_title_stays(guitars: Fabricated) -> None:
    page = guitars.report(title="Thirteen electric guitars").page.read_text()
    assert "<h1>Thirteen electric guitars</h1>" in page
    guitars.report(title="Guitars & more")


def test_a_broken_rule_states_the_fault_and_one_without_data_is_not_called_kept(tmp_path: Path) -> None:
    made = fabricate(tmp_path, ["a", "b"], per_class=5)
    path = made.root / "data" / "validate" / "expectations.json"
    found = json.loads(path.read_text())
    lone = {"rule": "max_host_association", "description": "the host does not give the label away", "success": True}
    lone |= {"no_data": "no data: fewer than two hosts are known", "limit": 0.5, "observed": None, "fault": ""}
    found["rules"].append({**lone, "severity": "warn", "num_offenders": 0, "offenders": []})
    path.write_text(json.dumps(found))
    text = re.sub(r"\s+", " ", Page(made.report().page.read_text()).text)
    assert "6 files are of pictures under two labels! warning0.020.031236" in text
    assert "the host does not give the label away no data: fewer than two hosts are knownno data0.5––" in text


def test_one_limit_for_blurred_in_one_report(tmp_path: Path) -> None:
    made = fabricate(tmp_path, ["a", "b"], flaws=False, origins=lambda n: {"sharpness": 50.0} if n < 2 else {})
    path = made.root / "data" / "validate" / "expectations.json"
    found = json.loads(path.read_text())
    found["rules"].append({**found["rules"][0], "rule": "min_sharpness", "limit": 60.0})
    path.write_text(json.dumps(found))
    assert "Blurred sharpness below 60" in re.sub(r"\s+", " ", Page(made.report().page.read_text()).text)
    found["rules"][-1]["limit"] = 5.0
    path.write_text(json.dumps(found))
    assert "No picture is blurred" in Page(made.report().page.read_text()).text


# the matrix ----------------------------------------------------------------------------------------


def test_a_small_class_that_is_all_right_is_as_blue_as_a_large_one() -> None:
    counts = np.array([[500, 0], [1, 10]])
    (large, _), (wrong, small) = matrix_cells(counts, [0, 1], {})
    assert large is not None
    assert small is not None
    assert wrong is not None
    assert (large.shade, wrong.shade) == (1.0, 1.0)
    assert small.shade == shade(10 / 11) > 0.95


def test_a_matrix_of_102_classes_has_digits_and_titles_of_its_axes(tmp_path: Path) -> None:
    made = fabricate(tmp_path, [f"flower {k}" for k in range(102)], per_class=5, source="0-folder")
    source = made.report().page.read_text()
    assert len(re.findall(r'<td class="[rw][^>]*>(?:<a [^>]*>)?<b>1</b>', source)) == 102
    assert "What the model said" in source
    assert "What it is" in source


# what is promised of copies -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("across", "together", "left_out", "said"),
    [
        (0, 0, 0, "dedupe found no pairs, so none lies on two sides."),
        (0, 4, 0, "of 4 pairs that dedupe found, none lies on two sides and 4 lie on one side."),
        (0, 0, 1, "of 1 pair that dedupe found, none lies on two sides and 1 has a picture that takes no part."),
        (1, 1, 0, "of 2 pairs that dedupe found, 1 lies on two sides (1 near) and 1 lies on one side."),
    ],
)  # fmt: skip
def test_the_audit_names_what_there_is_and_speaks_of_what_dedupe_found(
    animals: Fabricated, across: int, together: int, left_out: int, said: str
) -> None:
    pairs: dict[str, Any] = {
        "looked_at": across + together + left_out,
        "apart": 0,
        "left_out": left_out,
        "together": together,
    }
    pairs |= {"across": across, "across_by_kind": {"near": across} if across else {}, "examples": []}
    text = changed_audit(animals, pairs=pairs)
    assert f"Leak audit: {said}" in text
    assert (" A copy edited too heavily for dedupe to find is not seen here." in text) == bool(pairs["looked_at"])
    for promise in ("never stand", "no split ever", "always stay", "nor any copy of them,", "nor any copy of them."):
        assert promise not in text


def test_leaks_of_a_given_split_stand_in_the_summary_and_in_what_to_fix(tmp_path: Path) -> None:
    made = fabricate(tmp_path, ["a", "b"], per_class=5)
    given = {"leaks": "keep_test", "unassigned": "refuse", "num_groups": 2, "num_files": 5}
    given |= {"across": {"test and train": 2}, "classes": {"a": 2}, "examples": []}
    text = changed_audit(made, method="predefined", given=given)
    leak = "2 groups lie across the given subsets (2 between test and train; classes a); the test set was left whole"
    assert f"Mend the given split: 2 groups lie across it {leak}" in text
    summary = (made.root / "data" / "report" / "summary.md").read_text()
    assert "**Mend the given split: 2 groups lie across it.**" in summary
    assert "2 groups lie across the given subsets" in summary.split("## ")[0]


# what figures.json adds ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Fabricated:
    """Three classes of which evaluate measured everything."""
    labels = ["cat", "dog: wet", HOSTILE]
    made = fabricate(tmp_path_factory.mktemp("measured"), labels, per_class=40, mistakes=0.4, source="0-folder")
    add_figures(made, labels)
    return made


@pytest.fixture(scope="module")
def measured_source(measured: Fabricated) -> str:
    return measured.report(mistakes=4, pictures_per_pair=2).page.read_text()


def test_every_subject_that_was_measured_has_its_section(measured_source: str) -> None:
    page = Page(measured_source)
    ids, text = page.ids(), re.sub(r"\s+", " ", page.text)
    assert {*SECTIONS, *MEASURED, "slices"} <= set(ids)
    assert len(ids) == len(set(ids))
    assert {a["href"] or "" for tag, a in page.tags if tag == "a"} <= {f"#{name}" for name in ids}
    for told in (
        "Too few pictures to tell",
        "The goal of 90 % may be met: too few test pictures.",
        "Since the last committed run, on the 50 test pictures that both have: +4.0 points (\u22122.0 to +10.0), "
        "3 gained and 1 lost; chance alone could explain that.",
        "that one had 51; McNemar's p is 0.62",
        "it answers when it is at least 80.0 % sure (chosen on validation pictures). On test pictures it then answers "
        "90.0 % (80.0 to 95.0), and 97.0 % (90.0 to 99.0) of the answers are right.",
        "The true class is among the 2 most probable ones for 95.0 % (80.0 to 95.0).",
        "60 more pictures of cat, the weakest class, should bring about +1.2 points of accuracy (+0.2 to +2.0), and "
        "+10.0 (0.0 to +20.0) of its recall.",
        "cat1260.0 % (40.0 to 80.0)2470.0 % (50.0 to 90.0)",
        "noise at the strongest 40.0 %, 50 % of the answers change; weakest: cat",
        "Pictures of no known class are told by ridge regression, threshold 1.2",
        "Of 12 slices looked at, these are told right clearly less often",
        "quality most blurred1150.0 % (30.0 to 70.0)95.0 %0.004",
        "4.7 million0.40 billion13.0 MB",
        "Test on 240 more pictures before you decide",
    ):
        assert told in text, told
    assert HOSTILE not in measured_source


def test_every_mistake_is_on_the_page_with_its_path_and_the_first_ones_with_their_neighbours(
    measured: Fabricated, measured_source: str
) -> None:
    """Of each cell one picture before any cell gets a second."""
    text = re.sub(r"\s+", " ", Page(measured_source).text)
    answers = (measured.root / "data" / "evaluate" / "predictions.csv").read_text()
    rows = list(csv.DictReader(answers.splitlines()))
    wrong = [row["image_id"] for row in rows if row["actual"] != row["predicted"]]
    assert len(wrong) > 6
    for image_id in wrong:
        assert f'id="m-{image_id[:12]}"' in measured_source
    section = measured_source[measured_source.index('<section id="mistakes">') :].split("</section>")[0]
    assert section.count("<figure") == 4
    assert section.count("<li id=") == len(wrong) - 4
    cells = {(row["actual"], row["predicted"]) for row in rows if row["actual"] != row["predicted"]}
    assert len(re.findall(r'<div class="cards">', section)) == min(4, len(cells))
    assert section.count('alt="a training picture of ') == 12
    assert "Likely cause: the label may be wrong." in text


def test_maps_lie_over_the_picture_for_the_answer_and_for_the_true_class(measured_source: str) -> None:
    assert "shaded where it looked for cat" in measured_source
    assert measured_source.count('class="map said"') == measured_source.count('class="map actual"') > 4
    high = map_uri(np.array([[0.0, 1.0]], np.float16))
    with Image.open(io.BytesIO(base64.b64decode(high.split(",")[1]))) as image:
        assert [image.getpixel((x, 0)) for x in (0, 1)] == [(*MAP_COLOUR, 0), (*MAP_COLOUR, 140)]


def test_everything_is_said_without_a_script(measured_source: str) -> None:
    """Pictures grow by a checkbox; nothing needs a pointer to be read."""
    page = Page(re.sub(r"<script>.*?</script>", "", measured_source, flags=re.S))
    boxes = [a for tag, a in page.tags if tag == "input" and a.get("type") == "checkbox"]
    shown = [a for tag, a in page.tags if tag == "img" and "map" not in (a.get("class") or "")]
    assert len(boxes) == len(shown) > 20
    assert not [a for tag, a in page.tags if "title" in a and tag != "a"]


def test_titles_and_axes_are_in_the_language_asked(measured: Fabricated) -> None:
    source = measured.report(language="ja").page.read_text()
    page = Page(source)
    assert ("html", {"lang": "ja"}) in page.tags
    for heading in ("混同行列", "見分けにくい組", "まずすること", "すべての誤り", "データ"):
        assert heading in page.text
    for axis in ("学習画像の数", "確信度", "強さ", "予測", "正解率, %"):
        assert f">{axis}</text>" in source or axis in page.text
    english = measured.report().page.read_text()
    assert not re.search("[ぁ-ん]", english.replace("見分け", ""))
    assert "Look-alikes</h2>" in english
    assert "Look-alikes</h2>" not in source


def test_every_text_that_is_asked_for_has_a_japanese_one() -> None:
    folder = ROOT / "pipelines" / "report"
    asked = {
        text
        for path in [*folder.glob("*.py"), *folder.glob("templates/*.j2")]
        for text in re.findall(r"""\b(?:_|say)\("([^"]+)"\)""", path.read_text(encoding="utf-8"))
    }
    stage = (folder / "stage.py").read_text(encoding="utf-8")
    asked |= set(re.findall(r'^        \("[a-z]+", "([^"]+)", ', stage, re.M)) | set(AXIS_NAMES.values())
    assert asked | {"Loss", "Accuracy"} == set(JAPANESE)


def test_the_run_has_one_id_that_depends_on_what_the_stages_wrote(measured: Fabricated) -> None:
    def run() -> str:
        found = re.search(
            r"run ([0-9a-f]{8}) · snapshot 1 · linear_probe · no decisions", measured.report().page.read_text()
        )
        assert found
        return found[1]

    figures = measured.root / "data" / "evaluate" / "figures.json"
    before, text = run(), figures.read_text()
    assert run() == before
    figures.write_text(text.replace("0.012", "0.013"))
    assert run() != before
    figures.write_text(text)


def test_the_summary_fits_a_comment_on_a_pull_request(tmp_path: Path) -> None:
    labels = [f"a rather long label of a class, number {k} of them" for k in range(100)]
    made = fabricate(tmp_path, labels, per_class=5, mistakes=0.9, source="0-folder")
    add_figures(made, labels)
    made.report()
    assert len((tmp_path / "data" / "report" / "summary.md").read_text()) < 30_000


# two runs ----------------------------------------------------------------------------------------

HEADER = "image_id,actual,predicted,previous"


def two_runs() -> tuple[ComparedRun, ComparedRun]:
    """Four shared pictures: one gained, one lost, one relabelled, one wrong in both; one is new."""
    old = read_run("v1", '{"accuracy": {"value": 0.5}, "num_images": 4, "goal": "met"}',
                   f"{HEADER}\na,cat,cat,\nb,cat,dog,\nc,dog,cat,\nd,cat,owl,\n")  # fmt: skip
    new = read_run("v2", '{"accuracy": {"value": 0.6}, "num_images": 5, "log_loss": {"value": 0.4}}',
                   f"{HEADER}\na,cat,dog,cat\nb,cat,cat,dog\nc,cat,cat,cat\nd,cat,dog,owl\ne,dog,dog,\n")  # fmt: skip
    return old, new


def test_two_runs_are_compared_on_the_pictures_that_both_have() -> None:
    old, new = two_runs()
    change = {"num_shared": 4, "gained": 1, "lost": 1, "difference": {"value": 0.0, "low": -0.3, "high": 0.3}}
    known = KnownPictures({"a": ThumbnailUri("data:image/jpeg;base64,", 8, 8)}, {"b": HOSTILE})
    source = compare_page(old, new, change={**change, "verdict": "unclear"}, known=known)
    text = re.sub(r"\s+", " ", Page(source).text)
    assert "From v1 to v2, on the 4 test pictures that both have: 0.0 points (\u221230.0 to +30.0), 1 gained" in text
    assert "1 gained and 1 lost; chance alone could explain that." in text
    assert "They share 4 test pictures; of 4 in v1 and 5 in v2." in text
    assert "accuracy50.0 %60.0 %+10.0num images45+1log loss–0.4–" in text
    assert "Gained 1 " in text
    assert "Lost 1 " in text
    assert f"{HOSTILE} cat: dog → cat" in text
    assert HOSTILE not in source
    # c's label was mended: both runs told it right. In the difference, cat taken for owl: one fewer, for dog: one more
    assert changed_sides(old, new) == ["a", "b"]
    cells = re.findall(r'<td class="([rw])[^>]*><b>([+-]\d+)</b>', source)
    assert sorted(cells) == [("r", "-1"), ("w", "+1")]
    assert "http:" not in source


def test_runs_that_share_no_picture_are_not_compared() -> None:
    old, _ = two_runs()
    other = ComparedRun("v3", {}, {"z": ("cat", "cat")})
    with pytest.raises(InputError, match="v1 and v3 share no test picture"):
        compare_page(old, other, change=None, known=KnownPictures())


def test_the_command_compares_two_commits(
    measured: Fabricated, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = measured.root
    monkeypatch.chdir(root)
    whole = (ROOT / "tests" / "whole_params.yaml").read_text()
    (root / "params.yaml").write_text(whole.replace("language: en", "language: ja"))
    ids = read_table(root / "data" / "evaluate" / "predictions.parquet", PREDICTIONS)["image_id"].to_pylist()
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    for number, said in enumerate(("owl", "cat")):
        rows = "".join(f"{image_id[:16]},cat,{said if i == 0 else 'cat'},\n" for i, image_id in enumerate(ids))
        (root / "data" / "evaluate" / "compared.csv").write_text(f"{HEADER}\n{rows}")
        subprocess.run([*git, "add", "data/evaluate/compared.csv", "data/evaluate/metrics.json"], check=True)
        subprocess.run([*git, "commit", "-qm", str(number)], check=True)
    report_diff("HEAD~1", "HEAD", out=root / "diff.html")
    text = Page((root / "diff.html").read_text()).text
    assert f"{len(ids)} pictures are in both" in capsys.readouterr().out
    assert "混同行列" in text
    assert "1 gained and 0 lost" in text
    assert (root / "diff.html").read_text().count("data:image/jpeg") == 1
