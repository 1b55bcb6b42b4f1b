"""The settings, and the only reader of the environment."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import quote

from holdfast.errors import InputError

SETTINGS: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "HOLDFAST_ROOT",
        ".holdfast",
        "Directory that holds ledger, rows, blobs and logs; relative to the project's directory.",
    ),
    ("HOLDFAST_LEDGER", "", "SQLAlchemy URL of the ledger; empty means SQLite inside the root."),
    (
        "HOLDFAST_HOST",
        "127.0.0.1",
        "Address that the inference server and the page listen on; every address (0.0.0.0, ::) only with HOLDFAST_PUBLIC.",
    ),
    (
        "HOLDFAST_PUBLIC",
        "no",
        "yes lets HOLDFAST_HOST be every address of the machine: requests are neither encrypted nor restricted to a token.",
    ),
    ("HOLDFAST_PORT", "8080", "Port of the inference server; 0 takes a free one."),
    (
        "HOLDFAST_ADVERTISE",
        "",
        (
            "Host at which other machines reach the server, or HOST:PORT; by default that of HOLDFAST_HOST, and if this is "
            "every address, the address from which the host reaches others."
        ),
    ),
    (
        "HOLDFAST_NAMES",
        "",
        "Host names by which clients may call server and page, separated by commas; localhost and addresses are allowed.",
    ),
    ("HOLDFAST_PAGE_PORT", "8081", "Port of the page; 0 takes a free one."),
    ("HOLDFAST_CONTROL_PORT", "8082", "Port of the control loop's /metrics; 0 for none."),
    (
        "HOLDFAST_SOURCE_BYTES",
        "8589934592",
        (
            "The largest delivery that is loaded, in bytes after decompression. It may take twice as much memory, "
            "counted by its rows, values and texts: by default some 8 million rows of 11 columns."
        ),
    ),
    (
        "HOLDFAST_SOURCE_SECONDS",
        "300",
        "Time limit for reading a delivery from a directory, an object store or a database, in seconds.",
    ),
    (
        "HOLDFAST_EXECUTOR",
        "local",
        "Where many files are worked on: local (one process), processes (one for each core) or ray.",
    ),
    (
        "HOLDFAST_RAY_ADDRESS",
        "",
        "Address of the Ray cluster, host:port or auto; empty starts one on this machine for the time.",
    ),
    (
        "HOLDFAST_ABORT_TOKEN",
        "",
        "Secret that servers require for `holdfast rollback --server`, or ${file:/path} of it; empty disables it.",
    ),
    (
        "HOLDFAST_OPENLINEAGE_URL",
        "",
        "URL of an OpenLineage catalog that the control loop exports events to; by default OPENLINEAGE_URL, else none.",
    ),
    (
        "HOLDFAST_OPENLINEAGE_API_KEY",
        "",
        "API key of the catalog, sent as a bearer token, or ${file:/path} of it; by default OPENLINEAGE_API_KEY.",
    ),
    (
        "HOLDFAST_OPENLINEAGE_NAMESPACE",
        "",
        "Namespace of jobs and datasets in the catalog; by default OPENLINEAGE_NAMESPACE, else holdfast.",
    ),
    (
        "HOLDFAST_CDEVENTS_URL",
        "",
        "URL of a receiver of CDEvents (CloudEvents in JSON) that the control loop exports rollouts to; empty disables it.",
    ),
    (
        "HOLDFAST_CDEVENTS_ENVIRONMENT",
        "production",
        "The id of the environment in CDEvents.",
    ),
    (
        "HOLDFAST_BUILD",
        "",
        "Your own name for what runs here, such as that of an image; part of the runtime.",
    ),
    (
        "HOLDFAST_COMPACTION",
        "yes",
        "yes lets the control loop merge the files of collected predictions; no leaves that to `holdfast compact`.",
    ),
    (
        "HOLDFAST_ACCESS",
        "owner",
        "Users that may use the files of the root: owner (modes 0700, 0600), or group (2770, 0660), also the root's group.",
    ),
    ("HOLDFAST_LOG_FORMAT", "text", "Format of a server's log on standard error: text or json."),
    ("HOLDFAST_LOG_LEVEL", "info", "Lowest level of that log: debug, info, warning or error."),
)
"""Name, default and help of every setting; the reference page is generated from it."""

_OPTION_WORDS: Final = {
    "ADDRESS": "HOST",
    "BIND": "HOST",
    "DATABASE": "LEDGER",
    "DATA_DIR": "ROOT",
    "STORE": "ROOT",
}
"""What other tools call an option that is a setting here."""
_OTHER_NAMES: Final = {
    "HOLDFAST_OPENLINEAGE_URL": "OPENLINEAGE_URL",
    "HOLDFAST_OPENLINEAGE_API_KEY": "OPENLINEAGE_API_KEY",
    "HOLDFAST_OPENLINEAGE_NAMESPACE": "OPENLINEAGE_NAMESPACE",
}
"""The variables of OpenLineage's own clients, which decide where ours are not set."""
_DISABLED: Final = "OPENLINEAGE_DISABLED"

