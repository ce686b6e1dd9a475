"""The fetcher: every URL ends as a picture or with a reason, no server is trusted, and none is treated rudely."""

import asyncio
import json
import random
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_server import Answer, HostileServer, at_first, misbehave, picture, redirect

from pipelines.core.errors import ImageError, InputError
from pipelines.ingest.fetch import FetchRecord, FetchRequest, Journal
from pipelines.ingest.fetch import urls as urls_module
from pipelines.ingest.fetch.fetcher import FetchedPage, Fetcher, user_agent
from pipelines.ingest.fetch.listing import fetch_all
from pipelines.ingest.fetch.records import one_form
from pipelines.ingest.fetch.store import object_path
from pipelines.ingest.fetch.urls import PublicResolver, clean_url, is_public, parse_url, private_host
from pipelines.params.ingest import DownloadParams

RULES: dict[str, Any] = {
    "contact": "",
    "connections": 16,
    "connections_per_host": 16,
    "delay_seconds": 0.0,
    "timeout_seconds": 5.0,
    "max_attempts": 3,
    "max_wait_seconds": 3.0,
    "max_redirects": 5,
    "robots": "obey",
    "private_hosts": ["127.0.0.1"],
}


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer() as found:
        misbehave(found)
        yield found


class Calls:
    """A fetcher whose functions are called without await, on an event loop of its own."""

    def __init__(self, fetcher: Fetcher) -> None:
        self.runner = asyncio.Runner()
        self.fetcher = self.runner.run(fetcher.__aenter__())

    def fetch(self, *urls: str) -> list[FetchRecord]:
        """All at the same time."""

        async def together() -> list[FetchRecord]:
            return list(await asyncio.gather(*[self.fetcher.fetch(FetchRequest(url, "cat")) for url in urls]))

        return self.runner.run(together())

    def get_page(self, url: str, **more: Any) -> FetchedPage:
        return self.runner.run(self.fetcher.get_page(url, **more))

    def fetch_all(self, urls: list[str], folder: Path, *, title: str = "test") -> list[FetchRecord]:
        wanted = {(one_form(url), "cat"): FetchRequest(url, "cat") for url in urls}
        with Journal(folder / "journal.sqlite", objects=folder / "objects", source="0-urls") as journal:
            return self.runner.run(fetch_all(wanted, fetcher=self.fetcher, journal=journal, title=title))

    def close(self) -> None:
        self.runner.run(self.fetcher.__aexit__(None, None, None))
        self.runner.close()


Make = Callable[..., Calls]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes a fetcher by RULES but for what is given, and closes it."""
    made: list[Calls] = []

    def make(*, max_file_bytes: int = 1 << 20, resolve: Any = None, tls: Any = None, **changes: Any) -> Calls:
        params = DownloadParams.model_validate_json(json.dumps(RULES | changes))
        objects = tmp_path / "objects"
        made.append(Calls(Fetcher(params, max_file_bytes=max_file_bytes, objects=objects, resolve=resolve, tls=tls)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def fetch(fetcher: Calls, url: str) -> FetchRecord:
    return fetcher.fetch(url)[0]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause before a second try is a fiftieth of what it is."""
    monkeypatch.setattr("pipelines.ingest.fetch.fetcher.FIRST_PAUSE_SECONDS", 0.01)


# URLs and addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("HTTP://Example.COM:80/A.jpg#part", "http://example.com/A.jpg"),
        ("https://example.com.:443", "https://example.com/"),
        ("http://example.com:8080/a/../b/./c.jpg?q=ä b", "http://example.com:8080/b/c.jpg?q=%C3%A4%20b"),
        ("http://example.com/%2e%2E/x%zz%e4.jpg", "http://example.com/x%25zz%E4.jpg"),
        ("http://bücher.example/ö.jpg", "http://xn--bcher-kva.example/%C3%B6.jpg"),
        ("http://[2001:DB8:0::1]:81/x", "http://[2001:db8::1]:81/x"),
        ("http://a_b.example?x", "http://a_b.example/?x"),
        ("http://h.example/" + "x" * 2000, "http://h.example/" + "x" * 2000),
    ],
)
def test_a_url_has_one_form(url: str, clean: str) -> None:
    assert clean_url(url) == clean
    assert clean_url(clean) == clean


