"""The pairs of copies that dedupe found, of any kind."""

from pathlib import Path

import pyarrow as pa

from pipelines.core.errors import InputError


def read_pairs(path: Path) -> pa.Table:
    """The columns image_a, image_b and kind of duplicates.csv.

    Raises:
        InputError: the file is missing, or holds no pairs of images.
    """
    from pyarrow import csv

    columns = ["image_a", "image_b", "kind"]
    try:
        return csv.read_csv(
            path,
            # a path in quotes may hold a line break
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                include_columns=columns, column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False
            ),
        )
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: run the stage that writes it (`dvc repro`)") from error
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise InputError(f"{path} holds no pairs of images ({error}): run `dvc repro --force dedupe`") from error
