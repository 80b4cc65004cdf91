"""The server and the database that runs are sent to, and the places where its password may stand.

What stands in a key or on a command line is recorded with the run. So a password comes from the environment's
``KD_MARL_MONGO_URL``, or from a file that only its owner can read.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd_core.config import MONGO_URL
from kd_core.errors import UserError, how_to_install, nearest

URL_VARIABLE = MONGO_URL
WAYS = ("files", "mongo")
# Options of a URL that hold what must not be recorded.
_SECRET_OPTIONS = re.compile(r"[?&](authmechanismproperties|\w*password)=", re.IGNORECASE)
_LONGEST_NAME = 63
# The last are bytes of a command line that are no text.
_NO_NAME = r'[/\\.\s"$*<>:|?\0\ud800-\udfff]'
_ITS_OWN = ("admin", "config", "local")


@dataclass(frozen=True)
class Destination:
    """A database on a MongoDB server.

    Attributes:
        url: of the server, with its password if it has one; never shown.
        database: its name.
    """

    url: str = field(repr=False)
    database: str

    @property
    def server(self) -> str:
        """The server's host and port, fit to be shown."""
        return re.sub(r"^\w+(\+srv)?://", "", self.url).split("/")[0].split("?")[0].rpartition("@")[2]

    def connect(self, patience_s: float) -> Any:
        """Return a client of the server; nothing is sent before its first use.

        Args:
            patience_s: seconds that each of connecting, sending and waiting for an answer may take.

        Raises:
            UserError: the URL is none, or pymongo is not installed.
        """
        try:
            import pymongo  # of the extra `track`
            from pymongo.errors import PyMongoError
        except ModuleNotFoundError as error:
            raise UserError(f"MongoDB needs {error.name}, which is not installed: {how_to_install('track')}") from error
        # A checkout's loggers say all that they can.
        logging.getLogger("pymongo").setLevel(logging.WARNING)
        ms = round(patience_s * 1000)
        authority = re.split("[/?]", self.url.partition("://")[2])[0]
        try:
            if "@" in self.url and "@" not in authority:
                # A / or ? in a password: pymongo would take what stands before it for a host and its port.
                raise ValueError
            return pymongo.MongoClient(
                self.url,
                connect=False,
                serverSelectionTimeoutMS=ms,
                connectTimeoutMS=ms,
                socketTimeoutMS=ms,
                # One document with a year beyond Python's, or bytes that are no text, must not hide all others.
                datetime_conversion="DATETIME_AUTO",
                unicode_decode_error_handler="replace",
            )
        except OSError:
            raise UserError("the MongoDB URL names a file, such as tlsCAFile, that cannot be read") from None
        except (PyMongoError, ValueError, TypeError):
            # pymongo's own message may quote the password, and of such a URL nobody knows where that stands.
            shown = "the MongoDB URL" if "@" in self.url else f"the MongoDB URL {self.url}"
            raise UserError(
                f"{shown} cannot be read: expected mongodb://HOST:PORT, or "
                f"mongodb://USER:PASSWORD@HOST:PORT in {URL_VARIABLE}, special characters as %XX"
            ) from None


def of_run(config: Mapping[str, Any], updates: Mapping[str, str]) -> Destination | None:
    """Return where a run's keys send it, beside its files; None: files only.

    Args:
        config: the run's configuration before ``with``.
        updates: what stands after ``with``.

    Raises:
        UserError: a key has an impossible value, or there is no URL.
    """
    tracking, url, database = (
        str(updates.get(key, config.get(key, ""))) for key in ("tracking", "tracking_url", "tracking_db")
    )
    if tracking not in WAYS:
        raise UserError(f"tracking={tracking}: expected files or mongo; {nearest(tracking, WAYS)}")
    # Given without tracking=mongo it is recorded all the same.
    refuse_password(url, "tracking_url")
    return find(url, database, "tracking_url", "tracking_db") if tracking == "mongo" else None


def find(url: str, database: str, url_name: str, database_name: str) -> Destination:
    """Return the destination that a user means.

    Args:
        url: a URL without a password, ``host:port``, a file that holds a URL, or "" for the environment's.
        database: its name.
        url_name: what the user calls the first, e.g. ``--url``.
        database_name: what the user calls the second.

    Raises:
        UserError: one of them is impossible, or there is no URL.
    """
    if not (0 < len(database.encode("utf-8", "replace")) <= _LONGEST_NAME) or re.search(_NO_NAME, database):
        raise UserError(
            f"{database_name} '{database}' names no database: expected 1 to {_LONGEST_NAME} letters, digits, - or _"
        )
    if database in _ITS_OWN:
        raise UserError(f"{database_name} '{database}' is MongoDB's own database: choose another name")
    refuse_password(url, url_name)
    if not url and not (url := os.environ.get(URL_VARIABLE, "")):
        raise UserError(
            f"no MongoDB server is named: give {url_name}, for example mongodb://localhost:27017, or set {URL_VARIABLE}"
        )
    if "://" not in url and os.sep in url:
        url = _from_file(Path(url).expanduser(), url_name)
    if "://" not in url:
        url = f"mongodb://{url}"
    if not re.match(r"mongodb(\+srv)?://[^/?]", url):
        raise UserError(f"{url_name} names no MongoDB server: expected mongodb://HOST:PORT, host:port, or a file")
    destination = Destination(url, database)
    destination.connect(1.0).close()
    return destination


def refuse_password(url: str, name: str) -> None:
    """Refuse a URL with a password where it would be recorded.

    Raises:
        UserError: it has one; the message does not show it.
    """
    account = url.partition("://")[2 if "://" in url else 0].rpartition("@")[0]
    if ":" in account or _SECRET_OPTIONS.search(url):
        raise UserError(
            f"{name} holds a password, which would be recorded: put the URL into the environment as {URL_VARIABLE}, or "
            f"into a file of mode 0600 and give {name} that file"
        )


def _from_file(file: Path, name: str) -> str:
    try:
        mode = file.stat().st_mode
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"{name} names the file {file}, which cannot be read: {reason}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise UserError(f"{file} holds a password and others can read it: chmod 600 {file}")
    if len(text.split()) != 1:
        raise UserError(f"{file} holds no URL: expected one line, mongodb://USER:PASSWORD@HOST:PORT")
    return text
