"""Names of licences: what is one licence under many spellings.

`CC BY 4.0`, `cc-by-4.0`, `Attribution 4.0 International`, Openverse's `by` with a version and
`https://creativecommons.org/licenses/by/4.0/deed.en` all become `cc-by-4.0`. What a licence allows is not judged.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

_UNKNOWN = {"", "unknown", "none", "null", "nan", "n-a", "na", "?"}
_FILLERS = {
    "license",
    "licence",
    "licensed",
    "under",
    "the",
    "version",
    "v",
    "international",
    "unported",
    "generic",
    "universal",
}
_WORDS = [
    (r"creative-commons", "cc"),
    (r"attribution", "by"),
    (r"non-?commercial", "nc"),
    (r"no-?deriv(?:ative)?s?(?:-?works)?", "nd"),
    (r"share-?alike", "sa"),
    (r"publicdomain", "public-domain"),
    (r"public-domain-mark", "pdm"),
    (r"cc-(?:zero|0)(?=-|\*|$)", "cc0"),
    (r"^(cc0.*?)-public-domain-dedication$", r"\1"),
]
_CC_URL = re.compile(
    r"(?:https?://)?(?:www\.)?creativecommons\.org/(?:licenses|publicdomain)/([^/?#]+)(?:/([^/?#]+))?(?:/([a-z]{2,3})(?=[/?#]|$))?(?:[/?#]\S*)?"
)
_BY = r"(?:cc-)?by((?:-(?:nc|nd|sa))*)(?:-(\d+)(?:\.(\d+))?)?(?:-(?!cc|by)([a-z]{2,3}))?"
_ZERO = r"(cc0|pdm)(?:-(\d+)(?:\.(\d+))?)?"
_GLOB = re.compile(r"\*|\?|\[[^\]]+\]")
_CANONICAL_BY = re.compile(r"cc-(by(?:-(?:nc|nd|sa))*)(?:-([\d.]+))?(?:-([a-z]{2,3}))?")


@lru_cache(maxsize=4096)
def canonical_license(text: str) -> str:
    """One name for every spelling of a licence, in lower case with dashes; "" where it is not known.

    Args:
        text: a name or URL, as a source gives it; or a pattern with *, ? or [...], whose wildcards stay.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().strip()
    found = _CC_URL.fullmatch(folded)
    if found:
        code, version, country = found.groups(default="")
        folded = {"zero": "cc0", "mark": "pdm"}.get(code, f"cc-{code}") + f"-{version}-{country}"
    else:
        folded = re.sub(r"^https?://(?:www\.)?", "", folded)
    tokens = [re.sub(r"^v(?=\d)", "", token) for token in re.split(r"[\s_/,;:()\-–—]+", folded)]
    kept = [token for token in tokens if token and token not in _FILLERS]
    name = "-".join(kept or [token for token in tokens if token])
    for pattern, short in _WORDS:
        name = re.sub(pattern, short, name)
    if name in _UNKNOWN:
        return ""
    if _GLOB.search(name):
        return f"cc-{name}" if name.startswith("by") else name
    # whole names only: `CC BY 4.0, schools alone` is another licence. But many say it twice: `Attribution (CC BY)`
    return _said(name, _BY, _short_by) or _said(name, _ZERO, _short_zero) or name


_Parts = tuple[str | None, ...]


def _said(name: str, form: str, short: Callable[[_Parts], str]) -> str:
    """The short name of `name` if it is one name of this form, or the same one twice; else ""."""
    found = re.fullmatch(rf"({form})(?:-({form}))?", name)
    if not found:
        return ""
    groups = found.groups()
    half = len(groups) // 2
    first = short(groups[1:half])
    return first if groups[half] is None or short(groups[half + 1 :]) == first else ""


def _short_by(parts: _Parts) -> str:
    terms, major, minor, country = parts
    ordered = sorted({*(terms or "").split("-")} - {""}, key=["nc", "nd", "sa"].index)
    return "-".join(["cc-by", *ordered]) + _version(major, minor) + (f"-{country}" if country else "")


def _short_zero(parts: _Parts) -> str:
    kind, major, minor = parts
    return f"{kind}{_version(major, minor)}"


def _version(major: str | None, minor: str | None) -> str:
    return f"-{major}.{minor or '0'}" if major else ""


def license_regex(patterns: tuple[str, ...]) -> str:
    """A regular expression that matches, whole, every canonical name that one of `patterns` allows, and ""."""
    return (
        "^(?:" + "|".join(["", *map(_glob_regex, sorted({canonical_license(one) for one in patterns} - {""}))]) + r")\Z"
    )


def _glob_regex(pattern: str) -> str:
    parts, end = [], 0
    for found in _GLOB.finditer(pattern):
        parts.append(re.escape(pattern[end : found.start()]))
        wildcard = found[0]
        inside = wildcard[1:-1].replace("\\", r"\\").replace("[", r"\[")
        inside = "^" + inside[1:] if inside.startswith("!") else inside.replace("^", r"\^", 1)
        parts.append({"*": ".*", "?": "."}.get(wildcard, f"[{inside}]"))
        end = found.end()
    return "".join([*parts, re.escape(pattern[end:])])


def license_title(text: str) -> str:
    """A licence as people write it: `CC BY-NC 4.0`; as its source names it where it is none of Creative Commons."""
    name = canonical_license(text)
    by = _CANONICAL_BY.fullmatch(name)
    if by:
        return " ".join(part.upper() for part in ("cc", *by.groups()) if part)
    public = re.fullmatch(_ZERO, name)
    if public:
        kind = "CC0" if public[1] == "cc0" else "Public Domain Mark"
        return f"{kind} {_version(public[2], public[3])[1:]}".strip()
    return " ".join(text.split())


def license_url(text: str) -> str:
    """The page of a Creative Commons licence; "" for another one, or without its version."""
    name = canonical_license(text)
    by = _CANONICAL_BY.fullmatch(name)
    if by and by[2]:
        return f"https://creativecommons.org/licenses/{by[1]}/{by[2]}/" + (f"{by[3]}/" if by[3] else "")
    public = re.fullmatch(_ZERO, name)
    if public and public[2]:
        kind = "zero" if public[1] == "cc0" else "mark"
        return f"https://creativecommons.org/publicdomain/{kind}/{_version(public[2], public[3])[1:]}/"
    return ""
