"""Lenses that give each word a score at each layer and image token.

`read_words` reads words through any of them; in a study, `LensSweep(lens=…)` does. `mllm.to_lens()` has the logit lens.
"""

from interp.tracing.word_lenses.corpus import TEMPLATES
from interp.tracing.word_lenses.jacobian_lens import JacobianLens, Jacobians, fit_jacobians, load_jacobians
from interp.tracing.word_lenses.latent_lens import LatentLens
from interp.tracing.word_lenses.lens_names import read_words
from interp.tracing.word_lenses.patchscope import Patchscope
from interp.tracing.word_lenses.word_lens import WordReadings

__all__ = [
    "TEMPLATES",
    "JacobianLens",
    "Jacobians",
    "LatentLens",
    "Patchscope",
    "WordReadings",
    "fit_jacobians",
    "load_jacobians",
    "read_words",
]
