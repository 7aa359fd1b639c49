"""Files of settings: the one that ``BACKFILL_ENV`` names, read with the files of rules that it names.

``BACKFILL_ENV`` names a file in ``environments/`` or gives a path. Unknown keys and bad values are refused
when the file is loaded, with file, key and remedy.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Final

from backfill_assets.failures import SettingsError
from backfill_assets.id_laws import DEFAULT_ID_LAWS, load_id_laws
from backfill_assets.rule_set import DEFAULT_RULES, ComparisonRules, FeedRules, load_rules
from backfill_assets.settings.fields import (
    ComparisonSettings,
    DayThresholds,
    Settings,
    SettingsFile,
    ThresholdSettings,
)
from backfill_assets.settings.process_environment import ProcessEnvironment
from backfill_assets.yaml_files import read_mapping, validated

#: The limits of a rehearsal.
DEFAULT_LIMITS: Final = Path(__file__).parents[1] / "rules" / "rehearsal_limits.yaml"
ENVIRONMENTS: Final = Path(__file__).parents[1] / "environments"


def settings_file(environment: str = "") -> Path:
    """The file of ``environment``, or of ``BACKFILL_ENV``: a path if it has a separator or ends in .yaml.

    Raises
    ------
    SettingsError
        No environment of the package has this name, or the path is no file.
    """
    given = environment or ProcessEnvironment().backfill_env
    said = environment or f"BACKFILL_ENV={given}"
    if given.endswith((".yaml", ".yml")) or "/" in given:
        path = Path(given).expanduser()
        if path.is_dir():
            msg = f"{said}: is a folder, not a settings file; give the path of a .yaml file"
            raise SettingsError(msg)
        if not path.is_file():
            msg = f"{said}: there is no such file"
            raise SettingsError(msg)
        return path
    path = ENVIRONMENTS / f"{given}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in ENVIRONMENTS.glob("*.yaml")))
        choice = f"choose from {known}, or give a path to a .yaml file"
        msg = f"{said}: unknown environment; {choice}"
        raise SettingsError(msg)
    return path


def load_settings(path: Path) -> Settings:
    """Read and validate one settings file, and the rules and laws of ids that it names.

    Raises
    ------
    SettingsError
        A missing file, unreadable YAML, an unknown key or a bad value: one line with file, key and remedy.
    """
    file = load_file(path)
    rules = load_rules(rules_file(path, file.thresholds.rules))
    sections = dict(file)
    judging = {name: getattr(rules, name) for name in FeedRules.model_fields}
    of_days = {name: getattr(file.thresholds, name) for name in DayThresholds.model_fields}
    laws = load_id_laws(id_laws_file(path, file.thresholds.id_laws))
    sections["thresholds"] = ThresholdSettings(**judging, **of_days, id_laws=laws)
    sections["comparison"] = ComparisonSettings(**dict(rules.comparison), **dict(file.comparison))
    return Settings(**sections)


def load_file(path: Path) -> SettingsFile:
    """Read and validate one settings file as it is written, without its rules."""
    content = read_mapping(path, "settings; see environments/local.yaml for an example")
    for section, rules in (("thresholds", FeedRules), ("comparison", ComparisonRules)):
        given = content.get(section)
        for key in given if isinstance(given, dict) else ():
            if key in rules.model_fields:
                msg = (
                    f"{path}: {section}.{key}: is a rule, not a setting; write it into a file of rules and "
                    f"name that in thresholds.rules (see {DEFAULT_RULES})"
                )
                raise SettingsError(msg)
    return validated(SettingsFile, {"name": path.stem, **content}, path, page="see docs/settings.md")


def rules_file(path: Path, named: str) -> Path:
    """The file that ``thresholds.rules`` of the settings file at ``path`` names."""
    return _named_file(path, "thresholds.rules", named, DEFAULT_RULES)


def id_laws_file(path: Path, named: str) -> Path:
    """The file that ``thresholds.id_laws`` of the settings file at ``path`` names."""
    return _named_file(path, "thresholds.id_laws", named, DEFAULT_ID_LAWS)


def limits_file(path: Path, named: str) -> Path:
    """The file that ``rehearsal.limits`` of the settings file at ``path`` names."""
    return _named_file(path, "rehearsal.limits", named, DEFAULT_LIMITS)


def _named_file(path: Path, key: str, named: str, of_the_package: Path) -> Path:
    found = path.parent / Path(named).expanduser() if named else of_the_package
    if not found.is_file():
        what = key.rpartition(".")[2].replace("id_laws", "laws")
        msg = (
            f"{path}: {key}: there is no file {found}; correct the path, which is relative to the "
            f"settings file, or remove the key for the package's own {what}"
        )
        raise SettingsError(msg)
    return found


@lru_cache(maxsize=8)
def _file_cached(path: Path, changed_ns: int) -> SettingsFile:
    del changed_ns
    return load_file(path)


@lru_cache(maxsize=8)
def _load_cached(path: Path, changed_ns: int, rules_changed_ns: int, laws_changed_ns: int) -> Settings:
    del changed_ns, rules_changed_ns, laws_changed_ns
    return load_settings(path)


def current_settings(environment: str = "") -> Settings:
    """The settings of ``environment`` (a name or a file), or of ``BACKFILL_ENV``; read again when changed."""
    path = settings_file(environment)
    changed_ns = path.stat().st_mtime_ns
    named = _file_cached(path, changed_ns).thresholds
    rules, laws = rules_file(path, named.rules), id_laws_file(path, named.id_laws)
    return _load_cached(path, changed_ns, rules.stat().st_mtime_ns, laws.stat().st_mtime_ns)
