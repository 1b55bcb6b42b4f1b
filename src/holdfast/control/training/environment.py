"""The environment of a training: what is installed, and the requirements by which it is installed again (R67)."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from typing import Final

NO_PACKAGE: Final = "not installed as a package"
"""The release of a package that runs from its source tree, or of a module without a package."""
OWN: Final = "holdfast"
_FACTS: Final = ("python", "machine", "libc")
"""Entries that are no packages."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def environment(*parts: object) -> dict[str, str]:
    """Return the versions of Python, the C library and every package that training needs, and the machine's architecture.

    Packages are those of Holdfast and of the modules of `parts`, such as a learner, with all that they require.
    """
    modules = {type(part).__module__.partition(".")[0] for part in parts}
    return dict(_environment(tuple(sorted({OWN, *modules}))))


@lru_cache(maxsize=16)
def _environment(modules: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    libc = " ".join(platform.libc_ver()).strip()
    facts = {"python": platform.python_version(), "machine": platform.machine(), "libc": libc}
    packages = metadata.packages_distributions()
    roots = [name for module in modules for name in packages.get(module, [module] if module == OWN else [])]
    return tuple((facts | _required(roots)).items())


def _required(roots: Sequence[str]) -> dict[str, str]:
    """Return the installed packages that `roots` are and require, by name; of extras, those of Holdfast that are installed."""
    found: dict[str, str] = {}
    left = list(roots)
    while left:
        name = normalise(left.pop())
        if name in found:
            continue
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if name == OWN:
                found[name] = NO_PACKAGE
            continue  # required on another platform or Python alone
        found[name] = package.version
        left += [
            required[0]
            for text in package.requires or ()
            if ("extra ==" not in text or name == OWN) and (required := _NAME.match(text)) is not None
        ]
    return dict(sorted(found.items()))


def normalise(name: str) -> str:
    """Return the name of a package in the form in which equal names are equal (PEP 503).

    >>> normalise("Scikit_Learn")
    'scikit-learn'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(version: str, environment: Mapping[str, str]) -> str:
    """Return a requirements file for pip that installs the packages of `environment`, in which `version` was trained.

    >>> print(requirements("v3", {"python": "3.12.1", "machine": "x86_64", "numpy": "2.4.6"}), end="")
    # The environment in which v3 was trained: python 3.12.1, machine x86_64.
    # python3.12 -m venv ENV && ENV/bin/python -m pip install --requirement FILE
    numpy==2.4.6
    """
    facts = ", ".join(f"{name} {environment[name]}" for name in _FACTS if environment.get(name))
    python = ".".join(environment.get("python", "3").split(".")[:2])
    lines = [
        f"# The environment in which {version} was trained: {facts}.",
        f"# python{python} -m venv ENV && ENV/bin/python -m pip install --requirement FILE",
    ]
    for name, release in sorted(environment.items()):
        if name in _FACTS:
            continue
        lines.append(f"# {name} was {release}" if release == NO_PACKAGE else f"{name}=={release}")
    return "\n".join(lines) + "\n"


def differences(environment: Mapping[str, str], here: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return what another environment has in another release, by name: that of the training, and the one `here`.

    What only `here` has is no difference: an older version recorded fewer packages.

    >>> differences({"numpy": "2.4.6", "scipy": "1.17.1"}, {"numpy": "2.5.0", "scipy": "1.17.1", "rich": "15.0"})
    {'numpy': ('2.4.6', '2.5.0')}
    """
    return {
        name: (release, here.get(name, "not installed"))
        for name, release in sorted(environment.items())
        if here.get(name) != release
    }


def installed(names: Sequence[str]) -> dict[str, str]:
    """Return the facts of this environment, and the release of each package of `names` that is installed."""
    found = environment()
    for name in names:
        if name not in found:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
    return found
