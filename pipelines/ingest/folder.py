"""The folder source: a folder with a folder for each class.

Every file below the folder becomes a row of the manifest or a reject with a reason. A folder that is not entered is
one reject, and so is a class folder without any file (`empty-folder`). Formats are identified by content, not suffix.

- label_from first_folder: all below `cats/` is `cats`, however deep; last_folder: the folder a file lies in;
  whole_path: the folders joined by `/`. A file that lies in no class folder is rejected as `no-label`.
- subset_from first_folder: `train/cats/` is `cats` of the subset train; all the above then counts below `train/`. A
  file in a first folder of another name is rejected as `bad-subset`.
- symlinks skip: each is a reject. follow: a link to a file or folder *inside* the source is read under the link's own
  path; one that leads out, nowhere or back to a folder above it is a reject, and so is a link met below a followed
  folder (links that multiply would never end). follow_anywhere: links that lead out are read too, and links to files
  below a followed folder.
- hidden skip: names that start with a dot are rejects.
- What systems, file managers and network storage leave in folders (`is_litter`) is skipped, and counted apart.

A file's stamp is its size, modification time and inode. One modified less than two seconds before the listing has
none: it may change again without its time telling, because some file systems count in steps of two seconds.
"""

import errno
import os
import stat
import time
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.core.errors import ImageError, InputError
from pipelines.ingest.file_reader import KINDS, FolderReader, unreadable
from pipelines.ingest.labels import folder_label, given_subset, printable, refuse_subset_labels, shown_label
from pipelines.ingest.listing import RACY_NANOSECONDS, UNKNOWN_STAMP, Listing, Origin, Reject
from pipelines.ingest.paths import FETCH, FOLLOW, LEADS_OUT, is_litter
from pipelines.params.base import path_below
from pipelines.params.sources import FolderSource

_INT64 = (1 << 63) - 1


def list_folder(params: FolderSource, *, source: str, root: Path, max_file_bytes: int) -> Listing:
    """List the files of a folder source.

    Args:
        params: the entry of ingest.sources.
        source: its name in manifest and rejects: "0-folder".
        root: where a relative path starts: the folder of params.yaml.
        max_file_bytes: of ingest; kept by the reader.

    Raises:
        InputError: the folder does not exist, is no folder, cannot be read, or holds nothing.
    """
    folder = path_below(root, params.path)
    where = f"ingest.sources[{source.split('-')[0]}].path: {params.path}"
    if not folder.exists():
        raise InputError(f"{where} does not exist; correct it (a relative path starts at the folder of params.yaml)")
    if not folder.is_dir():
        raise InputError(f"{where} is a file; name the folder that holds a folder for each class")
    try:
        with os.scandir(folder):
            pass
    except OSError as error:
        raise InputError(f"{where} cannot be read ({os.strerror(error.errno or 0)}); change its permissions") from error
    trusted_before = time.time_ns() - RACY_NANOSECONDS
    walk = _Walk(params, str(folder), os.path.realpath(folder), source)
    walk.todo.append(_Folder("", "", (), False))
    while walk.todo:
        walk.enter(walk.todo.pop())
    if not walk.paths and not walk.rejects:
        raise InputError(f"{where} is empty; put a folder of pictures for each class into it")
    if params.subset_from is None:
        refuse_subset_labels(walk.labels, where, f"set subset_from: first_folder in {where.partition('.path')[0]}")
    walk.reject_empty_classes()
    order = sorted(range(len(walk.paths)), key=walk.paths.__getitem__)
    stamps = np.array(walk.stamps, np.int64).reshape(-1, 3)[np.array(order, np.int64)]  # (N, 3)
    stamps[stamps[:, 1] >= trusted_before] = UNKNOWN_STAMP
    return Listing(
        source=source,
        paths=list(map(walk.paths.__getitem__, order)),
        labels=list(map(walk.labels.__getitem__, order)),
        read=FolderReader(str(folder), max_file_bytes, params.symlinks != "skip"),
        rejects=sorted(walk.rejects, key=lambda reject: reject.source_path),
        origins=None if params.subset_from is None else subset_origins(walk.paths[place] for place in order),
        stamps=stamps,
        num_litter=len(walk.litter),
    )


