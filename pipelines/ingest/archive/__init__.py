"""The archive source: a zip or tar with a folder for each class inside; nothing is unpacked to files.

Every member that is no folder becomes a row of the manifest or a reject with a reason. The kind of archive is
identified by content, not suffix. Members are read in place; a compressed tar first becomes a plain one in the cache.

- `unsafe-path`: a name that is absolute or holds `..`, a drive letter or a backslash; `symlink`, `hard-link`,
  `not-a-file`, `encrypted`, `unsupported-compression`, `overlapping`, `sparse-file`, `hidden`, `too-large`.
- What systems leave in folders (`is_litter`: `__MACOSX`, `.DS_Store`, …) is skipped, and counted apart.
- `duplicate-name`: of members with one name the last counts, as it does for whoever unpacks the archive.
- `trailing-data`, `no-end`: bytes after the end of a tar, or none where its end mark belongs.
- Found on reading: `bad-crc`, `wrong-size` (a member never unpacks to more than its header says, so that max_bytes
  holds), `broken-compression`.
"""

import hashlib
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath

import numpy as np

from pipelines.core.errors import ImageError, InputError
from pipelines.ingest.archive.members import FOLDER, ArchiveMember, scan_tar, scan_zip
from pipelines.ingest.archive.reader import ArchiveReader, Stamp, file_stamp, kind_of, plain_tar, write_index
from pipelines.ingest.folder import subset_origins
from pipelines.ingest.labels import folder_label, is_subset, printable, refuse_subset_labels, shown_label
from pipelines.ingest.listing import RACY_NANOSECONDS, UNKNOWN_STAMP, Listing, Place, Reject
from pipelines.ingest.paths import inner_path, is_litter
from pipelines.params.base import path_below
from pipelines.params.sources import ArchiveSource


def list_archive(params: ArchiveSource, *, source: str, place: Place) -> Listing:
    """List the members of an archive source.

    Args:
        params: the entry of ingest.sources.
        source: its name in manifest and rejects: "0-archive".
        place: root, cache and limits.

    Raises:
        InputError: the archive is missing, empty, broken, cut short, or larger than its limits allow.
    """
    path = path_below(place.root, params.path)
    where = f"ingest.sources[{source.split('-')[0]}].path: {params.path}"
    folder = place.cache / "archives"
    try:
        stamp = _stamp(path, where)
        with path.open("rb") as file:
            kind = kind_of(file, where)
            plain = path
            if kind not in ("zip", "tar"):
                plain = plain_tar(path, kind, folder=folder, max_bytes=params.max_bytes, where=where)
            if kind == "zip":
                members = _within_limits(scan_zip(file, where), params, where)
            else:
                with plain.open("rb") as tar:
                    members = _within_limits(scan_tar(tar, where), params, where)
    except OSError as error:
        raise InputError(f"{where} cannot be read ({os.strerror(error.errno or 0)}); change its permissions") from error
    clean = [member for member in members if not any(map(is_litter, member.name.split("/")))]
    top = "" if params.subset_from is None else _top(clean)
    found, rejects = _sort_out(clean, params, source, place.params.max_file_bytes, top)
    if not found and not rejects:
        raise InputError(f"{where} holds no file; put a folder of pictures for each class into it")
    labels = [label for _, label in found.values()]
    if params.subset_from is None:
        refuse_subset_labels(labels, where, f"set subset_from: first_folder in {where.partition('.path')[0]}")
    paths = sorted(found)
    kept = [found[own][0] for own in paths]
    index, salt = write_index(folder, paths, kept)
    return Listing(
        source=source,
        paths=paths,
        labels=[found[own][1] for own in paths],
        read=ArchiveReader(str(plain), file_stamp(plain), str(index), salt, kind == "zip"),
        rejects=sorted(rejects, key=lambda reject: (reject.source_path, reject.detail)),
        origins=None if params.subset_from is None else subset_origins(own.removeprefix(top) for own in paths),
        stamps=_stamps(stamp, kept),
        num_litter=len(members) - len(clean),
    )


def _stamp(path: Path, where: str) -> Stamp:
    if not path.exists():
        raise InputError(f"{where} does not exist; correct it (a relative path starts at the folder of params.yaml)")
    if path.is_dir():
        raise InputError(f"{where} is a folder; name the archive, or use kind: folder")
    if not path.is_file():
        raise InputError(f"{where} is no regular file; name the archive")
    return file_stamp(path)


def _within_limits(members: Iterable[ArchiveMember], params: ArchiveSource, where: str) -> list[ArchiveMember]:
    """All members, unless they are more than the limits allow.

    Sizes are those of the headers: no member is ever unpacked to more than its own.
    """
    kept = []
    num_bytes = num_files = 0
    for member in members:
        kept.append(member)
        num_bytes += member.size
        if member.problem != FOLDER:
            num_files += 1
        if num_files > params.max_files:
            raise InputError(f"{where} holds more files than max_files: {params.max_files}; raise it to read them all")
        if num_bytes > params.max_bytes:
            raise InputError(
                f"{where} unpacks to more than max_bytes: {params.max_bytes}; raise it if the archive is what "
                "you think it is"
            )
    return kept


