"""The licence of a merge, as restricted by the licences of its parents."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from hf_lwmm import hub
from hf_lwmm.errors import CardError
from hf_lwmm.hub.client import Source
from hf_lwmm.text import Markdown, link, one_line, plain

# Licence ids of the Hub, from the most permissive to the most restrictive; others count as more restrictive still.
_BY_RESTRICTION = (
    ("cc0-1.0", "unlicense", "wtfpl", "pddl", "0bsd"),
    ("mit", "apache-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "isc", "cc-by-3.0", "cc-by-4.0", "zlib"),
    ("mpl-2.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "epl-2.0"),
    ("cc-by-sa-3.0", "cc-by-sa-4.0", "odbl"),
    ("gpl", "gpl-2.0", "gpl-3.0"),
    ("agpl-3.0",),
    ("cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-2.0"),
    ("cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nc-sa-2.0"),
    ("cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
)
_RANK = {licence: rank for rank, group in enumerate(_BY_RESTRICTION) for licence in group}
# Parts of addresses and names of licences that exclude commercial use. An address may be of facebookresearch's.
_IN_ADDRESSES = ("-nc", "noncommercial", "non-commercial")
_IN_NAMES = (*_IN_ADDRESSES, "nvidia", "research")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]*")


@dataclass(frozen=True)
class Licence:
    """A licence, as in the metadata of a card on the Hub; `name` and `link` belong to the id `other`.

    `place` is the address of the licence in the model's own repository, where the card names a file of it. Models have
    one licence in two places.
    """

    id: str | None
    name: str | None = None
    link: str | None = None
    place: str | None = field(default=None, compare=False)

    @property
    def text(self) -> str:
        """The name or id."""
        return self.name or self.id or "not stated"

    @property
    def shown(self) -> Markdown:
        """The name or id as Markdown, with its link if it has one."""
        address = self.link or self.place
        return link(self.text, address) if address else plain(self.text)

    @property
    def metadata(self) -> dict[str, str | None]:
        """The entries of a card's metadata."""
        other = self.id == "other"
        return {
            "license": self.id,
            "license_name": self.name if other else None,
            "license_link": (self.link or self.place) if other else None,
        }

    @property
    def non_commercial(self) -> bool:
        """True if the licence seems to exclude commercial use."""
        name, address = f"{self.id} {self.name}".lower(), str(self.link).lower()
        return any(word in name for word in _IN_NAMES) or any(word in address for word in _IN_ADDRESSES)


@dataclass(frozen=True)
class MergedLicence:
    """The licence of a merge, those of its parents, and warnings for the reader of the card."""

    licence: Licence
    parents: tuple[Licence, ...]
    warnings: tuple[str, ...]


def licence_of(source: Source) -> Licence:
    """Return the licence that the card of a source states; a text that is no id is the name of another licence."""
    card = source.card
    identifier = card.get("license")
    if isinstance(identifier, list):
        identifier = identifier[0] if len(identifier) == 1 else "other"
    identifier, name = str(identifier).strip() if identifier else None, card.get("license_name")
    if identifier and not _ID.fullmatch(identifier):  # such as "MIT License": the Hub takes no such id
        identifier, name = "other", name or one_line(identifier)
    identifier = identifier.lower() if identifier else None
    stated, place = str(card.get("license_link") or ""), None
    link = stated if stated.startswith(("http://", "https://")) else None
    if source.ref.repo_id and source.sha and stated in source.files:  # another repository does not have the file
        place = hub.file_address(source.ref.repo_id, stated, source.sha, shown=True)
    return Licence(identifier or None, str(name) if name else None, link, place)


def check_licence(chosen: str | None) -> None:
    """Refuse a licence that cannot be the id of one, before any work is done. Raises CardError."""
    if chosen is not None and not _ID.fullmatch(chosen):
        raise CardError(f"--license {chosen!r} is not the id of a licence, such as mit or cc-by-nc-4.0.")


def merged_licence(sources: Sequence[Source], chosen: str | None = None) -> MergedLicence:
    """Return the licence of a merge, with warnings where the parents' licences differ, restrict use, or are missing.

    Args:
        sources: the parents; the original alone of a model that is converted.
        chosen: id of a licence chosen by the user; by default the parents' common or most restrictive licence, or
            `other` if one of them is not listed.
    """
    parents = tuple(licence_of(source) for source in sources)
    stated = ", ".join(f"{parent.text} ({source.label})" for source, parent in zip(sources, parents, strict=True))
    if chosen is not None:
        licence = Licence(chosen.lower())
    elif len(set(parents)) == 1 and parents[0].id:
        licence = parents[0]
    elif all(parent.id in _RANK for parent in parents):
        licence = max(parents, key=lambda parent: _RANK[str(parent.id)])
    else:
        unlisted = [p for p in parents if p.id not in _RANK and (p.name or p.link or p.place)]
        licence = replace(unlisted[0], id="other") if len(set(unlisted)) == 1 else Licence("other")
    return MergedLicence(licence, parents, tuple(_warnings(parents, stated)))


def _warnings(parents: Sequence[Licence], stated: str) -> Iterator[str]:
    who, what = ("The original", "model") if len(parents) == 1 else ("At least one parent", "merge")
    if len(set(parents)) > 1:
        yield f"The parents' licences differ: {stated}."
    if any(parent.non_commercial for parent in parents):
        yield f"{who}'s licence excludes commercial use, so this {what} does too."
    if any(parent.id is None for parent in parents):
        yield f"{who} states no licence: ask its author before using or sharing this {what}."
