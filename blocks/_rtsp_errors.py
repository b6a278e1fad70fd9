"""What a failure on the RTSP wire means to the caller: will it heal, and what should a person do about it.

Texts of the libraries are left out everywhere: FFmpeg's quote the address with its password.
"""

import ssl

from blocks._errors import CatchmentError, Reason, SourceRefused, SourceUnavailable

# RFC 2326 §11 and what cameras make of it
_ANSWERS = {
    400: (Reason.REFUSED, "does not understand the request: check the address"),
    401: (Reason.UNAUTHORIZED, "wants other credentials: check username and password of the Block"),
    403: (Reason.FORBIDDEN, "does not let us in: give this user the right to watch in the camera's settings"),
    404: (Reason.NOT_FOUND, "has no such stream: check the path of the address in the camera's manual"),
    461: (Reason.REFUSED, "does not send in this way: set transport of the Block to the other one"),
}
_HEALING = {
    453: (Reason.RATE_LIMITED, "has not enough bandwidth for another viewer: close one"),
    503: (Reason.SERVER_ERROR, "serves no further viewer now; it is tried again"),
}


def explain_status(status: int, place: str) -> CatchmentError:
    """Return the error that the answer `status` of the camera at `place` is."""
    if status in _ANSWERS:
        reason, text = _ANSWERS[status]
        return SourceRefused(f"{place} {text} (RTSP {status}).", reason=reason)
    if status in _HEALING or status >= 500:
        reason, text = _HEALING.get(status, (Reason.SERVER_ERROR, "has trouble of its own; it is tried again"))
        return SourceUnavailable(f"{place} {text} (RTSP {status}).", reason=reason)
    return SourceRefused(f"{place} answered with RTSP {status}, which is no stream: check the address.")


def explain_redirect(place: str, target: str) -> CatchmentError:
    """Return the error that being sent elsewhere is: credentials follow nobody."""
    return SourceRefused(
        f"{place} sends its viewers on to {target}: put that address into the Block if you trust it.",
        reason=Reason.REDIRECTED_AWAY,
    )


def explain_connection(failure: OSError, place: str) -> CatchmentError:
    """Return the error that `failure` is, which kept a connection from being made or broke it."""
    match failure:
        case ssl.SSLCertVerificationError():
            return SourceRefused(
                f"The certificate of {place} is not to be trusted ({failure.verify_message}): install its issuer's on "
                "this machine, or set verify_certificate of the Block to false."
            )
        case ssl.SSLError():
            return SourceUnavailable(f"{place} speaks no TLS that we do: check whether it is rtsp:// without the s.")
        case ConnectionRefusedError():
            return SourceUnavailable(f"{place} refuses the connection: check that the camera is up, and the port.")
        case TimeoutError():
            return explain_silence(place)
        case ConnectionError():
            return SourceUnavailable(f"{place} broke the connection off: check that the camera is well.")
    return SourceUnavailable(f"{place} can not be reached: check the name in the address, and the network.")


def explain_silence(place: str) -> CatchmentError:
    """Return the error that a camera is which does not answer in time while a stream is opened."""
    return SourceUnavailable(
        f"{place} did not open the stream in time: check that the camera is up, or raise open_timeout_seconds.",
        reason=Reason.TIMEOUT,
    )


def explain_gibberish(place: str) -> CatchmentError:
    """Return the error that an answer is which is no RTSP, or breaks off."""
    return SourceUnavailable(f"{place} does not answer as a camera does: check the port; 554 is the usual one.")


def explain_missing_video(place: str) -> CatchmentError:
    """Return the error that a stream without pictures is."""
    return SourceRefused(
        f"{place} sends no video that we can decode: check the path of the address.", reason=Reason.NO_VIDEO
    )


def explain_stall(place: str, seconds: float) -> CatchmentError:
    """Return the error that a stream is which goes on without pictures."""
    return SourceUnavailable(
        f"{place} sent no whole picture for {seconds:g} s: check the camera, or raise read_timeout_seconds.",
        reason=Reason.STALLED,
    )


def explain_end(place: str) -> CatchmentError:
    """Return the error that the end of a stream is; FFmpeg does not tell a farewell from a cut connection."""
    return SourceUnavailable(
        f"{place} ended the stream: it was restarted, has other viewers, or plays a recording.", reason=Reason.CUT_SHORT
    )
