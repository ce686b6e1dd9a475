"""`miwake review`: what is shown, what is written, who may, and the page itself in Chromium."""

import asyncio
import contextlib
import csv
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
import uvicorn
from test_cli import miwake
from test_ingest import picture, put

from pipelines.core.layout import Layout
from pipelines.core.tables import DEDUPED, write_table
from pipelines.images.shards import ShardWriter
from pipelines.use.decisions import DecisionFiles, Judged
from pipelines.use.review.queues import read_queues
from pipelines.use.review.server import COOKIE, POLICY, Review, make_app

LABELS = ["Jaguar", "Jazzmaster", "<img src=x onerror=alert(1)>"]
SUSPECTS = ("image_id", "label", "suggested", "probability_label", "probability_suggested", "subset", "source_path")
PAIRS = ("image_a", "image_b", "path_a", "path_b", "label_a", "label_b", "kind", "score", "verdict", "transform")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def make_project(root: Path, *, count: int = 6) -> list[str]:
    """Pictures of three labels, suspects of all, one pair of each verdict, one reject; the ids in order."""
    ids = []
    (root / "data" / "ingest").mkdir(parents=True)
    places = []
    with ShardWriter(root / "data" / "ingest", 10**9) as shards:
        for i in range(count):
            data = picture(seed=i)
            ids.append(hashlib.sha256(data).hexdigest())
            places.append((*shards.add(f"{i}/{ids[-1]}.png", data), len(data)))
    columns: dict[str, Any] = {
        "image_id": ids,
        "label": [LABELS[i % 3] for i in range(count)],
        "shard": [place[0] for place in places],
        "offset": [place[1] for place in places],
        "size": [place[2] for place in places],
        "source_path": [f"folder/{i}.png" for i in range(count)],
        "verdict": ["keep"] * count,
    }
    table = pa.table(
        {f.name: pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(count, f.type) for f in DEDUPED}
    )
    write_table(table, root / "data" / "dedupe" / "manifest.parquet")
    write(
        root / "data" / "evaluate" / "suspects.csv", SUSPECTS,
        [
            (ids[i], LABELS[i % 3], LABELS[(i + 1) % 3], 0.1, 0.9, ("test", "train")[i % 2], f"folder/{i}.png")
            for i in range(count)
        ],
    )  # fmt: skip
    write(
        root / "data" / "dedupe" / "duplicates.csv", PAIRS,
        [
            (ids[0], ids[1], "a", "b", LABELS[0], LABELS[1], "near", 0.99, "conflict", "none"),
            (ids[3], ids[0], "c", "d", LABELS[0], LABELS[0], "near", 0.98, "copy", "mirror"),
        ],
    )  # fmt: skip
    write(
        root / "data" / "ingest" / "rejected.csv", ("source", "source_path", "label", "reason", "detail"),
        [("0-folder", "x/broken.jpg", "Jaguar", "truncated", "ends early")],
    )  # fmt: skip
    for name, header in (("drop", "image_id,reason"), ("keep", "image_id,other_id,reason")):
        put(root / "data" / "decisions" / f"{name}.csv", f"{header}\n".encode())
    return ids


class Served:
    """A review in a thread."""

    def __init__(self, root: Path) -> None:
        self.root, self.ids = root, make_project(root)
        self.review = Review(
            read_queues(Layout(root), "A <b>title</b>"), DecisionFiles(root / "data" / "decisions"), max_pixels=10**6
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        app = make_app(self.review, port=self.port)
        self.server = uvicorn.Server(uvicorn.Config(app, port=self.port, log_level="error"))
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve()))
        self.thread.start()
        self.address = f"http://127.0.0.1:{self.port}"
        deadline = time.monotonic() + 60
        while not self.server.started:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def client(self) -> httpx.Client:
        """One that has opened the address with its token."""
        return httpx.Client(
            base_url=self.address, cookies={COOKIE: self.review.token}, headers={"Origin": self.address}
        )

    def decisions(self, name: str) -> list[dict[str, str]]:
        return rows_of(self.root / "data" / "decisions" / f"{name}.csv")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("review"))
    yield served
    served.server.should_exit = True
    served.thread.join(30)


