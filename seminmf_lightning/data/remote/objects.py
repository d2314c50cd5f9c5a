"""Objects read by byte ranges through fsspec: patient with a store that fails, strict with an object that
changes.

One place retries, this one: of the S3 client, which has two retry loops of its own, both are switched off.
"""

from __future__ import annotations

import random
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import fsspec
from fsspec.core import split_protocol, url_to_fs
from fsspec.utils import stringify_path

FIRST_PAUSE, LONGEST_PAUSE = (
    0.25,
    30.0,
)  # seconds before the next try; each pause is twice the last, give or take a half
VERSIONS = (
    "ETag", "etag", "generation", "md5Hash", "content_md5", "Content-MD5", "Digest", "mtime",
    "LastModified", "last_modified", "Last-Modified", "updated", "created",
)  # fmt: skip
"""What file systems tell an object from its successor by, the surest first."""
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
NETWORK = ("aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "google", "requests", "urllib3")
"""Packages whose exceptions are not all OSErrors."""
S3 = {"use_listings_cache": False, "config_kwargs": {"retries": {"total_max_attempts": 1}}}
SECRET_WORDS = (
    "secret", "passw", "token", "account_key", "api_key", "apikey", "access_key", "connection_string", "sas", "credential",
    "authorization",
)  # fmt: skip
OPEN_TOKENS = ("anon", "cloud", "google_default")  # of gcsfs: names of ways to sign in, not secrets

THREADS = 8  # requests under way at once

T = TypeVar("T")
U = TypeVar("U")


class RemoteObject(NamedTuple):
    """One object as it was found."""

    url: str
    path: str
    size: int
    version: str


class ChangedError(ValueError):
    """An object is not the one it was."""


class ShortReadError(OSError):
    """Fewer bytes came than were asked for."""


class Remote:
    """The file system of a URL.

    Raises:
        ModuleNotFoundError: its package is not installed; the message has the pip command.
        ValueError: no such protocol, or a secret among the options.
    """

    def __init__(self, url: str, storage: Mapping[str, Any], retries: int) -> None:
        refuse_secrets(storage)
        refuse_secrets({"path": url}, "data")
        protocol = split_protocol(url)[0] or "file"
        options = dict(S3 if protocol in ("s3", "s3a") else {}) | {
            k: v for k, v in storage.items() if v is not None
        }
        try:
            # An instance of our own: what is set on it is nobody else's concern.
            self.fs: Any = url_to_fs(url, skip_instance_cache=True, **options)[0]
        except ImportError as error:
            extra = "pip install 'seminmf-lightning[s3]'" if protocol in ("s3", "s3a") else "install it"
            raise ModuleNotFoundError(f"data.path={url!r}: {error}; {extra}") from error
        if hasattr(self.fs, "retries"):
            self.fs.retries = 1
        self.retries = retries
        self._failed = threading.Event()
        self._warned: set[str] = set()

    def find(self, url: str) -> list[RemoteObject]:
        """The objects that a URL or a glob names, or that lie in the folder it names, sorted by name.

        Raises:
            FileNotFoundError, PermissionError, OSError: with the URL.
        """
        if not isinstance(self.fs, fsspec.get_filesystem_class(split_protocol(url)[0] or "file")):
            raise ValueError(
                f"data.path={url!r}: all objects must lie in one kind of store, the first is in {self.fs.protocol}"
            )
        path = self.fs._strip_protocol(stringify_path(url))

        def look() -> list[str]:
            if any(letter in path for letter in "*?["):
                return [
                    info["name"]
                    for info in self.fs.glob(path, detail=True).values()
                    if info["type"] == "file"
                ]
            if self.fs.info(path)["type"] != "directory":
                return [path]
            return [entry["name"] for entry in self.fs.ls(path, detail=True) if entry["type"] == "file"]

        def inspect(name: str) -> RemoteObject:  # for itself: listings tell versions in another form
            return self._patiently(url, url, lambda: self._object(self.fs.info(name)))

        found = in_parallel(inspect, self._patiently(url, url, look))
        if not found:
            raise FileNotFoundError(f"data.path={url!r} matches no object")
        return sorted(found)

    def read(self, found: RemoteObject, start: int, stop: int) -> bytes:
        """Bytes ``start..stop-1`` of an object.

        Raises:
            ChangedError: it was replaced since it was found.
            FileNotFoundError, PermissionError: at once.
            OSError: after ``retries`` more tries; the message has the URL, the bytes and the last error.
        """

        def attempt() -> bytes:
            try:
                content = self.fs.cat_file(found.path, start=start, end=stop)
            except Exception as error:
                if not _passing(error):
                    self._check(found)  # a range that is no longer there
                raise
            self._check(found)  # afterwards, so that what came is of the object that was found
            if len(content) != stop - start:
                raise ShortReadError(f"{len(content):,} bytes came")
            return content

        return (
            self._patiently(found.url, f"{found.url}, bytes {start:,}-{stop - 1:,}", attempt)
            if start < stop
            else b""
        )

    def _object(self, info: Mapping[str, Any]) -> RemoteObject:
        url = self.fs.unstrip_protocol(info["name"])
        if info.get("size") is None:
            raise ValueError(
                f"{url}: its store does not say how large it is, which reading parts of it needs"
            )
        version = next((f"{name}={info[name]}" for name in VERSIONS if info.get(name)), "")
        return RemoteObject(url, info["name"], int(info["size"]), version)

    def _check(self, found: RemoteObject) -> None:
        now = self._object(self.fs.info(found.path))
        if (now.size, now.version) != (found.size, found.version):
            raise ChangedError(
                f"{found.url}: replaced while it was being read: it had {found.size:,} bytes ({found.version}), "
                f"now {now.size:,} ({now.version}); rows of two versions must not mix: start the run anew"
            )

    def _patiently(self, url: str, what: str, attempt: Callable[[], T]) -> T:
        last: Exception | None = None
        for tried, pause in enumerate(_pauses(self.retries)):
            try:
                found = attempt()
                self._failed.clear()
                return found
            except ChangedError:
                raise
            except FileNotFoundError as error:
                raise FileNotFoundError(f"{what}: no such object ({error})") from error
            except Exception as error:
                if _refused(error):
                    raise PermissionError(
                        f"{what}: access denied ({error}); credentials come from the environment (AWS_ACCESS_KEY_ID, "
                        "AWS_PROFILE, ...), the address from data.storage.endpoint_url"
                    ) from error
                if not _passing(error):
                    raise OSError(f"{what}: cannot be read ({type(error).__name__}: {error})") from error
                last = error
                if (
                    tried == self.retries or self._failed.is_set()
                ):  # where one gives up, those behind it need not wait
                    break
                if url not in self._warned:
                    self._warned.add(url)
                    warnings.warn(f"{what}: {type(error).__name__}: {error}; trying again", stacklevel=2)
                time.sleep(pause)
        self._failed.set()
        raise OSError(
            f"{what}: not read after {tried + 1} tries, the last: {type(last).__name__}: {last}. "
            "Is the store up? data.retries allows more; a run goes on with ckpt_path=<run>/checkpoints/last.ckpt"
        ) from last


def in_parallel(work: Callable[[T], U], items: Iterable[T]) -> list[U]:
    """``work(item)`` of each, some at once."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, items))


def refuse_secrets(storage: Mapping[str, Any], inside: str = "data.storage") -> None:
    """Raise ValueError if an option is a secret, which the run folder would keep, and the dictionary's file
    as well."""
    for name, value in storage.items():
        if isinstance(value, list):
            value = dict(enumerate(value))
        if isinstance(value, Mapping):
            refuse_secrets(value, f"{inside}.{name}")
            continue
        named = (
            value is not None
            and value not in OPEN_TOKENS
            and any(word in str(name).lower() for word in SECRET_WORDS)
        )
        if named or (
            isinstance(value, str) and re.match(r"\w+://[^/]*:[^/]*@", value)
        ):  # a password in a URL
            raise ValueError(
                f"{inside}.{name} looks like a secret, and a run's settings are written to its folder and its dictionary; "
                "give it in the environment instead (AWS_SECRET_ACCESS_KEY, AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS, ...)"
            )


def _pauses(retries: int) -> Iterator[float]:
    for tried in range(retries + 1):
        yield min(LONGEST_PAUSE, FIRST_PAUSE * 2**tried) * random.uniform(0.5, 1.5)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _status(error: BaseException) -> int | None:
    """The HTTP status an error stands for, where it has one."""
    for one in _causes(error):
        response = getattr(one, "response", None)
        if isinstance(response, Mapping):
            return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if isinstance(status := getattr(one, "status", None), int):
            return status
    return None


def _refused(error: BaseException) -> bool:
    return (
        isinstance(error, PermissionError)
        or _status(error) in (401, 403)
        or "Credentials" in type(error).__name__
    )


def _passing(error: BaseException) -> bool:
    """Whether another try may succeed."""
    if isinstance(error, (*FINAL, ChangedError)) or _refused(error):
        return False
    if (status := _status(error)) is not None:
        return status >= 500 or status in (408, 429)
    return (
        isinstance(error, OSError | EOFError | TimeoutError)
        or type(error).__module__.partition(".")[0] in NETWORK
    )
