"""What a constraint is about, and by which words of a question it is governed though they share none.

General topics (how to answer at all) govern every question; the others those that use a word of their field.
"""

from __future__ import annotations

import re
from typing import Final

from server.constraints.constraint import Topic

GENERAL: Final[frozenset[Topic]] = frozenset({"name", "language", "length", "tone", "format", "units", "manner"})

# The first that matches is the topic: the narrower stand first.
_TOPICS: Final[tuple[tuple[Topic, re.Pattern[str]], ...]] = tuple(
    (topic, re.compile(rf"(?<!\w)(?:{pattern})"))  # type: ignore[misc]
    for topic, pattern in (
        (
            "name",
            r"(?:just |please )?call me (?!when|back|at|if|later|before|after|on\b|in\b|and|to\b|for|by\b"
            r"|tomorrow|today|tonight|any|every|once|again)"
            r"|address me|refer to me|my name(?:'s| is)|pronouns|i go by|nenne? mich|nennen sie mich|appel(?:le|ez)-moi"
            r"|ll[áa]mame",
        ),
        ("allergy", r"allerg|intoleran|alérgi|celíac|c(?:o)?eliac"),
        (
            "language",
            r"(?:in|auf|en|to|speak|british|american) (?:english|german|french|spanish|italian|portuguese"
            r"|dutch|polish|russian"
            r"|ukrainian|turkish|arabic|hebrew|hindi|chinese|mandarin|japanese|korean|swedish|danish|norwegian"
            r"|finnish|greek"
            r"|czech|romanian|hungarian|deutsch|englisch|französisch|spanisch|italienisch|français|anglais"
            r"|allemand|espagnol"
            r"|italien|español|inglés|alemán|francés|italiano)\b|spelling",
        ),
        (
            "diet",
            r"vegetari|vegan|végétar|végétal|végan|pesc[ae]tarian|kosher|halal|keto\b|gluten|lactose|dairy"
            r"|teetotal|diabet"
            r"|diabét|flexitarian|(?:eat|eats|eating|drink|drinking|meat|pork|beef|fish|alcohol|caffeine|sugar"
            r"|food|meals?"
            r"|recipes?|restaurants?|cook)\b|(?:esse|trinke|mange|bois|como|bebo)\b|fleisch|viande|carne",
        ),
        (
            "units",
            r"metric|imperial|celsius|fahrenheit|kilomet|miles\b|24[- ]hour|12[- ]hour|si units|(?:in"
            r" )?(?:euros?|dollars|pounds)\b"
            r"|kilograms?|ounces",
        ),
        (
            "format",
            r"markdown|bullet|tables?\b|code blocks?|highlight|headings?|format|emojis?|smileys|latex|json\b"
            r"|yaml\b|plain text|numbered"
            r"|citations?|cite\b|sources?\b|links?\b|footnotes?|hashtags|italics|bold\b|diff\b|exclamation"
            r"|semicolons|tabelle|"
            r"aufzählung|listes?\b|tableaux?|viñetas",
        ),
        (
            "length",
            r"concise|brief|short(?:er)?\b|(?<!no )long(?:er)?\b|lengthy|detailed|in detail|verbose|to the point|words"
            r" or|(?:one|two|three|few|\d+)"
            r" (?:sentences?|words|lines|paragraphs?|bullets)|kurz|knapp|ausführlich|court|bref|breve|cort[ao]",
        ),
        (
            "tone",
            r"formal|informal|casual|polite|politely|friendly|tone\b|sarcas|humou?r|jokes?\b|swear|jargon"
            r"|apologi|preamble|disclaimers?"
            r"|small ?talk|flatter|höflich|formell|duze|sieze|tutoie|vouvoie|tutea",
        ),
        (
            "code",
            r"code\b|coding|python|javascript|typescript|rust\b|golang|java\b|c\+\+|sql\b|dependenc|librar"
            r"|packages?\b|framework|functions?\b"
            r"|variables?\b|indent|tabs\b|type hints|unit tests?|tests?\b|commit|pull requests?|branch|docker"
            r"|linux|bash\b|"
            r"comments\b|docstrings?|abhängigkeiten|dépendances|dependencias",
        ),
        (
            "travel",
            r"fly\b|flights?|hotels?|aisle|window seats?|seats?\b|airlines?|trains?\b|airbnb|hostels?|layover"
            r"|travel|rental car|vol\b|vuelos?|flug",
        ),
        (
            "contact",
            r"call\b|calls\b|phone|ring\b|texts?\b|e-?mails?\b|messages? me|contact|disturb|meetings?|schedule"
            r"|appointments?|wake|notif"
            r"|interrupt|ruf\b|anrufe?n?|appelle|llames|écris|escribas",
        ),
    )
)
_MANNER: Final = re.compile(
    r"\b(?:answers?|repl(?:y|ies)|respon(?:d|se|ses)|explain|explanations?|step by step|act as|behave|pretend"
    r"|you are an?|assistant"
    r"|ask me|clarify|sources|guess|hallucinate|apologi[sz]e|summari[sz]e|suggest|recommend|tell me|your)\b"
)

# Words of questions in which a topic matters, beside the words that it is recognised by.
_FIELDS: Final[dict[Topic, frozenset[str]]] = {
    topic: frozenset(words.split())  # type: ignore[misc]
    for topic, words in {
        "diet": (
            "eat eating food foods dinner lunch breakfast brunch supper recipe recipes cook cooking meal "
            "meals restaurant restaurants "
            "menu dish dishes snack snacks ingredient ingredients bake baking barbecue bbq picnic groceries "
            "grocery kitchen "
            "dessert cake pizza burger sushi soup salad takeaway takeout catering potluck buffet hungry diet "
            "nutrition protein "
            "drink drinks wine beer cocktail bar essen kochen abendessen mittagessen frühstück rezept rezepte "
            "gericht speisekarte "
            "manger dîner déjeuner cuisiner recette recettes plat repas comer cenar cena comida almuerzo "
            "desayuno cocinar receta "
            "recetas restaurante plato"
        ),
        "contact": (
            "call calling phone ring meet meeting meetings schedule appointment appointments calendar text "
            "email message contact "
            "reach slot availability available reminder invite when time morning evening anrufen termin "
            "treffen rufen wann "
            "appeler rendez réunion quand llamar cita reunión cuándo"
        ),
        "code": (
            "code coding program programming script function functions class classes method module library "
            "libraries package "
            "packages dependency dependencies framework api endpoint bug debug refactor implement "
            "implementation test tests "
            "python javascript typescript rust golang java sql query regex algorithm compile build deploy "
            "docker app cli server "
            "database parse parser repository repo commit variable loop json yaml install funktion programm "
            "skript bibliothek "
            "fonction programme bibliothèque función programa biblioteca"
        ),
        "travel": (
            "flight flights fly flying trip trips travel hotel hotels airline airport book booking seat train "
            "vacation holiday "
            "itinerary journey visit reise flug urlaub hotelzimmer voyage vol vacances viaje vuelo vacaciones"
        ),
    }.items()
}
_FIELDS["allergy"] = _FIELDS["diet"]

_WORD: Final = re.compile(r"[^\W_]+")


def topic_of(lowered: str) -> Topic | None:
    """Return the topic of a sentence in lower case."""
    for topic, pattern in _TOPICS:
        if pattern.search(lowered) is not None:
            return topic
    return "manner" if _MANNER.search(lowered) is not None else None


def touches(topic: Topic, text: str) -> bool:
    """Whether a text uses a word of a topic's field."""
    return not _FIELDS.get(topic, frozenset()).isdisjoint(_WORD.findall(text.lower()))
