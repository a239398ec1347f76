"""Text to the terms of the lexical index: folded, stemmed in the text's own language, whole and in parts.

Words are found by script: runs of Chinese, Japanese, Korean and Thai letters become single letters and pairs, since
nothing there marks where a word ends; other words are stemmed. Codes, ids, numbers, versions and addresses ("ORD-4471",
"snake_case", "3.1.0", "a@b.de") are kept whole, and their parts beside them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

import Stemmer

from server.retrieval.irregular import LEMMAS
from server.retrieval.stopwords import STOP_WORDS

# What a term means. A stored index of another version must be built anew.
VERSION: Final = f"terms/1+snowball-{Stemmer.version()}"
DEFAULT_LANGUAGE: Final = "english"

# A word longer than this is no word (base64, a data URL): its beginning stands for it.
_LONGEST: Final = 64
# Longer texts are cut: it bounds the time that one event, or one question, can take.
LONGEST_TEXT: Final = 50_000
LONGEST_QUERY: Final = 4_000
MOST_QUERY_TERMS: Final = 64
# A language is told from the first words.
_TELLING_WORDS: Final = 200

_MARKS: Final = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"
)
_UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
)
_VOWEL_MARKS: Final = re.compile("[\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670]")
_PICTURES: Final = "\u2600-\u27bf\U0001f000-\U0001faff"
_WORD: Final = re.compile(
    rf"(?P<unspaced>[{_UNSPACED}]+)"
    rf"|(?P<word>(?:(?![{_UNSPACED}])[\w{_MARKS}])+(?:['’.@:/+\-](?:(?![{_UNSPACED}])[\w{_MARKS}])+)*)"
    rf"|(?P<picture>[{_PICTURES}])"
)
_PART: Final = re.compile(rf"\d+|(?:(?![_\d])[\w{_MARKS}'’])(?:(?!_)[\w{_MARKS}'’])*")
_CAMEL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_PLAIN: Final = re.compile(rf"(?:(?![_\d])[\w{_MARKS}])(?:(?!_)[\w{_MARKS}])*")
_THOUSANDS: Final = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_ELIDED: Final = frozenset(["l", "d", "j", "m", "t", "s", "n", "c", "qu", "dell", "all", "nell", "sull", "dall", "un"])
_SCRIPTS: Final = (
    ("russian", re.compile("[\u0400-\u052f]")),
    ("greek", re.compile("[\u0370-\u03ff\u1f00-\u1fff]")),
    ("persian", re.compile("[\u067e\u0686\u0698\u06a9\u06af\u06cc]")),
    ("arabic", re.compile("[\u0600-\u06ff]")),
    ("hindi", re.compile("[\u0900-\u097f]")),
    ("tamil", re.compile("[\u0b80-\u0bff]")),
    ("armenian", re.compile("[\u0530-\u058f]")),
    ("yiddish", re.compile("[\u05f0-\u05f2]")),
)
_LATIN: Final = tuple(
    language for language in STOP_WORDS if language not in ("russian", "greek", "arabic", "persian", "hindi")
)
_LANGUAGES_OF: Final[dict[str, tuple[str, ...]]] = {}
for _language in _LATIN:
    for _stop_word in STOP_WORDS[_language]:
        _LANGUAGES_OF[_stop_word] = (*_LANGUAGES_OF.get(_stop_word, ()), _language)

_stemmers: Final[dict[str, Stemmer.Stemmer]] = {}


class QueryTerm(NamedTuple):
    """One word of a question, and every term that it may be indexed as; ``weight`` is 1 but for parts of a code."""

    word: str
    terms: tuple[str, ...]
    weight: float = 1.0


class Word(NamedTuple):
    """A word as written, folded; ``stems``: whether it has other forms (a code, a number or an ideograph has none)."""

    text: str
    stems: bool


def language_of(text: str) -> str:
    """Tell the language: by its script, else by the function words of the first words, else English."""
    sample = text[: _TELLING_WORDS * 10]
    for language, script in _SCRIPTS:
        if script.search(sample) and len(script.findall(sample)) * 3 > sum(map(str.isalpha, sample)):
            return language
    counts: dict[str, int] = {}
    words = re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)?", sample.casefold())[:_TELLING_WORDS]
    for word in words:
        for language in _LANGUAGES_OF.get(word.replace("’", "'"), ()):
            counts[language] = counts.get(language, 0) + 1
    if not counts:
        return DEFAULT_LANGUAGE
    # Among equals English, then the more widely spoken: the order of the lists.
    return max(counts, key=lambda language: (counts[language], -_LATIN.index(language)))


def terms(text: str, language: str | None = None) -> list[str]:
    """Return the terms of a text in order, repeated as they are; ``language`` saves telling it again."""
    language = language or language_of(text)
    return [_term(word.text, language) if word.stems else word.text for word in words(text[:LONGEST_TEXT])]


def query_terms(question: str, languages: Iterable[str] = ()) -> list[QueryTerm]:
    """Return the telling words of a question, each once, with the terms that it may be indexed as.

    ``languages``: those of the indexed texts; a word is stemmed in each of them besides the question's own, since a
    short question and a short text tell their languages badly. Function words count only when there is nothing else.
    """
    question = question[:LONGEST_QUERY]
    own = language_of(question)
    found = words(question)
    telling = [word for word in found if not is_stop_word(word.text, own)] or found
    spoken = tuple(sorted({own, *languages}))
    unique = dict.fromkeys(telling)
    return [
        QueryTerm(word.text, tuple(dict.fromkeys(_term(word.text, language) for language in spoken)))
        if word.stems
        else QueryTerm(word.text, (word.text,))
        for word in list(unique)[:MOST_QUERY_TERMS]
    ]


def is_stop_word(word: str, language: str) -> bool:
    """Whether a folded word says nothing on its own."""
    return word in _FOLDED_STOP_WORDS.get(language, ()) or word in _FOLDED_STOP_WORDS["english"]


def words(text: str) -> list[Word]:
    """Return the folded words of a text, in order, codes followed by their parts."""
    found: list[Word] = []
    for match in _WORD.finditer(_THOUSANDS.sub("", unicodedata.normalize("NFKC", text))):
        if match.lastgroup == "word":
            _take_apart(match[0], found)
        elif match.lastgroup == "unspaced":
            run = match[0]
            found += [Word(letter, False) for letter in run]
            found += [Word(run[start : start + 2], False) for start in range(len(run) - 1)]
        else:
            found.append(Word(match[0], False))
    return found


def _take_apart(word: str, found: list[Word]) -> None:
    if _PLAIN.fullmatch(word) and not _CAMEL.search(word):
        found.append(Word(fold(word[:_LONGEST]), True))
        return
    parts = [_strip(part) for part in _PART.findall(_CAMEL.sub(" ", word))]
    if len(parts) == 1 and _strip(word) == parts[0]:  # a possessive or contraction is one word
        found.append(Word(fold(parts[0][:_LONGEST]), not parts[0].isdigit()))
        return
    found.append(Word(fold(word[:_LONGEST]), False))
    found += [Word(fold(part[:_LONGEST]), not part.isdigit()) for part in parts if part]


def _strip(word: str) -> str:
    """Drop stray quotes, an English possessive, and an article or pronoun run together with the word ("l'école")."""
    word = word.replace("’", "'").strip("'")
    if "'" not in word:
        return word
    if word[-2:].casefold() == "'s":
        return word[:-2]
    first, _, rest = word.partition("'")
    return rest if first.casefold() in _ELIDED and len(rest) > 1 else word


@lru_cache(maxsize=65_536)
def fold(word: str) -> str:
    """Return a word without case and without the marks that are often left out: accents of Latin and Greek letters,
    Arabic and Hebrew vowels. Marks that make another letter (й, が, Indic vowels) stay.
    """
    folded = word.casefold().replace("’", "'").replace("ё", "е")
    if folded.isascii():
        return folded
    kept: list[str] = []
    for letter in unicodedata.normalize("NFD", folded):
        accent = "\u0300" <= letter <= "\u036f" and (not kept or kept[-1] < "\u0400")
        if not accent and not _VOWEL_MARKS.match(letter):
            kept.append(letter)
    return unicodedata.normalize("NFC", "".join(kept))


@lru_cache(maxsize=131_072)
def _term(word: str, language: str) -> str:
    if language not in _stemmers:
        if language not in Stemmer.algorithms():
            return word
        _stemmers[language] = Stemmer.Stemmer(language, 0)
    if language == "english":
        word = LEMMAS.get(word, word)
    return _stemmers[language].stemWord(word) or word


def forget() -> None:
    """Drop the words that are remembered to be folded and stemmed faster: some may be of a text that was erased."""
    fold.cache_clear()
    _term.cache_clear()


_FOLDED_STOP_WORDS: Final = {
    language: frozenset(fold(word) for word in listed) for language, listed in STOP_WORDS.items()
}
