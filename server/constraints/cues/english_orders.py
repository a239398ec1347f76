"""English: what the writer wants done, or not done, from now on."""

from __future__ import annotations

from typing import Final

from server.constraints.cues.cue import Cue, cue
from server.constraints.cues.fragments import CAN_YOU, CLAUSE, LANGUAGE, PAST, REPLIES, RESOLVES, VERB

INSTRUCTIONS: Final[tuple[Cue, ...]] = (
    cue(
        "from now on",
        "instruction",
        "from forward henceforth future",
        rf"\bfrom (?:now|here|this point|today) on(?:wards?)?\b{RESOLVES}(?=.*\b(?:you|your|please|always"
        rf"|never|don't|do not|me|no|{VERB})\b)",
        rf"^(?!(?:i|we|he|she|they|it|that|things)\b)(?=.*\b(?:you|your|please|always|never|don't|do not"
        rf"|{VERB})\b).* from (?:now|here|this point|today)"
        rf" on(?:wards?)?\b",
        rf"^going forward{RESOLVES}(?:,| (?={VERB}|please|always|never|don't))",
        r"\bhenceforth\b",
        rf"^in (?:the )?future,? (?:please |can you |could you |always |never |don't |do not |{VERB}\b)",
        rf"\bfor (?:all )?future (?:{REPLIES}|questions|requests|reference,? (?:please|always|never|i|don't))",
        asked=True,
    ),
    cue(
        "never",
        "prohibition",
        "never",
        rf"{CLAUSE}never (?:ever )?(?!say never|say die){VERB}\b(?! (?:it a|too|up|mind|thought|the less)\b)",
        rf"{CAN_YOU}never (?!{PAST})\w+",
        rf"^{VERB} .{{2,60}} and never {VERB}\b",
        rf"\bplease never (?!{PAST}|change|give up)\w+",
        avoid=True,
        asked=True,
    ),
    cue(
        "always",
        "instruction",
        "always",
        rf"{CLAUSE}always {VERB}\b",
        rf"{CAN_YOU}always {VERB}\b",
        r"\bplease always \w+",
        rf"^{VERB} .{{2,60}} and always {VERB}\b",
        asked=True,
    ),
    cue(
        "please do not",
        "prohibition",
        "please",
        rf"\bplease,? (?:don't|do not|never|no longer|not)(?: ever)? {VERB}\b",
        rf"(?:{CLAUSE}|\b)please,? (?:avoid|refrain from|stop|skip) (?!it\b|that\b|this\b|the\b|here\b|by\b)\w+",
        r"\bplease (?:no|no more) \w+",
        avoid=True,
        asked=True,
    ),
    cue(
        "do not",
        "prohibition",
        "don't dont not don mustn",
        rf"^(?:and |but |also |so )*(?:don't|do not|dont)(?: you)?(?: ever)? {VERB}\b(?! (?:it"
        rf"|anything)[.!]*$)(?! (?:the|this|that) \w+[.!]*$)",
        rf"\byou must(?: not|n't) {VERB}\b",
        rf"(?:don't|do not) ever {VERB}\b",
        r"\bi (?:don't|do not|never) (?:want|need|like) you to\b",
        avoid=True,
    ),
    cue(
        "stop doing",
        "prohibition",
        "stop quit avoid refrain",
        rf"^(?:{CAN_YOU})?(?:stop|quit) (?:call|us|suggest|recommend|ask|show|send|add|apologi[sz]|say|writ"
        rf"|giv|includ|put"
        r"|remind|mention|repeat|tell|schedul|book|summari[sz]|explain)\w*ing\b",
        r"^(?:avoid|refrain from) (?:us|suggest|recommend|ask|show|send|add|apologi[sz]|say|writ|giv|includ"
        r"|put|mention|repeat|call)\w*ing\b",
        avoid=True,
    ),
    cue(
        "under no circumstances",
        "prohibition",
        "circumstances case condition",
        r"\bunder no (?:circumstances?|conditions?)\b",
        r"\bin no case\b",
        avoid=True,
    ),
    cue(
        "no such thing",
        "prohibition",
        "no",
        r"^(?:and )?no (?!thanks|thank|problem|worries|idea|need|rush|one|please)(?:\w+[ ,]+){1,7}please\b",
        r"^(?:and )?no (?:more )?(?:emojis?|markdown|bullet ?points?|small ?talk|jargon|exclamation marks"
        r"|disclaimers|comments|tables|hashtags|links|preamble|apologies|smileys|semicolons)\b",
        avoid=True,
    ),
    cue(
        "whenever",
        "instruction",
        "whenever every each any anytime when",
        rf"^when(?:ever)? you(?:'re|'ve| are| have)? (?:\w+ )?(?:{VERB}|\w+ing)\b.*, (?:please |always |never "
        rf"|you should |don't )*{VERB}\b",
        rf"\b(?:whenever|every ?time|each time|any ?time) (?:you (?:\w+ )?{VERB}\b|i (?:ask|say|mention|tell"
        rf"|request|send|paste|type|share|give|write|post|upload)\b)(?! (?:me|him|her|them|us) (?:\w+"
        rf" ){{0,3}}(?:i|it|he|she) (?:feel|get|am|was))",
    ),
    cue(
        "reply in",
        "instruction",
        "english german french spanish italian portuguese dutch polish russian ukrainian turkish arabic hebrew hindi "
        "chinese mandarin japanese korean swedish danish norwegian finnish greek czech romanian hungarian",
        rf"(?:{CLAUSE}|{CAN_YOU}|\bi want you to )(?:always |only )?(?:answer|reply|respond|write|speak|talk"
        rf"|explain|communicate|chat|switch)(?: to me| back| with me| everything| only| always| to)* (?:in"
        rf"|to)? ?{LANGUAGE}\b",
        rf"\b(?:your|all) {REPLIES} (?:in|must be in|should be in|to be in) {LANGUAGE}\b",
        asked=True,
    ),
    cue(
        "how to reply",
        "instruction",
        "answer answers reply replies response responses message messages explanation explanations tone summaries "
        "suggestions recommendations output outputs concise brief short formal casual informal polite direct "
        "blunt honest "
        "precise point treat consider assume explain all every each any times talk speak prefer default ask "
        "check please",
        rf"{CLAUSE}(?:keep|make|format|limit|phrase|write|structure|start|end|begin) (?:your|all|all your"
        rf"|every|each|any) (?:\w+ )?(?:{REPLIES}|tone|language)\b",
        rf"^{REPLIES} (?:must|should|need to|have to|shall|are to)\b",
        rf"\b(?:your|all|every) (?:\w+ )?{REPLIES} (?:should|must|need to|have to|shall|are to)\b",
        rf"\bi (?:want|need|like|expect|would like|'d like) (?:your|all|every|all your) (?:\w+ )?{REPLIES}\b",
        r"^(?:treat|consider|talk to|speak to) me (?:like|as)\b",
        rf"^{VERB} .*\b(?:every (?:single )?time|each time|at all times)[.!]*$",
        rf"^(?:\w+ ){{1,3}}{REPLIES}(?: only)?,? please\b",
        rf"^(?:only )?in {LANGUAGE},? (?:please|from now on)",
        rf"\bi (?:only )?(?:want|need|like|prefer) (?!th[eo]se|more|your|some|any|the|an?\b)(?:\w+"
        rf" ){{1,2}}{REPLIES}\b",
        r"^(?:prefer|default to) \w+",
        r"^(?:always )?(?:ask|check with) (?:me )?(?:before|first)\b",
        r"^assume (?:that )?i\b",
        r"^explain (?:things|everything|it all|all of it|concepts)\b",
        r"^(?:write|format|use|wrap|round|convert|cite|spell|keep|make|start|end|begin|sign|prefix|mark)"
        r" (?:all|every|each|any)\b(?! (?:of )?(?:these|this|those|the))",
        r"^(?:always )?be (?:more |very |as |really )?(?:concise|brief|short|formal|casual|informal|polite"
        r"|direct|blunt|honest|precise|to the point)\b(?= (?:in|when|with|from|and|as)|[.!]*$)",
        r"^keep (?:it|things|everything|them) (?:short|brief|concise|simple|formal|casual|informal)\b",
        asked=True,
    ),
    cue(
        "you always",
        "instruction",
        "want like need expect love",
        r"\bi(?:'d| would)? (?:like|want|need|expect|love)(?: for)? you to (?:always|never|only|act|behave"
        r"|remember|keep|stop|address|respond|reply|answer|speak)\b",
    ),
    cue(
        "act as",
        "instruction",
        "act behave pretend assistant ai chatbot bot expert tutor copilot agent model",
        rf"(?:{CLAUSE}|{CAN_YOU})(?:act as|behave (?:like|as)|pretend (?:to be|you're|you are)|you will act"
        rf" as) (?:if )?\w+",
        r"^you(?:'re| are) (?:an? |my |the )(?:\w+ ){0,4}(?:assistant|ai|chatbot|bot|expert|tutor|copilot"
        r"|agent|model)\b",
    ),
    cue(
        "make sure you always",
        "instruction",
        "sure ensure certain",
        r"(?<!to )\b(?:make (?:sure|certain)|ensure) (?:that )?(?:you |to )?(?:always|never|only|don't|do not)"
        rf" {VERB}\b",
    ),
    cue(
        "keep in mind",
        "instruction",
        "mind remember note forget",
        r"^(?:please )?(?:keep in mind|bear in mind|note|remember|don't forget|never forget),? ?(?:that"
        r" )?(?:i(?:'m| am)? (?!told|said|mentioned|was|were|had|asked|sent|just|did|saw|went|used)|i'm|my |we"
        r" |we're|our |always|never|to always|to never)",
    ),
    cue(
        "rule",
        "instruction",
        "rule rules instruction order orders",
        r"^(?:as a |my |one |general |new |house |golden |another |here's a |ground |standing )*(?:rules?"
        r"|standing orders?|standing instructions?)(?: of mine)?(?: number \w+)?(?: is| are|:|,)",
        r"\bas a (?:general |strict )?rule,? (?:i|you|we|never|always|don't)",
    ),
    cue(
        "use instead",
        "instruction",
        "use stick write instead rather not metric imperial celsius fahrenheit kilometres kilometers miles",
        rf"^(?:always |only |please )*{VERB} .{{2,60}}(?:\binstead of|\brather than|\band not|, not)\b",
        r"^(?:always |only |please )*(?:use|stick (?:to|with)) (?:the )?(?:metric|imperial|celsius|fahrenheit"
        r"|british|american|24[- ]hour|12[- ]hour|kilomet\w+|miles|euros?|si units)\b",
        r"^stick (?:to|with) \w+",
    ),
    cue(
        "only",
        "instruction",
        "only",
        rf"(?:^|\bplease |[;:] ?)only (?:ever )?{VERB}\b(?! (?:me|him|her)[.!]*$)",
        r"\byou (?:may|can|should|must|are to|shall) only\b",
        rf"^{VERB} (?:me )?only\b",
    ),
    cue(
        "allowed again",
        "instruction",
        "again after fine okay ok",
        rf"^you (?:can|may) {VERB}\b.* (?:again|after all)[.!]*$",
        rf"^(?:it's|it is) (?:ok|okay|fine) (?:to|if you) {VERB}\b.* (?:again|now|after all)[.!]*$",
    ),
)

# Of a system or developer message every order is meant to stand.
ORDERS: Final[tuple[Cue, ...]] = (
    cue(
        "you must not",
        "prohibition",
        "not never don't cannot can't mustn't avoid",
        r"\b(?:you )?(?:must not|mustn't|may not|should not|shouldn't|cannot|can't|shall not)\b",
        rf"{CLAUSE}(?:never|do not|don't|avoid) \w+",
        avoid=True,
    ),
    cue(
        "you must",
        "instruction",
        "must should shall always only ensure sure if when",
        r"\byou (?:must|should|shall|are to|will|have to|need to) \w+",
        rf"{CLAUSE}(?:always|only|ensure|make sure) \w+",
        rf"^(?:if|when(?:ever)?) .*, (?:you )?(?:must |should |always |please )?{VERB}\b",
    ),
    cue(
        "order",
        "instruction",
        "use answer reply respond write include keep be cite format",
        r"^(?:use|answer|reply|respond|write|include|keep|be|cite|format) \w+",
    ),
)
