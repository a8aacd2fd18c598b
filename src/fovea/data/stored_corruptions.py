"""Data sets that were distributed in corrupted versions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fovea.data.corruptions import Corruption
from fovea.data.imagenet_tests import only_a_test_set
from fovea.data.module import ImageDataModule
from fovea.data.splits import Found, Split
from fovea.errors import FoveaError


class StoredCorruptionsDataModule(ImageDataModule):
    """One of the versions at a time, as the split ``test``; see `corrupting` for the others.

    Args:
        corruption: whose version it is. None, together with ``severity``: the first that is there,
            and evaluation goes through all of them.
        severity: 1 to 5.

    Attributes:
        title: of the data set.
        root: where it lies.
        version: which is shown; None before `prepare` where none was chosen.
        chosen: whether one was chosen.
    """

    title: str
    root: Path

    def __init__(
        self, corruption: str | None = None, severity: int | None = None, **common: Any
    ) -> None:
        super().__init__(**common)
        if (corruption is None) != (severity is None):
            raise FoveaError(
                "data.corruption and data.severity belong together, as in data.corruption=fog "
                "data.severity=3; leave both out to evaluate all versions"
            )
        self.version: Corruption | None = None
        if corruption is not None and severity is not None:
            self.version = Corruption(corruption, severity)
        self.chosen = self.version is not None

    @abstractmethod
    def versions(self) -> list[Corruption]:
        """Return the versions that are there, in the paper's order.

        Raises:
            FoveaError: there are none; where the data set is to be had, and how it must lie.
        """

    @abstractmethod
    def _check(self, version: Corruption) -> None:
        """Raise `FoveaError` where ``version`` is not as it should be, as far as is quickly seen.

        Folders and headers, not the images.
        """

    def check_versions(self, versions: Iterable[Corruption]) -> None:
        """Raise `FoveaError` for the first of ``versions``, which are there, that is damaged."""
        for version in versions:
            self._check(version)

    @abstractmethod
    def _read(self, version: Corruption) -> tuple[Split, list[str]]:
        """Return the images of a version that was checked, and the classes in label order."""

    def _find(self) -> Found:
        there = self.versions()
        if self.version is None:
            self.version = there[0]
        if self.version not in there:
            raise FoveaError(
                f"{self.title} here has no {self.version}. There are "
                + ", ".join(f"{v.name}/{v.severity}" for v in there[:20])
                + (", …" if len(there) > 20 else "")
            )
        self._check(self.version)
        split, names = self._read(self.version)
        missing = {name: only_a_test_set(self.title) for name in ("train", "val")}
        return Found(names, {"test": split}, False, self._layout(self.version), missing)

    @abstractmethod
    def _layout(self, version: Corruption) -> str:
        """Return in a few words what is shown, for the record."""

    @contextmanager
    def corrupting(self, corruption: Corruption | None) -> Iterator[None]:
        """Show the version of ``corruption`` inside the context; the one that is shown for None.

        Raises:
            FoveaError: there is no such version.
        """
        before = self.version
        if corruption is not None and corruption != before:
            self.show(corruption)
        try:
            yield
        finally:
            if self.version != before and before is not None:
                self.show(before)

    def show(self, version: Corruption) -> None:
        """Show another version, its classes numbered as they were.

        Raises:
            FoveaError: there is no such version, or it is damaged; the one before stays.
        """
        names, before = list(self.class_names), (self.version, self._found, self._held)
        self.version, self._found, self._held = version, None, {}
        try:
            self.prepare()
        except Exception:
            self.version, self._found, self._held = before
            raise
        if self.class_names != names:  # they were numbered as a network does
            self.use_class_order(names)
