"""Paths that data names (archives, tables, lists): made plain, or refused, before anything is opened; and the names
of what systems leave beside people's files."""

import os
import re
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipelines.core.errors import ImageError
from pipelines.ingest.listing import RACY_NANOSECONDS, UNKNOWN_STAMP

if TYPE_CHECKING:  # see pipelines.ingest.folder
    from pipelines.core.params.sources import Symlinks

_DRIVE = re.compile(r"[A-Za-z]:")
# nearly every path there is: parts that start with no dot, one slash between them, no colon near the front
_PLAIN = re.compile(r"(?![A-Za-z]:)[^/\\\0.][^/\\\0]*(?:/[^/\\\0.][^/\\\0]*)*")

FOLLOW = "set symlinks: follow, or follow_anywhere for links out of the folder (into a cache of DVC or git-annex)"
FETCH = "; if a cache should hold it: `dvc pull`, `git annex get`"
LEADS_OUT = "a symbolic link that leads out of the source's folder; set symlinks: follow_anywhere to read it"

_LITTER = re.compile(
    r"\._.*|\.ds_store|__macosx|\.apple(double|db|desktop)|\.lsoverride|\.localized|icon\r|\.(spotlight|documentrevisions)-"
    r"v100|\.trashes|\.fseventsd|\.temporaryitems|temporary items|network trash folder|\.apdisk|\.volumeicon\.icns|"
    r"\.com\.apple\.timemachine\..*|\.pkinstallsandboxmanager.*|\.afpdeleted.*"  # macOS and its file servers
    r"|thumbs\.db(:encryptable)?|ehthumbs(_vista)?\.db|desktop\.ini|\$recycle\.bin|recycler|system volume information|"
    r".*:zone\.identifier|~\$.*"  # Windows and Office
    r"|lost\+found|\.directory|\.trash(-.*)?|\.thumbnails|\.xdg-volume-info|\.fuse_hidden.*|\.goutputstream-.*|"
    r"\.~lock\..*#|\.#.*|\..*\.sw[nop]"  # Linux, LibreOffice, editors
    r"|\.nfs[0-9a-f]{8,}|\.smbdelete.*|@eadir|@tmp|#recycle|@recycle|#snapshot|\.snapshots?|\.@__thumb"  # storage
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
    """The files below `root`; each folder is looked at once.

    Args:
        root: the folder.
        symlinks: of the source: what becomes of links on the way.
    """

    def __init__(self, root: Path, symlinks: "Symlinks" = "skip") -> None:
        self._root = str(root)
        self._real_root = os.path.realpath(root)
        self._symlinks = symlinks
        self._starts = tuple(sorted({f"{root.absolute()}/", f"{root.resolve()}/"}))
        self._folders: dict[str, ImageError | None] = {"": None}
        self._trusted_before = time.time_ns() - RACY_NANOSECONDS

    def find(self, name: str) -> tuple[str, FileStamp]:
        """The one form of a path as data names it, and the file's stamp.

        Raises:
            ImageError: `unsafe-path`, `missing-file`, `symlink`, `symlink-outside`, `broken-link`, `not-a-file` or
                `unreadable`.
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
        full = f"{self._root}/{path}"
        try:
            found = os.lstat(full)
            if self._symlinks == "skip" or not stat.S_ISLNK(found.st_mode):
                return found
            inside = os.path.commonpath([os.path.realpath(full), self._real_root]) == self._real_root
            if self._symlinks == "follow" and not inside:
                raise ImageError("symlink-outside", LEADS_OUT)
            try:
                return Path(full).stat()
            except OSError as error:
                raise ImageError("broken-link", os.strerror(error.errno or 0) + FETCH) from error
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ImageError("missing-file", f"there is no {path} below root") from error
        except OSError as error:
            raise ImageError("unreadable", os.strerror(error.errno or 0)) from error
        except ValueError as error:
            raise ImageError("missing-file", "no file can have this name") from error


def _unlike(mode: int, what: str) -> ImageError:
    if stat.S_ISLNK(mode):
        return ImageError("symlink", f"{what}a symbolic link; {FOLLOW}")
    return ImageError("not-a-file", f"{what}no {'folder' if what else 'regular file'}")
