"""How constraints bear on one another and on a question."""

from __future__ import annotations

from typing import Final

from server.constraints.constraint import Constraint, Topic
from server.constraints.rule import Rule, hashes, rule_of
from server.constraints.topics import GENERAL, touches
from server.retrieval.analysis import language_of, query_terms, terms

# Of these there is one value at a time; the others hold side by side until one is taken back.
_SINGLE: Final[frozenset[Topic]] = frozenset({"name", "language", "length", "units"})

_ANIMALS: Final = frozenset(
    terms(
        "meat fish chicken beef pork lamb turkey bacon ham sausage seafood shrimp salmon tuna steak poultry", "english"
    )
)
_ANIMAL_PRODUCTS: Final = _ANIMALS | frozenset(terms("egg dairy milk cheese butter yogurt honey cream", "english"))
_FORBIDS: Final = {
    "vegan": _ANIMAL_PRODUCTS,
    "vegetarian": _ANIMALS,
    "pescatarian": frozenset(terms("meat chicken beef pork lamb turkey bacon ham sausage steak poultry", "english")),
    "teetotal": frozenset(terms("alcohol wine beer cocktail", "english")),
    "kosher": frozenset(terms("pork shrimp bacon ham", "english")),
    "halal": frozenset(terms("pork bacon ham alcohol wine beer", "english")),
}
_DIETS: Final = {
    one: hashes(forbidden) for word, forbidden in _FORBIDS.items() for one in hashes(terms(word, "english")[:1])
}
_SAME: Final = 0.6  # of the words of the shorter one, for two orders about one thing
_REVERSED: Final = 0.5  # the same, when one topic is spoken of again the other way round
_GOVERNS_BY_FIELD: Final = 0.7
_LEAST_SHARED: Final = 0.25


def supersedes(new: Constraint | Rule, old: Constraint | Rule) -> bool:
    """Whether a later constraint takes the place of an earlier one.

    It does when both set the one value of a topic (a name, a language), when it allows what the other forbade, and
    when both speak of the same thing and it restates, reverses or corrects.
    """
    new, old = _rule(new), _rule(old)
    if new.topic in _SINGLE and new.topic == old.topic:
        return True
    ours, theirs = frozenset(new.words + new.numbers), frozenset(old.words + old.numbers)
    if new.topic in ("diet", "allergy") and old.topic in ("diet", "allergy"):
        return _supersedes_diet(new, old, ours, theirs)
    if not ours or not theirs:
        return False
    # Two orders that differ in a number or a clock time are about the same thing.
    words, others = frozenset(new.words) or ours, frozenset(old.words) or theirs
    shared = len(words & others) / max(1, min(len(words), len(others)))
    if new.polarity != old.polarity or new.corrects:
        return shared >= (_REVERSED if new.topic == old.topic else _SAME)
    if new.polarity == "avoid":  # two prohibitions of like things hold side by side
        return words <= others or others <= words
    return shared >= _SAME and new.kind == old.kind and len(words & others) >= min(2, len(words), len(others))


def governs(constraint: Constraint, text: str) -> float:
    """Return how surely a constraint bears on a question, 0 to 1, also when they share no word.

    1 when it is about how to answer at all; 0.7 when the question is of its field; else by the share of its own words.
    """
    if constraint.topic in GENERAL:
        return 1.0
    by_field = _GOVERNS_BY_FIELD if constraint.topic is not None and touches(constraint.topic, text) else 0.0
    if not constraint.subject:
        return by_field
    asked = {one for term in query_terms(text, (language_of(constraint.text),)) for one in term.terms}
    shared = len(asked & set(constraint.subject)) / len(constraint.subject)
    return max(by_field, min(1.0, 0.4 + shared) if shared >= _LEAST_SHARED else shared)


def _rule(one: Constraint | Rule) -> Rule:
    return one if isinstance(one, Rule) else rule_of(one)


def _supersedes_diet(new: Rule, old: Rule, ours: frozenset[int], theirs: frozenset[int]) -> bool:
    new_diets, old_diets = ours & _DIETS.keys(), theirs & _DIETS.keys()
    if new.polarity == "avoid":
        return bool(new_diets and old_diets) or (ours == theirs)
    if new_diets and old_diets:
        return bool(new_diets & old_diets)  # "I'm no longer vegan"
    if old_diets:
        return any(ours & _DIETS[diet] for diet in old_diets)  # "I eat fish now"
    return old.polarity == "avoid" and bool(ours & theirs)
