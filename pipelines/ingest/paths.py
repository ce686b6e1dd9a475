"""Resolves paths that come from data (archives, tables, lists) safely, before anything is opened; knows the names of
files that systems leave behind (litter)."""

import os
import re
import stat
import time
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from pipelines.core.errors import ImageError
from pipelines.ingest.labels import printable
from pipelines.ingest.listing import RACY_NANOSECONDS, UNKNOWN_STAMP

if TYPE_CHECKING:  # see pipelines.ingest.folder
    from pipelines.params.sources import Symlinks

_DRIVE = re.compile(r"[A-Za-z]:")
# nearly every path there is: parts that start with no dot, one slash between them, no colon near the front
_PLAIN = re.compile(r"(?![A-Za-z]:)[^/\\\0.][^/\\\0]*(?:/[^/\\\0.][^/\\\0]*)*")

FOLLOW = "set symlinks: follow, or follow_anywhere for links out of the folder (into a cache of DVC or git-annex)"
FETCH = "; if a cache should hold it: `dvc pull`, `git annex get`"
LEADS_OUT = "a symbolic link that leads out of the source's folder; set symlinks: follow_anywhere to read it"

_LITTER_NAMES = (
    # macOS and its file servers
    ".ds_store __macosx .appledouble .appledb .appledesktop .lsoverride .localized .spotlight-v100 .trashes .fseventsd "
    ".documentrevisions-v100 .temporaryitems .apdisk .volumeicon.icns "
    # Windows; Linux; network storage
    "thumbs.db ehthumbs.db ehthumbs_vista.db desktop.ini $recycle.bin recycler "
    "lost+found .directory .trash .thumbnails .xdg-volume-info "
    "@eadir @tmp #recycle @recycle #snapshot .snapshot .snapshots .@__thumb "
    # notebooks, editors, versioned folders; photo programs and synchronisers
    ".ipynb_checkpoints __pycache__ .idea .vscode .git .svn .hg .bzr .dvc .gitignore .dvcignore .gitattributes "
    ".gitmodules .gitkeep .keep "
    ".picasa.ini picasa.ini .picasaoriginals zbthumbnail.info .dropbox .dropbox.attr .dropbox.cache .stversions .sync "
    ".owncloudsync.log"
)
_LITTER = frozenset(_LITTER_NAMES.split()) | {
    "icon\r",
    "temporary items",
    "network trash folder",
    "system volume information",
    "thumbs.db:encryptable",
}
_LITTER_LIKE = re.compile(
    r"\._.*|\.com\.apple\.timemachine\..*|\.pkinstallsandboxmanager.*|\.afpdeleted.*|~\$.*|\.trash-.*|\.fuse_hidden.*|"
    r"\.goutputstream-.*|\.~lock\..*#|\.#.*|\..*\.sw[nop]|\.nfs[0-9a-f]{8,}|\.smbdelete.*|\.stfolder.*",
    re.IGNORECASE | re.DOTALL,
)
"""After github/gitignore (Global, CC0) and what the makers of these systems document."""


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name was left by a system, such as .DS_Store."""
    lower = name.lower()
    if lower in _LITTER or lower.endswith(":zone.identifier"):
        return True
    # few names begin so, and the set is ten times as fast
    return lower[:1] in (".", "~") and _LITTER_LIKE.fullmatch(name) is not None


def inner_path(name: str) -> str:
    """Normalise a relative path that stays below its folder: no empty parts, no `.`.

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


_Names = dict[str, str]
"""looks: names, with / between them: lists would double the memory of a folder of a million files"""
_MOST_MEANT = 3
_MOST_NAMES = 1_000_000


