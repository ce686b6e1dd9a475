"""Where members and students lie."""

from pathlib import Path

from pipelines.core.layout import Layout
from pipelines.core.params import load_params

ROOT = Path(__file__).parent.parent


def test_students_have_a_folder_of_their_own_and_come_last() -> None:
    train = load_params(ROOT / "params.yaml").train.model_copy(
        update={"members": ("teacher", "other"), "students": ("pupil",), "folds": (0, 2)}
    )
    layout = Layout(Path("root"))
    assert [(*key, path.as_posix()) for key, path in layout.members(train).items()] == [
        ("teacher", 0, "root/data/train/teacher-0"),
        ("teacher", 2, "root/data/train/teacher-2"),
        ("other", 0, "root/data/train/other-0"),
        ("other", 2, "root/data/train/other-2"),
        ("pupil", 0, "root/data/students/pupil-0"),
        ("pupil", 2, "root/data/students/pupil-2"),
    ]
    assert layout.member(train, "pupil", 2) == Path("root/data/students/pupil-2")
