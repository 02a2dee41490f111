"""The version of the run store, and what to do with a folder of another one."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.errors import RunError
from interp.inputs.files import read_json

__all__ = ["SCHEMA_VERSION", "check_version", "note_other_versions"]

SCHEMA_VERSION = 4
"""Raised when the meaning of what is stored changes; part of every study's hash.

4: boxes are never borrowed from the same picture; a sample without a group belongs to its image by content; signs such
   as < and + count in answers.
3: answers are matched by one rule (`interp.inputs.answers`), questions that share an image share its prefix.
2: every shard has a seal, the plan is stored, costs are kept per session.
1: no seals; nothing inside a folder names the version.
"""


def check_version(found: Any, where: Path) -> None:
    """Refuse what another version of the store wrote.

    Raises:
        RunError: `found` is not this version; the message says what to do with an older and a newer one.
    """
    if found == SCHEMA_VERSION:
        return
    newer = isinstance(found, int) and found > SCHEMA_VERSION
    advice = (
        "A newer interp wrote it: update interp to read it, or pass another out= to compute it anew."
        if newer
        else f"An older interp wrote it: read it with that version (its commit is in manifest.json), or move "
        f"{where} away and run the study again; old and new shards are never mixed."
    )
    raise RunError(f"expected run store version {SCHEMA_VERSION} in {where}, got {found}. {advice}")


def note_other_versions(out: Path, name: str, study: Mapping[str, Any]) -> None:
    """Say on stderr that another version of the store already holds a study that is about to be computed."""
    if "schema" not in study:
        return
    own = _without_version(study)
    for file in sorted(out.glob(f"{name}-*/study.json")):
        other = read_json(file)
        if isinstance(other, dict) and other != study and _without_version(other) == own:
            print(
                f"{name}: {file.parent} holds this study in run store version {other.get('schema')}; this "
                f"interp keeps version {study['schema']} and computes it anew beside it. Remove the other "
                f"folder when you no longer need it.",
                file=sys.stderr,
            )


def _without_version(study: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps({key: value for key, value in study.items() if key != "schema"}))
