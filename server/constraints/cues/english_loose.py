"""English: what may be a rule or a preference, and often is meant once."""

from __future__ import annotations

from typing import Final

from server.constraints.cues.cue import Cue, cue
from server.constraints.cues.fragments import VERB

LOOSE: Final[tuple[Cue, ...]] = (
    cue(
        "dislike",
        "preference",
        "hate dislike stand like fan avoid fond cutting cut avoiding staying allowed",
        r"\bi (?:really |absolutely |just |personally |also |honestly )*(?:hate|dislike|can't stand|cannot"
        r" stand|don't like|do not like|detest|don't care for) (?!to (?:say|admit|break|think|see)\b|that (?:i"
        r"|we)|how|myself|(?:mon|tues|wednes|thurs|fri)days[.!]|not |this|that|it\b)\w+",
        r"\bi(?:'m| am) not (?:a (?:big |huge )?fan of|fond of|keen on)\b",
        r"\bi (?:always |usually |try to |tend to |generally |prefer to )+avoid\b",
        r"\bi(?:'m| am) (?:trying to )?(?:cut(?:ting)? (?:down on|out|back on)|avoid(?:ing)?|staying away from)\b",
        r"\bi(?:'m| am) not allowed to\b",
        avoid=True,
        loose=True,
    ),
    cue(
        "habit",
        "preference",
        "always never only usually generally normally mostly exclusively rarely",
        r"\bi (?:always|never|only|usually|generally|normally|mostly|exclusively|rarely) (?:use|eat|drink|fly"
        r"|work|write"
        r"|wear|buy|take|shop|travel|book|cook|order|pay|drive|stay|choose|go for|stick|skip|listen|read|watch|play"
        r"|sleep|start|run|walk|have)\b",
        loose=True,
    ),
    cue(
        "favourite",
        "preference",
        "favorite favourite favorites favourites",
        r"\bmy (?:\w+ )?favou?rites? (?:\w+ ){0,3}(?:is|are)\b",
        r"\b(?:is|are) my (?:\w+ )?favou?rites?\b",
        loose=True,
    ),
    cue(
        "like it so",
        "preference",
        "like want love need",
        r"\bi(?:'d| would) like (?:all|every|my|any) \w+",
        r"\bi(?:'d)? (?:really )?(?:like|love|want|need) (?:my \w+|it when|when you|all my|things|everything"
        r"|answers|to keep (?:it|things|my))\b",
        loose=True,
    ),
    cue(
        "use for",
        "instruction",
        "use include exclude omit sign spell capitalise capitalize indent prefix avoid skip must try let need "
        "appreciate "
        "want switched changed every each all everything",
        r"^use (?!the|this|that|these|those|your|my|it\b)[\w-]+ (?:\w+ )?(?:for|in|when)\b",
        r"^(?:please )?(?:use|include|exclude|omit|sign|spell|capitali[sz]e|indent|prefix) "
        r"(?!the|this|that|these|those|your (?:imagination|head)|my|it\b|up)\w+",
        r"^(?:please )?(?!list|show|tell|find|name|count|collect|read|check|thanks|write|what|who|how|i\b|we\b"
        r"|he\b|she\b|they\b"
        r"|it\b|you\b|love|wish|there|this|that|not)\w+ (?:me )?(?:\w+ ){0,4}(?:for|at|with|to|in) (?:all"
        r"|every|each) \w+",
        r"^(?:please )?(?:do|make|put|keep|mark|convert|handle) (?:all|every|each|everything)\b",
        r"\bi (?:want|need) (?:the|all|my) (?:\w+ ){1,2}(?:in|as|to be)\b",
        r"\bi(?:'ve| have)? (?:just |recently |now )?(?:switched|changed) (?:over )?to\b",
        r"^(?:avoid|skip) (?!the (?:highway|road|area|traffic)|it\b|this|that|him|her|them)\w+",
        rf"\byou must {VERB}\b",
        rf"^try (?:not )?to (?:be|keep|{VERB})\b",
        r"^let's (?:always|never|stick|keep to)\b",
        rf"^(?:no|there's no|you don't) need to {VERB}\b",
        r"\bi(?:'d| would) appreciate (?:it )?if you\b",
        r"\bi (?:try|like) to keep my\b",
        loose=True,
    ),
    cue(
        "make sure",
        "instruction",
        "sure ensure certain",
        r"^(?:please )?(?:make (?:sure|certain)|ensure)\b(?! (?:to |you )?(?:have|enjoy|take care|check|visit"
        r"|stay|keep going|watch))",
        r"\bplease (?:make (?:sure|certain)|ensure)\b",
        loose=True,
    ),
    cue(
        "please keep",
        "instruction",
        "please",
        r"^(?:and )?please (?:keep|use|only|be|always|remember|include|add|note|stick|limit|write|format|respect)\b"
        r"(?! (?:a|an|the|me|this|these|careful|safe|patient|well|ok|okay|in touch|up|going|what|how|when|it)\b)",
        loose=True,
    ),
    cue(
        "never or always",
        "instruction",
        "never always",
        r"^(?:and |but |also )*(?:never|always) (?!mind|been|had|heard|seen|thought|tried|knew|knows|done|gone"
        r"|felt|a\b|an\b|the\b|good|nice|great|happy|fun|here|there|said|say|will|would|is|was|so|in\b|my\b"
        r"|too|up\b|had|has|have|\w+ed\b)\w+",
        loose=True,
    ),
    cue(
        "do not want",
        "prohibition",
        "want without",
        r"\b(?:i|we) (?:don't|do not) want (?:any|to (?:see|get|receive|use|spend|deal|have))\b",
        avoid=True,
        loose=True,
    ),
)
