"""Read objects by byte ranges through fsspec: retry failed requests, refuse objects that change.

Requests are retried only here: the two retry loops of the S3 client are switched off.
"""

from __future__ import annotations

import os
import random
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import fsspec
from fsspec.core import split_protocol, url_to_fs
from fsspec.utils import stringify_path

from seminmf_lightning.data.secrets import QUERY_VARIABLE, refuse_secrets, without_queries

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0  # seconds; each pause is twice the previous one, +-50 %
THREADS = 8  # concurrent requests
VERSIONS = (
    "ETag", "etag", "generation", "md5Hash", "content_md5", "Content-MD5", "Digest", "mtime",
    "LastModified", "last_modified", "Last-Modified", "updated", "created",
)  # fmt: skip
"""Properties that tell a replaced object from the old one, the most reliable first."""
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
NETWORK = ("aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "google", "requests", "urllib3")
"""Packages whose exceptions are not all OSErrors."""
S3 = {"use_listings_cache": False, "config_kwargs": {"retries": {"total_max_attempts": 1}}}
T = TypeVar("T")
U = TypeVar("U")


class RemoteObject(NamedTuple):
    """An object as it was when it was opened."""

    url: str
    path: str
    size: int
    version: str


class ChangedError(ValueError):
    """An object was replaced since it was opened."""


class ShortReadError(OSError):
    """Fewer bytes came than were requested."""


class NoRangesError(ValueError):
    """A server sends only whole objects."""


class Remote:
    """The file system of a URL.

    Raises:
        ModuleNotFoundError: its package is not installed; the message has the pip command.
        ValueError: an unknown protocol, or a secret among the options.
    """

    def __init__(self, url: str, storage: Mapping[str, Any], retries: int) -> None:
        refuse_secrets({"path": url, "storage": storage})
        protocol = split_protocol(url)[0] or "file"
        options = S3 if protocol in ("s3", "s3a") else {}
        options = options | {key: value for key, value in storage.items() if value is not None}
        try:
            # A separate instance, because its number of retries is set below.
            self.fs: Any = url_to_fs(url, skip_instance_cache=True, **options)[0]
        except ImportError as error:
            extra = "pip install 'seminmf-lightning[s3]'" if protocol in ("s3", "s3a") else "install it"
            raise ModuleNotFoundError(f"data.path={url!r}: {error}; {extra}") from error
        if hasattr(self.fs, "retries"):
            self.fs.retries = 1
        self.retries = retries
        self._is_http = "http" in self.fs.protocol
        query = os.environ.get(QUERY_VARIABLE, "").lstrip("?") if self._is_http else ""
        self._query = f"?{query}" if query else ""
        self._serves_ranges = not self._is_http
        self._failed = threading.Event()
        self._warned: set[str] = set()

    def find(self, url: str) -> list[RemoteObject]:
        """Return the objects at a URL, or that match a glob, or in a folder, sorted by name.

        Raises:
            FileNotFoundError, PermissionError, OSError: the message has the URL.
        """
        if not isinstance(self.fs, fsspec.get_filesystem_class(split_protocol(url)[0] or "file")):
            raise ValueError(
                f"data.path={url!r}: all objects must lie in one kind of store, the first is in "
                f"{self.fs.protocol}"
            )
        refuse_secrets({"path": url})
        path = self.fs._strip_protocol(stringify_path(url))

        def names() -> list[str]:
            # A name may hold a bracket or a question mark: try it as a name before it is read as a glob.
            letters = any(letter in path for letter in "?[") and not self._is_http
            if "*" in path or (letters and not self.fs.exists(path)):
                entries = self.fs.glob(path, detail=True).values()
            elif self.fs.info(path + self._query)["type"] != "directory":
                return [path]
            else:
                entries = self.fs.ls(path, detail=True)
            return [entry["name"] for entry in entries if entry["type"] == "file"]

        # Request the state of each object, because listings give versions in another form.
        objects = in_parallel(
            lambda name: self._retry(url, url, lambda: self._state(name)), self._retry(url, url, names)
        )
        if not objects:
            advice = "; in a glob, [[] stands for a bracket" if "[" in path else ""
            raise FileNotFoundError(f"data.path={url!r} matches no object{advice}")
        if not self._serves_ranges:
            self._retry(url, url, lambda: self._try_range(objects[0]))
        return sorted(objects)

    def read(self, source: RemoteObject, start: int, stop: int) -> bytes:
        """Read bytes ``start..stop-1`` of an object.

        Raises:
            ChangedError: it was replaced since it was opened.
            FileNotFoundError, PermissionError: at once.
            OSError: after ``retries`` further attempts; the message has the URL, the bytes and the last
                error.
        """

        def attempt() -> bytes:
            try:
                content = self.fs.cat_file(source.path + self._query, start=start, end=stop)
            except Exception as error:
                if not _is_transient(error):
                    self._check(source)  # the range may be gone because the object was replaced
                raise
            self._check(source)  # afterwards, so that the content belongs to the object that was opened
            if len(content) != stop - start:
                raise ShortReadError(f"{len(content):,} bytes came")
            return content

        what = f"{source.url}, bytes {start:,}-{stop - 1:,}"
        return self._retry(source.url, what, attempt) if start < stop else b""

    def _state(self, path: str) -> RemoteObject:
        info = self.fs.info(path + self._query)
        url = self.fs.unstrip_protocol(path)
        if info.get("size") is None:
            raise ValueError(f"{url}: its store does not give its size, so that no part of it can be read")
        version = next((f"{name}={info[name]}" for name in VERSIONS if info.get(name)), "")
        return RemoteObject(url, path, int(info["size"]), version)

    def _try_range(self, source: RemoteObject) -> None:
        """Read the last byte of an object; a server without range requests would send the whole object."""
        with self.fs.open(source.path + self._query, size=source.size, cache_type="none") as file:
            file.seek(max(0, source.size - 1))
            try:
                file.read(1)
            except ValueError as error:
                raise NoRangesError(
                    f"{source.url}: this server does not answer range requests, which reading rows needs; "
                    "download the file, or use a server that does (nginx, Apache, an object store)"
                ) from error
        self._serves_ranges = True

    def _check(self, opened: RemoteObject) -> None:
        now = self._state(opened.path)
        if (now.size, now.version) != (opened.size, opened.version):
            raise ChangedError(
                f"{opened.url}: replaced while it was being read: it had {opened.size:,} bytes "
                f"({opened.version}), now {now.size:,} ({now.version}); rows of two versions must not mix: "
                "start the run anew"
            )

    def _retry(self, url: str, what: str, attempt: Callable[[], T]) -> T:
        """Repeat a request while its error is transient; once one request has given up, others do not
        wait."""
        for attempts in range(1, self.retries + 2):
            try:
                result = attempt()
            except Exception as error:
                if not _is_transient(error):
                    if isinstance(error, ChangedError | NoRangesError):
                        raise
                    raise _explained(what, error) from error
                if attempts > self.retries or self._failed.is_set():
                    self._failed.set()
                    raise OSError(
                        f"{what}: not read after {attempts} tries, the last: {type(error).__name__}: "
                        f"{without_queries(error)}. Is the store up? data.retries allows more; a run resumes "
                        "with ckpt_path=<run>/checkpoints/last.ckpt"
                    ) from error
                if url not in self._warned:
                    self._warned.add(url)
                    message = f"{type(error).__name__}: {without_queries(error)}"
                    warnings.warn(f"{what}: {message}; trying again", stacklevel=2)
                time.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempts - 1)) * random.uniform(0.5, 1.5))
            else:
                self._failed.clear()
                return result
        raise AssertionError("unreachable")


