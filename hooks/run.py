"""Running the hooks of a stage, in the order of their names."""

import os
from pathlib import Path

import msgspec

from core.documents import encode
from core.errors import LiferaftError, RefusedError
from core.events import Event, Sink, Stage
from core.process import Runner
from hooks.contract import HookContext, HookStage

#: A hook may quiesce a database or copy files, but not hang a rescue for ever.
TIMEOUT = 3600.0


def find_hooks(folder: Path, context: HookContext) -> tuple[Path, ...]:
    """The hooks of a stage, sorted by name.

    Raises:
        RefusedError: a file there is not executable: it was meant to run and would be skipped in silence.
    """
    stage = folder / context.stage.value
    found = sorted(path for path in stage.glob("*") if path.is_file()) if stage.is_dir() else []
    for path in found:
        if not os.access(path, os.X_OK):
            raise RefusedError(f"The hook {path} is not executable.", hint=f"chmod +x {path}, or move it away.")
    return tuple(found)


def _checked(folder: Path, context: HookContext) -> tuple[Path, ...]:
    """The hooks of a stage; before the work, those that come after it must be fit to run too."""
    if not context.stage.may_refuse:
        return tuple(path for path in sorted((folder / context.stage.value).glob("*")) if path.is_file())
    later = HookStage(context.stage.value.replace("before-", "after-"))
    find_hooks(folder, msgspec.structs.replace(context, stage=later))
    return find_hooks(folder, context)


def run_hooks(folder: Path | None, context: HookContext, runner: Runner, sink: Sink) -> tuple[str, ...]:
    """Run the hooks of ``context.stage``.

    Args:
        folder: the site's hooks; None for a site that has none.

    Returns:
        warnings, one for each hook that failed at an ``after-…`` stage.

    Raises:
        RefusedError: the folder is not there, or a hook failed at a ``before-…`` stage.
    """
    if folder is None:
        return ()
    if not folder.is_dir():
        raise RefusedError(f"The hooks folder {folder} does not exist.", hint="Name the folder that holds the stages.")
    warnings: list[str] = []
    for path in _checked(folder, context):
        sink(Event(stage=Stage.HOOK, message=f"Running the hook {context.stage}/{path.name}"))
        try:
            said = runner.run([str(path)], stdin=encode(context).decode(), timeout=TIMEOUT).stdout.strip()
        except LiferaftError as error:
            problem = f"the hook {context.stage}/{path.name} failed: {error.message}"
            if context.stage.may_refuse:
                raise RefusedError(f"{problem}. Nothing was written.", hint="Mend the hook or take it away.") from None
            warnings.append(problem)
            sink(Event(stage=Stage.HOOK, message=problem, warning=True))
            continue
        for line in said.splitlines():
            sink(Event(stage=Stage.HOOK, message=f"{path.name}: {line}"))
    return tuple(warnings)
