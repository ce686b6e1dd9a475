"""Labels as people write them: what is the same class under another spelling."""

import unicodedata


def written_well(label: str) -> str:
    """`label` as ingest writes labels: NFC, without leading or trailing spaces."""
    return unicodedata.normalize("NFC", label).strip()


def spelling(label: str) -> str:
    """What is left of `label` without case, width, spaces and punctuation: equal for look-alikes.

    `Les paul`, `LesPaul`, `les-paul ` and `ＬｅｓＰａｕｌ` are all `lespaul`. Accents and symbols count: `C+` is not
    `C`. A label of punctuation alone stays itself.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    # P: punctuation, Z: spaces, C: control and invisible characters such as the zero-width space
    kept = "".join(letter for letter in folded if unicodedata.category(letter)[0] not in "PZC")
    return kept or label
