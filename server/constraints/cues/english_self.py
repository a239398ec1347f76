"""English: what the writer says of themselves: names, diets, allergies, preferences."""

from __future__ import annotations

from typing import Final

from server.constraints.cues.cue import Cue, cue
from server.constraints.cues.fragments import CAN_YOU, DIET, FAKE_OBJECT

SELF: Final[tuple[Cue, ...]] = (
    cue(
        "call me",
        "identity",
        "call called address addressed refer name pronouns use",
        rf"(?:^|\bplease |\bjust |\byou (?:can|may) |{CAN_YOU}|, |\bfriends )call me (?!when|back|at|if|later"
        rf"|before|after|on|in"
        rf"|and|to|for|tomorrow|today|tonight|anytime|any|crazy|old|a\b|an\b|the|by (?!my)|about|every|once|as soon"
        rf"|again|this|next|whenever|or|sometime|now|asap|during|around|between|first|only)\w+",
        r"(?:address|refer to|call) me (?:as|by (?:my|the)|with)\b",
        r"\bi(?:'d| would)? (?:like|want|prefer) to be (?:called|addressed)\b(?! back)",
        r"\bi use (?:she|he|they|it|ze|xe)/",
        r"^(?:and )?my (?:name is|name's|pronouns are)\b",
        asked=True,
    ),
    cue("go by", "identity", "go", r"\bi go by (?!bus|train|car|bike|foot|plane|the|a\b|it|that)\w+"),
    cue(
        "changed diet",
        "restriction",
        "eat drink vegetarian vegan pescatarian kosher halal keto gluten dairy diabetic",
        rf"\bi(?:'m| am) (?:no longer|not) (?:an? )?(?:strict )?{DIET}",
        r"\bi (?:can |do |also )?(?:eat|drink) (?:\w+ ){1,4}(?:now|again)\b",
        rf"\bi stopped being (?:an? )?{DIET}",
    ),
    cue(
        "diet",
        "restriction",
        "vegetarian vegan pescatarian pescetarian lactose gluten celiac coeliac diabetic kosher halal keto teetotal "
        "teetotaler teetotaller dairy flexitarian fruitarian",
        rf"\b(?:i'm|i am|i've been|i have been|i became|i've become|we're|we are) (?:now |also |actually |still"
        rf" |both |all |strictly |mostly |(?:a )?(?:strict|lifelong|committed) )*(?:an? |on an? |going"
        rf" )?{DIET}",
        r"\bi (?:keep|eat|follow) (?:an? )?(?:strict(?:ly)? )?(?:kosher|halal|keto|vegan|vegetarian|gluten[- ]free)",
        stated=True,
        avoid=True,
    ),
    cue(
        "allergy",
        "restriction",
        "allergic allergy allergies intolerant intolerance",
        r"\b(?:i'm|i am|we're|we are) (?!not)(?:(?!not\b)\w+ ){0,2}(?:allergic|intolerant) to\b",
        r"\bi(?:'ve| have|'ve got| have got| got)(?: got)? (?:an? |some )?(?:\w+ ){0,2}(?:allerg(?:y|ies)|intolerance)",
        stated=True,
        avoid=True,
    ),
    cue(
        "do not eat",
        "restriction",
        "eat drink smoke",
        rf"\b(?:i|we) (?:really |just |still )?(?:don't|do not|never|no longer|can't|cannot|won't|don't ever)"
        rf" (?:really |ever )?(?:eat|drink){FAKE_OBJECT} \w+",
        rf"\bi only (?:ever )?(?:eat|drink){FAKE_OBJECT} \w+",
        r"\bi (?:don't|do not|never) (?:smoke|drink)[.!]*$",
        stated=True,
        avoid=True,
    ),
    cue(
        "prefer",
        "preference",
        "prefer preference preferences preferred rather works work suit suits",
        r"\bi(?:'d|'ll| would)? (?:\w+ly |much |also |still |actually |just |always |would |do )*prefer\b(?! ?\.\.)",
        r"(?<!what )(?<!whatever )(?<!that )(?<!which )\bworks? (?:best|better) for me\b",
        r"\bsuits? me (?:best|better)\b",
        r"\bi(?:'d| would) (?:much )?rather (?:you |not be |(?!not|be|go|die|stay|see|say|never|than|do\b)\w+)",
        r"^(?:and )?my (?:\w+ )?(?:preference is|preferences are|preferred)\b",
        r"\bwe(?:'d| would)? (?:\w+ly )?prefer\b",
    ),
    cue(
        "no longer",
        "preference",
        "longer",
        r"\b(?:i|we) no longer (?:use|want|need|prefer|like|work with|support|do|take|buy|wear|write|accept)\b",
        avoid=True,
    ),
)
