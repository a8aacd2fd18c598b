"""Where shards lie: in a folder, or behind a URL, from where each is fetched once."""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock

from fovea.data.layout import shortened
from fovea.data.shard_index import INDEX_FILE, ShardIndex, StoredFile, parse_index
from fovea.errors import FoveaError

ATTEMPTS = 6
"""How often a file is asked for before its URL is given up."""

_PAUSE = 1.0  # seconds before the second attempt, one more before each other: 15 in all


class ShardFolder(Protocol):
    """The files that an index lists; as text, the folder or URL."""

    def __hash__(self) -> int: ...

    def path(self, file: StoredFile) -> Path:
        """Return where ``file`` can be opened.

        Raises:
            FoveaError: it cannot be had.
        """
        ...

    def check(self, index: ShardIndex) -> None:
        """Raise `FoveaError` where files of ``index`` are known to be missing or cut short."""
        ...


@dataclass(frozen=True)
class LocalFolder:
    """A folder of this machine."""

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    def path(self, file: StoredFile) -> Path:
        """Return the path."""
        return self.root / file.name

    def check(self, index: ShardIndex) -> None:
        """Raise unless all files are there with their sizes."""
        files = index.files()
        sizes = [_size(self.root / file.name) for file in files]
        mend = (
            "Copy again what is wrong from where the folder came from, or type again the command "
            f"that made it, which makes only what is missing: {index.made_by}"
        )
        missing = [file.name for file, size in zip(files, sizes, strict=True) if size is None]
        if missing:
            raise FoveaError(
                f"{self.root} lacks {len(missing)} of the {len(files)} files that its {INDEX_FILE} "
                f"lists: {shortened(missing)}. {mend}"
            )
        for file, size in zip(files, sizes, strict=True):
            if size != file.size:
                raise FoveaError(
                    f"{self.root / file.name} has {size:,} bytes, where {INDEX_FILE} says "
                    f"{file.size:,}: it was cut short, or is another file. {mend}"
                )


@dataclass(frozen=True)
class RemoteFolder:
    """A folder behind a URL. Each file is fetched whole when it is first needed, and kept.

    Attributes:
        url: that fsspec understands.
        kept: folder of this machine where the files are kept; of this one index alone, so that
            shards made anew under the same URL are not mixed with those kept.
    """

    url: str
    kept: Path

    def __str__(self) -> str:
        return self.url

    def path(self, file: StoredFile) -> Path:
        """Return the path of the kept file, fetched first where it is not there yet."""
        target = self.kept / file.name
        if _size(target) != file.size:
            # One process fetches, the others wait: workers and ranks come here at the same time.
            with FileLock(f"{target}.lock"):
                if _size(target) != file.size:
                    self._fetch(file, target)
        return target

    def check(self, index: ShardIndex) -> None:
        """Raise unless the disk has room for what is to be fetched."""
        need = sum(f.size for f in index.files() if _size(self.kept / f.name) != f.size)
        free = shutil.disk_usage(self.kept).free
        if need > free:
            raise FoveaError(
                f"{need / 1e9:.1f} GB of shards are to be fetched from {self.url}, and "
                f"{self.kept} has room for {free / 1e9:.1f} GB. Keep them on another disk by "
                "data.cache_dir=<folder>."
            )

    def _fetch(self, file: StoredFile, target: Path) -> None:
        part = target.with_name(f"{target.name}.part")
        for attempt in range(ATTEMPTS):
            time.sleep(_PAUSE * attempt)
            try:
                files, root = _file_system(self.url)
                files.get_file(f"{root}/{file.name}", str(part), callback=_at_most(file.size))
                if StoredFile.of(part)[1:] == file[1:]:
                    part.replace(target)
                    return
                problem = f"{part.stat().st_size:,} bytes came, not the {file.size:,} recorded ones"
            except FoveaError:
                raise
            except FileNotFoundError:
                problem = "it is not there"
                break
            except Exception as error:  # each protocol's package raises its own
                problem = str(error) or type(error).__name__
        raise FoveaError(
            f"{self.url}/{file.name} could not be fetched: {problem}. If the network is fine, copy "
            f"the folder there again, whole: {INDEX_FILE} lists each file with size and checksum."
        )


def open_folder(root: str, cache: Path | None) -> tuple[ShardFolder, ShardIndex]:
    """Return the folder ``root`` and its index.

    Args:
        root: folder, or a URL that fsspec understands.
        cache: where files of a URL are kept.

    Raises:
        FoveaError: there are no shards; a protocol whose package is not installed.
    """
    if "://" in root:
        return _open_url(root.rstrip("/"), cache)
    folder = Path(root).expanduser().absolute()
    try:
        text = (folder / INDEX_FILE).read_bytes()
    except OSError as error:
        raise _no_shards(str(folder), error.strerror or str(error)) from None
    return LocalFolder(folder), parse_index(text, str(folder))


def _open_url(url: str, cache: Path | None) -> tuple[ShardFolder, ShardIndex]:
    if cache is None:
        raise FoveaError(f"Say where shards of {url} are to be kept: data.cache_dir=<folder>")
    files, root = _file_system(url)
    try:
        text = files.cat_file(f"{root}/{INDEX_FILE}")
    except Exception as error:  # each protocol's package raises its own
        raise _no_shards(url, str(error) or type(error).__name__) from error
    index = parse_index(text, url)
    kept = cache / "shards" / hashlib.sha256(text).hexdigest()[:16]
    try:
        kept.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FoveaError(
            f"Cannot keep shards in {kept} ({error.strerror}): data.cache_dir=<another folder>"
        ) from None
    return RemoteFolder(url, kept), index


def _file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of ``url``, and the path in it.

    Asked anew for each file: fsspec keeps one a process, and none may be shared over a fork.
    """
    import fsspec

    try:
        files, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise FoveaError(
            f"data.root={url} cannot be opened: {error}. Each protocol has its package: s3:// is "
            "read after `pip install s3fs`, gs:// after `pip install gcsfs`, https:// after "
            "`pip install aiohttp`."
        ) from None
    return files, str(root).rstrip("/")


def _at_most(size: int) -> Any:
    """Return what ends a transfer of more than ``size`` bytes: the disk has room for that much."""
    import fsspec

    class AtMost(fsspec.callbacks.Callback):
        def relative_update(self, inc: int = 1) -> None:
            self.value += inc
            if self.value > size:
                raise OSError(f"more than the {size:,} bytes came that its index says")

    return AtMost()


def _size(path: Path) -> int | None:
    """Return the bytes of a file, None where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _no_shards(place: str, problem: str) -> FoveaError:
    return FoveaError(
        f"{place} is no folder of shards: its {INDEX_FILE} cannot be read ({problem}). Shards are "
        "made from any data set: python scripts/prepare_shards.py data=folder data.root=<images> "
        "out=<folder>; then data=shards data.root=<folder>"
    )