SHORTEST_TOKEN: Final = 12
"""The fewest characters of a token that a server requires; 2,000 tries a second find a shorter one."""
EXECUTORS: Final = ("local", "processes", "ray")
ACCESSES: Final = ("owner", "group")
LOG_FORMATS: Final = ("text", "json")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")

_EVERY_ADDRESS: Final = ("", "0.0.0.0", "0", "::", "::0", "0:0:0:0:0:0:0:0")  # noqa: S104  (refused, not bound)
_log = logging.getLogger(__name__)

_PORT: Final = re.compile(r"[0-9]{1,5}")
_HOST_AND_PORT: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]]+)(?::([1-9][0-9]{0,4}))?")
_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?)*\.?"
)
_DIGITS: Final = re.compile(r"[0-9.]+")
_REFERENCE: Final = re.compile(r"\$\{(env|file):([^}]+)\}")
_WHOLE: Final = re.compile(r"[1-9][0-9]{0,17}")
_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9_]*")


def setting_of(option: str, command: str = "") -> str | None:
    """Return the setting that an option would be, if it was one; None if it resembles none.

    `command` is the command that was given the option; it has the setting that begins with its name, if there is one.

    >>> setting_of("--port", "up"), setting_of("--port", "page"), setting_of("--log-level"), setting_of("--colour")
    ('HOLDFAST_PORT', 'HOLDFAST_PAGE_PORT', 'HOLDFAST_LOG_LEVEL', None)
    """
    word = option.lstrip("-").upper().replace("-", "_")
    word = _OPTION_WORDS.get(word, word)
    known = {name for name, _, _ in SETTINGS}
    wanted = (f"HOLDFAST_{command.upper()}_{word}", f"HOLDFAST_{word}")
    return next((name for name in wanted if name in known), None)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of the environment. Everything else is declared in the project's model file."""

    root: Path
    ledger_url: str
    host: str
    port: int
    page_port: int
    control_port: int = 0
    public: bool = False
    advertise: tuple[str, int] | None = None
    names: tuple[str, ...] = ()
    source_bytes: int = 8 << 30
    source_seconds: float = 300.0
    executor: str = "local"
    ray_address: str = ""
    openlineage_url: str = ""
    openlineage_api_key: str = ""
    openlineage_namespace: str = "holdfast"
    cdevents_url: str = ""
    cdevents_environment: str = "production"
    abort_token: str = ""
    build: str = ""
    log_format: str = "text"
    log_level: str = "info"
    access: str = "owner"
    compaction: bool = True

    @classmethod
    def read(cls, project: Path, environment: Mapping[str, str] | None = None) -> Settings:
        """Return the settings of a project directory. Raises `InputError` HF103 for a value that cannot be used."""
        given = os.environ if environment is None else environment
        values = {name: given.get(name, default) for name, default, _ in SETTINGS}
        for own, other in _OTHER_NAMES.items():
            values[own] = values[own] or given.get(other, "")
        if given.get(_DISABLED, "").strip().lower() == "true":
            values["HOLDFAST_OPENLINEAGE_URL"] = ""
        root = (project / values["HOLDFAST_ROOT"]).resolve()
        return cls(
            root=root,
            # In a URL a path has its "?", "#" and "%" escaped, whatever the directory is called.
            ledger_url=values["HOLDFAST_LEDGER"] or f"sqlite:///{quote(str(root / 'ledger.db'))}",
            host=values["HOLDFAST_HOST"],
            port=_port("HOLDFAST_PORT", values),
            page_port=_port("HOLDFAST_PAGE_PORT", values),
            control_port=_port("HOLDFAST_CONTROL_PORT", values),
            public=_one_of("HOLDFAST_PUBLIC", ("no", "yes"), values) == "yes",
            advertise=_advertised(values["HOLDFAST_ADVERTISE"].strip()),
            names=tuple(name.strip() for name in values["HOLDFAST_NAMES"].split(",") if name.strip()),
            source_bytes=_count("HOLDFAST_SOURCE_BYTES", values),
            source_seconds=_count("HOLDFAST_SOURCE_SECONDS", values),
            executor=_one_of("HOLDFAST_EXECUTOR", EXECUTORS, values),
            ray_address=values["HOLDFAST_RAY_ADDRESS"],
            openlineage_url=_web_address("HOLDFAST_OPENLINEAGE_URL", values),
            openlineage_api_key=values["HOLDFAST_OPENLINEAGE_API_KEY"],
            openlineage_namespace=values["HOLDFAST_OPENLINEAGE_NAMESPACE"].strip() or "holdfast",
            cdevents_url=_web_address("HOLDFAST_CDEVENTS_URL", values),
            cdevents_environment=values["HOLDFAST_CDEVENTS_ENVIRONMENT"] or "production",
            abort_token=values["HOLDFAST_ABORT_TOKEN"],
            build=values["HOLDFAST_BUILD"].strip()[:200],
            log_format=_one_of("HOLDFAST_LOG_FORMAT", LOG_FORMATS, values),
            log_level=_one_of("HOLDFAST_LOG_LEVEL", LOG_LEVELS, values),
            access=_one_of("HOLDFAST_ACCESS", ACCESSES, values),
            compaction=_one_of("HOLDFAST_COMPACTION", ("yes", "no"), values) == "yes",
        )

    def refuse_unstated_exposure(self) -> None:
        """Raise `InputError` HF103 if the host means every address of the machine and nothing states that this is meant."""
        if self.public or self.host.strip("[]") not in _EVERY_ADDRESS:
            return
        raise InputError(
            "HF103",
            f"HOLDFAST_HOST is {self.host!r}, every address of this machine, and requests would be neither encrypted nor "
            "restricted to a token",
            state="nothing was started",
            next_command="set HOLDFAST_HOST to one address, or HOLDFAST_PUBLIC=yes behind a proxy or in a closed network",
        )

    @property
    def openlineage_key(self) -> str:
        """Return `openlineage_api_key`, or what the file that it names contains; `InputError` HF103 if that is absent."""
        key = self.openlineage_api_key
        return resolve(key) if key.startswith("${") else key

    @property
    def token(self) -> str:
        """Return the secret of `abort_token`, or of the file that it names. Raises `InputError` HF103 if that is absent."""
        return resolve(self.abort_token) if self.abort_token.startswith("${") else self.abort_token

    @property
    def required_token(self) -> str:
        """Return `token`, as a server requires it. Raises `InputError` HF103 too if it is too short to resist guessing."""
        token = self.token
        if token and len(token) < SHORTEST_TOKEN:
            raise InputError(
                "HF103",
                f"the token of HOLDFAST_ABORT_TOKEN has {len(token)} characters, at least {SHORTEST_TOKEN} are needed",
                state="nothing was started",
                next_command="set a random one: openssl rand -hex 32",
            )
        return token


