"""The plain French cues."""

from __future__ import annotations

from typing import Final

from server.constraints.cues.cue import Cue, cue

FRENCH: Final[tuple[Cue, ...]] = (
    cue(
        "appelle-moi",
        "identity",
        "appelle appelez",
        r"\bappel(?:le|ez)-moi (?!quand|demain|si|plus|à|avant|après)\w+",
        asked=True,
    ),
    cue(
        "régime",
        "restriction",
        "végétarien végétarienne végan végane vegan végétalien végétalienne allergique mange bois diabétique",
        r"\bje suis (?:\w+ )?(?:végétarien(?:ne)?|végane?|vegan|végétalien(?:ne)?|allergique|diabétique)\b",
        r"\bje ne (?:mange|bois) (?:pas|plus|jamais) (?:de |d')\w+",
        stated=True,
        avoid=True,
    ),
    cue(
        "désormais",
        "instruction",
        "désormais dorénavant partir avenir",
        r"^(?:désormais|dorénavant)\b(?!,? je (?:vais|suis))",
        r"\bà partir de (?:maintenant|aujourd'hui)\b(?!,? je (?:vais|suis))",
        r"\bà l'avenir,? (?:merci|ne|n'|évite|utilise|toujours)",
    ),
    cue(
        "ne jamais",
        "prohibition",
        "jamais pas évite évitez plus",
        r"^(?:s'il (?:te|vous) plaît,? |merci de )?(?:ne |n')(?:\w+|m'\w+|me \w+) (?:jamais|pas|plus)\b",
        r"^(?:s'il (?:te|vous) plaît,? )?évite(?:z)? (?:de|d'|les|le|la)\b",
        r"^merci de ne (?:jamais|pas|plus)\b",
        avoid=True,
    ),
    cue(
        "toujours",
        "instruction",
        "toujours",
        r"^(?:s'il (?:te|vous) plaît,? )?(?:utilise|utilisez|réponds|répondez|écris|écrivez|montre|montrez"
        r"|donne|donnez|mets|mettez)(?:-moi)? (?:\w+ )?toujours\b",
        r"^toujours (?:utiliser|répondre|écrire|montrer|donner|mettre)\b",
    ),
    cue(
        "réponds en",
        "instruction",
        "réponds répondez écris écrivez parle parlez",
        r"\b(?:réponds|répondez|écris|écrivez|parle|parlez)(?:-moi)?(?: \w+){0,2} en (?:français|anglais"
        r"|allemand|espagnol|italien)\b",
        asked=True,
    ),
    cue(
        "je préfère",
        "preference",
        "préfère préférerais préférons",
        r"\bje préf(?:ère|érerais)\b",
        r"\bnous préférons\b",
    ),
)
