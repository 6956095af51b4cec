"""diff: two runs node by node."""

from __future__ import annotations

from ...compare.diff_runs import read_request
from ...show.document import Document
from ...show.panels import diff as diff_panel
from ..arguments import Rest
from ..command import command
from ..interface import Shell


@command("diff", group="compare", repeats=False)
def diff_command(shell: Shell, what: Rest = "") -> Document:
    """Compare two runs node by node, and name the first node that goes wrong.

    Two errors are told apart: inherited, what run B's own chain has come to, and local, what B makes of A's inputs.
    Compared are model files of one architecture, backends (ref: the readable references), kernels (`stepggml backends`
    lists them) and numbers of threads; `this` is the run at hand, with all that you have changed in it. Both are
    computed beside the program, which does not move. The evaluation is the one at hand, or the first. `over X%` sets
    the error that counts, 1% if left out.

    Example: diff backend cpu ref
    Example: diff threads 1 2
    Example: diff kernels base over 0.001%
    """
    request = read_request(what)
    with shell.muted():
        comparison = shell.session.diff(request)
    return Document(diff_panel.render(comparison), comparison)
