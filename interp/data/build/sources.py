"""The 44 source sets of VGMED (table C.2), related works (B.1), and modality and body region in the paper's words.

`shares_of` and `shares_of_sources` count modalities and regions as the paper's figure 2b does.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from interp.data.samples import Samples
from interp.inputs.sample import Sample

__all__ = [
    "MODALITIES",
    "OF",
    "PAPER",
    "REGIONS",
    "RELATED",
    "SOURCES",
    "RelatedWork",
    "SourceSet",
    "body_region",
    "modality",
    "shares_of",
    "shares_of_sources",
]


_READ = json.loads(Path(__file__).with_name("sources.json").read_text(encoding="utf-8"))
REGIONS = ("Head & neck", "Thorax", "Abdomen", "Pelvic", "Skin", "Others")
"""The paper's body regions."""
MODALITIES = {
    "mri": "MR",
    "magnetic resonance": "MR",
    "computed tomography": "CT",
    "pt": "PET",
    "us": "Ultrasound",
    "xray": "X-ray",
    "x ray": "X-ray",
    "cr": "X-ray",
    "dx": "X-ray",
    "fundus photography": "Fundus",
    "dermoscopic": "Dermoscopy",
    "endoscopic": "Endoscopy",
}
"""Other names of the paper's modalities, in lower case."""
KNOWN = ("CT", "MR", "X-ray", "PET", "Ultrasound", "Endoscopy", "Fundus", "Dermoscopy", "Microscopy")
UNSTATED = "not stated"
WORDS = {
    "Head & neck": (
        "brain hemisphere hemispheres skull eye optic retina retinal fovea cochlea parotid mandible pharynx larynx "
        "thyroid brainstem cerebellum ventricle temporal pituitary tongue oral macula head neck cerebral disc"
    ),
    "Thorax": (
        "lung lungs heart aorta trachea esophagus oesophagus bronchus pulmonary breast airway pneumothorax pneumonia "
        "rib clavicle clavicula scapula sternum myocardium atrium pleural thymus chest humerus pericardium"
    ),
    "Abdomen": (
        "liver spleen kidney kidneys pancreas stomach gallbladder duodenum adrenal colon bowel intestine cava portal "
        "hepatic renal abdomen abdominal iliopsoas appendix"
    ),
    "Pelvic": (
        "bladder prostate uterus rectum femur femurs hip sacrum gluteus pelvis pelvic ovary testis pubis iliac cervix"
    ),
    "Skin": "skin melanoma nevus dermal mole",
}
"""Region → words of its labels. Words that belong to several regions, such as vertebra, are left out."""
OF_WORD = {word: region for region, words in WORDS.items() for word in words.split()}
PAPER = "VGMED's 44 source sets"


@dataclass(frozen=True)
class SourceSet:
    """One source of VGMED.

    Attributes:
        name: The name as table C.2 writes it, without the citation ("AbdomenCT-1K" is misspelt there).
        modalities: The modalities, such as "CT" and "MR".
        regions: The body regions, each one of `REGIONS`.
    """

    name: str
    modalities: tuple[str, ...]
    regions: tuple[str, ...]


@dataclass(frozen=True)
class RelatedWork:
    """A study of visual grounding, with the number and the source of its samples."""

    name: str
    n_samples: int
    data: str


SOURCES = tuple(
    SourceSet(one["name"], tuple(one["modalities"]), tuple(one["regions"])) for one in _READ["sources"]
)
"""Table C.2 of arXiv 2603.14323, in its order."""
RELATED = tuple(RelatedWork(**one) for one in _READ["related"])
"""Table B.1 of arXiv 2603.14323, in its order."""


def modality(sample: Sample) -> str:
    """Returns the modality that `meta["modality"]` names, in the paper's words where it is one of them.

    >>> modality(Sample("a.png", "?", meta={"modality": "mri"})), modality(Sample("a.png", "?"))
    ('MR', 'not stated')
    """
    given = str(sample.meta.get("modality") or "").strip()
    plain = given.lower().replace("_", " ").replace("-", " ")
    known = {one.lower().replace("-", " "): one for one in KNOWN}
    first = plain.split()[0] if plain else ""
    names = (MODALITIES.get(plain), known.get(plain), MODALITIES.get(first), known.get(first), given)
    return next((name for name in names if name), UNSTATED)


def body_region(sample: Sample) -> str:
    """Returns the body region of a sample.

    It is `meta["region"]` or `meta["body_region"]` where one is given. Dermoscopy is "Skin", fundus "Head & neck",
    endoscopy and microscopy "Others". For other modalities the first word of `meta["label"]` that is in `WORDS`
    decides. Without such a word the region is "not stated".

    >>> body_region(Sample("a.png", "?", meta={"label": "left kidney"}))
    'Abdomen'
    """
    given = sample.meta.get("region") or sample.meta.get("body_region")
    if isinstance(given, str) and given.strip():
        return next((one for one in REGIONS if one.lower() == given.strip().lower()), given.strip())
    words = str(sample.meta.get("label") or "").lower().replace("_", " ").replace("-", " ").split()
    found = next((OF_WORD[word] for word in words if word in OF_WORD), None)
    whole = {"Dermoscopy": "Skin", "Fundus": "Head & neck", "Endoscopy": "Others", "Microscopy": "Others"}
    return whole.get(modality(sample)) or found or UNSTATED


OF = {"modality": modality, "region": body_region}
"""The properties that are counted, and the function that reads each from a sample."""


def shares_of(samples: Samples, name: str) -> pd.DataFrame:
    """Returns one row per value of modality or region, the most frequent first.

    Args:
        samples: The samples, at least one.
        name: The content of the column `data`.

    Returns:
        Columns data, of ("modality" or "region"), value, n (samples) and share in (0, 1], which add up to 1 in each.
    """
    rows = []
    for kind, of in OF.items():
        counts = Counter(of(sample) for sample in samples)
        rows += [_row(name, kind, value, n, n / len(samples)) for value, n in counts.items()]
    return _sorted(rows)


def shares_of_sources() -> pd.DataFrame:
    """Returns the frame of `shares_of` for the 44 source sets: n counts sets; a set of k values counts 1/k for each."""
    rows = []
    for kind, field in (("modality", "modalities"), ("region", "regions")):
        sets: Counter[str] = Counter()
        weights: dict[str, float] = {}
        for source in SOURCES:
            values = getattr(source, field)
            sets.update(values)
            for value in values:
                weights[value] = weights.get(value, 0.0) + 1 / len(values)
        rows += [_row(PAPER, kind, value, n, weights[value] / len(SOURCES)) for value, n in sets.items()]
    return _sorted(rows)


def _row(data: str, of: str, value: str, n: int, share: float) -> dict[str, object]:
    return {"data": data, "of": of, "value": value, "n": n, "share": share}


def _sorted(rows: list[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame(rows).sort_values(
        ["of", "share", "value"], ascending=[True, False, True], ignore_index=True
    )
