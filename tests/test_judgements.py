"""What our own expectations find, on tables small enough to check by eye."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipelines.core.tables import hosts
from pipelines.validate.class_rules import (
    class_pictures,
    class_sizes,
    conflicts,
    imbalance,
    labels_differ,
    labels_written_well,
)
from pipelines.validate.drift_rules import distribution, figure_shift, label_shares, label_shift
from pipelines.validate.origin_rules import association, cramers_v, hosts_of, licenses, traceable
from pipelines.validate.rule import numbered, tally
from pipelines.validate.rules import copies, factors, near_copies, refusals


def table(**columns: list[Any]) -> pd.DataFrame:
    """Rows of verdict keep, but for what `columns` say."""
    frame = pd.DataFrame(columns)
    return frame if "verdict" in frame else frame.assign(verdict="keep")


def labelled(words: str, verdicts: str = "") -> pd.DataFrame:
    """A row a word, its verdict by letter: k, c(opy), x (conflict), d(rop)."""
    labels = words.split()
    names = {"k": "keep", "c": "copy", "x": "conflict", "d": "drop"}
    return table(label=labels, verdict=[names[letter] for letter in verdicts or "k" * len(labels)])


EMPTY = labelled("").astype({"label": "str"})


def test_class_sizes_count_what_is_kept_and_know_classes_that_lost_all_but_not_dropped_ones() -> None:
    assert class_sizes(labelled("b a a owl gone", "kkcxd")) == {"a": 1, "b": 1, "owl": 0}
    assert class_sizes(EMPTY) == {}


def test_the_smallest_class_is_observed_and_all_that_are_too_small_are_named() -> None:
    found = class_pictures(labelled("a a a b owl", "kkkkx"), min_value=2)
    assert (found.success, found.observed, found.labels) == (False, 0, ("b", "owl"))
    assert class_pictures(labelled("a a b b"), min_value=2).success
    assert class_pictures(EMPTY, min_value=2).observed is None


def test_imbalance_is_how_often_the_smallest_class_goes_into_the_largest() -> None:
    words = "a " * 6 + "b b c c c owl"
    found = imbalance(labelled(words, "k" * 11 + "x"), max_value=2.5)
    assert (found.success, found.observed, found.labels) == (False, 3.0, ("b",))
    assert imbalance(labelled(words, "k" * 11 + "x"), max_value=3.0).success
    assert imbalance(EMPTY, max_value=1.0).success


def test_labels_that_are_badly_written_or_look_alike_are_named() -> None:
    frame = table(label=["Les paul", "LesPaul", "owl ", "", "cat", "les paul "])
    assert labels_written_well(frame).labels == ("", "les paul ", "owl ")
    assert labels_differ(frame).labels == ("Les paul", "LesPaul", "les paul ")
    assert labels_differ(EMPTY).success


def test_copies_count_by_verdict_and_near_ones_by_other_bytes() -> None:
    frame = table(
        image_id=["a", "a", "b", "c", "d", "e", "f", "g"],
        best_id=["a", "a", "a", "a", "d", "e", "f", "a"],
        verdict=["keep", "copy", "copy", "keep", "keep", "keep", "keep", "drop"],
    )
    every = copies(frame, max_value=0.25)
    assert (every.success, every.observed, every.rows.tolist()) == (False, 0.375, [1, 2, 3])
    near = near_copies(frame, max_value=0.25)
    assert (near.success, near.observed, near.rows.tolist()) == (True, 0.25, [2, 3])
    assert not near_copies(frame, max_value=0.2).success
    assert copies(frame.iloc[:0], max_value=0.0).observed == 0.0


def test_a_conflict_is_held_back_or_is_one_picture_under_two_labels() -> None:
    frame = table(
        image_id=["a", "b", "b", "c", "d", "d"],
        label=["cat", "cat", "dog", "cat", "cat", "dog"],
        verdict=["conflict", "keep", "keep", "keep", "keep", "drop"],
    )
    assert conflicts(frame, max_value=0.5).rows.tolist() == [0, 1, 2]
    assert conflicts(frame, max_value=0.5).success
    assert not conflicts(frame, max_value=0.49).success
    assert conflicts(frame.iloc[:0], max_value=0.0).success


def test_refusals_are_counted_by_class_and_the_worst_is_observed() -> None:
    refused = [True, False, False, False, True, True, True, True]
    seen = pd.DataFrame({"label": ["a", "a", "a", "a", "b", "b", "", "owl"], "refused": refused})
    found = refusals(seen, by="label", max_value=0.3)
    assert (found.success, found.observed, found.rows.tolist()) == (False, 1.0, [4, 5, 7])
    alone = refusals(seen.iloc[:4], by="label", max_value=0.25)
    assert (alone.success, alone.observed) == (True, 0.25)
    assert refusals(seen.iloc[:0], by="label", max_value=0.0).observed is None


@pytest.mark.parametrize("text", ["[]", '"a"', "{", '{"a": 1}', '{"a": null}', "null", "[" * 100_000, " "])
def test_factors_that_are_no_object_of_texts_are_found(text: str) -> None:
    frame = pd.DataFrame({"factors": ["", '{"gender": "male"}', text, "{}", None]})
    assert factors(frame).rows.tolist() == [2]
    assert factors(frame.iloc[:0]).success


def test_licences_are_known_in_any_spelling_and_others_are_tallied() -> None:
    frame = table(license=["CC BY 4.0", "by 4.0", "CC BY-NC 4.0", None, "", "cc-by-nc-4.0"])
    found = licenses(frame, allowed=["cc-by-4.0"])
    assert (found.observed, found.rows.tolist()) == ("unknown (2), cc-by-nc-4.0 (2)", [2, 3, 4, 5])
    assert licenses(frame, allowed=["cc-by-4.0", ""]).rows.tolist() == [2, 5]
    assert licenses(frame, allowed=["*"]).rows.tolist() == [3, 4]
    assert licenses(frame.iloc[:0], allowed=["*"]).success


def test_a_picture_without_url_and_page_is_from_nowhere() -> None:
    frame = table(url=["http://a/", "", "", None], page_url=["", "http://b/", "", None], source=list("wxyy"))
    assert (traceable(frame).observed, traceable(frame).rows.tolist()) == ("y (2)", [2, 3])
    assert traceable(frame.iloc[:2]).success


def test_hosts_are_read_from_the_url_or_else_the_page() -> None:
    urls = ["https://WWW.Example.org:8080/a/b@c", "http://me@x.org/?u=http://no.org", "", "", "ftp:/odd", None]
    pages = ["https://p.org/", "", "https://p.org", "", "", "http://q.org#x"]
    assert hosts_of(table(url=urls, page_url=pages)).tolist() == ["example.org", "x.org", "p.org", "", "", "q.org"]
    assert hosts_of(table(url=[], page_url=[]).astype("str")).tolist() == []


def test_the_host_of_an_address_is_in_small_letters_without_user_and_port() -> None:
    addresses = [
        "https://Example.org", "http://a:b@x.org:80/c@d", "http://[::1]:8080/x", "//x.org/1", "http://[", "x.org/1", "",
        "data:,//no", "http://?q=//no", "mailto:me@x.org",
    ]  # fmt: skip
    expected = ["example.org", "x.org", "[::1]", "x.org", "", "", "", "", "", ""]
    assert hosts(pa.chunked_array([addresses])).to_pylist() == expected


def test_cramers_v_is_one_where_the_source_is_the_label_and_about_zero_where_it_is_chance() -> None:
    label = np.repeat([0, 1], 50)
    assert cramers_v(label, label, 2, 2) == pytest.approx(1.0)
    assert cramers_v(label, np.tile([0, 1], 50), 2, 2) == 0.0
    random = np.random.default_rng(0)
    # fifty labels and fifty origins of two pictures each: without the correction this would be 0.7
    assert cramers_v(np.arange(100) // 2, random.permutation(np.arange(100) // 2), 50, 50) < 0.35


def test_cramers_v_agrees_with_a_table_worked_out_by_hand() -> None:
    # 30 10 / 10 30: chi² = 20, N = 80, phi² = 0.25; minus 1/79; rows and columns 2 - 1/79
    label = np.repeat([0, 0, 1, 1], [30, 10, 10, 30])
    origin = np.repeat([0, 1, 0, 1], [30, 10, 10, 30])
    assert cramers_v(label, origin, 2, 2) == pytest.approx(math.sqrt((0.25 - 1 / 79) / (1 - 1 / 79)))


def test_a_class_that_comes_from_one_source_alone_is_named() -> None:
    labels = ["cat", "dog"] * 20 + ["owl"] * 20
    sources = ["0-folder", "0-folder", "1-table", "1-table"] * 10 + ["2-crawl"] * 20
    frame = table(label=labels, source=sources)
    found = association(frame, by="source", max_value=0.5)
    assert not found.success
    assert found.observed == pytest.approx(0.7, abs=0.02)
    assert found.labels == ("owl",)
    assert association(frame, by="source", max_value=0.9).success
    assert association(frame.iloc[:40], by="source", max_value=0.01).observed == 0.0


def test_without_two_classes_and_two_origins_nothing_can_be_given_away() -> None:
    for labels, sources in ((["cat", "dog"], ["a", "a"]), (["cat", "cat"], ["a", "b"]), ([], [])):
        found = association(table(label=labels, source=sources), by="source", max_value=0.0)
        assert (found.success, found.observed) == (True, None)
    lone = table(label=["cat", "dog"], source=["a", "b"])  # as many origins as pictures
    assert association(lone, by="source", max_value=0.0).observed == 0.0


def test_pictures_without_a_host_do_not_count() -> None:
    frame = table(label=["cat", "dog"] * 3, url=["http://a/1", "http://b/1", "", "", "http://a/2", "http://b/2"])
    frame = frame.assign(page_url="")
    assert association(frame, by="host", max_value=0.5).observed == pytest.approx(1.0)


def test_label_drift_is_the_part_that_would_have_to_change_class() -> None:
    frame = labelled("cat cat cat dog")
    assert label_shares(frame, "pictures") == {"cat": 0.75, "dog": 0.25}
    found = label_shift(frame, compared="pictures", reference={"cat": 0.5, "owl": 0.5}, max_value=0.4)
    assert (found.success, found.observed, found.labels) == (False, 0.5, ("owl",))
    same = label_shift(frame, compared="pictures", reference={"cat": 0.75, "dog": 0.25}, max_value=0.0)
    assert (same.success, same.observed, same.labels) == (True, 0.0, ())
    assert label_shift(frame.iloc[:0], compared="pictures", reference={"cat": 1.0}, max_value=0.0).observed is None


def test_all_files_are_compared_under_the_labels_that_they_came_with() -> None:
    frame = labelled("cat cat", "kd").assign(original_label=["cat", "dog"])
    assert label_shares(frame, "files") == {"cat": 0.5, "dog": 0.5}
    assert label_shares(frame, "pictures") == {"cat": 1.0}


def test_a_distribution_drifts_by_the_largest_distance_of_its_functions() -> None:
    then = distribution(np.array([1.0, 2.0, 2.0, 4.0]))
    assert then == ([1.0, 2.0, 4.0], [0.0, 0.25, 0.75], [0.25, 0.75, 1.0])

    def shift(*values: float) -> float | None:
        frame = table(brightness=list(values))
        found = figure_shift(frame, column="brightness", compared="pictures", max_value=0.5, **then._asdict())
        assert found.success == (not isinstance(found.observed, float) or found.observed <= 0.5)
        assert not isinstance(found.observed, str)
        return found.observed

    assert shift(1.0, 2.0, 2.0, 4.0) == 0.0
    assert shift(2.0, 2.0, 2.0, 4.0) == 0.25
    assert shift(9.0, 9.0) == 1.0
    assert shift(0.0, 0.0) == 1.0
    assert shift(1.0, 3.0, 3.0, 4.0) == 0.5  # at 2
    assert shift(3.0, 3.0, 3.0, 4.0) == 0.75
    assert shift(math.nan) is None


def test_a_distribution_of_many_values_has_a_hundred_edges() -> None:
    edges, below, up_to = distribution(np.arange(100_000.0))
    assert len(edges) == len(below) == len(up_to) == 100
    assert (edges[0], edges[-1], below[0], up_to[-1]) == (0.0, 99_999.0, 0.0, 1.0)
    assert distribution(np.zeros(5)) == ([0.0], [0.0], [1.0])


def test_texts_are_numbered_in_order_and_missing_ones_are_empty() -> None:
    codes, texts = numbered(pd.Series(["b", None, "a", "b"], dtype="str"))
    assert (codes.tolist(), texts) == ([2, 0, 1, 2], ["", "a", "b"])
    assert tally([*"aabc", ""]) == "a (2), unknown (1), b (1), c (1)"
    assert tally(list("abcdefg")).endswith("e (1), and 2 more")
