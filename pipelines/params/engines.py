"""Search engines and what each can be told; filters have icrawler's names and values, `any` is no filter."""

import datetime
import string
from typing import Annotated, Literal

from pydantic import Field, field_validator

from pipelines.params.base import Count, Section

Text = Annotated[str, Field(min_length=1)]


class Bing(Section):
    """Best effort: its result pages are made for people, and its robots.txt may refuse them."""

    engine: Literal["bing"] = "bing"
    size: Annotated[str, Field(pattern=r"^(any|extralarge|large|medium|small|>[1-9]\d{0,4}x[1-9]\d{0,4})$")] = "any"
    """any, extralarge, large, medium, small, or larger than width x height: >640x480"""
    type: Literal["any", "photo", "clipart", "linedrawing", "transparent", "animated"] = "any"
    color: Literal[
        "any", "color", "blackandwhite", "red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "white",
        "gray", "black", "brown",
    ] = "any"  # fmt: skip
    license: Literal[
        "any", "creativecommons", "publicdomain", "noncommercial", "commercial", "noncommercial,modify",
        "commercial,modify",
    ] = "any"  # fmt: skip
    layout: Literal["any", "square", "wide", "tall"] = "any"
    people: Literal["any", "face", "portrait"] = "any"
    date: Literal["any", "pastday", "pastweek", "pastmonth", "pastyear"] = "any"


class Google(Section):
    """Best effort: its result pages are made for people, change often, and its robots.txt refuses them."""

    engine: Literal["google"] = "google"
    size: Annotated[
        str,
        Field(
            pattern=r"^(any|large|medium|icon|=[1-9]\d{0,4}x[1-9]\d{0,4}"
            r"|>(400x300|640x480|800x600|1024x768|2mp|4mp|6mp|8mp|10mp|12mp|15mp|20mp|40mp|70mp))$"
        ),
    ] = "any"
    """any, large, medium, icon, exactly =640x480, or larger than one of >400x300, >640x480, >800x600, >1024x768, >2mp,
    >4mp, >6mp, >8mp, >10mp, >12mp, >15mp, >20mp, >40mp, >70mp"""
    type: Literal["any", "photo", "face", "clipart", "linedrawing", "animated"] = "any"
    color: Literal[
        "any", "color", "blackandwhite", "transparent", "red", "orange", "yellow", "green", "teal", "blue", "purple",
        "pink", "white", "gray", "black", "brown",
    ] = "any"  # fmt: skip
    license: Literal["any", "noncommercial", "commercial", "noncommercial,modify", "commercial,modify"] = "any"
    date: Annotated[
        str,
        Field(pattern=r"^(any|pastday|pastweek|pastmonth|pastyear|(\d{4}-\d\d-\d\d)?\.\.(\d{4}-\d\d-\d\d)?)$"),
    ] = "any"
    """any, pastday, pastweek, pastmonth, pastyear, or from a day to a day, either left out: 2020-01-01..2020-12-31"""
    language: Annotated[str, Field(pattern=r"^(any|[a-z]{2}(-[A-Z]{2})?)$")] = "any"
    """of the pages, two letters: ja; any: all"""

    @field_validator("date")
    @classmethod
    def _days_exist(cls, value: str) -> str:
        for day in filter(None, value.split("..") if ".." in value else ()):
            try:
                datetime.date.fromisoformat(day)
            except ValueError as error:
                raise ValueError(f"{day} is no day of the calendar; write it as 2020-12-31") from error
        return value


class Baidu(Section):
    """Best effort: its result pages are made for people, and its robots.txt may refuse them."""

    engine: Literal["baidu"] = "baidu"
    size: Annotated[str, Field(pattern=r"^(any|extralarge|large|medium|small|=[1-9]\d{0,4}x[1-9]\d{0,4})$")] = "any"
    """any, extralarge, large, medium, small, or exactly width x height: =640x480"""
    type: Literal["any", "portrait", "face", "clipart", "linedrawing", "animated", "static"] = "any"
    color: Literal[
        "any", "blackandwhite", "red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "white", "black",
        "brown",
    ] = "any"  # fmt: skip


class Flickr(Section):
    """Its API; the key comes from the environment variable FLICKR_APIKEY."""

    engine: Literal["flickr"] = "flickr"
    size: Literal[
        "original", "large 2048", "large 1600", "large", "medium 800", "medium 640", "medium", "small 320", "small",
        "large square", "thumbnail", "square",
    ] = "large"  # fmt: skip
    """the preferred size; where a picture lacks it, the next smaller one"""
    licenses: tuple[Annotated[int, Field(ge=0, le=16)], ...] = ()
    """Flickr's numbers, such as 4 (CC BY 2.0), 5 (CC BY-SA 2.0), 9 (CC0), 11 (CC BY 4.0); empty: any"""
    type: Literal["any", "photo", "screenshot", "other"] = "any"
    color_codes: tuple[Annotated[str, Field(pattern=r"^[0-9a-e]$")], ...] = ()
    """Flickr's codes of colours that a picture shows, such as 0 (red), 4 (green), 8 (blue), e (black); empty: any"""
    min_taken_date: Annotated[str, Field(pattern=r"^(any|\d{4}-\d\d-\d\d)$")] = "any"
    """the first day of taking: 2020-01-01; any: no limit"""
    max_taken_date: Annotated[str, Field(pattern=r"^(any|\d{4}-\d\d-\d\d)$")] = "any"


class JsonEndpoint(Section):
    """Any search service that answers in JSON and allows it: Openverse, Wikimedia Commons, an own index."""

    engine: Literal["json"] = "json"
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=40)]
    """of the engine, in sources.jsonl and messages"""
    url: Text
    """of a page of results; filled in are {words}, {page}, {start} (results on the pages before) and {key}:
    https://host/search?q={words}&page={page}"""
    key_from: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")] = ""
    """the environment variable that holds {key}; empty: none is needed"""
    first_page: Count = 1
    """what {page} is on the first page"""
    items: str = ""
    """where the list of results stands (or an object whose values they are): keys or positions joined by dots; empty:
    the answer itself"""
    image_url: Text
    """where an item names its picture: keys or positions joined by dots"""
    page_url: str = ""
    """likewise the page that shows it; empty: unknown"""
    title: str = ""
    license: str = ""
    """several places, with spaces between them, give their values with spaces between them: license license_version"""
    creator: str = ""

    @field_validator("url")
    @classmethod
    def _fields_are_known(cls, value: str) -> str:
        known = {"words", "page", "start", "key"}
        try:
            parts = list(string.Formatter().parse(value))
        except ValueError as error:
            raise ValueError(
                f"{value!r}: {error}; double the braces that stand for themselves: {{{{ and }}}}"
            ) from error
        named = {name for _, name, _, _ in parts if name is not None}
        if named - known or any(spec or conversion for _, _, spec, conversion in parts):
            raise ValueError(f"{value!r}: only {{words}}, {{page}}, {{start}} and {{key}} are filled in")
        if "words" not in named or not named & {"page", "start"}:
            raise ValueError(
                f"{value!r} lacks {'{words}' if 'words' not in named else '{page} or {start}'}: every search, and "
                "every page of it, needs an address of its own"
            )
        return value


Engine = Annotated[Bing | Google | Baidu | Flickr | JsonEndpoint, Field(discriminator="engine")]

OPENVERSE = JsonEndpoint(
    name="openverse",
    url="https://api.openverse.org/v1/images/?q={words}&page={page}",
    items="results",
    image_url="url",
    page_url="foreign_landing_url",
    title="title",
    license="license license_version",
    creator="creator",
)
"""openly licensed pictures, without an account"""
