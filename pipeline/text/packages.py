"""The language libraries: looked for only when a language is used.

Some of them download data when they are imported (g2p_en and g2pk2 ask NLTK for corpora). The data files inside the
wheel are all we need, so ``package_file`` locates a file without importing the package it belongs to.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from pathlib import Path
from types import ModuleType

from pipeline.errors import MissingExtraError


def require(module: str, language: str) -> ModuleType:
    """Import a library of the ``lang-<language>`` extra.

    Raises:
        MissingExtraError: it is not installed; the hint is the one line to type.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # jieba's about setuptools: nothing the reader can act on
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise _missing(error.name or module, language) from error


def package_file(package: str, relative_path: str, language: str) -> Path:
    """The path of a data file inside an installed package, without importing the package.

    Raises:
        MissingExtraError: the package, or that file in it, is not installed.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / relative_path
        if path.is_file():
            return path
    raise _missing(f"{package}/{relative_path}", language)


def _missing(what: str, language: str) -> MissingExtraError:
    return MissingExtraError(
        f"the {language} text front end needs {what}, which is not installed",
        hint=f"pip install 'voxline[lang-{language}]'",
    )
