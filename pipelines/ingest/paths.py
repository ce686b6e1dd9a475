"""Paths that data names (archives, tables, lists): made plain, or refused, before anything is opened; and the names
of what systems leave beside people's files."""

import os
import re
import stat
import time
from pathlib import Path
from typing import NamedTuple

from pipelines.core.errors import ImageError
from pipelines.ingest.listing import RACY_NANOSECONDS, UNKNOWN_STAMP

_DRIVE = re.compile(r"[A-Za-z]:")
# nearly every path there is: parts that start with no dot, one slash between them, no colon near the front
_PLAIN = re.compile(r"(?![A-Za-z]:)[^/\\\0.][^/\\\0]*(?:/[^/\\\0.][^/\\\0]*)*")

_LITTER = re.compile(
    r"\._.*|\.ds_store|__macosx|\.apple(double|db|desktop)|\.lsoverride|\.localized|icon\r|\.(spotlight|documentrevisions)-"
    r"v100|\.trashes|\.fseventsd|\.temporaryitems|temporary items|network trash folder|\.apdisk|\.volumeicon\.icns|"
    r"\.com\.apple\.timemachine\..*|\.pkinstallsandboxmanager.*|\.afpdeleted.*"  # macOS and its file servers
    r"|thumbs\.db(:encryptable)?|ehthumbs(_vista)?\.db|desktop\.ini|\$recycle\.bin|recycler|system volume information|"
    r".*:zone\.identifier|~\$.*"  # Windows and Office
    r"|lost\+found|\.directory|\.trash(-.*)?|\.thumbnails|\.xdg-volume-info|\.fuse_hidden.*|\.goutputstream-.*|"
    r"\.~lock\..*#|\.#.*|\..*\.sw[nop]"  # Linux, LibreOffice, editors
    r"|\.nfs[0-9a-f]{8,}|\.smbdelete.*|@eadir|@tmp|#recycle|@recycle|#snapshot|\.snapshots?|\.@__thumb"  # network storage
    r"|\.ipynb_checkpoints|__pycache__|\.idea|\.vscode|\.(git|svn|hg|bzr|dvc)|\.(git|dvc)ignore|\.gitattributes|"
    r"\.gitmodules|\.(git)?keep"  # notebooks and versioned folders
    r"|\.?picasa\.ini|\.picasaoriginals|zbthumbnail\.info|\.dropbox(\.attr|\.cache)?|\.stfolder.*|\.stversions|\.sync|"
    r"\.owncloudsync\.log",  # photo programs and synchronisers
    re.IGNORECASE | re.DOTALL,
)
"""After github/gitignore (Global, CC0) and what the makers of these systems document."""


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is what a system left there, not what a person put there."""
    return _LITTER.fullmatch(name) is not None


def inner_path(name: str) -> str:
    """The one form of a path that stays below the folder it starts from: no empty parts, no `.`.

    Raises:
        ImageError: `unsafe-path`: absolute, with a drive letter, a backslash, a NUL or a `..`, or nothing at all.
    """
    if _PLAIN.fullmatch(name):
        return name
    rule = _broken_rule(name)
    if rule:
        raise ImageError("unsafe-path", rule)
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _broken_rule(name: str) -> str | None:
    if "\0" in name:
        return "the path holds a NUL"
    if "\\" in name:
        return "the path holds a backslash, which leads elsewhere on other systems; use /"
    if name.startswith("/"):
        return "the path is absolute"
    if _DRIVE.match(name):
        return "the path starts with a drive letter"
    parts = name.split("/")
    if ".." in parts:
        return "the path holds .., which leads out of a folder"
    return None if any(part not in ("", ".") for part in parts) else "the path names no file"


class FileStamp(NamedTuple):
    """With the path, it tells whether a file is the one of an earlier run."""

    size: int
    """bytes; UNKNOWN_STAMP for a file that changed a moment ago"""
    changed: int
    """ns"""
    inode: int


class Files:
    """The files below `root`, without links on the way; each folder is looked at once."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._starts = tuple(sorted({f"{root.absolute()}/", f"{root.resolve()}/"}))
        self._folders: dict[str, ImageError | None] = {"": None}
        self._trusted_before = time.time_ns() - RACY_NANOSECONDS

    def find(self, name: str) -> tuple[str, FileStamp]:
        """The one form of a path as data names it, and the file's stamp.

        Raises:
            ImageError: `unsafe-path`, `missing-file`, `symlink`, `not-a-file` or `unreadable`.
        """
        path = self._inner(name)
        folder = path.rpartition("/")[0]
        problem = self._folders[folder] if folder in self._folders else self._look_at(folder)
        if problem:
            raise problem
        found = self._status(path)
        if not stat.S_ISREG(found.st_mode):
            raise _unlike(found.st_mode, "")
        size = found.st_size if found.st_mtime_ns < self._trusted_before else UNKNOWN_STAMP
        return path, FileStamp(size, found.st_mtime_ns, found.st_ino)

    def _inner(self, name: str) -> str:
        if name.startswith("/"):
            start = next((start for start in self._starts if name.startswith(start)), "")
            name = name[len(start) :]
        if "\\" in name:
            # tables made on Windows; a file whose own name holds one is rarer, but may be meant
            plain = inner_path(name.replace("\\", "/"))
            literal = "/".join(part for part in name.split("/") if part not in ("", "."))
            return literal if os.path.lexists(f"{self._root}/{literal}") else plain
        return inner_path(name)

    def _look_at(self, folder: str) -> ImageError | None:
        """What is wrong with a folder; None if nothing is."""
        above = folder.rpartition("/")[0]
        problem = self._folders[above] if above in self._folders else self._look_at(above)
        if problem is None:
            try:
                mode = self._status(folder).st_mode
                problem = None if stat.S_ISDIR(mode) else _unlike(mode, f"its folder {folder} is ")
            except ImageError as error:
                problem = error
        self._folders[folder] = problem
        return problem

    def _status(self, path: str) -> os.stat_result:
        try:
            return os.lstat(f"{self._root}/{path}")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ImageError("missing-file", f"there is no {path} below root") from error
        except OSError as error:
            raise ImageError("unreadable", os.strerror(error.errno or 0)) from error
        except ValueError as error:
            raise ImageError("missing-file", "no file can have this name") from error


def _unlike(mode: int, what: str) -> ImageError:
    if stat.S_ISLNK(mode):
        return ImageError("symlink", f"{what}a symbolic link; name the file that it leads to")
    return ImageError("not-a-file", f"{what}no {'folder' if what else 'regular file'}")
