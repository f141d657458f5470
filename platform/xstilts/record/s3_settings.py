"""What a person settles about a store in a bucket: where it is, and how the endpoint is to encrypt it."""

from __future__ import annotations

import os
import re

from xstilts.errors import StoreError
from xstilts.record.artifacts import is_name

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,254}")


def parts(location: str) -> tuple[str, str]:
    """Bucket and prefix; the prefix ends with a slash or is empty.

    Raises:
        StoreError: it is not s3://bucket or s3://bucket/prefix.
    """
    scheme, _, rest = location.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    # "?" would be the options of other programs' URLs, a key among them.
    if scheme == "s3" and _BUCKET.fullmatch(bucket) and (not prefix or is_name(prefix)) and "?" not in prefix:
        return bucket, f"{prefix}/" if prefix else ""
    # Not repeated here, for the same reason.
    remedy = "write s3://BUCKET/PREFIX; keys belong in the AWS_* variables"
    raise StoreError("the store's location is no place in S3", remedy)


def encryption() -> dict[str, str]:
    """Arguments of every write, from XSTILTS_S3_SSE and XSTILTS_S3_KMS_KEY.

    Raises:
        StoreError: they ask for what is none.
    """
    kind = os.environ.get("XSTILTS_S3_SSE", "")
    key = os.environ.get("XSTILTS_S3_KMS_KEY", "")
    if kind not in ("", "AES256", "aws:kms"):
        raise StoreError(f"XSTILTS_S3_SSE={kind!r} is no encryption", "set it to AES256 or aws:kms")
    if key and kind != "aws:kms":
        raise StoreError("XSTILTS_S3_KMS_KEY is set and would not be used", "set XSTILTS_S3_SSE=aws:kms too")
    words = {"ServerSideEncryption": kind} if kind else {}
    return {**words, "SSEKMSKeyId": key} if key else words
