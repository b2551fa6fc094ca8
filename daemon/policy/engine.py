"""The decision: a pure function of policy, request and facts. deny > require-approval > allow; nothing matches: deny.

The order of rules and of files never matters. Of several rules that decide alike, the one with the lowest id is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from daemon.model.domain import Mode, Proof
from daemon.model.policy import Effect, Facts, Request, Terms, Verdict
from daemon.policy.index import Hearing, Index
from daemon.policy.limits import broken, proven
from daemon.policy.rules import DEFAULT, InlineTest, Rule

_WOULD_MATTER = {
    "allow": ("deny", "require-approval"),
    "require-approval": ("deny",),
    "deny": (),
    "shadow": ("deny", "require-approval", "allow"),
    DEFAULT: ("require-approval", "allow", "shadow"),
}
"""What a verdict rests on → the voices that would have changed it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Compiled rules. `Policy()` has none, and so denies everything."""

    rules: tuple[Rule, ...] = ()
    """By id."""
    tests: tuple[InlineTest, ...] = ()
    digest: str = ""
    """SHA-256 over the text of all files."""
    trouble: str = ""
    """Why there are no rules, when there should be some."""
    horizon: float = field(init=False)
    """Seconds of history that the limits need to see."""
    index: Index = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rules = tuple(sorted(self.rules, key=lambda rule: rule.id))
        object.__setattr__(self, "rules", rules)
        object.__setattr__(self, "horizon", max((rule.horizon for rule in rules), default=0.0))
        object.__setattr__(self, "index", Index(rules))

    @classmethod
    def deny_all(cls, reason: str) -> Policy:
        """Stands in for policy files that cannot be used."""
        return cls(trouble=reason)


def decide(policy: Policy, request: Request, facts: Facts) -> Verdict:
    """The verdict on one request. Never raises; what cannot be judged is denied."""
    hearing = Hearing(policy.index.bucket(request.action), request)
    for stage in (_denied, _unjudged, _limited, _permitted):
        if verdict := stage(hearing, facts):
            return verdict
    return _default(policy, hearing)


def _denied(hearing: Hearing, facts: Facts) -> Verdict | None:
    denies = hearing.speaking.get("deny")
    if not denies:
        return None
    return _verdict("deny", denies[0], hearing, [denies[0].reason or f"{denies[0].id} denies it"])


def _unjudged(hearing: Hearing, facts: Facts) -> Verdict | None:
    """A rule of which nobody knows whether it matches might be the one that denies."""
    if not hearing.unjudged:
        return None
    rule = hearing.unjudged[0]
    return _verdict(
        "deny", rule, hearing, [f"{rule.id} cannot be judged: {hearing.request.at!r} is no moment in time"]
    )


def _limited(hearing: Hearing, facts: Facts) -> Verdict | None:
    for rule in _permits(hearing):
        for why in broken(rule, hearing.request, facts.past):
            return _verdict("deny", rule, hearing, [why])
    return None


def _permitted(hearing: Hearing, facts: Facts) -> Verdict | None:
    permits = _permits(hearing)
    if not permits:
        return None
    asking = [(rule, why) for rule in permits if (why := _asks(rule, hearing.request, facts))]
    if facts.mode is Mode.ASK:
        # The ceiling makes every permission ask, behind those that ask anyway: these have the better reason.
        theirs = {rule for rule, _ in asking}
        asking += [(rule, "mode is ask") for rule in permits if rule not in theirs]
    waiting = [(rule, why) for rule, why in asking if not _granted(rule.terms, facts.votes)]
    if waiting:
        terms = _merged([rule for rule, _ in asking], hearing.request)
        return _verdict("require-approval", waiting[0][0], hearing, [waiting[0][1]], facts, terms)
    if asking:
        approved = f"approved by {', '.join(sorted(set(facts.votes)))}"
        return _verdict("allow", asking[0][0], hearing, [approved], facts)
    return _verdict("allow", permits[0], hearing, [permits[0].reason] if permits[0].reason else [], facts)


def _default(policy: Policy, hearing: Hearing) -> Verdict:
    if policy.trouble:
        return Verdict("deny", DEFAULT, reasons=(f"everything is denied: {policy.trouble}",))
    request = hearing.request
    why = (
        f"no rule speaks of {request.action}"
        if hearing.silent
        else f"no rule allows {request.action} on {request.target}"
    )
    return Verdict("deny", DEFAULT, reasons=(why,), near_misses=hearing.nearly(_WOULD_MATTER[DEFAULT]))


def _permits(hearing: Hearing) -> list[Rule]:
    """The rules that let it pass, asked or not: the armed ones, or if there are none, those in shadow."""
    armed = hearing.speaking.get("allow", []) + hearing.speaking.get("require-approval", [])
    return sorted(armed or hearing.speaking.get("shadow", []), key=lambda rule: rule.id)


def _asks(rule: Rule, request: Request, facts: Facts) -> str:
    """Why the rule wants a person to be asked; empty when it does not."""
    if rule.effect == "require-approval":
        return rule.reason or f"{rule.id} asks a person"
    if rule.trusted and request.tainted:
        return "only text that outsiders can write speaks for it"
    if rule.probation:
        count = proven(rule, request, facts.past)
        if count < rule.probation:
            return f"probation: proven {count} of {rule.probation} times on {request.target}"
    return ""


def _granted(terms: Terms, votes: Sequence[str]) -> bool:
    people = set(votes)
    return len(people & set(terms.from_) if terms.from_ else people) >= terms.quorum


def _merged(rules: Sequence[Rule], request: Request) -> Terms:
    """Terms that, once met, meet those of every rule that asks: one question to people, not one a rule."""
    terms = [rule.terms for rule in rules]
    from_, quorum = _electorate(terms)
    waits = [one.escalate_after for one in terms if one.escalate_after is not None]
    return Terms(
        from_=from_,
        quorum=quorum,
        expires=min(one.expires for one in terms),
        quiet=any(rule.quiet is not None and rule.quiet.holds(request.at) is True for rule in rules),
        escalate_after=min(waits, default=None),
    )


def _electorate(terms: Sequence[Terms]) -> tuple[tuple[str, ...], int]:
    quorum = max(one.quorum for one in terms)
    named = [set(one.from_) for one in terms if one.from_]
    if not named:
        return (), quorum
    common = set.intersection(*named)
    if len(common) >= quorum:
        return tuple(sorted(common)), quorum
    # Too few may answer for every rule, so all who may answer for any must.
    everybody = set.union(*named)
    return tuple(sorted(everybody)), max(quorum, len(everybody))


def _demanded(rules: Sequence[Rule]) -> Proof | None:
    """The strictest proof that any of the rules demands."""
    proofs = [rule.verify for rule in rules if rule.verify is not None]
    if not proofs:
        return None
    names = dict.fromkeys(name for proof in proofs for name in proof.clear)
    clear_for = max(proof.clear_for for proof in proofs)
    # A proof that must hold for longer than it may take could never be had.
    return Proof(tuple(names), clear_for, max(clear_for, min(proof.within for proof in proofs)))


def _verdict(
    effect: Effect,
    rule: Rule,
    hearing: Hearing,
    reasons: list[str],
    facts: Facts | None = None,
    terms: Terms | None = None,
) -> Verdict:
    """`facts` is given for what is not denied: then mode and shadow have their say."""
    ceiling = []
    if facts is not None:
        ceiling += [f"{rule.id} is in shadow"] if rule.shadow else []
        ceiling += [f"mode is {facts.mode.name.lower()}"] if facts.mode <= Mode.SHADOW else []
    return Verdict(
        effect=effect,
        rule=rule.id,
        where=rule.where,
        reasons=(*ceiling, *reasons),
        near_misses=hearing.nearly(
            _WOULD_MATTER["shadow" if rule.shadow else effect] if facts is not None else ()
        ),
        shadow=bool(ceiling),
        rule_digest=rule.digest,
        approvals=terms,
        verify=_demanded(_permits(hearing)) if facts is not None else None,
        notes=hearing.others(rule),
    )