def in_parallel(work: Callable[[T], U], items: Iterable[T]) -> list[U]:
    """Return ``work(item)`` for each item, computed eight at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, items))


def _explained(what: str, error: Exception) -> Exception:
    """Turn a permanent error into one that names the object and says what to do."""
    message = without_queries(error)
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"{what}: no such object ({message})")
    if _is_denied(error):
        return PermissionError(
            f"{what}: access denied ({message}); credentials come from the environment (AWS_ACCESS_KEY_ID, "
            "AWS_PROFILE, ...), the address from data.storage.endpoint_url"
        )
    return OSError(f"{what}: cannot be read ({type(error).__name__}: {message})")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of an error, or None."""
    for one in _causes(error):
        response = getattr(one, "response", None)
        if isinstance(response, Mapping):
            return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if isinstance(status := getattr(one, "status", None), int):
            return status
    return None


def _is_denied(error: BaseException) -> bool:
    by_status = _status(error) in (401, 403)
    return by_status or isinstance(error, PermissionError) or "Credentials" in type(error).__name__


def _is_transient(error: BaseException) -> bool:
    """Return whether another attempt may succeed."""
    if isinstance(error, (*FINAL, ChangedError)) or _is_denied(error):
        return False
    if (status := _status(error)) is not None:
        return status >= 500 or status in (408, 429)
    from_network = type(error).__module__.partition(".")[0] in NETWORK
    return from_network or isinstance(error, OSError | EOFError | TimeoutError)
