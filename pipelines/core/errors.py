"""Every error that a user may see, and how a message counts.

MiwakeError
├── ParamsError         params.yaml breaks a rule: path, value, rule, remedy
├── InputError          what a stage was given cannot be used: a missing folder, one class, no pictures
│   └── DecisionError   a row of data/decisions/*.csv is wrong; names file and line
├── ImageError          one picture cannot be used; its `reason` becomes a row of rejected.csv
├── BrokenRulesError    a rule of severity error does not hold; names the offenders
└── TrainingError       training cannot go on (a loss that is not a number): epoch, batch, remedy

A message names the value, the rule and the next step. Foreign errors are translated once, where they enter.
"""


def count(number: int, one: str, many: str | None = None) -> str:
    """ "1 picture", "2,754 pictures"; `many` where it is more than `one` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


class MiwakeError(Exception):
    """An error whose message is written for the person who runs the pipeline; shown without a traceback."""


class ParamsError(MiwakeError):
    """params.yaml (or a preset) breaks a rule."""


class InputError(MiwakeError):
    """A stage was given something that it cannot work with."""


class DecisionError(InputError):
    """A row of data/decisions/*.csv is wrong."""


class ImageError(MiwakeError):
    """One picture cannot be used.

    Args:
        reason: short, stable, in kebab-case (`truncated`, `not-an-image`, …): what reports count by.
        detail: what a person needs to know of this very file.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        # errors cross process borders; the default would call __init__ with the joined message
        return (ImageError, (self.reason, self.detail))


class BrokenRulesError(MiwakeError):
    """At least one rule of severity error does not hold."""


class TrainingError(MiwakeError):
    """Training cannot go on."""
