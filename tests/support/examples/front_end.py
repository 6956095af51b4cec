"""An example front end: a page about the first evaluation, as text or as HTML. It knows the session, and show/."""

from __future__ import annotations

from ..session import Session
from ..show.document import Block, Column, Heading, table
from ..show.html import document_html
from ..show.layout import lines_of

COLUMNS = (Column("tensor"), Column("op"), Column("ne"), Column("state"))


def page(session: Session) -> list[Block]:
    """The nodes of the last layer, after the first evaluation."""
    session.start()
    session.step_token()
    rows = []
    for name in ("KQ_soft_max", "logits"):
        info = session.info(name)
        rows.append((info.name, info.op, str(list(info.ne)), session.badge(name).kind))
    return [Heading("report", (f"{session.n_nodes} nodes",)), table(COLUMNS, rows)]


def as_text(session: Session, width: int = 80) -> str:
    return "\n".join(str(line) for line in lines_of(page(session), width))


def as_html(session: Session) -> str:
    return document_html(page(session))
