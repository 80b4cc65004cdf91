"""The command line of every run of a suite, and the whole configuration that it means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_core import stages
from kd_core.config import assemble, parse_command, updated
from kd_core.errors import UserError, nearest
from kd_core.host import Host
from kd_marl.suite.document import Cell, Method, Overrides, Suite, Task

# Keys whose values decide which configuration files make a run's configuration, and whether they go together.
_DECISIVE = ("env_args.map_name", "env_args.key", "limits", "mac", "mask_at")

Line = tuple[tuple[str, ...], dict[str, Any]]


class Lines:
    """Command lines of a suite's runs; what wins over what is in docs/guides/suites.md."""

    def __init__(self, host: Host, suite: Suite, results: Path) -> None:
        self._host, self._suite, self._results = host, suite, results
        self._merged: dict[tuple[str, ...], dict[str, Any]] = {}

    def environment(self, task: Task) -> tuple[str, str]:
        """Return the registered environment of a task, and the name that the task has in runs and in the zoo."""
        _, config = self.stage("kd_teacher", task)
        return config["env"], config["map_name"]

    def distils(self, task: Task, method: Method) -> bool:
        """Return whether a method's learner looks for a teacher before it starts (kd_marl.plugin.lifecycle).

        Raises:
            UserError: a configuration, a key or a learner that does not exist.
        """
        # A student whose steps others take need not run here itself.
        allowed = [name for name in self._suite.limits if self._suite.allows(task, method, name)]
        limits = (allowed or list(self._suite.limits))[0]
        name = self._base(task, method, limits)["learner"]
        if name not in self._host.learners:
            hint = nearest(name, self._host.learners)
            raise UserError(f"methods.{method.name}: learner '{name}' is not registered; {hint}")
        return bool(getattr(self._host.learners[name], "needs_teacher", False))

    def cell(self, cell: Cell, **own: Any) -> Line:
        """Return the words after ``python src/main.py`` of a run of the grid, and its configuration.

        Args:
            cell: which run.
            own: what the suite adds of itself, such as the teacher.
        """
        task, method = self._suite.tasks[cell.task], self._suite.methods[cell.method]
        base = self._base(task, method, cell.limits)
        added: Overrides = {**self._overrides(task, method, self._suite.limits[cell.limits]), **own}
        if not self.distils(task, method):
            added["final_evaluation"] = True
        added |= self._everywhere(base, self._suite.cpus_of(cell.method))
        return self._line(base, method.config, task.env, {**added, "seed": cell.seed})

    def sacred_folder(self, cell: Cell) -> Path:
        """Return where the host keeps what such runs leave: under the algorithm's own name, whatever ``name`` says."""
        base = self._base(self._suite.tasks[cell.task], self._suite.methods[cell.method], cell.limits)
        return self._results / "sacred" / base["name"] / self.cell(cell)[1]["map_name"]

    def stage(self, algorithm: str, task: Task, **own: Any) -> Line:
        """Do the same for a task's teacher or buffer: keys that all stages share, and those of the stage itself."""
        kept = {
            key: value
            for given in (self._suite.overrides, task.overrides, self._suite.updates)
            for key, value in given.items()
            if stages.is_shared(key)
        }
        specific = task.teacher_overrides if algorithm == "kd_teacher" else {}
        added = {"seed": 1, **kept, **specific, **own}
        where = f"tasks.{task.name}" + (".teacher_with" if specific else "")
        base = self._assemble(where, algorithm, task.env, added)
        return self._line(base, algorithm, task.env, {**added, **self._everywhere(base, self._suite.cpus)})

    def _everywhere(self, base: Mapping[str, Any], cpus: int) -> Overrides:
        # A host's environment workers would otherwise fill the machine for each run.
        workers = {"runner_processes": cpus} if "runner_processes" in base else {}
        return {**workers, "local_results_path": str(self._results), "resume": True}

    def _overrides(self, task: Task, method: Method, limits: Overrides) -> Overrides:
        suite = self._suite
        return {**suite.overrides, **task.overrides, **limits, **method.overrides, **suite.updates}

    def _base(self, task: Task, method: Method, limits: str) -> dict[str, Any]:
        """Return a method's configuration on a task under limits; every key that is overridden is checked."""
        where = f"methods.{method.name} on tasks.{task.name} under {limits}"
        overrides = self._overrides(task, method, self._suite.limits[limits])
        base = self._assemble(where, method.config, task.env, overrides)
        if base["name"] in ("kd_teacher", "kd_export"):
            raise UserError(f"methods.{method.name}: the suite makes teachers and buffers itself; leave it out")
        return base

    def _assemble(self, where: str, algorithm: str, environment: str, overrides: Overrides) -> dict[str, Any]:
        words = [_word(key, value) for key, value in overrides.items()]
        # Which files are merged depends on few values: the rest of them need not read the files again.
        memo = (algorithm, environment, *(str(overrides.get(key)) for key in _DECISIVE), *sorted(overrides))
        if memo not in self._merged:
            flags = [f"--config={algorithm}", f"--env-config={environment}"]
            try:
                self._merged[memo] = assemble(self._host, parse_command([*flags, "with", *words]))
            except UserError as error:
                raise UserError(f"{where}: {error}") from None
        return self._merged[memo]

    def _line(self, base: Mapping[str, Any], algorithm: str, environment: str, added: Overrides) -> Line:
        words = (
            f"--config={algorithm}",
            f"--env-config={environment}",
            "with",
            *(_word(key, value) for key, value in added.items()),
        )
        return words, updated(self._host, dict(base), parse_command(list(words)))


def _word(key: str, value: Any) -> str:
    """Return ``key=value`` as it is typed after ``with``: text as it stands, everything else as Python writes it."""
    return f"{key}={value}"
