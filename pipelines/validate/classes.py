"""The rules on classes and their names."""

from pipelines.params.validate import ValidateParams
from pipelines.validate.rule import Rule


def label_rules(params: ValidateParams) -> list[Rule]:
    """How labels are written: always; whether two look alike: if that is on."""
    rules = [
        Rule(
            "label_text",
            "every label is a text in Unicode's NFC form, not empty, without spaces at its ends",
            "error",
            None,
            "files",
            (("ExpectLabelsToBeWrittenWell", {}),),
            "write {label} anew: a line in data/decisions/relabel.csv for each picture, "
            "`<image_id>,<label>,new class: spelling`",
        )
    ]
    if params.label_look_alikes != "off":
        rules.append(
            Rule(
                "label_look_alikes",
                "no two labels differ in case, width, spaces or punctuation alone",
                params.label_look_alikes,
                None,
                "files",
                (("ExpectLabelsNotToLookAlike", {}),),
                "if they are one class, give it one name: rename the folder, or add a line to "
                "data/decisions/relabel.csv for each picture, `<image_id>,{label},spelling`; "
                "if they are not, set validate.label_look_alikes: off",
            )
        )
    return rules


def class_rules(params: ValidateParams) -> list[Rule]:
    """How many classes there are, and how large."""
    few, small, uneven = params.min_classes, params.min_images_per_class, params.max_imbalance
    rules = []
    if few.limit is not None:
        rules.append(
            Rule(
                "min_classes",
                "there are enough classes with a picture kept",
                few.severity,
                few.limit,
                "pictures",
                (("ExpectColumnUniqueValueCountToBeBetween", {"column": "label", "min_value": few.limit}),),
                "add pictures of another class; where a class has lost all of its pictures, look at "
                "data/dedupe/duplicates.csv and data/decisions/drop.csv",
                observe="value",
            )
        )
    if small.limit is not None:
        rules.append(
            Rule(
                "min_images_per_class",
                "every class has enough pictures kept",
                small.severity,
                small.limit,
                "classes",
                (("ExpectClassesToHavePictures", {"min_value": small.limit}),),
                "add pictures of {label}, or merge it into another class with a line in data/decisions/relabel.csv for "
                "each picture, or take it out with data/decisions/drop.csv",
                observe="value",
                drop="class too small",
            )
        )
    if uneven.limit is not None:
        rules.append(
            Rule(
                "max_imbalance",
                "no class is too small beside the largest one (times smaller)",
                uneven.severity,
                uneven.limit,
                "files",
                (("ExpectClassesToBeBalanced", {"max_value": uneven.limit}),),
                "add pictures of {label}, merge it into another class (data/decisions/relabel.csv), or drop some of "
                "the largest class (data/decisions/drop.csv)",
                observe="value",
            )
        )
    return rules
