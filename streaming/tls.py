"""The server's own certificate: what is wrong with it is said at the start, not by each browser."""

import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from lhm_runtime.errors import InvalidInputError
from streaming.config import Config


def has_tls(config: Config) -> bool:
    """Whether the server speaks https; raises InvalidInputError where only one of certificate and key is given."""
    cert, key = config.server.tls_cert, config.server.tls_key
    if (cert is None) != (key is None):
        given, missing = ("tls_key", "tls_cert") if cert is None else ("tls_cert", "tls_key")
        raise InvalidInputError(f"server.{given} is given and server.{missing} is not; https needs both")
    return cert is not None


def certificate_names(config: Config) -> frozenset[str]:
    """The names that the certificate is for, in lower case; none without https.

    Raises:
        InvalidInputError: a file is missing, unreadable or no PEM, the key is another certificate's or has a
            passphrase, or the certificate is not valid now.
    """
    cert_file, key_file = config.server.tls_cert, config.server.tls_key
    if not has_tls(config) or cert_file is None or key_file is None:
        return frozenset()
    certificate = _read_certificate(cert_file)
    _require_pair(cert_file, key_file)
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        raise InvalidInputError(
            f"the certificate in {cert_file} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: renew it"
        )
    if now < certificate.not_valid_before_utc:
        raise InvalidInputError(
            f"the certificate in {cert_file} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on; "
            f"it is {now:%Y-%m-%d %H:%M} here: check the clock"
        )
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(name.lower() for name in names.get_values_for_type(x509.DNSName))


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except OSError as error:
        raise InvalidInputError(f"the certificate {path} (server.tls_cert) cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInputError(f"{path} (server.tls_cert) holds no certificate in PEM form") from error


def _require_pair(cert_file: Path, key_file: Path) -> None:
    def refuse_passphrase() -> str:
        raise InvalidInputError(
            f"the key {key_file} (server.tls_key) has a passphrase; give one without: openssl pkey -in {key_file.name}"
        )

    try:
        key_file.read_bytes()
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file, refuse_passphrase)
    except ssl.SSLError as error:
        raise InvalidInputError(
            f"the key {key_file} (server.tls_key) does not go with the certificate {cert_file}: {error.reason or error}"
        ) from error
    except OSError as error:
        raise InvalidInputError(f"the key {key_file} (server.tls_key) cannot be read: {error.strerror}") from error
