"""How an object store is reached: who asks, how long an answer may take, how often a request is made again, and what a failure means."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

from engine.errors import ArchiveError

T = TypeVar("T")

ATTEMPTS = 8  # of a request that the store failed or let hang, with a wait before each that doubles
FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0  # seconds
TIMEOUT = "LATENTRAY_STORE_TIMEOUT"  # seconds of a request, for stores that are slower or quicker than most
DEFAULT_TIMEOUT = 60.0
NO_BUCKET = "there is no such bucket"
_STATUS = re.compile(r"status code: (\d{3})")
_FINAL = ("PermissionDeniedError", "UnauthenticatedError", "InvalidPathError", "NotSupportedError", "UnknownConfigurationKeyError")


def tried(ask: Callable[[], T], *, doing: str, where: str) -> T:
    """What `ask` returns, asked again while the store fails; raises ArchiveError when it goes on failing, or refuses."""
    from obstore.exceptions import BaseError

    wait = FIRST_WAIT
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return ask()
        except (BaseError, OSError) as error:
            if attempt == ATTEMPTS or _is_final(error):
                raise ArchiveError(f"cannot {doing} the archive: {_reason(error)}: {where}") from None
        time.sleep(wait * random.uniform(0.5, 1.5))
        wait = min(2 * wait, LONGEST_WAIT)
    raise AssertionError("the last attempt returns or raises")


@cache
def opened(url: str, *, retries: int = 0) -> Any:
    """The library's store of a prefix, one a process: it holds the connections. `retries`: the library's own, for reading."""
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ModuleNotFoundError:
        raise ArchiveError(f"archives in object stores need a library; pip install 'latentray[s3]': {url}") from None
    endpoint = next((value for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") if (value := os.environ.get(name))), "")
    options: dict[str, Any] = {"timeout": timedelta(seconds=_timeout()), "connect_timeout": timedelta(seconds=min(10.0, _timeout()))}
    if endpoint.startswith("http://"):
        options["allow_http"] = True
    try:
        asked: dict[str, Any] = {"client_options": options, "retry_config": {"max_retries": retries}, **_credentials(url)}
        return from_url(url, **asked)
    except (BaseError, ValueError, TypeError) as error:
        raise ArchiveError(f"archives cannot lie behind this kind of URL, {_reason(error)}: {url}") from None


def _credentials(url: str) -> dict[str, Any]:
    """For S3 outside the environment's own variables: what botocore finds in profiles and elsewhere, asked anew when it runs out."""
    if urlsplit(url).scheme not in ("s3", "s3a") or "AWS_ACCESS_KEY_ID" in os.environ or "AWS_WEB_IDENTITY_TOKEN_FILE" in os.environ:
        return {}
    if not any(os.path.exists(os.path.expanduser(path)) for path in _profile_files()):
        return {}
    try:
        import botocore.session  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        return {}
    session = botocore.session.Session()
    if session.get_credentials() is None:
        return {}

    def credentials() -> dict[str, Any]:
        found = session.get_credentials().get_frozen_credentials()
        expiry = getattr(session.get_credentials(), "_expiry_time", None)
        return {"access_key_id": found.access_key, "secret_access_key": found.secret_key, "token": found.token, "expires_at": expiry}

    region = session.get_config_variable("region")
    return {"credential_provider": credentials, **({"region": region} if region else {})}


def _profile_files() -> tuple[str, str]:
    environment = os.environ
    return environment.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), environment.get("AWS_CONFIG_FILE", "~/.aws/config")


def _timeout() -> float:
    text = os.environ.get(TIMEOUT, str(DEFAULT_TIMEOUT))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 86400:
        raise ArchiveError(f"{TIMEOUT} must be a number of seconds: {text}")
    return seconds


def present(ask: Callable[[], T]) -> T | None:
    """What `ask` returns, or None where there is no such object."""
    try:
        return ask()
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise PermissionError(NO_BUCKET) from None
        return None


def _is_final(error: Exception) -> bool:
    """Whether asking again would be answered alike: a refusal, but not "too many requests", "took too long" or "another is writing"."""
    status = _STATUS.search(str(error))
    refused = status is not None and status[1].startswith("4") and status[1] not in ("408", "409", "429")
    return refused or type(error).__name__ in _FINAL or isinstance(error, PermissionError | FileNotFoundError)


def _reason(error: Exception) -> str:
    """Why, in a few words and never in the library's own: those hold URLs, which may be signed."""
    if NO_BUCKET in str(error) or "NoSuchBucket" in str(error):
        return NO_BUCKET
    status = _STATUS.search(str(error))
    kind = re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__.removesuffix("Error")).lower()
    return f"the store answered {status[1]}" if status else {"generic": "the store cannot be reached"}.get(kind, kind)