@pytest.fixture
def served(running: Served) -> Served:
    """Without decisions."""
    for path in (running.root / "data" / "decisions").iterdir():
        path.unlink()
    running.review._undo.clear()
    return running


def decide(client: httpx.Client, number: int, action: str, *, queue: str = "suspects", seen: str = "", **more: Any) -> httpx.Response:  # fmt: skip # noqa: E501
    return client.post("/api/decide", json={"queue": queue, "number": number, "action": action, "seen": seen, **more})


def test_every_decision_is_written_at_once_in_the_form_that_the_stages_read(served: Served) -> None:
    with served.client() as client:
        assert decide(client, 0, "right").json()["decided"] == "right"
        assert decide(client, 1, "relabel", label="Jaguar").json()["decided"] == "relabel:Jaguar"
        assert decide(client, 2, "relabel", label="New one").status_code == 200
        assert decide(client, 3, "drop").json()["decided"] == "drop"
        assert decide(client, 4, "crop", crop=[0.1, 0.2, 0.9, 1.4]).json()["decided"] == "crop"
        assert decide(client, 1, "different", queue="duplicates", seen="").status_code in (200, 400)
    short = [one[:12] for one in served.ids]
    keeps = [tuple(row.values()) for row in served.decisions("keep") if not row["other_id"]]
    assert keeps == [(short[0], "", "label is right", "folder/0.png")]
    assert {(row["image_id"], row["label"], row["reason"]) for row in served.decisions("relabel")} == {
        (short[1], "Jaguar", "was Jazzmaster"),
        (short[2], "New one", f"new class: was {LABELS[2]}"),
    }
    assert [row["image_id"] for row in served.decisions("drop")] == [short[3]]
    assert list(served.decisions("crop")[0].values())[:5] == [short[4], "0.1", "0.2", "0.9", "1"]


def test_a_decision_takes_the_place_of_the_one_before_and_undo_brings_it_back(served: Served) -> None:
    with served.client() as client:
        decide(client, 0, "right")
        assert decide(client, 0, "drop", seen="right").json()["decided"] == "drop"
        assert served.decisions("keep") == []
        assert client.post("/api/undo").json()["decided"] == "right"
        assert [row["reason"] for row in served.decisions("keep")] == ["label is right"]
        assert client.post("/api/undo").json()["decided"] == ""
        assert client.post("/api/undo").status_code == 409
        decide(client, 0, "relabel", label="Jazzmaster")
        assert decide(client, 0, "clear", seen="relabel:Jazzmaster").json()["decided"] == ""
        assert served.decisions("relabel") == []


def test_what_another_window_or_an_editor_decided_is_told_and_kept(served: Served) -> None:
    with served.client() as one, served.client() as other:
        decide(one, 0, "drop")
        late = decide(other, 0, "right")
        assert late.status_code == 409
        assert late.json() == {"error": "decided meanwhile, in another window or file: drop", "decided": "drop"}
        version = one.get("/api/version").json()["version"]
        path = served.root / "data" / "decisions" / "relabel.csv"
        path.write_text(f"image_id;label;reason\n{served.ids[5]};Jaguar;by hand\n", encoding="utf-8")
        assert one.get("/api/version").json()["version"] != version
        decide(one, 1, "relabel", label="Jaguar")
    assert {row["reason"] for row in served.decisions("relabel")} == {"by hand", "was Jazzmaster"}


