"""Whether an image prefix, run once, gives what the full pass gives."""

from __future__ import annotations

from interp.conformance.agreement import Agreement
from interp.conformance.result import Measured
from interp.conformance.subject import Subject
from interp.prompt import GENERIC_PROMPT
from interp.tracing import Knockout, Rows, Site

__all__ = ["image_prefix"]


def image_prefix(subject: Subject) -> Measured:
    """A prefix with another question's suffix: rows after the image, edited logits, and eager's logits.

    Families whose prompts attend to all of themselves must not use the prefix, and be right all the same.
    """
    mllm = subject.mllm
    prefix = mllm.prefix(subject.batch)
    read = [Rows(Site(queries="after_image", keys="all"))]
    edit = [Knockout(Site(layers=[mllm.n_layers // 2], queries="after_image"))]
    found, used = Agreement(subject), []
    for edits in ([], edit):
        short = mllm.trace(prefix, GENERIC_PROMPT, reads=read, edits=edits)
        whole = mllm.trace(subject.samples, GENERIC_PROMPT, reads=read, edits=edits)
        for i, (one, other) in enumerate(zip(short, whole, strict=True)):
            found.rows(one.rows.values, other.rows.values)
            found.logits(short.logits.values[i], whole.logits.values[i])
        used.append(short.cost.tokens < whole.cost.tokens)
    unedited = mllm.trace(prefix, GENERIC_PROMPT).logits.values
    for i, sample in enumerate(subject.samples):
        inputs = mllm.encode(sample, GENERIC_PROMPT).inputs
        plain = {k: v for k, v in inputs.items() if k != "position_ids"}
        found.logits(unedited[i], subject.eager.logits(plain)[0].float().cpu().numpy())
    exact = subject.attends != "prefix"
    detail = "used: only what follows the image was run" if all(used) else "not used: full passes"
    found.wrong += [] if used == [exact] * 2 else [f"{detail}, where a prompt attends {subject.attends!r}"]
    return found.measured(f"{detail}, as it must be where a prompt attends {subject.attends!r}")
