"""Pages of results in the shapes of the search engines, built by us, and a site that searches an index of its own."""

import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

# icrawler's cipher of Baidu's addresses, the other way round
_BAIDU_SIGNS = {":": "_z2C$q", ".": "_z&e3B", "/": "AzdH3F"}
_BAIDU_LETTERS = dict(zip("abcdefghijklmnopqrstuvw1234567890", "wkv1ju2it3hs4g5rq6fp7eo8dn9cm0bla", strict=True))


@dataclass(frozen=True)
class Picture:
    """One result."""

    url: str
    page_url: str = ""
    title: str = ""
    width: int = 1024
    height: int = 768
    license: int = 0
    creator: str = ""


def bing_page(pictures: Sequence[Picture]) -> bytes:
    """What images/async answers: a list of div.imgpt, each with a link whose `m` is JSON."""
    parts = []
    for picture in pictures:
        told = {
            "cid": "x1", "purl": picture.page_url, "murl": picture.url, "turl": "https://tse1.mm.bing.net/th?id=1",
            "md5": "0" * 32, "t": picture.title, "mid": "1", "desc": "",
        }  # fmt: skip
        link = (
            f"/images/search?view=detailV2&mediaurl={quote(picture.url, safe='')}&exph={picture.height}"
            f"&expw={picture.width}&q=x"
        )
        m = html.escape(json.dumps(told, ensure_ascii=False, separators=(",", ":")))
        parts.append(
            f'<li><div class="iuscp"><div class="imgpt"><a class="iusc" style="height:180px" m="{m}" '
            f'href="{html.escape(link)}"><div class="img_cont"><img class="mimg" alt="{html.escape(picture.title)}" '
            f'src="https://tse1.mm.bing.net/th?id=1"></div></a><div class="img_info"><span class="nowrap">'
            f"{picture.width} x {picture.height} · jpeg</span></div></div></div></li>"
        )
    related = (
        '<a class="suggestion" m="{&quot;k&quot;:&quot;guitars&quot;}" href="/images/search?q=guitars">guitars</a>'
    )
    return f'<div class="dgControl"><ul>{"".join(parts)}</ul>{related}</div>'.encode()


def google_page(pictures: Sequence[Picture]) -> bytes:
    """What browsers get: AF_initDataCallback with [address, height, width] of thumbnail and picture."""
    rows = [
        [
            1,
            [
                0, f"id{number}", ["https://encrypted-tbn0.gstatic.com/images?q=tbn:x", 180, 240],
                [one.url, one.height, one.width], None, 0, "rgb(1,2,3)", None, False,
                {"2001": [None, None, None, 5], "2003": [None, f"id{number}", one.page_url, one.title, None, "site"]},
            ],
        ]
        for number, one in enumerate(pictures)
    ]  # fmt: skip
    data = json.dumps([None, ["b-GRID_STATE0", rows]], ensure_ascii=False, separators=(",", ":"))
    data = data.replace("=", "\\u003d").replace("&", "\\u0026")
    script = f"AF_initDataCallback({{key: 'ds:1', hash: '2', data:{data}, sideChannel: {{}}}});"
    return (
        "<!doctype html><html><head><title>x - Google Search</title>"
        "<script>window.logo='https://www.gstatic.com/images/branding/logo.png';</script></head><body>"
        f"<script>{script}</script></body></html>"
    ).encode()


def google_script_page(urls: Sequence[str]) -> bytes:
    """What icrawler's regular expression looks for: addresses between quotes, anywhere in a script."""
    return f"<html><script>var data = {json.dumps(list(urls))};</script></html>".encode()


def baidu_page(pictures: Sequence[Picture]) -> bytes:
    """What acjson answers: enciphered addresses, a backslash before an apostrophe, {} at the end."""
    data: list[dict[str, object]] = [
        {
            "objURL": baidu_cipher(one.url), "fromURL": baidu_cipher(one.page_url), "fromPageTitle": one.title,
            "width": one.width, "height": one.height, "thumbURL": "https://img0.baidu.com/it/u=1",
        }
        for one in pictures
    ]  # fmt: skip
    text = json.dumps({"queryEnc": "x", "listNum": 1000, "data": [*data, {}]}, ensure_ascii=False)
    return text.replace("'", "\\'").encode()


