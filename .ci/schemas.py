"""Write the JSON Schemas of liferaft's documents to docs/schema/ (``python .ci/schemas.py``).

A test compares them with the code, so that a changed document cannot leave an old schema behind.
"""

import json
from pathlib import Path

import msgspec

from builder.document import MediumDocument
from builder.finished.inspection import Inspection
from builder.inject.inject import InjectReport
from builder.medium import BuildReport
from builder.preflight.findings import PreflightReport
from builder.recipe.recipe import Recipe
from core.events import Event
from hooks.contract import HookContext
from images.model.layout import Layout
from images.model.machine import Machine
from images.model.manifest import Manifest
from images.store.catalogue import Catalogue
from images.store.document import RepositoryDocument
from rescue.jobs.support import SupportContents
from rescue.jobs.unattended import Job, JobResult
from rescue.jobs.write_usb import StickReport
from restore.plan.plan import Plan
from restore.report import Report

FOLDER = Path(__file__).parents[1] / "docs" / "schema"
DOCUMENTS: dict[str, type] = {
    "machine": Machine,
    "layout": Layout,
    "manifest": Manifest,
    "plan": Plan,
    "report": Report,
    "event": Event,
    "job": Job,
    "job-result": JobResult,
    "hook-context": HookContext,
    "repository": RepositoryDocument,
    "catalogue": Catalogue,
    "medium": MediumDocument,
    "stick-report": StickReport,
    "build-report": BuildReport,
    "inject-report": InjectReport,
    "inspection": Inspection,
    "preflight": PreflightReport,
    "support": SupportContents,
    "recipe": Recipe,
}


def schemas() -> dict[str, str]:
    """File name to content."""
    made = {}
    for name, kind in DOCUMENTS.items():
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(kind)}
        made[f"{name}.json"] = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    return made


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file, text in schemas().items():
        (FOLDER / file).write_text(text)
