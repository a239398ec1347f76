"""What time is said with, in each language; `grammar.py` puts the words together.

Alternations are longest first where one begins another. Values on the right are English, which the library reads best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, eq=False)
class Words:
    """One language. ``months`` stand alone behind a word of ``into``; ``short_months`` only beside a day or a year.

    ``telling``: words that show that the text is in this language, when its words of time could be another's.
    """

    code: str
    telling: frozenset[str]
    months: str
    short_months: str
    weekdays: dict[str, str]
    units: dict[str, str]
    numbers: dict[str, int]
    seasons: dict[str, str]
    days: dict[str, str]
    last: str
    this: str
    next: str
    weekend: str
    ago: str  # {n} and {unit} are filled in
    window: str  # "the last three weeks"
    into: str
    of: str
    ordinal: str
    parts: dict[str, str]
    ordinals: dict[str, int]
    week: str
    before: str
    after: str
    since: str
    until: str
    between: str
    both: str
    start: str
    to: str


def _split(words: str) -> list[str]:
    return words.split()


def _counted(words: str, first: int) -> dict[str, int]:
    return {word: number for number, word in enumerate(words.split(), first)}


ENGLISH: Final = Words(
    code="en",
    telling=frozenset(_split("the what when who did does is was how where which why i you my we")),
    months="january|february|march|april|may|june|july|august|september|october|november|december",
    short_months="jan|feb|mar|apr|jun|jul|aug|sept|sep|oct|nov|dec",
    weekdays={d: d for d in ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")},
    units={
        **{u: u for u in ("hour", "day", "week", "month", "year", "decade")},
        **{u + "s": u for u in ("hour", "day", "week", "month", "year", "decade")},
    },
    numbers={
        **_counted("one two three four five six seven eight nine ten eleven twelve", 1),
        "a couple of": 2,
        "couple of": 2,
        "a few": 3,
        "few": 3,
        "several": 4,
        "a": 1,
        "an": 1,
    },
    seasons={"spring": "spring", "summer": "summer", "autumn": "autumn", "fall": "autumn", "winter": "winter"},
    days={
        "the day before yesterday": "2 days ago",
        "yesterday": "yesterday",
        "today": "today",
        "tonight": "today",
        "this morning": "today",
        "this afternoon": "today",
        "this evening": "today",
        "last night": "yesterday",
        "the day after tomorrow": "in 2 days",
        "tomorrow": "tomorrow",
    },
    last="last|past|previous",
    this="this",
    next="next|coming",
    weekend="weekend",
    ago=r"{n} {unit} ago",
    window=r"(?:in|over|during|within|for|throughout) the (?:last|past|previous) (?:{n} )?{unit}",
    into="in|of|during|since|until|till|before|after|through|throughout|between|by|around|early|mid|late"
    "|summer|spring|winter|fall|autumn",
    of="of|in",
    ordinal="st|nd|rd|th",
    parts={
        "(?:the )?(?:beginning|start) of": "early",
        "early(?: in)?": "early",
        "(?:the )?middle of": "mid",
        "mid[- ]?": "mid",
        "(?:the )?end of": "late",
        "late(?: in)?": "late",
        "(?:the )?first half of": "half1",
        "(?:the )?second half of": "half2",
    },
    ordinals={"first": 1, "1st": 1, "second": 2, "2nd": 2, "third": 3, "3rd": 3, "fourth": 4, "4th": 4, "last": -1},
    week="week",
    before="before|prior to|preceding|earlier than",
    after="after|following|later than",
    since="since|ever since|as of|starting",
    until="until|till|up to|by",
    between="between",
    both="and",
    start="from",
    to="to|until|till|through|and",
)

GERMAN: Final = Words(
    code="de",
    telling=frozenset(
        _split("der die das was wann wer wie wo ich du wir hat habe haben ist war im am vom vor und mir")
    ),
    months="januar|jänner|februar|märz|april|mai|juni|juli|august|september|oktober|november|dezember",
    short_months="jan|feb|apr|jun|jul|aug|sept|sep|okt|nov|dez",
    weekdays={
        "montag": "monday",
        "dienstag": "tuesday",
        "mittwoch": "wednesday",
        "donnerstag": "thursday",
        "freitag": "friday",
        "samstag": "saturday",
        "sonnabend": "saturday",
        "sonntag": "sunday",
    },
    units={
        **dict.fromkeys(("stunden", "stunde"), "hour"),
        **dict.fromkeys(("tagen", "tage", "tag"), "day"),
        **dict.fromkeys(("wochen", "woche"), "week"),
        **dict.fromkeys(("monaten", "monate", "monats", "monat"), "month"),
        **dict.fromkeys(("jahren", "jahre", "jahres", "jahr"), "year"),
    },
    numbers={
        **_counted("zwei drei vier fünf sechs sieben acht neun zehn elf zwölf", 2),
        "ein paar": 3,
        "einigen": 3,
        "mehreren": 4,
        "einem": 1,
        "einer": 1,
        "einen": 1,
        "eine": 1,
        "ein": 1,
    },
    seasons={"frühling": "spring", "frühjahr": "spring", "sommer": "summer", "herbst": "autumn", "winter": "winter"},
    days={
        "vorgestern": "2 days ago",
        "gestern": "yesterday",
        "heute": "today",
        "übermorgen": "in 2 days",
    },
    last="letzte[nmrs]?|vergangene[nmrs]?|vorige[nmrs]?",
    this="diese[nmrs]?",
    next="nächste[nmrs]?|kommende[nmrs]?",
    weekend="wochenende",
    ago=r"vor {n} {unit}",
    window=r"in den (?:letzten|vergangenen) (?:{n} )?{unit}",
    into="im|in|seit|bis|vor|nach|ab|zwischen|anfang|mitte|ende|sommer|frühling|herbst|winter|jahr",
    of="des|im|in",
    ordinal=r"\.",
    parts={"anfang": "early", "mitte": "mid", "ende": "late"},
    ordinals={"erste[nr]?": 1, "zweite[nr]?": 2, "dritte[nr]?": 3, "vierte[nr]?": 4, "letzte[nr]?": -1},
    week="woche",
    before="vor dem|vor",
    after="nach dem|nach",
    since="seit dem|seit|ab",
    until="bis zum|bis",
    between="zwischen dem|zwischen",
    both="und dem|und",
    start="vom|von",
    to="bis zum|bis",
)

FRENCH: Final = Words(
    code="fr",
    telling=frozenset(_split("le la les qu quoi quand qui est ai avons avez je tu nous vous mon ma des du il dans")),
    months="janvier|février|fevrier|mars|avril|mai|juin|juillet|août|aout|septembre|octobre|novembre|décembre|decembre",
    short_months="janv|févr|juil|sept",
    weekdays={
        "lundi": "monday",
        "mardi": "tuesday",
        "mercredi": "wednesday",
        "jeudi": "thursday",
        "vendredi": "friday",
        "samedi": "saturday",
        "dimanche": "sunday",
    },
    units={
        **dict.fromkeys(("heures", "heure"), "hour"),
        **dict.fromkeys(("jours", "jour"), "day"),
        **dict.fromkeys(("semaines", "semaine"), "week"),
        "mois": "month",
        **dict.fromkeys(("années", "année", "ans", "an"), "year"),
    },
    numbers={
        **_counted("deux trois quatre cinq six sept huit neuf dix onze douze", 2),
        "quelques": 3,
        "plusieurs": 4,
        "un": 1,
        "une": 1,
    },
    seasons={"printemps": "spring", "été": "summer", "automne": "autumn", "hiver": "winter"},
    days={
        "avant-hier": "2 days ago",
        "hier": "yesterday",
        "aujourd'hui": "today",
        "après-demain": "in 2 days",
        "demain": "tomorrow",
    },
    last="derni[eè]re?s?|passée?s?",
    this="cet|cette|ce",
    next="prochaine?s?",
    weekend="week-end|weekend",
    ago=r"il y a {n} {unit}",
    window=r"(?:pendant|durant|dans|sur|au cours (?:de|des)) ?(?:les |la |l'|le )?(?:{n} )?derni[eè]re?s? {unit}",
    into="en|de|du|depuis|avant|après|entre|jusqu'en|jusqu'à|début|mi|fin|dès|l'|cet|été|printemps|hiver|automne|au",
    of="de",
    ordinal="er",
    parts={"début": "early", "(?:à la )?mi-?": "mid", "fin": "late"},
    ordinals={"première": 1, "deuxième": 2, "troisième": 3, "quatrième": 4, "dernière": -1},
    week="semaine",
    before="avant le|avant",
    after="après le|après",
    since="depuis le|depuis|dès le|dès",
    until="jusqu'au|jusqu'en|jusqu'à",
    between="entre le|entre",
    both="et le|et",
    start="du|de",
    to="au|à",
)

SPANISH: Final = Words(
    code="es",
    telling=frozenset(
        _split("el los las qué que cuándo cuando quién dónde es fue he ha yo tú mi me hemos del en y lo")
    ),
    months="enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|setiembre|octubre|noviembre|diciembre",
    short_months="ene|feb|abr|jun|jul|ago|sept|sep|oct|nov|dic",
    weekdays={
        "lunes": "monday",
        "martes": "tuesday",
        "miércoles": "wednesday",
        "miercoles": "wednesday",
        "jueves": "thursday",
        "viernes": "friday",
        "sábado": "saturday",
        "sabado": "saturday",
        "domingo": "sunday",
    },
    units={
        **dict.fromkeys(("horas", "hora"), "hour"),
        **dict.fromkeys(("días", "dias", "día", "dia"), "day"),
        **dict.fromkeys(("semanas", "semana"), "week"),
        **dict.fromkeys(("meses", "mes"), "month"),
        **dict.fromkeys(("años", "año"), "year"),
    },
    numbers={
        **_counted("dos tres cuatro cinco seis siete ocho nueve diez once doce", 2),
        "un par de": 2,
        "unos": 3,
        "unas": 3,
        "varios": 4,
        "varias": 4,
        "un": 1,
        "una": 1,
    },
    seasons={"primavera": "spring", "verano": "summer", "otoño": "autumn", "invierno": "winter"},
    days={
        "anteayer": "2 days ago",
        "antes de ayer": "2 days ago",
        "ayer": "yesterday",
        "anoche": "yesterday",
        "hoy": "today",
        "pasado mañana": "in 2 days",
    },
    last="pasad[oa]s?|últim[oa]s?",
    this="est[ea]",
    next="próxim[oa]|que viene",
    weekend="fin de semana",
    ago=r"hace {n} {unit}",
    window=r"en (?:los|las|el|la) (?:últim[oa]s?) (?:{n} )?{unit}",
    into="en|de|del|desde|hasta|antes|después|entre|a principios|a mediados|a finales|verano|primavera|invierno|otoño",
    of="de",
    ordinal="º|ro",
    parts={"(?:a )?principios de": "early", "(?:a )?mediados de": "mid", "(?:a )?final(?:es)? de": "late"},
    ordinals={"primera": 1, "segunda": 2, "tercera": 3, "cuarta": 4, "última": -1},
    week="semana",
    before="antes del|antes de",
    after="después del|después de",
    since="desde el|desde",
    until="hasta el|hasta",
    between="entre el|entre",
    both="y el|y",
    start="del|de|desde el|desde",
    to="al|a|hasta el|hasta",
)

LANGUAGES: Final = (ENGLISH, GERMAN, FRENCH, SPANISH)