class FileStamp(NamedTuple):
    """A file with the path and stamp of an earlier run has the same bytes."""

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
        encoding: in which names of files may be, where they are not UTF-8.
    """

    def __init__(self, root: Path, symlinks: "Symlinks" = "skip", encoding: str = "utf-8") -> None:
        self._encoding = encoding
        self._names: dict[str, tuple[_Names, _Names]] = {}
        self._everywhere: dict[str, list[str]] | None = None
        self.others: list[tuple[str, str]] = []
        """paths as data names them, and those that were found instead"""
        self._root = str(root)
        self._real_root = os.path.realpath(root)
        self._symlinks = symlinks
        self._starts = tuple(sorted({f"{root.absolute()}/", f"{root.resolve()}/"}))
        self._folders: dict[str, ImageError | None] = {"": None}
        self._trusted_before = time.time_ns() - RACY_NANOSECONDS

    def find(self, name: str) -> tuple[str, FileStamp]:
        """The one form of a path as data names it, and the file's stamp.

        Where there is no such file, but one alone whose path differs in letter case, Unicode form, spaces or %-escapes,
        or is the name with a suffix, it is that one. Others that may be meant are named.

        Raises:
            ImageError: `unsafe-path`, `missing-file`, `symlink`, `symlink-outside`, `broken-link`, `not-a-file` or
                `unreadable`.
        """
        try:
            return self._exact(name)
        except ImageError as error:
            if error.reason not in ("missing-file", "unsafe-path"):
                raise
            alike = self._alike(name) if error.reason == "missing-file" else []
            if len(alike) != 1:
                raise ImageError(error.reason, error.detail + self._hint(name, alike)) from error
        self.others.append((name, alike[0]))
        return self._exact(alike[0])

    def _alike(self, name: str) -> list[str]:
        """Paths that equal `name` but for case, Unicode form, spaces or escapes; if none does, those with a suffix."""
        names = {self._inner(name), *(self._inner(other) for other in [unquote(name)] if _PLAIN.fullmatch(other))}
        if self._encoding != "utf-8":
            names |= _bytes_of(self._inner(name), self._encoding)
        for table in (0, 1):
            found: set[str] = set()
            for one in names:
                *folders, last = one.split("/")
                above = [""]
                for part in folders:
                    above = [f"{path}{own}/" for path in above for own in _all(self._in(path)[0], part)]
                found |= {path + own for path in above for own in _all(self._in(path)[table], last)}
            if found:
                return sorted(found)
        return []

    def _in(self, folder: str) -> "tuple[_Names, _Names]":
        """The names in a folder ("" or "a/"): by normalised name, and by normalised name without suffix."""
        if folder not in self._names:
            whole, stems = self._names.setdefault(folder, ({}, {}))
            try:
                names = os.listdir(f"{self._root}/{folder}")  # noqa: PTH208 - only names are wanted
            except OSError:
                names = []
            for own in names:
                for table, look in ((whole, _look(own)), (stems, _look(own.rpartition(".")[0]))):
                    table[look] = f"{table[look]}/{own}" if look in table else own
        return self._names[folder]

    def _hint(self, name: str, alike: list[str]) -> str:
        """Suggest what a path that finds no file may mean; ends the message."""
        if not alike:
            plain = name.replace("\\", "/").lstrip("/")
            if ".." not in plain.split("/") and os.path.lexists(f"{self._root}/../{plain}"):
                return ", but below the folder above it: name that one as root"
            alike = self._anywhere(plain.rpartition("/")[2])
        meant = " or ".join(map(printable, alike[:_MOST_MEANT])) + (" or …" if len(alike) > _MOST_MEANT else "")
        return f"; {meant} may be meant: correct the path or root" if alike else ""

    def _anywhere(self, last: str) -> list[str]:
        """Files in any folder below root whose normalised name, with or without suffix, is that of `last`."""
        if self._everywhere is None:
            self._everywhere, number = {}, 0
            for folder, _, names in os.walk(self._root):
                number += len(names)
                for own in names if number <= _MOST_NAMES else ():
                    path = f"{folder}/{own}"[len(self._root) + 1 :]
                    for look in {_look(own), _stem(own)}:
                        known = self._everywhere.setdefault(look, [])
                        if len(known) <= _MOST_MEANT:
                            known.append(path)
        return sorted(self._everywhere.get(_look(last)) or self._everywhere.get(_stem(last), []))

    def _exact(self, name: str) -> tuple[str, FileStamp]:
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


def _look(name: str) -> str:
    """What is equal in names that look equal: no letter case, Unicode form, width or doubled space."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _all(names: _Names, name: str) -> list[str]:
    """Those that look like `name`."""
    found = names.get(_look(name))
    return [] if found is None else found.split("/")


def _stem(name: str) -> str:
    """The same of a name without its suffix, and without the zeros that spreadsheets drop."""
    return _look(name.rpartition(".")[0] or name).lstrip("0")


def _bytes_of(name: str, encoding: str) -> set[str]:
    """The name as a file has it that was named in that encoding."""
    try:
        return {name.encode(encoding).decode("utf-8", "surrogateescape")}
    except UnicodeError:
        return set()


def _unlike(mode: int, what: str) -> ImageError:
    if stat.S_ISLNK(mode):
        return ImageError("symlink", f"{what}a symbolic link; {FOLLOW}")
    return ImageError("not-a-file", f"{what}no {'folder' if what else 'regular file'}")