@pytest.mark.parametrize(
    ("url", "reason", "says"),
    [
        ("www.example.com/a.jpg", "bad-url", "does not start with http:// or https://"),
        ("file:///etc/passwd", "unsupported-scheme", "only http: and https: are fetched"),
        ("data:image/png;base64,AAAA", "unsupported-scheme", "is data:"),
        ("http:///a.jpg", "bad-url", "names no host"),
        ("http://me:secret@example.com/", "bad-url", "http://…@example.com/ holds a user name or password"),
        ("http://example.com:99999/", "bad-url", "there is no port 99999"),
        ("http://2130706433/", "bad-url", "2130706433 is neither a host name nor a.b.c.d"),
        ("http://0x7f.0.0.1/", "bad-url", "neither a host name"),
        ("http://0177.0.0.01/", "bad-url", "neither a host name"),
        ("http://127.1/", "bad-url", "neither a host name"),
        ("http://１２7.1/", "bad-url", "neither a host name"),
        ("http://[::1%25eth0]/", "bad-url", "is no IPv6 address"),
        ("http://[::1/", "bad-url", "is no host and port"),
        ("http://exa mple.com/", "bad-url", "is no host name"),
        ("http://example.com\\@127.0.0.1/", "bad-url", "a backslash"),
        ("http://example.com/\r\nHost: x", "bad-url", "a control character"),
        ("http://example.com/\udc80", "bad-url", "no UTF-8"),
        ("http://example.com/" + "x" * 8000, "bad-url", "8019 characters are more than 8000"),
    ],
)
def test_a_url_that_can_be_read_in_two_ways_is_refused(url: str, reason: str, says: str) -> None:
    with pytest.raises(ImageError) as caught:
        parse_url(url)
    assert caught.value.reason == reason
    assert says in caught.value.detail
    assert "secret" not in caught.value.detail
    assert len(caught.value.detail) < 500


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "240.0.0.1", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1",
        "ff02::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "2002:7f00:1::", "2001:0:7f00:1::",
        "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::808:808", "2001:db8::1", "no address",
    ],
)  # fmt: skip
def test_addresses_that_not_everybody_reaches_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:2800:220:1::1", "64:ff9b::808:808"])
def test_other_addresses_are_public(address: str) -> None:
    assert is_public(address)


def test_one_private_address_among_public_ones_is_one_too_many() -> None:
    both = ["93.184.216.34", "10.0.0.1"]

    def check(*private_hosts: str) -> list[str]:
        return asyncio.run(PublicResolver(lambda *_: both, private_hosts).check("pictures.example", 80))

    with pytest.raises(ImageError, match=r"private-address: pictures.example is 10.0.0.1: is not a public address"):
        check()
    assert check("pictures.example") == both
    assert check("pictures.example:80") == both
    with pytest.raises(ImageError, match="private-address"):
        check("pictures.example:81", "10.0.0.1")


def test_private_hosts_are_compared_in_one_form() -> None:
    assert [private_host(entry) for entry in ("Pictures.EXAMPLE.", "[::1]:80", "0:0::1", "bücher.example:8080")] == [
        "pictures.example", "::1:80", "::1", "xn--bcher-kva.example:8080",
    ]  # fmt: skip


# every kind of answer ---------------------------------------------------------------------------------------------

