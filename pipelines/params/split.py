"""How pictures are divided into train, validation and test."""

import unicodedata
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.params.base import PositiveInt, Section, Seed
from pipelines.params.sources import Source, TableSource

Share = Annotated[float, Field(gt=0.0, lt=1.0)]
HOSTS = {"url_host": "url", "page_host": "page_url"}
"""what group_by may name beside columns of the manifest, and the column of addresses that each is the host of"""
FACTOR = "factors."
"""what stands before the name of a label column of a table"""


class SplitParams(Section):
    seed: Seed = 42
    method: Literal["stratified", "hash", "predefined"] = "stratified"
    """stratified: best stratification of a fixed set; hash: by hash, so that growth never moves an old picture;
    predefined: as the source says (its column given_subset)"""
    val_fraction: Share = 0.2
    """of all pictures kept; with `predefined`, of the pictures given for training, and only where none is given for
    validation; unused when folds > 1"""
    test_fraction: Share = 0.2
    """of all pictures kept; with `predefined`, of the pictures without a given subset, under `unassigned: stratify`"""
    folds: PositiveInt = 1
    """1: one validation set; k > 1: stratified group k-fold over everything but the test set"""
    rare_classes: Literal["refuse", "train_only", "merge"] = "refuse"
    """a class too small for every subset: stop, keep it in training only with a warning, or make it part of
    merged_label"""
    merged_label: str | None = None
    """the class that rare ones become under `rare_classes: merge`, such as other; null otherwise"""
    group_by: str | None = None
    """what must stay on one side besides duplicate groups: a manifest column whose equal values belong together
    (page_url, creator, query), url_host or page_host, the group_column of a table, or factors.<name> of its label
    columns"""
    unassigned: Literal["refuse", "train", "stratify"] = "refuse"
    """of method predefined, for pictures that the source gives no subset: stop, train on them, or divide them by the
    fractions. One whose copy has a subset goes where the copy goes"""
    leaks: Literal["keep_test", "keep_train", "refuse", "keep"] = "keep_test"
    """of method predefined, for copies in two of its subsets: keep_test leaves the test set whole and takes their
    copies out of validation and training; keep_train the reverse; refuse stops; keep leaves the leak, and every result
    says so"""
    unlabelled: str | None = None
    """the label of pictures that have none, such as unlabelled: they are no class and lie in no subset, but a recipe's
    pseudo_labels may learn from them; null: every label is a class"""

    @model_validator(mode="after")
    def _fractions_leave_room(self) -> Self:
        if self.folds == 1 and self.val_fraction + self.test_fraction >= 1.0:
            raise ValueError(
                f"val_fraction {self.val_fraction:g} + test_fraction {self.test_fraction:g} leave nothing "
                "to train on: their sum must be below 1; lower one of them"
            )
        return self

    @model_validator(mode="after")
    def _labels_are_labels(self) -> Self:
        if self.rare_classes == "merge" and self.merged_label is None:
            raise ValueError("rare_classes is merge, but merged_label is null: name the class, such as `other`")
        for name, label in (("merged_label", self.merged_label), ("unlabelled", self.unlabelled)):
            if label is not None and (not label or label != unicodedata.normalize("NFC", label).strip()):
                raise ValueError(
                    f"{name} {label!r} is no label: it must not be empty, nor start or end with a space, and be "
                    "in NFC, as the labels of the manifest are; write it anew"
                )
        if self.unlabelled is not None and self.unlabelled == self.merged_label:
            raise ValueError(
                f"unlabelled and merged_label are both {self.unlabelled!r}, but pictures without a class are no class: "
                "choose another merged_label"
            )
        return self

    def check_sources(self, sources: Sequence[Source]) -> None:
        """Whether what this section asks of the sources is there: told before they are read, not after.

        Raises:
            ValueError: no source has what group_by names, or, of method predefined, any subset.
        """
        tables = [source for source in sources if isinstance(source, TableSource)]
        subsets = [getattr(one, key, None) for one in sources for key in ("subset_column", "subset_from")]
        if (
            self.method == "predefined"
            and not any(subsets)
            and not any(source.kind == "torchvision" for source in sources)
        ):
            raise ValueError(
                "split.method is predefined, but no entry of ingest.sources says which picture is in which subset: set "
                "subset_from: first_folder where the folders train, val and test hold the class folders, or "
                "subset_column of a table; or set split.method: stratified"
            )
        name, groups = self.group_by, sorted({table.group_column for table in tables if table.group_column})
        factors = sorted({FACTOR + column for table in tables for column in table.label_columns})
        if name is None or name in (*HOSTS, *factors):
            return
        from pipelines.core.tables import DEDUPED  # arrow takes a tenth of a second, for those who name a group

        if name in groups and name in DEDUPED.names:
            raise ValueError(
                f"split.group_by {name!r} is the group_column of a table and a column that every manifest has: give "
                "the table's column another name"
            )
        if name not in (*groups, *DEDUPED.names):
            raise ValueError(
                f"split.group_by is {name!r}, which no entry of ingest.sources has: if it is a column of a table, set "
                f"group_column: {name} there; or name one of {', '.join([*groups, *factors, *HOSTS])}, page_url, "
                "creator, query or another column of the manifest, or null for duplicate groups alone"
            )