def test_a_pair_is_settled_or_told_apart(served: Served) -> None:
    with served.client() as client:
        assert decide(client, 0, "relabel", queue="conflicts", label="Jazzmaster").status_code == 200
        found = decide(client, 0, "different", queue="duplicates").json()
        assert found["decided"] == "different"
        assert [row["other_id"] for row in served.decisions("keep")] == [served.ids[0][:12]]
        queues = {one["name"]: (one["total"], one["decided"]) for one in client.get("/api/overview").json()["queues"]}
        assert queues == {"suspects": (6, 1), "conflicts": (1, 1), "duplicates": (1, 1), "rejects": (1, 0)}
        open_ones = client.get("/api/items", params={"queue": "suspects", "open": "1", "count": 9}).json()
        assert open_ones["total"] == 5
        one_label = client.get("/api/items", params={"queue": "suspects", "label": "Jaguar", "count": 9}).json()
        assert [item["label"] for item in one_label["items"]] == ["Jaguar", "Jaguar"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"queue": "suspects", "number": 99, "action": "right"}, "there is no item 99"),
        ({"queue": "rejects", "number": 0, "action": "drop"}, "mend it at its source"),
        ({"queue": "suspects", "number": 0, "action": "relabel", "label": " "}, "relabel needs the right label"),
        ({"queue": "suspects", "number": 0, "action": "burn"}, "'burn' is no decision: right, relabel"),
        ({"queue": "suspects", "number": 0, "action": "crop", "crop": [0.5, 0.5, 0.501, 0.9]}, "narrower than 2 %"),
        ({"queue": "suspects", "number": 0, "action": "crop", "crop": ["x"]}, "cannot be read"),
        ([], "cannot be read"),
    ],
)
def test_what_is_no_decision_is_refused_and_writes_nothing(served: Served, words: Any, said: str) -> None:
    with served.client() as client:
        found = client.post("/api/decide", json=words)
    assert found.status_code == 400
    assert said in found.json()["error"]
    assert list((served.root / "data" / "decisions").iterdir()) == []


def test_nobody_without_the_token_or_from_another_site_gets_in(served: Served) -> None:
    with httpx.Client(base_url=served.address) as stranger:
        for path in ("/", "/api/overview", f"/large/{served.ids[0]}", "/?token=wrong", "/static/review.js"):
            assert stranger.get(path).status_code == 403
    with served.client() as client:
        assert client.get("/api/overview", headers={"Host": "evil.example"}).status_code == 421
        for origin in ("http://evil.example", "null"):
            words = {"queue": "suspects", "number": 0, "action": "drop", "seen": ""}
            assert client.post("/api/decide", json=words, headers={"Origin": origin}).status_code == 403
        del client.headers["Origin"]
        assert client.post("/api/undo").status_code == 403
        page = client.get("/")
        assert page.headers["content-security-policy"] == POLICY
        assert client.get("/static/server.py").status_code == 404
        assert client.get("/large/..%2F..%2Fparams.yaml").status_code == 404
        shown = client.get(f"/large/{served.ids[0]}")
        assert (shown.headers["content-type"], shown.content[:3]) == ("image/jpeg", b"\xff\xd8\xff")
        cookie = client.get(f"/?token={served.review.token}", follow_redirects=False).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_twenty_thousand_decisions_are_read_in_one_pass(tmp_path: Path) -> None:
    ids = [f"{i:012x}" * 5 + "0000" for i in range(20_000)]
    files = DecisionFiles(tmp_path)
    write(tmp_path / "drop.csv", ("image_id", "reason"), [(one[:12], "x") for one in ids])
    judged = Judged(files.read())
    assert all(judged.of(one).label == "drop" for one in ids)


def test_decisions_check_names_what_has_no_effect(tmp_path: Path) -> None:
    root = tmp_path / "project"
    ids = make_project(root)
    table = pa.table({"image_id": ids, "label": [LABELS[i % 3] for i in range(len(ids))]})
    from pipelines.core.tables import MANIFEST

    whole = {f.name: table[f.name] if f.name in table.column_names else pa.nulls(len(ids), f.type) for f in MANIFEST}
    write_table(pa.table(whole).cast(MANIFEST), root / "data" / "ingest" / "manifest.parquet")
    fine = miwake("decisions", "check", cwd=root)
    assert (fine.returncode, fine.stderr) == (0, "")
    write(root / "data" / "decisions" / "drop.csv", ("image_id", "reason"), [(ids[0], "x"), ("0" * 12, "gone")])
    write(root / "data" / "decisions" / "keep.csv", ("image_id", "other_id", "reason"), [(ids[0], "", "right")])
    found = miwake("decisions", "check", "--json", cwd=root)
    assert found.returncode == 1
    gone, both = json.loads(found.stdout)["problems"]
    assert "without a picture in the data set" in gone
    assert both.startswith(f"keep.csv:2 {ids[0][:12]} has no effect, for drop.csv leaves the picture out")
    write(root / "data" / "decisions" / "drop.csv", ("image_id", "reason"), [])
    write(root / "data" / "decisions" / "relabel.csv", ("image_id", "label", "reason"), [(ids[0], "Jaguor", "")])
    wrong = miwake("decisions", "check", cwd=root)
    assert wrong.returncode == 1
    assert "Jaguar" in wrong.stderr