# path: outcome, tries, requests that the server saw
ANSWERS: dict[str, tuple[str, int, int]] = {
    "/picture/1.jpg": ("ok", 1, 2),  # /to/one leads there too
    "/same/a": ("ok", 1, 1),
    "/same/b": ("ok", 1, 1),
    "/ünï/bild ö.jpg": ("ok", 1, 1),
    "/same/" + "x" * 2000: ("ok", 1, 1),
    "/absent": ("http-404", 1, 1),
    "/403": ("http-403", 1, 1),
    "/410": ("http-410", 1, 1),
    "/500-once": ("ok", 2, 2),
    "/408-once": ("ok", 2, 2),
    "/503": ("http-503", 3, 3),
    "/drip": ("timeout", 3, 3),
    "/drip-headers": ("timeout", 3, 3),
    "/silent": ("timeout", 3, 3),
    "/endless": ("too-large", 1, 1),
    "/large": ("too-large", 1, 1),
    "/short": ("truncated", 3, 3),
    "/long": ("ok", 1, 1),
    "/reset": ("truncated", 3, 3),
    "/no-length": ("ok", 1, 1),
    "/chunked": ("ok", 1, 1),
    "/closing": ("ok", 1, 1),
    "/bomb": ("too-large", 1, 1),
    "/gzip": ("ok", 1, 1),
    "/gzip-twice": ("ok", 1, 1),
    "/gzip-cut": ("truncated", 3, 3),
    "/gzip-no": ("unsupported-encoding", 1, 1),
    "/deflate": ("ok", 1, 1),
    "/deflate-bare": ("ok", 1, 1),
    "/brotli": ("unsupported-encoding", 1, 1),
    "/html": ("ok", 1, 1),
    "/lies": ("ok", 1, 1),
    "/empty": ("empty-file", 1, 1),
    "/204": ("http-204", 1, 1),
    "/noise": ("bad-answer", 3, 3),
    "/noai": ("robots-disallowed", 1, 1),
    "/to/one": ("ok", 1, 1),
    "/to/relative": ("ok", 1, 1),
    "/to/private": ("private-address", 1, 1),
    "/to/file": ("unsupported-scheme", 1, 1),
    "/to/user": ("bad-url", 1, 1),
    "/to/nowhere": ("bad-answer", 1, 1),
    "/to/loop": ("redirect-loop", 1, 1),
    "/to/10": ("too-many-redirects", 1, 1),
}


@pytest.mark.usefixtures("quick")
def test_every_answer_ends_as_a_picture_or_with_a_reason(server: HostileServer, make: Make, tmp_path: Path) -> None:
    fetcher = make(timeout_seconds=0.6)
    urls = [server.url(path) for path in ANSWERS]
    records = fetcher.fetch_all(urls, tmp_path)
    paths = list(ANSWERS)
    assert {path: (r.outcome, r.tries) for path, r in zip(paths, records, strict=True)} == {
        path: expected[:2] for path, expected in ANSWERS.items()
    }
    seen = {path: server.hits[clean_url(server.url(path)).removeprefix(server.url(""))] for path in ANSWERS}
    assert seen == {path: expected[2] for path, expected in ANSWERS.items()}
    by_path = dict(zip(paths, records, strict=True))
    good = {path for path, (outcome, *_) in ANSWERS.items() if outcome == "ok"} - {"/html", "/to/relative"}
    assert {by_path[path].image_id for path in good} == {by_path["/same/a"].image_id}
    assert by_path["/same/a"].bytes == len(picture(1))
    assert by_path["/to/relative"].final_url == server.url("/picture/2.jpg")
    assert by_path["/lies"].type == "text/html"
    assert all(r.image_id == "" and r.bytes == 0 and r.detail for r in records if not r.ok)
    assert by_path["/to/file"].detail == (
        "redirected to file:///etc/passwd: file:///etc/passwd is file:, only http: and https: are fetched"
    )
    assert by_path["/drip"].detail == "not whole after 0.6 s"
    assert not list((tmp_path / "objects").glob("*.partial"))
    # a picture, its page number 2, and the HTML page: that is no business of the network's
    assert len(list((tmp_path / "objects").glob("*/*"))) == 3


