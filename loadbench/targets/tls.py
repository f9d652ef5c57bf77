"""What https needs beside an address: whose certificates are believed, and our own to show.

Files become an `ssl.SSLContext`, TLS errors a sentence. Connecting is for `ask` and for the load.
"""

import ssl
from collections.abc import Iterator
from pathlib import Path

from loadbench.errors import SpecError
from loadbench.model import Note
from loadbench.plan import Tls

_CERTIFICATE, _KEY = "CERTIFICATE", "PRIVATE KEY"  # as PEM calls them
OWN_CA = 'give the CA that signed it: [target] ca = "file.pem"'
_OWN_CERTIFICATE = (
    'if it asks for a client certificate, give one it trusts: [target] cert = "client.pem", '
    'key = "client.key"'
)
# OpenSSL's codes of why a certificate is not believed → what to do
_REMEDIES = {
    9: "is the clock of this machine right?",  # not yet valid
    10: "let it be renewed; or is the clock of this machine wrong?",  # expired
    18: OWN_CA,  # signed by itself
    19: OWN_CA,  # so is the CA it comes with
    20: OWN_CA,  # signed by a CA that is not known
    21: OWN_CA,  # the same, where only it itself was sent
    62: "call the target by a name that its certificate has",
    64: "call the target by a name that its certificate has",  # an address
}


def context(tls: Tls) -> ssl.SSLContext:
    """For connections to the target. Raises SpecError for files that cannot be used."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    if not tls.verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    elif tls.ca:
        # whoever is named is believed, though another has signed it: an intermediate CA, say
        made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        _believe(made, tls.ca)
    else:
        made.load_default_certs()
    if tls.cert:
        made.post_handshake_auth = True  # some ask only when they know what is wanted of them
        _introduce(made, tls)
    return made


def _believe(made: ssl.SSLContext, path: str) -> None:
    _look("ca", path, _CERTIFICATE)
    try:
        made.load_verify_locations(path)
    except ssl.SSLError as error:
        raise SpecError(f"target.ca {path!r} cannot be used: {_reason(error)}") from error


def _introduce(made: ssl.SSLContext, tls: Tls) -> None:
    key, path = ("key", tls.key) if tls.key else ("cert", tls.cert)
    _look("cert", tls.cert, _CERTIFICATE)
    _look(key, path, _KEY)

    def refuse() -> str:
        raise SpecError(
            f"target.{key} {path!r} is encrypted, and nobody is asked for its password here",
            f"openssl pkey -in {path} -out plain.key writes it without one",
        )

    try:
        made.load_cert_chain(tls.cert, path, refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SpecError(
                f"target.cert {tls.cert!r} is not the certificate of the key in {path!r}",
                "give the key that it was made for: [target] key = …",
            ) from error
        raise SpecError(f"target.cert {tls.cert!r} cannot be used: {_reason(error)}") from error


def _look(key: str, path: str, wanted: str) -> None:
    """Raises SpecError unless it is a file with such a thing in it; OpenSSL does not say which."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise SpecError(
            f"target.{key} {path!r}: {error.strerror}", "it is the path of a PEM file"
        ) from error
    if f"{wanted}-----".encode() not in text:
        also = " (give its file: [target] key = …)" if key == "cert" and wanted == _KEY else ""
        raise SpecError(
            f"target.{key} {path!r} holds no {wanted.lower()} in PEM form{also}",
            f"such a file has a line -----BEGIN {wanted}-----",
        )


def doubts(tls: Tls | None) -> Iterator[Note]:
    """What is to be said of a run with these settings."""
    if tls and not tls.verify:
        yield Note(
            "unverified",
            "nobody looked whether the target's certificate is its own (target.verify = false)",
            OWN_CA,
        )


def explain(error: ssl.SSLError) -> tuple[str, str]:
    """Why no TLS connection came about, and what to do about it."""
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"its certificate cannot be verified: {error.verify_message.rstrip('.')}"
        remedy = _REMEDIES.get(error.verify_code, OWN_CA)
        return text, f"{remedy}; target.verify = false measures it unverified"
    if refused(error):
        return f"it refused the TLS connection: {_reason(error)}", _OWN_CERTIFICATE
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"):
        return "it does not speak TLS", "is it an http:// address?"
    return (
        f"no TLS connection came about: {_reason(error)}",
        "does it speak TLS 1.2 or later, or is it an http:// address?",
    )


def refused(error: ssl.SSLError) -> bool:
    """Whether it is what the other side said in ending the connection."""
    return "_ALERT_" in (error.reason or "")


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's words: `TLSV13_ALERT_CERTIFICATE_REQUIRED` is `certificate required`."""
    reason = (error.reason or str(error)).rpartition("ALERT_")[2]
    return reason.lower().replace("_", " ")
