"""The plain German cues."""

from __future__ import annotations

from typing import Final

from server.constraints.cues.cue import Cue, cue

GERMAN: Final[tuple[Cue, ...]] = (
    cue(
        "nenn mich",
        "identity",
        "nenn nenne nennen duze duz sieze siez duzen siezen",
        r"\bnenn(?:e|en sie)? mich (?!nicht)\w+",
        r"\b(?:duze?|sieze?|duzen|siezen) (?:sie )?mich\b",
        asked=True,
    ),
    cue(
        "ernährung",
        "restriction",
        "vegetarier vegetarierin veganer veganerin vegan vegetarisch allergisch esse trinke vertrage diabetiker",
        r"\bich (?:bin|lebe|ernähre mich|esse)(?: \w+){0,2} (?:vegetarier(?:in)?|veganer(?:in)?|vegan"
        r"|vegetarisch|diabetiker(?:in)?|allergisch)\b",
        r"\bich (?:esse|trinke|vertrage)(?: \w+){0,2} (?:kein|keine|keinen|nie)\b",
        stated=True,
        avoid=True,
    ),
    cue(
        "ab jetzt",
        "instruction",
        "ab künftig zukünftig zukunft fortan",
        r"\bab (?:jetzt|sofort|heute|nun)\b(?! (?:werde|will|habe|bin) ich)",
        r"^(?:zu)?künftig\b",
        r"\bin zukunft (?:bitte|immer|nie|kein)",
        r"\bbitte (?:in zukunft|künftig)",
    ),
    cue(
        "niemals",
        "prohibition",
        "nie niemals",
        r"^(?:bitte )?(?:nie|niemals)(?! wieder) \w+",
        r"\bbitte (?:nie|niemals)\b",
        r"^(?:ruf|verwende?|benutze?|nutze?|schreibe?|antworte?|schlag|zeig|nimm|sag|frag|empfiehl|schicke?"
        r"|gib)(?: \w+){1,3} (?:nie|niemals)\b",
        avoid=True,
    ),
    cue(
        "bitte nicht",
        "prohibition",
        "bitte verwende verwend benutze benutz nutze nutz schreibe schreib schlage zeige zeig empfiehl schicke schick",
        r"\bbitte (?:\w+ ){0,3}(?:keine?n?|nicht(?! vergessen)|ohne)\b",
        r"^(?:verwende?|benutze?|nutze?|schreibe?|schlage?|zeige?|empfiehl|schicke?) (?:mir |bitte"
        r" )*(?:keine?n?|nicht)\b",
        avoid=True,
    ),
    cue(
        "immer",
        "instruction",
        "immer stets",
        r"^(?:bitte )?(?:immer|stets) \w+",
        r"\bbitte (?:\w+ ){0,2}(?:immer|stets)\b",
        r"^(?:verwende?|benutze?|nutze?|schreibe?|antworte?|zeige?|nimm|sag|gib|erkläre?)(?: \w+){0,2}"
        r" (?:immer|stets)\b",
    ),
    cue(
        "antworte auf",
        "instruction",
        "antworte antworten schreib schreibe sprich",
        r"\b(?:antworte|antworten sie|schreibe?|sprich)(?: \w+){0,3} (?:auf|in) (?:deutsch|englisch"
        r"|französisch|spanisch|italienisch)\b",
        r"^antworte(?:n sie)?(?: mir)?(?: bitte)? (?:kurz|knapp|ausführlich|formell|höflich)",
        asked=True,
    ),
    cue(
        "bevorzuge",
        "preference",
        "bevorzuge lieber",
        r"\bich (?:bevorzuge|ziehe .{2,40} vor)\b",
        r"\bmir (?:ist|sind|wäre|wären) .{2,40} lieber\b",
        r"\bich (?:mag|nehme|nutze|hätte|möchte|trinke|esse|fahre) (?:\w+ )?lieber\b",
    ),
    cue(
        "merk dir",
        "instruction",
        "merk merke denk denke",
        r"^(?:bitte )?(?:merke? dir|denke? (?:bitte )?daran),? ?(?:bitte )?,? ?(?:dass|ich|mein)",
    ),
)
