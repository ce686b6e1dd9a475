"""The search for one class: which page is asked for and which picture is fetched next."""

import random
from collections.abc import Mapping, Sequence

import pytest

from pipelines.ingest.crawl.answers import SearchHit
from pipelines.ingest.crawl.engines import PageOutcome
from pipelines.ingest.crawl.search import ClassSearch, FetchStep, PageStep

Pages = Mapping[tuple[int, int], Sequence[Sequence[str]]]
"""(engine, word) to its pages of URLs"""


def play(
    pages: Pages, bytes_of: Mapping[str, str], *, wanted: int, at_once: int, seed: int, words: int = 2
) -> ClassSearch:
    """Run a search against answers that come in an order drawn at random."""
    drawn = random.Random(seed)
    search = ClassSearch("label", [f"w{word}" for word in range(words)], 2, wanted, 3)
    flying: list[PageStep | FetchStep] = []
    while not search.ended:
        while len(flying) < at_once and (step := search.step()) is not None:
            flying.append(step)
        step = flying.pop(drawn.randrange(len(flying)))
        if isinstance(step, FetchStep):
            search.came(step, bytes_of.get(search.found[step.number].url, ""))
            continue
        given = pages.get((step.engine, step.word), ())
        urls = given[step.page] if step.page < len(given) else []
        items = tuple(SearchHit(url) for url in urls)
        search.answered(step, PageOutcome(items, step.page + 1 < len(given), "ok" if items else "no-results", "", 200))
    return search


def taken(search: ClassSearch) -> list[str]:
    return [search.found[number].url for number in search.taken()]


def u(*names: str) -> list[str]:
    return [f"http://h/{name}" for name in names]


def all_good(pages: Pages) -> dict[str, str]:
    return {url: url for one in pages.values() for page in one for url in page}


def test_the_searches_of_a_class_take_turns() -> None:
    pages = {(0, 0): [u("a1", "a2", "a3")], (0, 1): [u("b1", "b2", "b3")]}
    assert taken(play(pages, all_good(pages), wanted=4, at_once=3, seed=0)) == u("a1", "b1", "a2", "b2")


def test_every_search_of_an_engine_comes_before_the_next_engine_and_pages_before_pages() -> None:
    pages = {(0, 0): [u("a1"), u("a2")], (0, 1): [u("b1"), u("b2")], (1, 0): [u("c1")], (1, 1): [u("d1")]}
    order = u("a1", "b1", "a2", "b2", "c1", "d1")
    for wanted in range(1, 7):
        assert taken(play(pages, all_good(pages), wanted=wanted, at_once=3, seed=wanted)) == order[:wanted]


def test_a_search_that_ends_leaves_its_turns_to_the_others() -> None:
    pages = {(0, 0): [u("a1")], (0, 1): [u("b1", "b2"), u("b3")]}
    assert taken(play(pages, all_good(pages), wanted=9, at_once=2, seed=0)) == u("a1", "b1", "b2", "b3")


@pytest.mark.parametrize("seed", range(40))
def test_the_answers_alone_decide_whatever_their_timing(seed: int) -> None:
    """Against one answer after the other: the same pictures, and not one more asked for."""
    drawn = random.Random(1000 + seed)
    names = [f"n{number}" for number in range(40)]
    pages = {
        (engine, word): [u(*drawn.choices(names, k=drawn.randint(0, 8))) for _ in range(drawn.randint(0, 4))]
        for engine in range(2)
        for word in range(2)
    }
    # a fifth of the URLs give nothing, others share their bytes
    bytes_of = {url: str(drawn.randint(1, 30)) for url in u(*names) if drawn.random() < 0.8}
    wanted = drawn.randint(1, 15)
    alone = play(pages, bytes_of, wanted=wanted, at_once=1, seed=0)
    together = play(pages, bytes_of, wanted=wanted, at_once=drawn.randint(2, 16), seed=seed)
    assert taken(together) == taken(alone)
    assert together.good == alone.good
    assert together.next == alone.next
    assert together.found == alone.found
    assert together.failures == alone.failures
    assert len({bytes_of[url] for url in taken(alone)}) == len(taken(alone)) == alone.num_good <= wanted


def test_an_engine_that_gives_the_same_page_for_ever_is_left() -> None:
    pages = {(0, 0): [u("a1")] * 3, (0, 1): [u("a1")] * 3}
    search = play(pages, all_good(pages), wanted=5, at_once=1, seed=0)
    assert taken(search) == u("a1")
    assert len(search.found) == 4  # two searches, two pages each: the second had nothing new