def subset_origins(paths: Iterable[str]) -> list[Origin]:
    """Of each path, whose first folder names a subset."""
    known: dict[str, Origin] = {}  # one object for all pictures of a subset
    firsts = (path.split("/", 1)[0] for path in paths)
    return [known.get(one) or known.setdefault(one, Origin(given_subset=given_subset(one, ""))) for one in firsts]


class _Folder(NamedTuple):
    """A folder to be entered."""

    path: str
    """below the source, with / at its end; "" for the source itself"""
    label: str
    """of the folder above; "" where there is none"""
    above: tuple[tuple[int, int], ...]
    """device and inode of every folder above"""
    linked: bool
    """whether a symbolic link was followed on the way"""


@dataclass(frozen=True)
class _Walk:
    """The state of one walk: files and rejects found, and folders still to be entered."""

    params: FolderSource
    folder: str
    real_folder: str
    source: str
    paths: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    stamps: "array[int]" = field(default_factory=lambda: array("q"))
    """three for each path: size, modification time (ns), inode"""
    rejects: list[Reject] = field(default_factory=list)
    litter: list[str] = field(default_factory=list)
    """files and folders that were passed by"""
    todo: list[_Folder] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    """folders below the source without anything that counts in them"""

    def reject_empty_classes(self) -> None:
        """A reject for each class of which there is nothing but empty folders; one in a class's folder makes none."""
        known = {*self.labels, *(reject.label for reject in self.rejects)}
        for path in sorted(self.empty):
            label, above = self.own_label(path), self.own_label(path.rstrip("/").rpartition("/")[0])
            if label and not known & ({label, above} - {""}):
                known.add(label)
                self.reject(path, label, "empty-folder", "the class folder holds no file")

    def enter(self, folder: _Folder) -> None:
        """Sort everything in one folder into files, rejects and folders to enter."""
        path, label, above, linked = folder
        try:
            descriptor = os.open(f"{self.folder}/{path}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            self.reject(path, self.own_label(path) or label, "unreadable", unreadable(error).detail)
            return
        try:  # what lies in an open folder is found a quarter faster than by its path from the root
            found = os.fstat(descriptor)
            with os.scandir(descriptor) as entries:
                found_here = list(entries)
        except OSError as error:
            self.reject(path, self.own_label(path) or label, "unreadable", unreadable(error).detail)
        else:
            identity = (found.st_dev, found.st_ino)
            if identity in above:
                self.reject(path, label, "directory-loop", "leads back to a folder above it")
            else:
                self.sort(found_here, _Folder(path, label, (*above, identity), linked))
        finally:
            os.close(descriptor)

    def sort(self, found_here: list[os.DirEntry[str]], folder: _Folder) -> None:
        """Take, follow or reject everything in a folder that is open; folders in it are entered later."""
        path, label, above, linked = folder
        problem = None
        if path:
            try:
                label = self.label(path)
            except ImageError as error:
                label, problem = self.own_label(path), error
        found_before = len(self.paths) + len(self.rejects) + len(self.todo)
        skips_hidden = self.params.hidden == "skip"
        is_usual = label and problem is None
        for entry in found_here:
            child = path + entry.name
            if is_litter(entry.name):
                self.litter.append(child)
            elif is_usual and not (skips_hidden and entry.name[0] == ".") and entry.is_file(follow_symlinks=False):
                self.add(entry, child, label, None)
            elif entry.name.startswith(".") and self.params.hidden == "skip":
                what = "folder; nothing in it was read" if entry.is_dir(follow_symlinks=False) else "file"
                self.reject(child, label, "hidden", f"a hidden {what}")
            elif entry.is_symlink():
                self.follow(entry, child, label, above, problem, linked=linked)
            elif entry.is_dir(follow_symlinks=False):
                self.todo.append(_Folder(child + "/", label, above, linked))
            elif entry.is_file(follow_symlinks=False):
                self.add(entry, child, label, problem)
            else:
                kind = stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
                self.reject(child, label, "not-a-file", KINDS.get(kind, "no regular file"))
        if path and len(self.paths) + len(self.rejects) + len(self.todo) == found_before:
            self.empty.append(path)

    def follow(
        self,
        entry: os.DirEntry[str],
        path: str,
        label: str,
        above: tuple[tuple[int, int], ...],
        problem: ImageError | None,
        *,
        linked: bool,
    ) -> None:
        """Follow the symbolic link at `path`, or reject it."""
        own = self.linked_label(path) or label
        if self.params.symlinks == "skip":
            self.reject(path, own, "symlink", f"a symbolic link; {FOLLOW}")
            return
        anywhere = self.params.symlinks == "follow_anywhere"
        if linked and not (anywhere and not entry.is_dir()):
            self.reject(path, own, "symlink", "a symbolic link below a followed one")
            return
        try:
            target = os.path.realpath(f"{self.folder}/{path}", strict=True)
            is_folder = entry.is_dir()
            is_file = entry.is_file()
        except OSError as error:
            reason = "directory-loop" if error.errno == errno.ELOOP else "broken-link"
            fetch = FETCH if reason == "broken-link" else ""
            self.reject(path, own, reason, os.strerror(error.errno or 0) + fetch)
            return
        if not anywhere and os.path.commonpath([target, self.real_folder]) != self.real_folder:
            self.reject(path, own, "symlink-outside", LEADS_OUT)
        elif is_folder:
            self.todo.append(_Folder(path + "/", label, above, True))
        elif is_file:
            self.add(entry, path, label, problem)
        else:
            self.reject(path, label, "not-a-file", "a symbolic link to no regular file")

    def linked_label(self, path: str) -> str:
        """The class that is missing when the link at `path` is not followed: that of a folder that lies elsewhere.

        "" for a link to a file, and for one into the source, which has its files anyway. A link that leads nowhere is
        taken for a folder's if its name has no suffix.
        """
        target = os.path.realpath(f"{self.folder}/{path}")
        if os.path.commonpath([target, self.real_folder]) == self.real_folder and os.path.lexists(target):
            return ""
        is_folder = os.path.isdir(target) or not (os.path.exists(target) or Path(path).suffix)  # noqa: PTH110, PTH112
        return self.own_label(path + "/") if is_folder else ""

    def add(self, entry: os.DirEntry[str], path: str, label: str, problem: ImageError | None) -> None:
        if problem is not None:
            self.reject(path, label, problem.reason, problem.detail)
        elif not label:
            self.reject(path, label, "no-label", "lies in no class folder; move it into one")
        else:
            try:
                found = entry.stat(follow_symlinks=self.params.symlinks != "skip")
            except OSError:  # gone since it was listed: reading it will say so
                self.stamps.extend((UNKNOWN_STAMP, 0, 0))
            else:
                self.stamps.extend((found.st_size, found.st_mtime_ns & _INT64, found.st_ino & _INT64))
            self.paths.append(path)
            self.labels.append(label)

    def reject(self, path: str, label: str, reason: str, detail: str) -> None:
        self.rejects.append(Reject(self.source, printable(path.rstrip("/")), label, reason, detail))

    def own_label(self, path: str) -> str:
        """The label of files in the folder `path`, as far as it can be told: "" for the source itself."""
        return shown_label(path.rstrip("/"), self.params.label_from, self.params.subset_from)

    def label(self, path: str) -> str:
        """The label of the files directly in the folder `path` ("a/b/"); "" for one that is a whole subset."""
        return folder_label(path.rstrip("/"), self.params.label_from, self.params.subset_from)
