"""What a grid over prompts and edits costs, whose cells share image prefixes.

python benchmarks/grid.py [ROUNDS]     3 prompts × 2 edits, 16 natural samples, the bundled organism
"""

from __future__ import annotations

import sys
import tempfile
import time

import interp

PROMPTS = {
    "paper": interp.PAPER_PROMPT,
    "question": interp.Prompt(template="{question}"),
    "one word": interp.Prompt(template="{question} One word."),
}
EDITS = {"none": (), "blind": [interp.Knockout(interp.Site(layers=[3], queries="last", keys="image"))]}
INDICATORS = {
    "plain": interp.indicators.Attention(),
    "relative": interp.indicators.Attention(relative_to=interp.GENERIC_PROMPT),
}


def main(rounds: int = 3) -> None:
    """Print tokens, passes and seconds of each round, loading the model and writing the runs included."""
    data = interp.data.bundled("natural", n=16)
    for name, indicator in INDICATORS.items():
        grid = interp.Grid(interp.LayerSweep(data=data, indicator=indicator), prompt=PROMPTS, edits=EDITS)
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as out:
                wall, cpu = time.perf_counter(), time.process_time()
                cost = grid.run(out, progress=False).cost
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            tokens = ", ".join(f"{found:.0f}" for found in cost.tokens)
            print(
                f"{name}: {cost.tokens.sum():.0f} tokens ({tokens}), {cost.forwards.sum():.0f} passes, "
                f"{cpu:.2f} s of CPU, {wall:.2f} s"
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
