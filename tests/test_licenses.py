"""One licence has one name, however its source spells it."""

import re

import pytest

from pipelines.core.licenses import canonical_license, license_regex, license_title, license_url


@pytest.mark.parametrize(
    "text",
    [
        "CC BY 4.0",
        "cc-by-4.0",
        "CC_BY_4.0",
        " cc  by  v4.0 ",
        "CC BY 4",
        "by 4.0",
        "https://creativecommons.org/licenses/by/4.0/",
        "http://www.creativecommons.org/licenses/by/4.0/deed.en",
        "creativecommons.org/licenses/by/4.0/legalcode?x=1",
        "Attribution 4.0 International",
        "Creative Commons Attribution 4.0 International License",
        "Creative Commons Attribution 4.0 International (CC BY 4.0)",
        "ＣＣ ＢＹ ４.０",
    ],
)
def test_spellings_of_one_licence_are_one(text: str) -> None:
    assert canonical_license(text) == "cc-by-4.0"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("by-nc-sa", "cc-by-nc-sa"),
        ("CC-BY-SA-NC 2.0", "cc-by-nc-sa-2.0"),
        ("Attribution-NonCommercial-NoDerivs 2.0 Generic", "cc-by-nc-nd-2.0"),
        ("Attribution-Non-Commercial-No-Derivatives 3.0", "cc-by-nc-nd-3.0"),
        ("Attribution-NoDerivativeWorks 2.0", "cc-by-nd-2.0"),
        ("CC BY-SA 3.0 DE", "cc-by-sa-3.0-de"),
        ("https://creativecommons.org/licenses/by-sa/3.0/de/deed.de", "cc-by-sa-3.0-de"),
        ("https://creativecommons.org/licenses/by/2.5/scotland/", "cc-by-2.5"),
        ("CC0", "cc0"),
        ("CC 0", "cc0"),
        ("CC Zero", "cc0"),
        ("CC0 1.0 Universal (CC0 1.0) Public Domain Dedication", "cc0-1.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "cc0-1.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "pdm-1.0"),
        ("Public Domain Mark 1.0", "pdm-1.0"),
        ("Public domain", "public-domain"),
        ("MIT License", "mit"),
        ("Apache License, Version 2.0", "apache-2.0"),
        ("All rights reserved", "all-rights-reserved"),
        ("License", "license"),
        ("© Müller", "©-müller"),
        ("by-products of war", "by-products-of-war"),
        ("CC BY 4.0, schools alone", "cc-by-4.0-schools-alone"),
        ("CC BY 4.0 (CC BY-NC 4.0)", "cc-by-4.0-cc-by-nc-4.0"),
        ("not https://creativecommons.org/licenses/by/4.0/", "not-https-creativecommons.org-licenses-by-4.0"),
        ("CC0 but not for sale", "cc0-but-not-for-sale"),
    ],
)
def test_other_licences_stay_themselves(text: str, name: str) -> None:
    assert canonical_license(text) == name


@pytest.mark.parametrize("text", ["", " ", "Unknown", "n/a", "N/A", "none", "NaN", "-", "?"])
def test_what_says_nothing_is_unknown(text: str) -> None:
    assert canonical_license(text) == ""


def test_a_canonical_name_is_its_own() -> None:
    for name in ("cc-by-nc-sa-4.0", "cc0-1.0", "pdm-1.0", "cc-by-sa-3.0-de", "mit", "public-domain"):
        assert canonical_license(name) == name


def allowed(text: str, *patterns: str) -> bool:
    return re.search(license_regex(patterns), canonical_license(text)) is not None


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("CC0*", ["CC0", "CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"], ["CC BY 4.0", "PDM"]),
        ("CC-BY-*", ["CC BY 4.0", "by-nc-sa 2.0"], ["CC BY", "CC0", "xCC BY 4.0"]),
        ("CC BY [0-9]*", ["CC BY 4.0", "by 2.0"], ["CC BY-NC 4.0", "CC BY"]),
        ("CC BY-[!0-9]*", ["CC BY-NC 4.0"], ["CC BY 4.0"]),
        ("CC BY ?.0", ["CC BY 4.0"], ["CC BY 2.5"]),
        ("https://creativecommons.org/licenses/by/4.0/", ["cc by 4.0"], ["cc by 3.0"]),
        ("by-sa*", ["CC BY-SA 4.0", "CC BY-SA"], ["CC BY 4.0"]),
        ("MIT", ["The MIT License"], ["MITX", "Apache-2.0"]),
        ("a.b+(c)", ["a.b+(c)"], ["axb+c"]),
        ("*", ["anything", "CC0"], []),
    ],
)
def test_patterns_allow_whole_names(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [text for text in yes if not allowed(text, pattern)] == []
    assert [text for text in no if allowed(text, pattern)] == []


def test_brackets_that_are_no_class_do_no_harm() -> None:
    for pattern in ("[", "[]", "[^a]", "[z-a", "a]b", "[[a]", "\\", "[\\]*"):
        re.compile(license_regex((pattern,)))
    assert allowed("^", "[^a]")
    assert allowed("a[b", "a[b")


@pytest.mark.parametrize(
    ("text", "title", "url"),
    [
        ("by-nc-sa 4.0", "CC BY-NC-SA 4.0", "https://creativecommons.org/licenses/by-nc-sa/4.0/"),
        ("cc-by-sa-3.0-de", "CC BY-SA 3.0 DE", "https://creativecommons.org/licenses/by-sa/3.0/de/"),
        ("cc by", "CC BY", ""),
        ("cc0 1.0", "CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
        ("cc0", "CC0", ""),
        ("public domain mark 1.0", "Public Domain Mark 1.0", "https://creativecommons.org/publicdomain/mark/1.0/"),
        ("Unsplash  License", "Unsplash License", ""),
        ("", "", ""),
    ],
)
def test_titles_and_pages(text: str, title: str, url: str) -> None:
    assert (license_title(text), license_url(text)) == (title, url)
