"""Real pictures, each pair looked at: copies that shops and search engines left, and guitars that only look alike."""

import tarfile
from collections import Counter
from pathlib import Path

import pytest
from dedupe_inputs import File, run

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

# one photograph each: another size, another cut, saved again
COPIES = [
    ("fender_telecaster/000235", "fender_telecaster/000556"),
    ("gibson_Flying_V/000056", "gibson_Flying_V/000568"),
    ("gibson_firebird/000238", "gibson_firebird/000315"),
    ("gibson_Flying_V/000630", "gibson_Flying_V/000941"),
    ("fender_telecaster/000020", "fender_telecaster/001035"),
    ("fender_stratocaster/000681", "fender_stratocaster/000607"),
    ("gibson_Flying_V/000707", "gibson_Flying_V/000134"),
]
# one model in two finishes, or two guitars, in front of one camera
LOOK_ALIKES = [
    ("fender_stratocaster/000685", "fender_stratocaster/000891"),
    ("fender_stratocaster/000001", "fender_stratocaster/000685"),
    ("fender_jaguar/000729", "fender_jaguar/000537"),
    ("fender_telecaster/000611", "fender_telecaster/000657"),
    ("gibson_SG/000492", "gibson_SG/000639"),
]
# equal files under two models
CONFLICTS = [
    ("gibson_ES/000254", "gibson_les_paul/000504"),
    ("fender_mustang/000143", "fender_telecaster/000296"),
    ("gibson_ES/000599", "gibson_les_paul/000563"),
    ("gibson_ES/000579", "gibson_les_paul/000685"),
]


def members(archive: str, wanted: set[str] | None, top: str) -> list[File]:
    """Files of an archive below `top`: all of them, or those whose path without suffix is wanted."""
    if not (DATA / archive).exists():
        pytest.skip(f"shared/data/{archive} is absent")
    found = []
    with tarfile.open(DATA / archive) as tar:
        for member in tar:
            path = Path(member.name)
            if not member.isfile() or path.parts[: len(Path(top).parts)] != Path(top).parts:
                continue
            name = path.relative_to(top).with_suffix("").as_posix()
            if wanted is None or name in wanted:
                file = tar.extractfile(member)
                assert file is not None
                found.append(File(path.parent.name, path.relative_to(top).as_posix(), file.read()))
    return found


def test_guitars_copies_go_look_alikes_stay_and_two_labels_are_held(tmp_path: Path) -> None:
    wanted = {name for pairs in (COPIES, LOOK_ALIKES, CONFLICTS) for pair in pairs for name in pair}
    files = members("guitars.tar", wanted, "guitars")
    assert len(files) == len(wanted) == 31
    result = run(tmp_path, files)
    verdicts = result.verdicts()
    for one, other in COPIES:
        assert sorted((verdicts[f"{one}.jpg"], verdicts[f"{other}.jpg"])) == ["copy", "keep"], one
        assert result.rows[f"{one}.jpg"]["best_id"] == result.rows[f"{other}.jpg"]["best_id"]
    for one, other in LOOK_ALIKES:
        assert (verdicts[f"{one}.jpg"], verdicts[f"{other}.jpg"]) == ("keep", "keep"), one
    for one, other in CONFLICTS:
        assert (verdicts[f"{one}.jpg"], verdicts[f"{other}.jpg"]) == ("conflict", "conflict"), one
    assert max(Counter(row["group"] for row in result.rows.values()).values()) <= 4


def test_a_published_test_set_of_near_duplicates(tmp_path: Path) -> None:
    """imagededup's own pictures: a mirrored, a resized and a turned copy of one among ten."""
    files = [
        File("x", file.path, file.data) for file in members("stress.tar.gz", None, "stress/near-duplicates/base_images")
    ]
    mixed = members("stress.tar.gz", None, "stress/near-duplicates/mixed_images")
    files += [File("x", f"mixed/{file.path}", file.data) for file in mixed if "corrupt" not in file.path]
    result = run(tmp_path, files)
    groups: dict[str, set[str]] = {}
    for path, row in result.rows.items():
        groups.setdefault(row["group"], set()).add(path)
    assert {frozenset(group) for group in groups.values() if len(group) > 1} == {
        frozenset({"ukbench00120.jpg"} | {f"mixed/ukbench00120{change}.jpg" for change in ("", "_hflip", "_resize")}),
        frozenset({"ukbench09268.jpg", "mixed/ukbench09268.jpg"}),
    }
