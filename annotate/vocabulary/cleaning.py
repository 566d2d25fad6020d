"""What a language model wrote, without what no reader sees of it and without its reasoning.

The answer that is kept and the answer that is read are both the result of `clean`: nothing is escaped here, which
is for logs and pages.
"""

from __future__ import annotations

import functools
import html
import re
import unicodedata
from typing import Final

from authface.annotate.vocabulary.spelling import is_known_word

_WORD = (
    r"(?:seed:)?(?:thinking|think|thoughts?|reasoning|reason|reflection|reflect|analysis|scratch_?pad|deliberation|"
    r"inner_monologue|monologue|chain_of_thought|cot)"
)
_ANSWER = r"(?:begin_of_|start_of_)?(?:final_?)?(?:answer|response|output|conclusion|solution|box|final)"
_END: Final = re.compile(
    rf"""
    [<\[◁]\s*\|?\s*(?:/\s*\|?|end_of_|end_){_WORD}\s*\|?\s*[>\]▷]     # </think>  [/THINK]  <|END_THINKING|>  ◁/think▷
    | <\|?channel\|?>\s*final\b(?:\s*<\|?message\|?>)? | <channel\|>    # gpt-oss, and others with channels
    | \bassistant\s{{0,2}}final(?=\W|$|(?-i:[A-Z])) | assistantfinal      # the same, its special tokens left out
    | <unused95>
    | [<\[]\|?{_ANSWER}\|?[>\]]                                        # where the answer is marked, it begins there
    | ^[\s*_\#>]*final\ (?:answer|tags|output|response|caption)[*_\s]*:
    | ^[\s*_\#>]*here(?:\ is|'s)\ my\ response[*_\s]*:
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
"""What ends reasoning: all before the last of these is no answer."""
_BEGIN: Final = re.compile(
    rf"""
    [<\[◁]\|?\s*(?:begin_of_|start_of_|start_)?{_WORD}(?:\s[^<>\[\]\n]{{0,80}})?\|?[>\]▷]
    | <\|?channel\|?>\s*\w+ | <unused94>
    | \A\s*(?:analysis|commentary)(?=(?-i:[A-Z]))
    | ^[\s*_\#>]*here(?:\ is|'s)\ my\ thought\ process[*_\s]*:
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
"""What begins reasoning: where no end follows, all behind it is no answer."""
_ESCAPED = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")
_TERMINAL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_MARKERS = set(re.findall("[a-z]{3,}", _WORD + _ANSWER)) | {"thought", "scratchpad", "assistant", "channel", "message"}
"""Words that only marks of reasoning have."""
_UNSEEN = "\0"
"""Stands for characters that show nothing and take no room; a text has none of its own left."""
_GLUED = re.compile(rf"[^\W\d_]+(?:{_UNSEEN}+[^\W\d_]+)+")
_LONGEST_WORD = 24
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and symbols that show nothing."""
_LINE_ENDS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


def clean(text: str) -> str:
    """The answer in a text: visible characters, spaces, tabs and newlines. Applied again it changes nothing more."""
    while (found := _visible(_without_reasoning(_visible(_unescaped(text))))) != text:
        text = found
    return text


def _without_reasoning(text: str) -> str:
    ends = [match.end() for match in _END.finditer(text)]
    text = text[ends[-1] :] if ends else text
    begin = _BEGIN.search(text)
    return text[: begin.start()] if begin else text


def _unescaped(text: str) -> str:
    """With what a program that sent or kept it had escaped: ``\\u00a0``, ``\\n``, ``&nbsp;``."""

    def letter(match: re.Match[str]) -> str:
        number = int(match[1] or match[2] or match[3], 16)
        return chr(number) if number <= 0x10FFFF else " "

    return html.unescape(re.sub(r"\\[nrt](?![a-z]{3}\\)", "\n", _ESCAPED.sub(letter, text)))


def _visible(text: str) -> str:
    text = _TERMINAL.sub("", text.replace("\r\n", "\n"))
    shown = unicodedata.normalize("NFC", "".join(map(_shown, text)))
    return _GLUED.sub(lambda glued: _words(glued[0]), shown).replace(_UNSEEN, "") if _UNSEEN in shown else shown


def _words(glued: str) -> str:
    """Letters with unseen characters between them, as words: joined where that makes a known word, else apart.

    Where no known word is among them they are one: ``no|glasses`` is two words, ``sun|glasses`` and ``xy|zzy`` one.
    """
    parts = [part for part in glued.split(_UNSEEN) if part]
    words, known, at = list[str](), False, 0
    while at < len(parts):
        found = 0
        for end in range(at + 1, len(parts) + 1):
            joined = "".join(parts[at:end])
            if len(joined) > _LONGEST_WORD:
                break
            found = end if _is_word(joined) else found
        words.append("".join(parts[at : found or at + 1]))
        known, at = known or bool(found), found or at + 1
    return " ".join(words) if known else "".join(words)


@functools.lru_cache(4096)
def _is_word(text: str) -> bool:
    bare = "".join(letter for letter in unicodedata.normalize("NFKD", text).lower() if letter.isalpha())
    return bare in _MARKERS or is_known_word(bare)


def _shown(letter: str) -> str:
    """A character as it is read: itself, a space, a line end, or `_UNSEEN`."""
    if letter in "\n\t" or " " <= letter <= "~":
        return letter
    if letter in _LINE_ENDS:
        return "\n"
    kind = unicodedata.category(letter)
    if kind == "Zs" or letter in _BLANK:
        return " "
    variation = "\ufe00" <= letter <= "\ufe0f" or "\U000e0100" <= letter <= "\U000e01ef"
    return letter if kind[0] in "LNPSM" and not variation else _UNSEEN
