"""Folders, archives and tables as people have them: with what systems leave there, by subset, full of links."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archives import settings as archive
from archives import tar_bytes, zip_bytes
from test_ingest import Result, params, picture, put, run
from test_table import settings as table

from pipelines.core.errors import InputError
from pipelines.ingest.paths import is_litter

LITTER = [
    "._0.jpg", ".DS_Store", "__MACOSX", "Icon\r", ".AppleDouble", ".Spotlight-V100", ".Trashes", ".fseventsd",
    ".TemporaryItems", ".apdisk", "Thumbs.db", "thumbs.db", "ehthumbs.db", "Desktop.ini", "$RECYCLE.BIN",
    "System Volume Information", "0.jpg:Zone.Identifier", "~$list.xlsx", ".~lock.list.ods#", "lost+found", ".directory",
    ".Trash-1000", ".nfs000000000ab4c2f100000001", "@eaDir", "#recycle", ".@__thumb", ".ipynb_checkpoints", ".git",
    ".gitkeep", ".gitignore", ".picasa.ini", ".dropbox", ".stfolder", ".0.jpg.swp",
]  # fmt: skip


@pytest.mark.parametrize("name", LITTER)
def test_what_systems_leave_is_litter(name: str) -> None:
    assert is_litter(name)


@pytest.mark.parametrize(
    "name",
    ["thumbs.jpg", "icon", "_.jpg", ".hidden.jpg", "desktop", "trash", "recycle", ".nfs", "@home", "git", "~.jpg"],
)
def test_what_people_may_have_named_so_is_not(name: str) -> None:
    assert not is_litter(name)


@pytest.mark.parametrize("hidden", ["skip", "read"])
def test_litter_is_no_reject_no_class_and_counted_apart(tmp_path: Path, hidden: str) -> None:
    put(tmp_path / "pictures/cat/0.jpg", picture(0))
    for place, name in enumerate(LITTER):
        put(tmp_path / "pictures" / ("cat" if place % 2 else "dog") / name, picture(place + 1))
        put(tmp_path / "pictures" / name / "in it/x.jpg", picture(place + 99))
    result = run(tmp_path, params(hidden=hidden))
    assert result.labels == ["cat"]
    # a class folder that holds nothing but litter is an empty class; litter itself is none
    assert result.reasons == {"dog": "empty-folder"}
    assert str(result.artifact) == (
        f"1 of 2 files accepted (1 rejected), 1 class, 1 shard, {2 * len(LITTER)} litter files skipped"
    )


SUBSETS = {
    "train/cat/0.jpg": "train", "train/dog/old/1.jpg": "train", "Training/cat/2.jpg": "train", "VAL/cat/3.jpg": "val",
    "valid/cat/4.jpg": "val", "validation/cat/5.jpg": "val", "dev/cat/6.jpg": "val", "test/cat/7.jpg": "test",
    "Testing/dog/8.jpg": "test",
}  # fmt: skip
OTHERS = {"extra/cat/9.jpg": "bad-subset", "train/10.jpg": "no-label", "11.jpg": "no-label"}


def by_subset(**changes: Any) -> dict[str, Any]:
    """A folder source by subset."""
    source = {"kind": "folder", "path": "pictures", "label_from": "last_folder", "symlinks": "skip", "hidden": "skip"}
    return source | {"subset_from": "first_folder"} | changes


def given(result: Result) -> dict[str, str]:
    return {row["source_path"]: row["given_subset"] for row in result.rows}


def test_first_folders_are_subsets_when_asked_for(tmp_path: Path) -> None:
    for number, name in enumerate([*SUBSETS, *OTHERS]):
        put(tmp_path / "pictures" / name, picture(number))
    result = run(tmp_path, params(sources=[by_subset()]))
    assert given(result) == SUBSETS
    assert result.reasons == OTHERS
    assert result.labels == ["cat", "dog", "old"]
    assert next(row["detail"] for row in result.rejects).startswith("lies in no class folder")
    for label_from, labels in (("first_folder", ["cat", "dog"]), ("whole_path", ["cat", "dog", "dog/old"])):
        other = params(sources=[by_subset(label_from=label_from)], snapshot=label_from)
        assert run(tmp_path, other, out=label_from).labels == labels
    with pytest.raises(InputError, match=r"hold others: 1 file has another label \(train/dog/old/1.jpg\)\. To read"):
        run(tmp_path, params(sources=[by_subset(label_from="first_folder")]))


@pytest.mark.parametrize("pack", [zip_bytes, tar_bytes])
@pytest.mark.parametrize("top", ["", "pets/", "./pets/"])
def test_so_they_are_in_archives_also_below_one_folder_for_all(
    tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes], top: str
) -> None:
    names = [*SUBSETS, "train/10.jpg"]
    put(tmp_path / "a", pack({f"{top}{name}": picture(number) for number, name in enumerate(names)}))
    result = run(tmp_path, archive("a", subset_from="first_folder", label_from="first_folder"))
    assert {name.removeprefix("pets/"): subset for name, subset in given(result).items()} == SUBSETS
    assert list(result.reasons.values()) == ["no-label"]
    assert result.labels == ["cat", "dog"]


@pytest.mark.parametrize("label_from", ["first_folder", "whole_path"])
def test_subsets_are_refused_as_classes(tmp_path: Path, label_from: str) -> None:
    files = {f"{subset}/cat/0.jpg": picture(number) for number, subset in enumerate(["Train", "valid", "test"])}
    for name, data in files.items():
        put(tmp_path / "pictures" / name, data)
    put(tmp_path / "a.zip", zip_bytes(files))
    put(tmp_path / "a.csv", b"image,label\nTrain/cat/0.jpg,Train\ntest/cat/0.jpg,test\n")
    wanted = (
        "gives the labels Train, test, valid, which are names of subsets and not of classes: set subset_from: first"
    )
    for own in (params(label_from=label_from), archive("a.zip", label_from=label_from)):
        with pytest.raises(InputError, match=wanted):
            run(tmp_path, own)
    with pytest.raises(InputError, match="gives the labels Train, test, which .*name the column as subset_column"):
        run(tmp_path, table())


def test_classes_may_be_trains_and_tests(tmp_path: Path) -> None:
    for number, name in enumerate(["train/0.jpg", "bus/1.jpg", "testing rig/2.jpg"]):
        put(tmp_path / "pictures" / name, picture(number))
    assert run(tmp_path).labels == ["bus", "testing rig", "train"]


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """Pictures in a cache, and links to them as DVC, git-annex and people make them."""
    for number in range(4):
        put(tmp_path / f"cache/{number}", picture(number))
    put(tmp_path / "pictures/cat/real.jpg", picture(9))
    for link, target in {
        "pictures/cat/0.jpg": "../../cache/0", "shelf/1.jpg": "../cache/1", "shelf/2.jpg": "../cache/2",
        "shelf/up": "../shelf", "pictures/dog": "../shelf", "pictures/cat/gone.jpg": "../../cache/absent",
    }.items():  # fmt: skip
        (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / link).symlink_to(target)
    return tmp_path


def test_links_anywhere_are_followed_when_asked_for(linked: Path) -> None:
    result = run(linked, params(symlinks="follow_anywhere"))
    assert {row["source_path"] for row in result.rows} == {"cat/0.jpg", "cat/real.jpg", "dog/1.jpg", "dog/2.jpg"}
    assert result.reasons == {"cat/gone.jpg": "broken-link", "dog/up": "symlink"}
    assert "`dvc pull`, `git annex get`" in result.rejects[0]["detail"]


@pytest.mark.parametrize("symlinks", ["skip", "follow"])
def test_a_link_that_is_not_followed_says_how_it_would_be(linked: Path, symlinks: str) -> None:
    result = run(linked, params(symlinks=symlinks))
    assert {row["source_path"] for row in result.rows} == {"cat/real.jpg"}
    assert all("follow_anywhere" in row["detail"] for row in result.rejects if row["source_path"] != "cat/gone.jpg")


def test_a_table_follows_links_as_far_as_it_is_asked(linked: Path) -> None:
    (linked / "pictures/inside.jpg").symlink_to("cat/real.jpg")
    put(linked / "a.csv", b"image,label\ncat/0.jpg,a\ndog/1.jpg,b\ninside.jpg,b\ncat/gone.jpg,b\ncat/real.jpg,a\n")
    every = ("skip", "follow", "follow_anywhere")
    found = {how: run(linked, table(symlinks=how).model_copy(update={"snapshot": how})) for how in every}
    assert {how: sorted(row["source_path"] for row in one.rows) for how, one in found.items()} == {
        "skip": ["cat/real.jpg"], "follow": ["cat/real.jpg", "inside.jpg"],
        "follow_anywhere": ["cat/0.jpg", "cat/real.jpg", "dog/1.jpg", "inside.jpg"],
    }  # fmt: skip
    assert found["follow"].reasons == {
        "cat/0.jpg": "symlink-outside", "dog/1.jpg": "symlink-outside", "cat/gone.jpg": "symlink-outside"
    }  # fmt: skip
    assert found["follow_anywhere"].reasons == {"cat/gone.jpg": "broken-link"}
    for how in ("skip", "follow"):
        assert all("follow_anywhere" in row["detail"] for row in found[how].rejects)


def test_a_table_says_whose_picture_it_is(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path / f"pictures/{number}.jpg", picture(number))
    put(tmp_path / "a.csv", "image,label,Patient Nr\n0.jpg,ill,P 1\n1.jpg,well,\n2.jpg,ill,Ä\n".encode())
    result = run(tmp_path, table(group_column="Patient Nr"))
    assert result.labels == ["ill", "well"]
    assert {row["source_path"]: row["given_groups"] for row in result.rows} == {
        "0.jpg": '{"Patient Nr": "P 1"}', "1.jpg": "", "2.jpg": '{"Patient Nr": "Ä"}',
    }  # fmt: skip