def test_without_a_run_there_is_nothing_to_review(tmp_path: Path) -> None:
    put(tmp_path / "params.yaml", b"ingest:\n  sources:\n  - kind: sample\n")
    found = miwake("review", "--no-browser", cwd=tmp_path)
    assert found.returncode == 1
    assert "so there is nothing to review: run `miwake run` first" in found.stderr


# the page ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = next((p for p in map(Path, ("/usr/bin/chromium", "/usr/bin/google-chrome")) if p.exists()), None)
    if chromium is None:
        pytest.skip("no Chromium here")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=str(chromium), args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@contextlib.contextmanager
def opened(browser: Any, served: Served, **settings: Any) -> Iterator[Any]:
    """The page, which must neither complain nor ask another host."""
    complaints: list[str] = []
    context = browser.new_context(**settings)
    tab = context.new_page()
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: complaints.append(dialog.message))
    tab.on("request", lambda asked: complaints.append(asked.url) if not asked.url.startswith(served.address) else None)
    tab.goto(f"{served.address}/?token={served.review.token}")
    tab.wait_for_selector("figure img")
    yield tab
    context.close()
    assert complaints == []


def waits_for(tab: Any, text: str) -> None:
    tab.wait_for_function("text => document.body.innerText.includes(text)", arg=text, timeout=20_000)


@pytest.mark.browser
def test_a_person_decides_by_keyboard_crops_by_dragging_and_takes_back(browser: Any, served: Served) -> None:
    short = [one[:12] for one in served.ids]
    with opened(browser, served, viewport={"width": 1280, "height": 800}) as tab:
        assert tab.title() == "Review · A <b>title</b>"
        waits_for(tab, "makes the model look better than it is")
        tab.keyboard.press("r")
        waits_for(tab, "1 of 6 decided")
        tab.keyboard.press("s")
        waits_for(tab, "2 of 6 decided")
        tab.keyboard.press("d")
        waits_for(tab, "3 of 6 decided")
        assert [row["image_id"] for row in served.decisions("drop")] == [short[2]]
        tab.keyboard.press("u")
        waits_for(tab, "2 of 6 decided")
        assert served.decisions("drop") == []
        tab.keyboard.press("l")
        tab.keyboard.type("Jaguar")
        tab.keyboard.press("Enter")
        waits_for(tab, "3 of 6 decided")
        tab.keyboard.press("c")
        box = tab.locator("figure img").bounding_box()
        tab.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.25 * box["height"])
        tab.mouse.down()
        tab.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.5 * box["height"], steps=3)
        tab.mouse.up()
        waits_for(tab, "4 of 6 decided")
        sides = [float(row) for row in list(served.decisions("crop")[0].values())[1:5]]
        assert sides == pytest.approx([0.25, 0.25, 0.75, 0.5], abs=0.02)
        tab.reload()
        waits_for(tab, "4 of 6 decided")
        tab.get_by_role("button", name="Under two labels").click()
        waits_for(tab, f"Both are {LABELS[1]}")
        tab.keyboard.press("2")
        waits_for(tab, "That was the last.")
    assert {(row["image_id"], row["label"]) for row in served.decisions("relabel")} == {
        (short[0], LABELS[1]), (short[1], LABELS[2]), (short[2], "Jaguar")
    }  # fmt: skip


@pytest.mark.browser
def test_two_windows_see_each_other(browser: Any, served: Served) -> None:
    with opened(browser, served) as one, opened(browser, served) as other:
        one.keyboard.press("r")
        waits_for(one, "1 of 6 decided")
        waits_for(other, "1 of 6 decided")


@pytest.mark.browser
def test_the_page_is_accessible_and_fits_a_telephone(browser: Any, served: Served) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed")
    for width, scheme in ((390, "light"), (1280, "dark")):
        size = {"width": width, "height": 844}
        # axe is a script, which the page's own policy refuses
        with opened(browser, served, viewport=size, color_scheme=scheme, bypass_csp=True) as tab:
            waits_for(tab, "0 of 6 decided")
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            found = axe.Axe().run(tab).response["violations"]
            assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