def baidu_cipher(url: str) -> str:
    return "".join(_BAIDU_SIGNS.get(sign) or _BAIDU_LETTERS.get(sign, sign) for sign in url)


def flickr_page(pictures: Sequence[Picture], *, page: int = 1, pages: int = 1) -> bytes:
    """What flickr.photos.search answers, sizes z (640) and o (original) given."""
    photos = [
        {
            "id": str(1000 + number), "owner": "12345@N01", "title": one.title, "license": str(one.license),
            "ownername": one.creator, "ispublic": 1, "url_sq": one.url + "?sq", "width_sq": 75, "height_sq": 75,
            "url_z": one.url, "width_z": str(one.width), "height_z": str(one.height),
            "url_o": one.url + "?o", "width_o": "4000", "height_o": "3000",
        }
        for number, one in enumerate(pictures)
    ]  # fmt: skip
    found = {"page": page, "pages": pages, "perpage": 100, "total": len(photos), "photo": photos}
    return json.dumps({"photos": found, "stat": "ok"}).encode()


def flickr_refusal(code: int, message: str) -> bytes:
    return json.dumps({"stat": "fail", "code": code, "message": message}).encode()


def openverse_page(pictures: Sequence[Picture]) -> bytes:
    """What Openverse answers."""
    results = [
        {
            "title": one.title, "url": one.url, "foreign_landing_url": one.page_url, "license": "by",
            "license_version": "4.0", "creator": one.creator,
        }
        for one in pictures
    ]  # fmt: skip
    return json.dumps({"result_count": 240, "page_count": 12, "results": results}).encode()


def commons_page(pictures: Sequence[Picture]) -> bytes:
    """What Wikimedia Commons answers: an object by page number, not a list."""
    pages = {
        str(number): {
            "title": one.title,
            "imageinfo": [
                {
                    "url": one.url, "descriptionurl": one.page_url,
                    "extmetadata": {"LicenseShortName": {"value": "CC BY-SA 4.0"}, "Artist": {"value": one.creator}},
                }
            ],
        }
        for number, one in enumerate(pictures, 100)
    }  # fmt: skip
    return json.dumps({"batchcomplete": "", "query": {"pages": pages}}).encode()


GOOGLE_SORRY = (
    b"<html><head><title>https://www.google.com/search?q=x</title></head><body>Our systems have detected unusual "
    b"traffic from your computer network. <script>var u='https://www.gstatic.com/recaptcha/x.png';</script></body></html>"
)
GOOGLE_CONSENT = (
    b"<html><head><title>Before you continue to Google Search</title><script>var a='https://www.gstatic.com/a.png';"
    b"</script></head><body>We use cookies <button>Accept all</button></body></html>"
)
BING_CHALLENGE = b"<html><head><title>One last step</title></head><body>Please solve the challenge below</body></html>"
BAIDU_FORBIDDEN = b'{"antiFlag":1,"message":"Forbid spider access"}'


@dataclass
class SearchSite:
    """A site that searches an index of its own and answers in the shape of any engine.

    Args:
        index: results by search words.
        page_size: results a page, whatever was asked for.
        spoiled: (engine, words) to the answer given instead.
        asked: (engine, words, first result) of every page that was asked for, in order.
    """

    index: Mapping[str, Sequence[Picture]]
    page_size: int = 10
    spoiled: dict[tuple[str, str], bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, int]] = field(default_factory=list)

    def answer(self, engine: str, query: Mapping[str, str]) -> bytes:
        """A page of results; `query` as it came, decoded."""
        names, shape = _ENGINES[engine]
        words, start = query[names[0]], int(query[names[1]])
        if engine in ("flickr", "json"):
            start = (start - 1) * self.page_size
        self.asked.append((engine, words, start))
        if (engine, words) in self.spoiled:
            return self.spoiled[engine, words]
        found = self.index.get(words, ())
        page = found[start : start + self.page_size]
        if engine == "flickr":
            return flickr_page(page, page=start // self.page_size + 1, pages=-(-len(found) // self.page_size))
        return shape(page)


_ENGINES: dict[str, tuple[tuple[str, str], Callable[[Sequence[Picture]], bytes]]] = {
    "bing": (("q", "first"), bing_page),
    "google": (("q", "start"), google_page),
    "baidu": (("word", "pn"), baidu_page),
    "flickr": (("text", "page"), flickr_page),
    "json": (("q", "page"), openverse_page),
}
