"""``turnstone explain``: how a search comes about, as a tree: EXPLAIN ANALYZE for a question."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from server.cli.client import SETTINGS, connect
from server.cli.options import with_settings
from server.settings import Settings

_WIDEST = 120  # columns
_SNIPPET = 200  # characters of an event
_STAGE_BEST = 5  # events of a stage
_WORDS = 20


@click.command()
@click.argument("question")
@click.option("--user", help="Search all conversations of this user.")
@click.option("--conversation", help="Search this conversation.")
@click.option("--tenant", is_flag=True, help="Search all users of the tenant (with an admin key).")
@click.option("--type", "kind", help="The question's type, in place of what its cues tell.")
@click.option("-k", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many answers.")
@click.option(
    "--why-not", type=int, multiple=True, metavar="SEQ", help="Say why this event of --conversation is missing."
)
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as it is.")
@with_settings(*SETTINGS)
def explain(
    settings: Settings,
    question: str,
    user: str | None,
    conversation: str | None,
    tenant: bool,
    kind: str | None,
    k: int,
    why_not: tuple[int, ...],
    as_json: bool,
) -> None:
    """Search for QUESTION and show how the answer came about: type, plan, words, stages, times."""
    if sum((user is not None, conversation is not None, tenant)) != 1:
        raise click.UsageError("give one of --user, --conversation and --tenant")
    if why_not and conversation is None:
        raise click.UsageError("--why-not names an event of --conversation")
    body: dict[str, Any] = {"query": question, "k": k, "explain": True}
    body |= {"user": user} if user is not None else {}
    body |= {"conversation_id": conversation} if conversation is not None else {}
    body |= {"scope": "tenant"} if tenant else {}
    body |= {"type": kind} if kind is not None else {}
    body["why_not"] = [{"conversation_id": conversation, "seq": seq} for seq in why_not]
    with connect(settings) as client:
        answer = client.post("/v1/search", json=body).json()
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 80)
    console.width = min(console.width, _WIDEST)
    console.print(tree(question, answer, one_conversation=conversation is not None))


def tree(question: str, answer: dict[str, Any], *, one_conversation: bool) -> Tree:
    """Return an answer with its explanation as a tree; events are named by seq alone within one conversation."""
    shown = answer["explain"]
    root = Tree(Text(question, "bold"), guide_style="dim")
    if "degraded" in answer:
        root.add(Text.assemble(("without vectors: ", "bold red"), answer["degraded"]["reason"]))
    _add_type(root, answer, shown)
    _add_plan(root, answer, shown)
    contents = {(one["conversation_id"], one["seq"]): one["event"] for one in answer["data"]}
    answers = root.add(Text.assemble(("answers ", "bold cyan"), f"{len(answer['data'])}, best first"))
    for number, one in enumerate(answer["data"], 1):
        _add_answer(answers, number, one, one_conversation=one_conversation)
    stages = root.add(Text.assemble(("stages ", "bold cyan"), (f"the best {_STAGE_BEST} of each", "dim")))
    for stage in shown["stages"]:
        branch = Text.assemble((stage["name"], "green"), (f" × {stage['weight']:g}", "dim"), ": ")
        stages.add(branch.append(_best(stage["best"], one_conversation=one_conversation)))
    for one in shown.get("why_not", []):
        _add_missed(
            root, one, one_conversation=one_conversation, answered=(one["conversation_id"], one["seq"]) in contents
        )
    _add_times(root, shown["seconds"])
    return root


def _best(best: list[dict[str, Any]], *, one_conversation: bool) -> str:
    """Return the best candidates of a stage: each with its value, or one value where they all share it."""
    telling = [one for one in best if one["value"]][:_STAGE_BEST]
    names = [_name(one, one_conversation=one_conversation, short=True) for one in telling]
    values = [f"{one['value']:.2f}" for one in telling]
    if len(set(values)) == 1 and len(values) > 1:
        return f"{values[0]} of {', '.join(names)}{' …' if len(best) > len(names) else ''}"
    return ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True)) or "nothing"


def _add_type(root: Tree, answer: dict[str, Any], shown: dict[str, Any]) -> None:
    how = "forced" if shown["forced"] else "" if shown["cues"] else "no clear cue"
    kind = root.add(Text.assemble(("type ", "bold cyan"), (answer["type"], "bold"), (f"  {how}" if how else "", "dim")))
    for cue in shown["cues"]:
        kind.add(Text.assemble((cue["cue"], "green"), f": “{cue['text']}”"))
    if shown["also"]:
        kind.add(Text(f"also seen: {', '.join(shown['also'])}", "dim"))
    kind.add(Text(f"determinism: {shown['budget']}", "dim"))


def _add_plan(root: Tree, answer: dict[str, Any], shown: dict[str, Any]) -> None:
    plan, stamps = answer["plan"], answer["stamps"]
    branch = root.add(Text.assemble(("plan ", "bold cyan"), plan["version"], (f"  {stamps['search']}", "dim")))
    for change in plan["changes"] or ["unchanged by the type"]:
        branch.add(Text(change))
    words = [f"{one['word']} {one['events']}" for one in shown["words"][:_WORDS]]
    branch.add(Text.assemble("words, and in how many events: ", ", ".join(words) or "none"))
    branch.add(Text(f"vectors: {stamps['embedding'] or 'none took part'}"))
    branch.add(Text(f"{shown['ranked']} of {shown['searched']} events ranked in full"))


def _add_answer(answers: Tree, number: int, one: dict[str, Any], *, one_conversation: bool) -> None:
    score = "by its place" if one["score"] is None else f"{one['score']:.2f}"
    place = _name(one, one_conversation=one_conversation)
    head = Text.assemble((f"{number}. {place}", "bold"), ("  score ", "dim"), score)
    if "superseded_by" in one:
        newer = _name(one["superseded_by"], one_conversation=one_conversation)
        head.append(f"  superseded by {newer}", "yellow")
    branch = answers.add(head)
    event = one["event"]
    text = _said(event.get("content"))
    who = event.get("name") or event.get("role") or event["type"]
    text = " ".join(text.split())
    if len(text) > _SNIPPET:
        text = text[: _SNIPPET - 1] + "…"
    branch.add(Text.assemble((f"{who}, {event['occurred_at'][:10]}: ", "dim"), text))
    branch.add(Text.assemble(*[part for name, adds in one["why"].items() for part in _signal(name, adds)]))


def _said(content: Any) -> str:
    """Return a content's text and captions; other JSON as it is."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") or part.get("caption") for part in content if isinstance(part, dict)]
        if any(parts):
            return " ".join(f"[{part}]" if number else str(part) for number, part in enumerate(filter(None, parts)))
    return json.dumps(content, ensure_ascii=False)


