"""What an S3 endpoint or the way to it refuses, as a sentence with a remedy and without a secret.

Nothing that botocore or the endpoint wrote is passed on but a code and a status: their texts can hold an
access key, a session token, the user and password of an endpoint's URL, or what a credential helper printed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from xstilts.errors import StoreError

_CODE = re.compile(r"[A-Za-z0-9.]{1,60}")

_ANOTHER = "or choose another with --store"
_THEN = "then run again; finished steps are kept"
_CREDENTIALS = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role"

_PASSING = frozenset(
    "RequestTimeout RequestTimeoutException InternalError ServiceUnavailable SlowDown Throttling "
    "ThrottlingException RequestThrottled TooManyRequests BandwidthLimitExceeded "
    "BadDigest XAmzContentSHA256Mismatch XAmzContentChecksumMismatch IncompleteBody".split()
)
"""Codes that another try may not meet; some endpoints send them with a status of 400. Those of the last line:
what arrived was not what was sent, and was not kept."""

_LOST = frozenset(
    "EndpointConnectionError ConnectTimeoutError ReadTimeoutError ConnectionClosedError ConnectionError "
    "HTTPClientError ResponseStreamingError IncompleteReadError ProxyConnectionError ResponseParserError "
    "RetriesExceededError FlexibleChecksumError S3DownloadFailedError".split()
)
"""botocore's and boto3's names for an answer that did not come, or not whole."""

_NO_CREDENTIALS = frozenset(
    "NoCredentialsError PartialCredentialsError CredentialRetrievalError NoAuthTokenError SSOTokenLoadError "
    "TokenRetrievalError UnauthorizedSSOTokenError SSOError MetadataRetrievalError".split()
)
_NOT_ACCEPTED = frozenset(
    "InvalidAccessKeyId SignatureDoesNotMatch ExpiredToken ExpiredTokenException InvalidToken "
    "TokenRefreshRequired InvalidClientTokenId AuthorizationHeaderMalformed 401".split()
)
_MOVED = frozenset("PermanentRedirect TemporaryRedirect IllegalLocationConstraintException 301 307".split())
_FULL = frozenset("QuotaExceeded InsufficientStorage InsufficientCapacity 507".split())


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request did not do what was asked."""

    kind: str
    """Name of the exception's class."""
    code: str = ""
    """The endpoint's word, such as AccessDenied; the status for an answer without a body (HEAD)."""
    status: int = 0
    """The HTTP status; 0 when no answer came."""

    @property
    def passing(self) -> bool:
        """Whether another try may meet something else: an outage, a burst of 503."""
        if self.status:
            # 501: it does not know how; 507: it is full. Both are as true a minute later.
            broken = self.status >= 500 and self.status not in (501, 507)
            return broken or self.status == 429 or self.code in _PASSING
        return self.kind in _LOST

    @property
    def word(self) -> str:
        """The code or the class, for people to look up; never a text."""
        said = self.code if _CODE.fullmatch(self.code) else self.kind
        return f"{said} {self.status}" if self.status and said != str(self.status) else said

    def error(self, what: str, bucket: str, endpoint: str) -> StoreError:
        """`what` could not be done in a bucket at `endpoint`, as an error for people."""
        problem, remedy = self._words(bucket, endpoint)
        return StoreError(f"{what}, {problem}", remedy)

    def _words(self, bucket: str, endpoint: str) -> tuple[str, str]:
        """(what was met, what to do)."""
        said = {self.kind, self.code, str(self.status)}
        if said & _NO_CREDENTIALS:
            return f"there are no credentials ({self.kind})", _CREDENTIALS
        # A HEAD has no words for an expired token, only its status.
        if said & _NOT_ACCEPTED or self.code == "400":
            remedy = "check AWS_PROFILE or the AWS_* variables, and renew them if they have expired"
            return f"{endpoint} does not accept the credentials ({self.word})", remedy
        if self.code == "RequestTimeTooSkewed":
            return f"this machine's clock and that of {endpoint} differ too much", "set the clock"
        if self.code.startswith("KMS") or "SSEKMS" in self.code:
            return f"the key that is to encrypt cannot be used ({self.word})", "check XSTILTS_S3_KMS_KEY"
        if said & _FULL:
            return f"it is full ({self.word})", f"free some space there, {_THEN}"
        if self.status == 403 or self.code in ("AccessDenied", "AllAccessDisabled"):
            actions = "s3:ListBucket, s3:GetObject, s3:PutObject, s3:DeleteObject, s3:AbortMultipartUpload"
            return f"access denied ({self.word})", f"have {actions} allowed on it {_ANOTHER}"
        if self.code == "NoSuchBucket":
            return f"there is no bucket {bucket} at {endpoint}", f"make it {_ANOTHER}"
        if said & _MOVED:
            return "the bucket is in another region", "set AWS_DEFAULT_REGION to the bucket's region"
        if self.kind == "SSLError":
            remedy = "set AWS_CA_BUNDLE to the file of its authority"
            return f"the certificate of {endpoint} is not trusted", remedy
        if self.passing:
            remedy = f"check that {endpoint} works and can be reached, {_THEN}"
            return f"no good answer came ({self.word})", remedy
        if self.code == "MissingContentLength":
            return f"{endpoint} knows no checksum trailers", "unset AWS_REQUEST_CHECKSUM_CALCULATION"
        if self.status == 501:
            remedy = "use an endpoint with conditional writes, or a folder, with --store"
            return f"{endpoint} cannot do that ({self.word})", remedy
        if not self.status:
            remedy = "check ~/.aws and the AWS_* variables"
            return f"the AWS configuration cannot be used ({self.kind})", remedy
        return f"{endpoint} refused ({self.word})", f"check the bucket's settings {_ANOTHER}"