def is_s3_unencrypted(environment: Mapping[str, str] | None = None) -> bool:
    """Return True if the endpoint of S3 is one that is called by http, as the operator named it.

    `AWS_ALLOW_HTTP` decides where it is set.

    >>> is_s3_unencrypted({"AWS_ENDPOINT_URL": "http://minio:9000"}), is_s3_unencrypted({})
    (True, False)
    """
    given = os.environ if environment is None else environment
    endpoints = (given.get(name, "") for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"))
    first = next(filter(None, endpoints), "")
    return first.lower().startswith("http://") and "AWS_ALLOW_HTTP" not in given


def resolve(reference: str, environment: Mapping[str, str] | None = None) -> str:
    """Return what `reference` stands for.

    "${env:NAME}" or a bare NAME is a variable, "${file:/path}" the content of a file without the white space around
    it, and anything else itself. Raises `InputError` HF103 if the variable or file is absent or empty, or if others may write
    the file; that others may read it is a warning.

    >>> resolve("${env:WAREHOUSE_URL}", {"WAREHOUSE_URL": "postgresql://db/dw"})
    'postgresql://db/dw'
    """
    found = _REFERENCE.fullmatch(reference)
    if found is None and not _VARIABLE.fullmatch(reference):
        return reference
    if found is not None and found[1] == "file":
        try:
            with Path(found[2]).open(encoding="utf-8") as file:
                _check_mode(found[2], stat.S_IMODE(os.fstat(file.fileno()).st_mode))
                value = file.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                "HF103", f"the file {found[2]} cannot be read", next_command="write the value into it"
            ) from error
        where = f"the file {found[2]}"
    else:
        name = reference if found is None else found[2]
        value = (os.environ if environment is None else environment).get(name, "")
        where = f"the variable {name}"
    if not value:
        raise InputError("HF103", f"{where} is not set or empty")
    return value