def _signal(name: str, adds: float) -> tuple[tuple[str, str], str]:
    return (name, "green"), f" {adds:+.2f}  "


def _add_missed(root: Tree, one: dict[str, Any], *, one_conversation: bool, answered: bool) -> None:
    place = _name(one, one_conversation=one_conversation)
    title = "why it is there " if answered else "why not "
    branch = root.add(Text.assemble((title, "bold cyan"), place, (f"  {one['reason']}", "yellow")))
    branch.add(Text(one["because"]))
    for signal in one.get("signals", []):
        line = Text.assemble((signal["name"], "green"), f" {signal['value']:.2f} adds {signal['adds']:+.2f}")
        if "last" in signal:
            line.append(f", the last answer's {signal['last']:+.2f}", "dim")
        branch.add(line)


def _add_times(root: Tree, seconds: dict[str, float]) -> None:
    branch = root.add(Text.assemble(("milliseconds", "bold cyan")))
    branch.add(Text("  ".join(f"{step} {taken * 1000:.2f}" for step, taken in seconds.items())))


def _name(one: dict[str, Any], *, one_conversation: bool, short: bool = False) -> str:
    if one_conversation:
        return f"#{one['seq']}"
    conversation = one["conversation_id"]
    return f"…{conversation[-6:]}#{one['seq']}" if short else f"{conversation} #{one['seq']}"
