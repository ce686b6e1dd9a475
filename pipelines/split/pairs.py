"""The pairs that dedupe found, of any kind: which of them no split may part."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.errors import InputError
from pipelines.core.layout import repro_of


def read_pairs(path: Path) -> tuple[pa.Table, int]:
    """The columns image_a, image_b and kind of the pairs of duplicates.csv that belong together, and how many do not.

    Those of verdict `apart` only look alike, and dedupe left them in two groups: all that resemble a neighbour would
    be one group otherwise.

    Raises:
        InputError: the file is missing, or holds no pairs of images.
    """
    from pyarrow import csv

    columns = ["image_a", "image_b", "kind", "verdict"]
    try:
        found = csv.read_csv(
            path,
            # a path in quotes may hold a line break
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                include_columns=columns, column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False
            ),
        )
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: run the stage that writes it (`{repro_of(path)}`)") from error
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise InputError(f"{path} holds no pairs of images ({error}): run `dvc repro --force dedupe`") from error
    together = found.filter(pc.not_equal(found["verdict"], "apart"))
    return together.drop_columns(["verdict"]), found.num_rows - together.num_rows
