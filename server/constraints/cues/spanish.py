"""The plain Spanish cues."""

from __future__ import annotations

from typing import Final

from server.constraints.cues.cue import Cue, cue

SPANISH: Final[tuple[Cue, ...]] = (
    cue(
        "llámame",
        "identity",
        "llámame llámeme dime",
        r"\bll[áa]m(?:ame|eme) (?!cuando|mañana|si|luego|a\b|antes|después)\w+",
        asked=True,
    ),
    cue(
        "dieta",
        "restriction",
        "vegetariano vegetariana vegano vegana alérgico alérgica como bebo celíaco celíaca diabético diabética",
        r"\bsoy (?:\w+ )?(?:vegetarian[oa]|vegan[oa]|alérgic[oa]|celíac[oa]|diabétic[oa])\b",
        r"(?:^|\byo |, )(?:ya )?no (?:como|bebo) \w+",
        stated=True,
        avoid=True,
    ),
    cue(
        "de ahora en adelante",
        "instruction",
        "adelante ahora",
        r"\b(?:de|desde) (?:ahora|hoy) en adelante\b(?!,? (?:voy|yo))",
        r"\ba partir de ahora\b(?!,? (?:voy|yo))",
    ),
    cue(
        "nunca",
        "prohibition",
        "nunca no jamás evita evite",
        r"^(?:por favor,? )?(?:nunca|jamás) (?!digas nunca)(?:me )?(?:uses|llames|escribas|respondas|muestres"
        r"|des|pongas"
        r"|sugieras|recomiendes|envíes|digas|incluyas|utilices)\b",
        r"^(?:por favor,? )?no (?:me )?(?:uses|llames|escribas|respondas|muestres|des|pongas|sugieras"
        r"|recomiendes|envíes|digas|incluyas|utilices)\b",
        r"^(?:por favor,? )?evit[ae] (?:usar|los|las|el|la|dar|poner)\b",
        avoid=True,
    ),
    cue(
        "siempre",
        "instruction",
        "siempre",
        r"^(?:por favor,? )?siempre (?:usa|responde|escribe|muestra|da|pon|incluye|utiliza)\b",
        r"^(?:por favor,? )?(?:usa|responde|escribe|muestra|incluye|utiliza|contesta)(?: \w+){0,2} siempre\b",
    ),
    cue(
        "responde en",
        "instruction",
        "responde contesta escribe habla respóndeme háblame",
        r"\b(?:responde|contesta|escribe|habla|respóndeme|háblame)(?: \w+){0,2} en (?:español|inglés|alemán"
        r"|francés|italiano)\b",
        asked=True,
    ),
    cue("prefiero", "preference", "prefiero preferiría preferimos", r"\b(?:prefiero|preferiría|preferimos)\b"),
)
