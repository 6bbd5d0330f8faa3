"""Machine code kept from one process to the next, in the user's cache directory: it saves time and can fail nothing.

An entry is one file: the SHA-256 of what follows, then Numba's serialised code. Its name holds a hash of all that the
code depends on: sources, signature, processor, Python and Numba. An entry that is damaged or cannot be read counts as
absent, and its function is compiled again. Files are written aside and moved into place, so processes share a folder.
"""

import contextlib
import functools
import hashlib
import logging
import os
import pickle
import re
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import llvmlite
import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile, _CacheLocator
from numba.core.registry import CPUDispatcher
from numba.core.serialize import dumps

SUFFIX = ".code"
LARGEST_AGE_S = 90 * 86_400
_IMPORT = re.compile(rb"^from (hoarfrost[\w.]*) import", re.MULTILINE)


def cache_folder() -> Path:
    """Where compiled code is kept: $NUMBA_CACHE_DIR, or else hoarfrost's folder in the user's cache directory.

    Raises RuntimeError or OSError where the user has no home.
    """
    if of_numba := getattr(numba.config, "CACHE_DIR", ""):
        return Path(of_numba) / "hoarfrost"
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not chosen.is_absolute():  # the XDG specification: relative ones are ignored
        chosen = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return chosen / "hoarfrost"


def kept(dispatcher: Any) -> Any:
    """A function that Numba compiles on first use, now with this cache where it can have one."""
    if not isinstance(dispatcher, CPUDispatcher):  # NUMBA_DISABLE_JIT leaves Python's function
        return dispatcher
    try:
        with_cache = _KeptDispatcher(dispatcher.py_func, dispatcher.locals, dispatcher.targetoptions)
        with_cache.enable_caching()
    except Exception as error:  # no home, or another Numba
        _tell_once(str(error))
        return dispatcher
    return with_cache


class _KeptDispatcher(CPUDispatcher):
    def enable_caching(self) -> None:
        self._cache = _KeptCode(self.py_func)


class _Locator(_CacheLocator):
    """Tells Numba the folder, and the hash of the sources."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        self._folder, self._function = cache_folder(), function

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> "_Locator":
        return cls(function, file)

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> bytes:
        return _source_digest(self._function.__module__)

    def get_disambiguator(self) -> str:
        return str(self._function.__code__.co_firstlineno)


class _Code(CompileResultCacheImpl):
    _locator_classes: list[type[object]] = [_Locator]  # noqa: RUF012  # as Numba declares it


class _KeptCode(FunctionCache):
    """Numba's cache of a function with the files below, of which no failure gets out."""

    _impl_class = _Code

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        locator = self._impl.locator
        self._cache_file = _Entries(cache_folder(), self._impl.filename_base, locator.get_source_stamp())

    def load_overload(self, signature: Any, target: Any) -> Any:
        try:
            return super().load_overload(signature, target)  # type: ignore[no-untyped-call]
        except Exception:  # whatever a damaged file does
            return None

    def save_overload(self, signature: Any, code: Any) -> None:
        try:
            super().save_overload(signature, code)  # type: ignore[no-untyped-call]
        except Exception as error:
            _tell_once(getattr(error, "strerror", None) or str(error))


@final
class _Entries(IndexDataCacheFile):
    """The files of one function, in the place of Numba's index and data files."""

    def __init__(self, folder: Path, name: str, source_stamp: bytes) -> None:
        self._folder, self._name, self._stamp = folder, name, source_stamp

    def load(self, key: Any) -> Any:
        """What `save` was given, or None."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        if content[:32] != hashlib.sha256(content[32:]).digest():
            path.unlink(missing_ok=True)
            return None
        # Code in the user's own folder, as Numba and Python keep theirs; it is not data that anybody hands on.
        return pickle.loads(content[32:])

    def save(self, key: Any, code: Any) -> None:
        """Raises OSError where the file cannot be written."""
        content: bytes = dumps(code)  # type: ignore[no-untyped-call]
        self._remove_old()
        temporary = self._folder / f".{secrets.token_hex(8)}{SUFFIX}"
        try:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)
            temporary.replace(self._path(key))
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _path(self, key: Any) -> Path:
        depends_on = (numba.__version__, llvmlite.__version__, sys.version, self._stamp, key)
        return self._folder / f"{self._name}.{hashlib.sha256(repr(depends_on).encode()).hexdigest()[:24]}{SUFFIX}"

    def _remove_old(self) -> None:
        """Remove what other versions left long ago, and processes that were killed."""
        for path in self._folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time.time() - LARGEST_AGE_S:
                    path.unlink()


@functools.cache
def _source_digest(module: str) -> bytes:
    """The hash of a module's source and of those of this package that it imports: constants become part of the code."""
    source = Path(str(sys.modules[module].__file__)).read_bytes()
    digest = hashlib.sha256(source)
    for imported in _IMPORT.findall(source):
        digest.update(_source_digest(imported.decode()))
    return digest.digest()


@functools.cache
def _tell_once(reason: str) -> None:
    logging.getLogger("hoarfrost").warning(
        "hoarfrost: compiled code cannot be kept for the next command (%s); set XDG_CACHE_HOME to a folder that can be "
        "written",
        reason,
    )
