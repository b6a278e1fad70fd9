"""How Google knows us: an API key in a header, or an access token for a signed request or a refresh token."""

import base64
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from blocks._tokens import AccessToken, request_token

SCOPE = "https://www.googleapis.com/auth/drive.readonly"
"""The least scope whose token may list and download files that the app has not made itself."""

TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
# https://docs.cloud.google.com/apis/docs/system-parameters: in a header it stands in no log of addresses.
API_KEY_HEADER = "X-Goog-Api-Key"
_ASSERTION_SECONDS = 3600
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


def check_service_account(info: Mapping[str, Any]) -> None:
    """Make sure that `info` is what the console's JSON file of a service account key holds.

    Raises:
        ValueError: it is not; the message names what is wrong and never quotes it.
    """
    missing = [name for name in ("client_email", "private_key", "token_uri") if not isinstance(info.get(name), str)]
    if info.get("type", "service_account") != "service_account" or missing:
        raise ValueError(
            "service_account_info is not the JSON file of a service account key"
            + (f" (without {', '.join(missing)})" if missing else "")
        )
    _load_key(info)


def fetch_with_service_account(
    info: Mapping[str, Any],
    subject: str | None,
    *,
    timeout_seconds: float,
    now: Callable[[], float] = time.time,
) -> AccessToken:
    """Return an access token for a request that the service account's key signs, on behalf of `subject` if given.

    https://developers.google.com/identity/protocols/oauth2/service-account#httprest

    Raises:
        SourceUnavailable, SourceRefused: no token could be had.
    """
    issued = int(now())
    claims = {
        "iss": info["client_email"],
        "scope": SCOPE,
        "aud": info["token_uri"],
        "iat": issued,
        "exp": issued + _ASSERTION_SECONDS,
    }
    header = {"alg": "RS256", "typ": "JWT"} | ({"kid": info["private_key_id"]} if info.get("private_key_id") else {})
    unsigned = f"{_encode(header)}.{_encode(claims | ({'sub': subject} if subject else {}))}"
    signature = _load_key(info).sign(unsigned.encode(), padding.PKCS1v15(), hashes.SHA256())
    form = {"grant_type": _GRANT, "assertion": f"{unsigned}.{_base64url(signature)}"}
    return request_token(str(info["token_uri"]), form, timeout_seconds=timeout_seconds)


def fetch_with_refresh_token(
    token_url: str, client_id: str, client_secret: str, refresh_token: str, *, timeout_seconds: float
) -> AccessToken:
    """Return an access token of the user who once allowed it (RFC 6749 §6).

    Raises:
        SourceUnavailable, SourceRefused: no token could be had.
    """
    form = {
        "grant_type": "refresh_token",
        "client_id": client_id,
        "client_secret": client_secret,
        "refresh_token": refresh_token,
    }
    return request_token(token_url, form, timeout_seconds=timeout_seconds)


def _load_key(info: Mapping[str, Any]) -> rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(str(info["private_key"]).encode(), password=None)
    except (ValueError, TypeError):
        key = None
    if isinstance(key, rsa.RSAPrivateKey):
        return key
    raise ValueError("service_account_info holds no usable private_key; download a new key")


def _encode(part: Mapping[str, Any]) -> str:
    return _base64url(json.dumps(part, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
