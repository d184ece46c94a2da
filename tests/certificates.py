"""Certificates for tests, made by the openssl command: an authority and its hosts."""

from __future__ import annotations

import ssl
import subprocess
import tempfile
from pathlib import Path

from qsend.sysio.tls import load_cert
from qsend.sysio.tlscontext import trust


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=60)


class Authority:
    """One certificate authority, its files below `directory`."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._dir = directory
        self._name = name
        self._key, self._pem = directory / f"{name}.key", directory / f"{name}.pem"
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        files = ["-keyout", str(self._key), "-out", str(self._pem)]
        _openssl("req", "-x509", *new, *files, "-days", "30", "-subj", f"/CN={name}")

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self._pem.read_bytes()

    def certify(
        self, *names: str, common: str = "host", days: int = 30, key: str = "ec"
    ) -> bytes:
        """Certificate and key for these names, each `DNS:x` or `IP:x`.

        `key` is "ec", or the bits of an RSA key.
        """
        stem = self._dir / f"{self._name}-{len(list(self._dir.iterdir()))}"
        paths = {kind: f"{stem}.{kind}" for kind in ("key", "csr", "pem", "ext")}
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        if key != "ec":
            new = ["-newkey", f"rsa:{key}"]
        out = ["-nodes", "-keyout", paths["key"], "-out", paths["csr"]]
        _openssl("req", "-new", *new, *out, "-subj", f"/CN={common}")
        alternatives = f"subjectAltName={','.join(names)}\n" if names else "\n"
        Path(paths["ext"]).write_text(alternatives)
        _openssl(
            "x509", "-req", "-in", paths["csr"], "-CA", str(self._pem), "-CAkey",
            str(self._key), "-CAcreateserial", "-days", str(days), "-out",
            paths["pem"], "-extfile", paths["ext"],
        )  # fmt: skip
        return Path(paths["pem"]).read_bytes() + Path(paths["key"]).read_bytes()


def der_of(pem: bytes) -> bytes:
    """The first certificate of a file, as it goes over the wire."""
    text = pem.decode()
    end = "-----END CERTIFICATE-----\n"
    return ssl.PEM_cert_to_DER_cert(text[: text.index(end) + len(end)])


def server_context(
    pem: bytes, client_ca: bytes | None = None, *, is_weak: bool = False
) -> ssl.SSLContext:
    """What a server uses; with `client_ca` its clients need certificates.

    `is_weak` makes it agree on keys as short as those of old, by TLS 1.2.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if is_weak:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("DHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0")
        with tempfile.NamedTemporaryFile() as file:
            _openssl("dhparam", "-dsaparam", "-out", file.name, "1024")
            context.load_dh_params(file.name)
    load_cert(context, pem)
    if client_ca is not None:
        trust(context, client_ca)
    return context
