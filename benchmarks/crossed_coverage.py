"""How often 95 % intervals of a preference hold the true share, when the same readers see the same cases.

    python benchmarks/crossed_coverage.py [--draws 600]

An answer is 1 when share + reader + case + noise is above zero: a probit model with normal effects of readers and of
cases (standard deviations given) beside unit noise. Methods:

- two_way_share: `interp.stats.two_way_share`, clustered by readers and cases, Student's t, on log odds.
- two_way: `interp.stats.two_way`, the same on the share itself.
- pigeonhole: Owen's bootstrap, readers and cases resampled together, percentile.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict

import numpy as np
import scipy.stats

from interp.stats import two_way, two_way_share

DESIGNS = ((3, 20), (5, 20), (10, 20), (20, 40))
SHARES = (0.5, 0.76, 0.9)
EFFECTS = ((0.0, 0.0), (0.5, 0.5), (0.3, 1.0), (1.0, 0.3))
LEVEL, RESAMPLINGS = 0.95, 500


def study(
    n_readers: int, n_cases: int, share: float, effects: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Answers (reader, case) of one study whose true share is `share`."""
    of_readers, of_cases = effects
    mean = scipy.stats.norm.ppf(share) * np.sqrt(1 + of_readers**2 + of_cases**2)
    readers = of_readers * rng.standard_normal((n_readers, 1))
    cases = of_cases * rng.standard_normal((1, n_cases))
    return (mean + readers + cases + rng.standard_normal((n_readers, n_cases)) > 0).astype(float)


def intervals(answers: np.ndarray, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Each method's interval."""
    n_readers, n_cases = answers.shape
    readers, cases = (place.ravel() for place in np.indices(answers.shape))
    found = {
        function.__name__: function(answers.ravel(), readers, cases, level=LEVEL)
        for function in (two_way_share, two_way)
    }
    of_readers, of_cases = (
        rng.multinomial(n, np.full(n, 1 / n), RESAMPLINGS).astype(float) for n in (n_readers, n_cases)
    )
    means = np.einsum("br,rc,bc->b", of_readers, answers, of_cases, optimize=True) / answers.size
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {name: (one.low, one.high) for name, one in found.items()} | {"pigeonhole": (low, high)}


def main(draws: int) -> None:
    rng = np.random.default_rng(0)
    print("readers cases share s.d.(readers, cases): method coverage % (mean width)")
    for n_readers, n_cases in DESIGNS:
        for share in SHARES:
            for effects in EFFECTS:
                held, width = Counter[str](), defaultdict[str, float](float)
                for _ in range(draws):
                    for name, (low, high) in intervals(
                        study(n_readers, n_cases, share, effects, rng), rng
                    ).items():
                        held[name] += low - 1e-12 <= share <= high + 1e-12
                        width[name] += high - low
                said = ", ".join(
                    f"{name} {100 * held[name] / draws:.0f} ({width[name] / draws:.2f})" for name in held
                )
                print(f"{n_readers:2} {n_cases:2} {share:.2f} {effects}: {said}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=600)
    main(parser.parse_args().draws)
