"""Parts of English patterns that several cues share."""

from __future__ import annotations

from typing import Final

# What an assistant, or a friend who is told how to behave, does.
VERB: Final = (
    r"(?:use|show|answer|reply|respond|write|give(?! up)|include|add|suggest|recommend|mention|call|ask|explain"
    r"|format|put|send"
    r"|book|schedule|tell me|make sure|keep|cite|translate|provide|check|start|begin|end|finish|contact|text|ring|phone"
    r"|e-?mail|message|address|treat|assume|avoid|remind|wake|share|speak|talk|order|list|return|print|generate|create"
    r"|offer|propose|refer|quote|run|commit|push|delete|touch|change|modify|disturb|interrupt|skip|leave out"
    r"|round|spell"
    r"|convert|assign|plan|pick|choose|buy|cook|serve|bring|seat|reveal|disclose|discuss|apologi[sz]e|repeat"
    r"|summari[sz]e"
    r"|double[- ]check|verify|confirm|follow|prefix|sign|greet|compare|consider|prioriti[sz]e|break|name|do"
    r"|say|wrap|document)"
)
CLAUSE: Final = r"(?:^|[,;:–—-] ?(?:and |but |so |then |please )*|(?:^please|\bplease|^to) )"
CAN_YOU: Final = (
    r"(?:(?:can|could|would|will) you (?:please |also |just )*|would you mind "
    r"|you (?:must|should|shall|need to|have to|are to) )"
)
REPLIES: Final = (
    r"(?:answers?|repl(?:y|ies)|responses?|messages?|explanations?|summaries|suggestions|recommendations|emails?"
    r"|outputs?)"
)
LANGUAGE: Final = (
    r"(?:english|german|french|spanish|italian|portuguese|dutch|polish|russian|ukrainian|turkish|arabic|hebrew|hindi"
    r"|chinese|mandarin|japanese|korean|swedish|danish|norwegian|finnish|greek|czech|romanian|hungarian)"
)
DIET: Final = (
    r"(?:vegetarian|vegan|pescatarian|pescetarian|lactose[- ]intolerant|gluten[- ](?:free|intolerant)"
    r"|c(?:o)?eliac|diabetic"
    r"|kosher|halal|keto|teetotal(?:er|ler)?|dairy[- ]free|flexitarian|fruitarian)"
)
PAST: Final = r"(?:been|had|heard|seen|thought|tried|known|done|gone|felt|have|\w+ed\b)"
FAKE_OBJECT: Final = (
    r"(?! (?:this|that|these|those|another|any ?more|it all|that much|enough|a thing|right now|before|until"
    r"|since|because|much|there"
    r"|today|tonight"
    r"|yesterday|all day|out|lunch|breakfast|dinner|like that|and|or|in|at|with|for|yet|when|well)\b)"
)
RESOLVES: Final = r"(?!,? (?:i'm going to|i'll|i will|we'll|we will|i'm|he|she|they|it|things|life|my life)\b)"