def _top(members: list[ArchiveMember]) -> str:
    """The folder that holds all the others, with / at its end; "" where there is none, or it is a subset's."""
    names = {member.name.removeprefix("./").split("/", 1)[0] for member in members}
    name = names.pop() if len(names) == 1 else ""
    return f"{name}/" if name and not is_subset(name) else ""


def _sort_out(
    members: list[ArchiveMember], params: ArchiveSource, source: str, max_file_bytes: int, top: str
) -> tuple[dict[str, tuple[ArchiveMember, str]], list[Reject]]:
    """Members to read, with their labels, by path; and rejects. `top` does not count in a label."""
    found: dict[str, tuple[ArchiveMember, str]] = {}
    rejects: list[Reject] = []
    labels: dict[str, str | ImageError] = {}
    for member in members:
        if member.problem == FOLDER:
            continue
        label = ""
        try:
            path = inner_path(member.name)
            folders, _, name = path.rpartition("/")
            if params.hidden == "skip" and _is_hidden(folders):
                raise ImageError("hidden", "in a hidden folder")
            known = labels.get(folders)
            if known is None:
                known = labels.setdefault(folders, _label(folders.removeprefix(top), params))
            label = known if isinstance(known, str) else _shown_label(folders, params, top)
            if params.hidden == "skip" and name.startswith("."):
                raise ImageError("hidden", "a hidden file")
            if member.problem:
                raise ImageError(*member.problem)
            if isinstance(known, ImageError):
                raise known
            if member.size > max_file_bytes:
                raise ImageError("too-large", f"{member.size} bytes; ingest.max_file_bytes is {max_file_bytes}")
        except ImageError as error:
            rejects.append(Reject(source, printable(member.name), label, error.reason, error.detail))
            continue
        earlier = found.pop(path, None)
        if earlier:
            detail = f"the member at byte {member.offset} has the same name and replaces it"
            rejects.append(Reject(source, printable(earlier[0].name), earlier[1], "duplicate-name", detail))
        found[path] = (member, label)
    return found, rejects + _empty_classes(members, found, rejects, params, source, top)


def _empty_classes(
    members: list[ArchiveMember],
    found: dict[str, tuple[ArchiveMember, str]],
    rejects: list[Reject],
    params: ArchiveSource,
    source: str,
    top: str,
) -> list[Reject]:
    """A reject for each class of which there is nothing but empty folders; one in a class's folder makes none."""
    folders = []
    for member in members:
        if member.problem == FOLDER:
            with suppress(ImageError):  # the archive's own root
                folders.append(inner_path(member.name))
    holding = {path.rpartition("/")[0] for path in (*found, *(one.source_path for one in rejects), *folders)}
    above = holding | {str(folder) for path in holding for folder in PurePosixPath(path).parents}
    known = {*(label for _, label in found.values()), *(one.label for one in rejects)}
    empty: dict[str, Reject] = {}
    for folder in sorted({*folders} - above):
        label = _shown_label(folder, params, top)
        inside = _shown_label(folder.rpartition("/")[0], params, top)
        if label and not known & ({label, inside} - {""}) and not (params.hidden == "skip" and _is_hidden(folder)):
            empty.setdefault(label, Reject(source, printable(folder), label, *FOLDER))
    return list(empty.values())


def _is_hidden(folders: str) -> bool:
    return folders.startswith(".") or "/." in folders


def _shown_label(folders: str, params: ArchiveSource, top: str) -> str:
    return shown_label(folders.removeprefix(top), params.label_from, params.subset_from)


def _label(folders: str, params: ArchiveSource) -> str | ImageError:
    try:
        label = folder_label(folders, params.label_from, params.subset_from) if folders else ""
        return label or ImageError("no-label", "lies in no class folder; move it into one")
    except ImageError as error:
        return error


def _stamps(archive: Stamp, members: list[ArchiveMember]) -> "np.ndarray[tuple[int, int], np.dtype[np.int64]]":
    """(N, 3): its size, a hash of the archive's size, time of change and inode, and where the member lies."""
    size, changed, inode = archive
    digest = hashlib.sha256(f"{size},{changed},{inode}".encode()).digest()
    stamps = np.empty((len(members), 3), np.int64)
    is_racy = changed >= time.time_ns() - RACY_NANOSECONDS
    stamps[:, 0] = UNKNOWN_STAMP if is_racy else [member.size for member in members]
    stamps[:, 1] = int.from_bytes(digest[:8], "little", signed=True)
    stamps[:, 2] = [member.offset for member in members]
    return stamps
