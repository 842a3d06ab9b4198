"""The `source` section of a recipe: one class for each kind of source."""

import re
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict

SECRETS = re.compile(r"token|secret|signature|passw|passphrase|credential|apikey|accesskey", re.IGNORECASE)
SECRET_WORDS = {"key", "sig", "sas", "jwt", "auth", "authorization", "pwd"}
"""Words in names of URL parameters with secret values, such as X-Amz-Signature, sig, access_token and
AWSAccessKeyId."""
TOKEN_USERS = {"http", "https", "git", "github", "hf", "s3", "s3a", "gs", "gcs"}
"""Schemes whose user part is a key or a token; that of sftp:// is a name, that of abfs:// a container."""


def check_no_secrets(option: str, path: str) -> None:
    """ValueError (without the secret) if the path contains one, because a run stores its recipe and shows it in
    reports. All parts of a chained path ("simplecache::https://...") are checked.
    """
    remedy = "which the run would store; put credentials in the environment or the store's own configuration"
    for link in path.split("::"):
        if "://" not in link:
            continue
        parts = urlsplit(link)
        if parts.password is not None or (parts.username and parts.scheme in TOKEN_USERS):
            raise ValueError(f"{option} holds a password or key before its @, {remedy}")
        for name, _ in parse_qsl(f"{parts.query}&{parts.fragment}", keep_blank_values=True):
            words = {word.lower() for word in re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}
            if SECRETS.search(name) or words & SECRET_WORDS:
                raise ValueError(f"{option} holds a secret, its parameter {name!r}, {remedy}")


class Place(BaseModel):
    """The location and origin of a source's files."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    path: str
    """Where the files are: a local path or a URL."""
    dataset: str | None = None
    """The name of the dataset, carried into every pair's provenance."""
    licence: str | None = None
    """The licence of the photographs, likewise."""


class FolderSource(Place):
    """Image files in a folder and the folders below it. Hidden files are skipped, links are followed, and each folder
    is read once."""

    kind: Literal["folder"] = "folder"
    suffixes: tuple[str, ...] | None = None
    """Suffixes of photographs, in lower case. Null: the usual suffixes, and files with no suffix or an unknown one
    whose first bytes are an image's."""


class WebDatasetSource(Place):
    """Image members of uncompressed tars: `path` is a tar, a folder of them, a glob or a brace pattern."""

    kind: Literal["webdataset"] = "webdataset"
    suffixes: tuple[str, ...] | None = None
    """Suffixes of photographs, as for a folder; ".source.jpg" works too."""
    caption: str | None = None
    """The extension of the member that holds the caption: "txt", or "json" for its field "caption"."""


class ParquetSource(Place):
    """Rows of parquet files: `path` is a file, a folder of them, a glob or a brace pattern."""

    kind: Literal["parquet"] = "parquet"
    image: str = "image"
    """The image column: bytes, or Hugging Face's struct {bytes, path}. A path without bytes is read relative to the
    parquet file, and may not leave its folder."""
    caption: str | None = None
    """The caption column, if there is one."""


PhotoSource = FolderSource | WebDatasetSource | ParquetSource
