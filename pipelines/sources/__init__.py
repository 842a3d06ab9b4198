"""Sources: lists the photographs of a recipe's `source` section, and reads their bytes.

Listing reads only names and headers, in an order that depends only on the files. Every file becomes an entry or is
counted. What looks like an image but cannot be read (a dangling link, the damaged end of a tar, a folder without
permission) is an `Entry` whose reading fails with a clear message, so it becomes an error row. Other files are counted
in `Listing.skipped`.

Paths are local, or URLs that fsspec knows (`s3://`, `gs://`, `https://`, `memory://`); an `https://` folder ends in a
slash.
"""

from crispedit.pipelines.sources.entry import ENTRY, Entry, File, Skipped
from crispedit.pipelines.sources.files import exists, files, open_file
from crispedit.pipelines.sources.index import entries, fitting, listing, nothing, photographs
from crispedit.pipelines.sources.names import IMAGE_SUFFIXES, KNOWN, beside, escape, folder_of, suffix_of, unescape
from crispedit.pipelines.sources.parquet import Null, check_columns
from crispedit.pipelines.sources.place import (
    FolderSource,
    ParquetSource,
    PhotoSource,
    Place,
    WebDatasetSource,
    check_no_secrets,
)
from crispedit.pipelines.sources.reading import MAX_FILE_BYTES, read
