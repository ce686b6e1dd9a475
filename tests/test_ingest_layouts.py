"""Folders, archives and tables as people have them: with what systems leave there, by subset, full of links."""

from pathlib import Path

import pytest
from test_ingest import params, picture, put, run

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
    assert not result.rejects
    assert str(result.artifact) == (
        f"1 images of 1 classes from 1 files (0 rejected), 1 shard, {2 * len(LITTER)} litter files skipped"
    )
