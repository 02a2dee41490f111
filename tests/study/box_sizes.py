"""Two domains whose boxes differ in size, as a frame of scores."""

from __future__ import annotations

import numpy as np
import pandas as pd

N = 576


def domains(seed: int = 0, *, noise: float = 0.0, truth: float = 0.0) -> pd.DataFrame:
    """KL of maps that attend evenly: 150 scenes with large boxes, 30 volumes of 6 slices with small ones.

    `noise` is the standard deviation of a volume's or scene's own offset, `truth` what medical is worse by.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for name, n_groups, images, size in (("natural", 150, 1, 60), ("medical", 30, 6, 20)):
        groups = np.repeat(np.arange(n_groups), images)
        tokens = np.clip(np.round(size * np.exp(rng.normal(0, 0.8, len(groups)))), 4, 300)
        value = np.log(N / tokens) + rng.normal(0, noise, n_groups)[groups] + truth * (name == "medical")
        columns = {"data": name, "group": [f"{name}-{g}" for g in groups], "value": value}
        parts.append(pd.DataFrame({**columns, "n_box_tokens": tokens, "area": tokens / N}))
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(sample=[f"s{i}" for i in range(len(frame))])
