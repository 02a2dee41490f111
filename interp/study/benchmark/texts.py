"""The words of a benchmark's page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from interp.report.tables import count, listed
from interp.study.benchmark.answer_rows import left_out
from interp.study.benchmark.answer_scoring import label

if TYPE_CHECKING:
    from interp.study.benchmark.result import BenchmarkResult

__all__ = [
    "AVERAGES", "BY", "FLIPPED", "LEAD", "LENGTHS", "METHODS", "PUBLISHED", "ROWS", "TERMS", "YES_NO", "methods_text",
]  # fmt: skip

LEAD = Markup("""<b>{models}</b> on {samples}. What is shown is {scorer}, in percent.""")
ROWS = """A row is a model as it is, or under a method or edits; a column is a data set. N counts the questions that
were marked. “micro” is the mean over all questions, “macro” the mean of the columns."""
PUBLISHED = """Published numbers are quoted for comparison. They were measured with other software, on splits and
with prompts and scorers that the source does not always state, so a difference of a point or two says little."""
AVERAGES = """“micro” weighs each question alike, “macro” each data set. Intervals resample whole groups of all data
sets together; groups of different data sets are different groups."""
METHODS = """Each line is one method, or a set of edits, against the plain model on the same questions. Points are
the difference after − before in percentage points, with the 95 % interval over groups. “+” counts answers that
became right, “−” answers that became wrong. Holm's p is that of the group-wise sign test, adjusted over the lines.
s ×, passes × and tokens × are the cost divided by the plain model's."""
BY = """The same, for the questions of each value. Holm's p is adjusted over this table. A value with few questions
or groups has a wide interval, or none; the best of many values flatters."""
YES_NO = """POPE's marks (arXiv 2305.10355), yes being the positive class: precision is how many of the answers yes
are true, recall how many true ones were found. A share of yes far from one half, on as many questions of either answer,
is a leaning. An answer that is neither counts as wrong and as not yes. Absent labels are drawn at random, are the most
common ones (popular), or those that usually stand beside what is there (adversarial): a model that says yes to these
alone answers from what goes together. Points of F1 are after − before, paired over groups. “No” is true only where the
annotation names everything that is in the picture."""
FLIPPED = """McNemar's exact test asks whether a fair coin would split the flips so unevenly; it treats questions as
independent, so read the interval over groups where several share an image. Pictures are drawn with seed {seed} from
each direction; the list holds all of them."""
LENGTHS = """Scorers of whole texts mark a longer answer wrong although it may hold the right word, so a change of
length can look like a change of knowledge. “none came”: a thought took all tokens."""
TERMS = {
    "Before, after": """Before is the model as it is, after the model under the method or the edits, on the same
    questions, prompt and number of tokens.""",
    "Intervals": """95 %, percentile bootstrap over groups (2,000 resamplings): patients or images, as the data name
    them. With fewer than 20 groups no claim about a population is made, and no interval is shown.""",
    "p": """Of a sign-flip test over whole groups; McNemar's is of single questions. Holm's adjusts for all lines of its
    table.""",
    "Cost": """Seconds, passes and token positions of the change's whole call, its own measuring passes included,
    over those of plain generation on the same batches, each as if it ran alone. Passes of models that only answer
    are not counted.""",
}


def methods_text(result: BenchmarkResult) -> str:
    """How the numbers came about, as a paragraph for a paper's methods section."""
    studies = [cell.study for cell in result.cells]
    templates = listed(f"“{study.prompt.template}”" for study in studies)
    lettered = any(study.prompt.options == "letters" for study in studies)
    drawn = {study.decoding.temperature for study in studies}
    decoding = "greedily" if drawn == {0.0} else f"at temperature {listed(drawn)}, with seed {result.seed}"
    tokens = listed(study.max_new_tokens for study in studies)
    scorers = listed(label(scorer) for study in studies for scorer in study.scorer)
    n = len(result.samples) // max(len({(c.labels["model"], c.labels["method"]) for c in result.cells}), 1)
    changed = listed(cell.labels["method"] for cell in result.cells if cell.study.changes)
    parts = [
        f"{listed(cell.labels['model'] for cell in result.cells)} answered {count(n, 'question')} of "
        f"{listed(cell.labels['data'] for cell in result.cells)}, {decoding}, with at most {tokens} new tokens, under "
        f"the prompt {templates}" + (", options lettered." if lettered else "."),
        f"Answers were scored by {scorers}.",
    ]
    if changed:
        parts.append(
            f"The same questions were answered under {changed}. Differences are paired; 95 % intervals come from a "
            "percentile bootstrap over groups (2,000 resamplings), p values from sign flips of whole groups and from "
            "McNemar's exact test, with Holm's adjustment over the cells of a table."
        )
    parts.append(left_out(result.failures) or "No question was left out.")
    return " ".join(parts)