STATUS = [b"200 OK", b"302 Found", b"429 Slow \x1b[31m\xff", b"abc", b"99 X", b"100 Continue\r\n\r\nHTTP/1.1 200 OK"]
HEADERS = [
    b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 5, 6", b"Content-Length: " + b"9" * 30,
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Content-Encoding: deflate", b"Location: http://[::1",
    b"Location: \xff\xfe", b"Retry-After: Fri, 99 Foo 99999", b"X: " + b"y" * 70_000, b" folded", b"no colon",
    b"Content-Type: a\x1b[31m",
]  # fmt: skip
BODIES = [b"hello", b"", b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\nhello", b"-5\r\nhello", b"5\r\nhel", b"\x1f\x8b\x08junk"]


@pytest.mark.usefixtures("quick")
def test_whatever_a_server_writes_becomes_a_record(server: HostileServer, make: Make) -> None:
    dice = random.Random(1)
    seen = set()
    for number in range(120):
        headers = b"".join(line + b"\r\n" for line in dice.sample(HEADERS, dice.randint(0, 3)))
        data = b"HTTP/1.1 " + dice.choice(STATUS) + b"\r\n" + headers + b"\r\n" + dice.choice(BODIES)
        server.add(f"/{number}", Answer(raw=lambda wire, data=data: wire.send(data)))  # type: ignore[misc]
        # a 429 may slow the host down for all: a new fetcher knows nothing of it
        record = fetch(make(max_attempts=1, robots="ignore"), server.url(f"/{number}"))
        assert (record.detail + record.type).isprintable()
        assert record.ok == (record.image_id != "") == (record.bytes > 0)
        seen.add(record.outcome)
    assert {"ok", "bad-answer", "truncated", "http-429", "unsupported-encoding"} <= seen


def test_what_follows_a_body_is_not_the_next_answer(server: HostileServer, make: Make) -> None:
    fetcher = make()
    for _ in range(3):
        assert fetch(fetcher, server.url("/long")).image_id == fetch(fetcher, server.url("/same/x")).image_id


def test_an_idle_connection_that_the_server_closed_costs_no_try(server: HostileServer, make: Make) -> None:
    fetcher = make(max_attempts=1)
    for number in range(20):
        assert fetch(fetcher, server.url("/closing")).outcome == "ok", number


def test_a_redirect_may_lead_to_another_host_but_only_to_an_open_one(server: HostileServer, make: Make) -> None:
    with HostileServer("127.0.0.2") as other:
        other.add("/picture/3.jpg", picture(3))
        server.add("/there", redirect(other.url("/picture/3.jpg")))
        refused = fetch(make(), server.url("/there"))
        assert (refused.outcome, refused.final_url) == ("private-address", server.url("/there"))
        assert not other.hits
        found = fetch(make(private_hosts=["127.0.0.1", f"127.0.0.2:{other.port}"]), server.url("/there"))
        assert (found.outcome, found.final_url) == ("ok", other.url("/picture/3.jpg"))
        assert other.hits == {"/robots.txt": 1, "/picture/3.jpg": 1}


def test_no_host_is_open_unless_it_is_named(server: HostileServer, make: Make) -> None:
    fetcher = make(private_hosts=[])
    for url in (server.url("/same/x"), server.url("/same/x", host="localhost"), server.url("/x", host="[::1]")):
        record = fetch(fetcher, url)
        assert (record.outcome, record.tries, record.final_url) == ("private-address", 0, "")
        assert "ingest.download.private_hosts" in record.detail
    assert not server.hits


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6(make: Make) -> None:
    try:
        with HostileServer("::1") as server:
            server.add("/x.jpg", picture(1))
            assert fetch(make(private_hosts=["::1"]), server.url("/x.jpg")).ok
            assert server.headers["/x.jpg"][0]["Host"] == f"[::1]:{server.port}"
    except OSError as error:
        pytest.skip(f"no IPv6 loopback: {error}")


def test_an_unknown_host_and_a_closed_port(make: Make) -> None:
    def resolve(host: str, _: int) -> list[str]:
        assert host == "nosuch.example"
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    record = fetch(make(resolve=resolve), "http://nosuch.example/x.jpg")
    assert (record.outcome, record.detail) == ("unknown-host", "nosuch.example: Name or service not known")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/x.jpg"
    record = fetch(make(max_attempts=1, robots="ignore"), url)
    assert (record.outcome, record.detail) == ("connection-error", "connection refused")


# DNS and TLS ------------------------------------------------------------------------------------------------------


@pytest.fixture
def second_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.2 counts as an address on the internet, 127.0.0.1 stays this machine."""
    monkeypatch.setattr(urls_module, "is_public", lambda address: address == "127.0.0.2")


@pytest.mark.usefixtures("second_is_public")
def test_a_name_server_that_changes_its_mind_reaches_nothing(
    server: HostileServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the address that was checked is the address that is connected to."""
    monkeypatch.setattr(urls_module, "LOOKUP_SECONDS", -1.0)
    answers = ["127.0.0.2"]
    with HostileServer("127.0.0.2", server.port) as public:
        public.add("/x.jpg", picture(1))
        public.add("/back", redirect("/same/secret"))
        fetcher = make(resolve=lambda *_: answers, private_hosts=[])
        assert fetch(fetcher, public.url("/x.jpg", host="pictures.example")).ok
        assert public.headers["/x.jpg"][0]["Host"] == f"pictures.example:{server.port}"
        answers[:] = ["127.0.0.1"]  # from here on the name means this machine
        assert fetch(fetcher, public.url("/back", host="pictures.example")).outcome == "private-address"
    assert not server.hits


@pytest.mark.usefixtures("second_is_public")
def test_a_name_that_changes_between_check_and_connection_reaches_nothing(
    server: HostileServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls_module, "LOOKUP_SECONDS", -1.0)
    for num_public in range(5):
        answers = ["127.0.0.2"] * num_public

        def resolve(*_: object, answers: list[str] = answers) -> list[str]:
            return [answers.pop() if answers else "127.0.0.1"]

        fetcher = make(resolve=resolve, private_hosts=[], max_attempts=1)
        record = fetch(fetcher, server.url("/same/x", host="pictures.example"))
        assert record.outcome in ("private-address", "robots-unavailable", "connection-error")
    assert not server.hits


def test_a_name_is_looked_up_once_for_many_pictures(server: HostileServer, make: Make) -> None:
    asked: list[str] = []

    def resolve(host: str, _: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    fetcher = make(resolve=resolve, private_hosts=["pictures.example"])
    for number in range(5):
        assert fetch(fetcher, server.url(f"/picture/{number}.jpg", host="pictures.example")).ok
    assert asked == ["pictures.example"]


def test_of_several_addresses_the_first_that_answers_is_taken(server: HostileServer, make: Make) -> None:
    fetcher = make(resolve=lambda *_: ["127.0.0.9", "127.0.0.1"], private_hosts=["pictures.example"])
    assert fetch(fetcher, server.url("/same/x", host="pictures.example")).ok


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context for pictures.example, and a client's that trusts its authority."""
    x509 = pytest.importorskip("cryptography.x509")
    import datetime

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pictures.example")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("pictures.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(secret + made.public_bytes(pem))
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(path)
    return serving, ssl.create_default_context(cadata=made.public_bytes(pem).decode())


def test_tls_is_checked_by_name_though_an_address_is_connected_to(
    certificate: tuple[ssl.SSLContext, ssl.SSLContext], make: Make
) -> None:
    serving, trusting = certificate
    with HostileServer(tls=serving) as server:
        misbehave(server)
        rules: dict[str, Any] = {
            "resolve": lambda *_: ["127.0.0.1"], "private_hosts": ["pictures.example", "other.example"],
            "robots": "ignore", "timeout_seconds": 1.0, "max_attempts": 1,
        }  # fmt: skip
        known = make(tls=trusting, **rules)
        assert fetch(known, server.url("/same/x", host="pictures.example")).ok
        assert fetch(known, server.url("/drip", host="pictures.example")).outcome == "timeout"
        other = fetch(known, server.url("/same/y", host="other.example"))
        assert other.outcome == "tls-error"
        assert "other.example" in other.detail
        stranger = fetch(make(**rules), server.url("/same/z", host="pictures.example"))
        assert stranger.outcome == "tls-error"
        assert stranger.detail.startswith("its certificate: self")
        assert server.total == 2


# manners ----------------------------------------------------------------------------------------------------------


def test_it_says_who_it_is_and_carries_nothing_along(
    server: HostileServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    fetcher = make(contact="https://example.org/miwake")
    for path in ("/cookie", "/cookie", "/to/one"):
        assert fetch(fetcher, server.url(path)).ok
    for path in ("/robots.txt", "/cookie", "/to/one", "/picture/1.jpg"):
        for headers in server.headers[path]:
            assert headers == {
                "Host": f"127.0.0.1:{server.port}",
                "User-Agent": user_agent("https://example.org/miwake"),
                "Accept": "*/*",
                "Accept-Encoding": "identity",
            }
    assert user_agent("").startswith("miwake/0")
    assert user_agent("me@example.org").endswith(" (+me@example.org)")


@pytest.mark.parametrize("path", ["/429-seconds", "/429-date"])
def test_retry_after_is_waited_for_by_the_whole_host(server: HostileServer, make: Make, path: str) -> None:
    fetcher = make(connections=1)  # the second URL is asked for after the first has had its answer
    first, other = fetcher.fetch(server.url(path), server.url("/same/x"))
    assert (first.outcome, first.tries, other.outcome) == ("ok", 2, "ok")
    told, again = server.times[path]
    assert again - told >= 0.5  # a date has whole seconds: of 1.5, at least half a second is left
    assert server.times["/same/x"][0] - told >= 0.5


def test_a_host_that_asks_for_an_hour_is_left_alone(server: HostileServer, make: Make) -> None:
    fetcher = make()
    record = fetch(fetcher, server.url("/429-hour"))
    assert (record.outcome, record.tries, record.momentary) == ("http-429", 1, True)
    assert record.detail.endswith("it asks to wait longer than 3 s (ingest.download.max_wait_seconds)")
    other = fetch(fetcher, server.url("/same/x"))
    assert (other.outcome, other.tries, other.momentary) == ("retry-later", 0, True)
    assert server.total == 1


def test_a_list_does_not_wait_an_hour_for_its_host(server: HostileServer, make: Make, tmp_path: Path) -> None:
    urls = [server.url("/429-hour")] + [server.url(f"/picture/{number}.jpg") for number in range(20)]
    records = make(connections=1, max_wait_seconds=600.0).fetch_all(urls, tmp_path)  # a wait would be seen
    assert [record.outcome for record in records] == ["http-429"] + ["retry-later"] * 20
    assert server.total == 1


def test_pauses_between_requests_to_one_host(server: HostileServer, make: Make, tmp_path: Path) -> None:
    fetcher = make(delay_seconds=0.1)
    urls = [server.url(f"/picture/{number}.jpg") for number in range(6)]
    fetcher.fetch_all(urls, tmp_path)
    times = sorted(time for path in server.times for time in server.times[path])
    assert len(times) == 7
    assert times[-1] - times[0] > 6 * 0.1 - 0.05  # one by one, each is seen as late as the machine is busy


def test_no_more_connections_to_one_host_than_agreed(server: HostileServer, make: Make, tmp_path: Path) -> None:
    def slow(hit: object) -> bytes:  # noqa: ARG001 - a handler
        time.sleep(0.03)
        return picture(1)

    server.add("/slow/*", slow)
    urls = [server.url(f"/slow/{number}") for number in range(24)]
    make(connections_per_host=3).fetch_all(urls, tmp_path)
    assert server.most_at_once == 3


def test_a_slow_host_holds_up_no_other(server: HostileServer, make: Make, tmp_path: Path) -> None:
    with HostileServer("127.0.0.2") as quick:
        quick.add("/*", picture(1))
        urls = [server.url(f"/same/{number}") for number in range(8)] + [quick.url(f"/{n}") for n in range(8)]
        server.add("/robots.txt", b"User-agent: *\nCrawl-delay: 0.2")
        quick.add("/robots.txt", b"User-agent: *\nCrawl-delay: 0.01")
        fetcher = make(connections=2, private_hosts=["127.0.0.1", "127.0.0.2"])
        records = fetcher.fetch_all(urls, tmp_path)
        assert all(record.ok for record in records)
        waited = sorted(server.times[f"/same/{number}"][0] for number in range(8))
        assert waited[-1] - waited[0] > 7 * 0.2 - 0.1
        assert max(quick.times[f"/{number}"][0] for number in range(8)) < waited[4]


@pytest.mark.parametrize(
    ("robots", "outcome"),
    [
        (b"User-agent: *\nDisallow: /private/", "ok"),
        (b"User-agent: *\nDisallow: /", "robots-disallowed"),
        (b"User-agent: *\nDisallow: /\nUser-agent: miwake\nAllow: /", "ok"),
        (b"User-agent: *\nAllow: /\nUser-agent: Miwake\nDisallow: /same", "robots-disallowed"),
        (b"\xef\xbb\xbfUser-agent: *\r\nDisallow: /*/x$", "robots-disallowed"),
        (b"User-agent: *\nCrawl-delay: 86400", "robots-disallowed"),
        (Answer(b"", 404), "ok"),
        (Answer(b"", 403), "ok"),
        (Answer(b"", 204), "ok"),
        (at_first(1, Answer(b"", 500), b"User-agent: *\nAllow: /"), "ok"),
        (Answer(b"", 500), "robots-unavailable"),
        (Answer(b"", 429), "robots-unavailable"),
        (Answer(raw=lambda wire: wire.reset()), "robots-unavailable"),
        (redirect("http://10.0.0.1/robots.txt"), "robots-unavailable"),
        (b"# " + b"x" * (600 << 10) + b"\nUser-agent: *\nDisallow: /", "ok"),
        (b"User-agent: *\nDisallow: /same\n" + b"# filler\n" * (100 << 10), "robots-disallowed"),
        (bytes(range(256)) * 100, "ok"),
    ],
)
@pytest.mark.usefixtures("quick")
def test_robots_txt(server: HostileServer, make: Make, robots: Any, outcome: str) -> None:
    server.add("/robots.txt", robots)
    fetcher = make()
    for _ in range(2):
        assert fetch(fetcher, server.url("/same/x")).outcome == outcome
    fails = isinstance(robots, Answer) and (robots.status >= 429 or robots.raw is not None)
    assert server.hits["/robots.txt"] == (3 if fails else 2 if callable(robots) else 1)
    assert server.total == (2 if outcome == "ok" else 0)
    assert fetch(make(robots="ignore"), server.url("/same/x")).ok


def test_every_hop_asks_its_own_host_for_leave(server: HostileServer, make: Make) -> None:
    with HostileServer("127.0.0.2") as other:
        other.add("/robots.txt", b"User-agent: *\nDisallow: /picture")
        other.add("/picture/3.jpg", picture(3))
        server.add("/there", redirect(other.url("/picture/3.jpg")))
        record = fetch(make(private_hosts=["127.0.0.1", "127.0.0.2"]), server.url("/there"))
        assert (record.outcome, record.detail) == (
            "robots-disallowed", f"{other.url('')}/robots.txt does not allow it",
        )  # fmt: skip
        assert other.total == 0


def test_dots_do_not_lead_around_robots_txt(server: HostileServer, make: Make) -> None:
    server.add("/robots.txt", b"User-agent: *\nDisallow: /same/")
    assert fetch(make(), server.url("/picture/%2e%2e/same/x")).outcome == "robots-disallowed"


def test_progress_tells_rate_and_time_left(
    server: HostileServer,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("pipelines.core.progress.LINE_EVERY_SECONDS", 0.0)
    urls = [server.url(f"/picture/{number}.jpg") for number in range(3)]
    make().fetch_all(urls[:1], tmp_path)
    capsys.readouterr()
    make(connections=1).fetch_all(urls, tmp_path, title="fetching")
    first, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"fetching: 2 of 3 URLs, [\d,]+ a second, [\d,.]+ MB a second, \d+ s left", first)
    assert last.startswith("fetching: 3 of 3 URLs")
    assert last.endswith(" 0 s left")


# pages, the store, the end ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_a_page_is_read_by_the_same_rules(server: HostileServer, make: Make) -> None:
    server.add("/robots.txt", b"User-agent: *\nDisallow: /search")
    server.add("/search", lambda hit: Answer(json.dumps(hit.query).encode(), type="application/json"))
    server.add("/search/busy", at_first(1, Answer(b"", 503), b"[]"))
    server.add("/search/no", Answer(b"your key is wrong", 401, "text/plain"))
    fetcher = make()
    assert fetcher.get_page(server.url("/search?q=a"), api=False).outcome == "robots-disallowed"
    page = fetcher.get_page(server.url("/search?q=a%20b"), api=True)
    assert (page.outcome, page.status, page.type, page.body) == ("ok", 200, "application/json", b'{"q": ["a b"]}')
    assert fetcher.get_page(server.url("/search/busy"), api=True).body == b"[]"
    refused = fetcher.get_page(server.url("/search/no"), api=True)
    assert (refused.outcome, refused.status, refused.body) == ("http-401", 401, b"your key is wrong")
    assert fetcher.get_page(server.url("/endless"), api=True, max_bytes=1000).outcome == "too-large"
    assert fetcher.get_page("http://10.0.0.1/", api=True).outcome == "private-address"


def test_a_large_picture_is_stored_whole_and_equal_ones_once(server: HostileServer, make: Make, tmp_path: Path) -> None:
    large = bytes(range(256)) * (20 << 10)  # 5 MB: five times what is held in memory
    server.add("/large/*", large)
    fetcher = make(max_file_bytes=len(large))
    first, second = (fetch(fetcher, server.url(f"/large/{number}")) for number in range(2))
    assert first.image_id == second.image_id
    assert object_path(tmp_path / "objects", first.image_id).read_bytes() == large
    assert len([path for path in (tmp_path / "objects").rglob("*") if path.is_file()]) == 1
    assert fetch(make(max_file_bytes=len(large) - 1), server.url("/large/3")).outcome == "too-large"


def test_a_full_disk_ends_everything_with_one_clear_error(
    server: HostileServer, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_open = Path.open

    def full(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.suffix == ".partial":
            raise OSError(28, "No space left on device")
        return plain_open(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    urls = [server.url(f"/picture/{number}.jpg") for number in range(50)]
    with pytest.raises(
        InputError, match=r"objects: No space left on device; downloads are kept there.*free some space"
    ):
        make().fetch_all(urls, tmp_path)


def test_a_cache_that_cannot_be_made_is_named(make: Make, tmp_path: Path) -> None:
    (tmp_path / "objects").write_text("a file")
    with pytest.raises(InputError, match=r"objects: File exists; downloads are kept there.*make it writable"):
        make()


def test_cancelling_ends_what_is_under_way_at_once(server: HostileServer, make: Make) -> None:
    fetcher = make(timeout_seconds=240.0)

    async def cancelled() -> list[str]:
        paths = ("/silent", "/drip-headers", "/drip")
        tasks = [asyncio.create_task(fetcher.fetcher.fetch(FetchRequest(server.url(path), "cat"))) for path in paths]
        while server.total < 3:
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=60)  # of the 240 s that a try may take
        return [path for path, task in zip(paths, tasks, strict=True) if task.cancelled()]

    assert fetcher.runner.run(cancelled()) == ["/silent", "/drip-headers", "/drip"]
