"""How long a text is for Messenger, and how to cut one where nobody stumbles over it. Pure."""

from __future__ import annotations

import re
import unicodedata


def length(content: str) -> int:
    """Return the length in UTF-16 units: an emoji counts two, so that no way of counting finds more."""
    return len(content.encode("utf-16-le", "surrogatepass")) // 2


def is_blank(content: str) -> bool:
    """Whether people see nothing in it."""
    # Not by "printable": emoji that are younger than Python's tables are unassigned (Cn) there.
    return all(unicodedata.category(each) in ("Zs", "Zl", "Zp", "Cc", "Cf", "Cs") for each in content)


def split_text(content: str, most: int) -> list[str]:
    """Return the text in parts of at most `most` characters (see `length`), none blank, no character broken.

    It is cut after a sentence, else at the end of a line, else between words, else within the word.
    """
    parts = []
    rest = content.strip()
    while length(rest) > most:
        fitting = _fitting(rest, most)
        at = _cutting_point(rest[:fitting], rest[fitting])
        parts.append(rest[:at].rstrip())
        rest = rest[at:].lstrip()
    return [part for part in [*parts, rest] if not is_blank(part)]


def shortened(content: str, most: int) -> str:
    """Return the text, or as much of it as there is room for before an ellipsis."""
    return content if length(content) <= most else content[: _fitting(content, most - 1)].rstrip() + "…"


# After a sentence (also a Chinese or Japanese one), after a line, after a word.
_ENDINGS = (
    re.compile("[.!?\u2026][\"'\u201d\u2019\u00bb)\\]]*\\s+|[\u3002\uff01\uff1f]"),
    re.compile(r"\n"),
    re.compile(r"\s+"),
)


def _cutting_point(window: str, following: str) -> int:
    # With the blank that follows: a word or sentence that just fits ends there.
    view = window + following if following.isspace() else window
    for ending in _ENDINGS:
        # In the second half only: a short first part reads worse than a cut sentence.
        found = [match.end() for match in ending.finditer(view) if match.end() > len(window) // 2]
        if found:
            return found[-1]
    return max((match.end() for match in _ENDINGS[-1].finditer(view)), default=len(window))


def _fitting(content: str, most: int) -> int:
    """How many code points fit into `most` without breaking a character that people see as one."""
    units = 0
    fitting = 0
    for at, each in enumerate(content):
        if _begins_character(content, at):
            fitting = at
        units += 2 if each > "\uffff" else 1
        if units > most:
            # Something longer than all there is room for is broken after all: nobody reads it.
            return fitting or max(at, 1)
    return len(content)


# The joiner, the later parts of a Korean syllable, skin colours, tags.
_CONTINUING = re.compile("[\u200d\u1160-\u11ff\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]")
_HALF_FLAGS = re.compile("[\U0001f1e6-\U0001f1ff]+$")


def _begins_character(content: str, at: int) -> bool:
    """Whether people see a new character begin here: an approximation of Unicode's grapheme clusters (UAX 29)."""
    each, before = content[at], content[at - 1 : at]
    if each == "\n" or before == "\u200d":
        return before not in ("\r", "\u200d")
    if each < "\u0300":
        return True
    if unicodedata.category(each) in ("Mn", "Mc", "Me") or _CONTINUING.match(each):
        return False
    # Two of these make a flag: an odd number of them before this one means that it is the second half.
    flags = _HALF_FLAGS.search(content[max(0, at - 64) : at]) if _HALF_FLAGS.match(each) else None
    return flags is None or len(flags.group()) % 2 == 0