def _check_mode(path: str, mode: int) -> None:
    """Refuse a file of a secret that others may write, and warn once of one that others may read."""
    if mode & 0o022:
        raise InputError(
            "HF103",
            f"other users may write the file {path} (mode {mode:04o}), so its content is no secret of yours",
            state="it was not used",
            next_command=f"chmod 600 {path}, after a look at its content",
        )
    if mode & 0o044:
        _warn_of_readable(path, mode)


@lru_cache(maxsize=64)
def _warn_of_readable(path: str, mode: int) -> None:
    # A warning, because containers mount secrets of this mode in a directory that is closed to others.
    _log.warning("other users may read the file %s (mode %04o); next: chmod 600 %s", path, mode, path)


def _one_of(name: str, allowed: tuple[str, ...], values: Mapping[str, str]) -> str:
    if values[name] not in allowed:
        raise InputError("HF103", f"{name} is {values[name][:20]!r}; it can be {', '.join(allowed)}")
    return values[name]


def _web_address(name: str, values: Mapping[str, str]) -> str:
    if values[name] and not values[name].startswith(("http://", "https://")):
        raise InputError(
            "HF103", f"{name} is {values[name][:40]!r}: a URL that begins with http:// or https://"
        )
    return values[name]


def _count(name: str, values: Mapping[str, str]) -> int:
    text = values[name]
    if not _WHOLE.fullmatch(text):
        raise InputError("HF103", f"{name} is {text[:20]!r}: it is a whole number over 0")
    return int(text)


def _advertised(text: str) -> tuple[str, int] | None:
    """Return the host and the port of `HOLDFAST_ADVERTISE`, port 0 if it names none; None if it is not set.

    >>> _advertised("web-1.internal"), _advertised("10.0.0.7:80"), _advertised("[2a01::9]:80"), _advertised("2a01::9")
    (('web-1.internal', 0), ('10.0.0.7', 80), ('2a01::9', 80), ('2a01::9', 0))
    """
    if not text:
        return None
    found = _HOST_AND_PORT.fullmatch(text)
    host, port = (text, "0") if found is None else (found[1], found[2] or "0")
    if host[0] + host[-1] == "[]":
        host = host[1:-1]
    try:
        is_usable = not ip_address(host).is_unspecified
    except ValueError:
        # A name of digits and dots alone is an address with a mistake in it.
        is_usable = _HOST_NAME.fullmatch(host) is not None and not _DIGITS.fullmatch(host)
    if not is_usable or int(port) > 65535:
        raise InputError(
            "HF103",
            f"HOLDFAST_ADVERTISE is {text[:80]!r}: other machines reach a server at one address or name, and a port",
            state="nothing was started",
            next_command="set it to a host or HOST:PORT, such as 10.0.0.7:8080",
        )
    return host, int(port)


def _port(name: str, values: Mapping[str, str]) -> int:
    text = values[name]
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise InputError("HF103", f"{name} is {text[:20]!r}: a port is a number from 0 to 65535")
    return int(text)
