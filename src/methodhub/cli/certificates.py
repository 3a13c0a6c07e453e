"""The verbs of `ca-certificate`, whose signatures let devices in, and the options by which an identity is told to prove
itself by a certificate."""

# ruff: noqa: PLC0415 - slow imports stay inside the verbs that need them, so that --help is quick

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from methodhub.cli.exit_codes import ExitCode, Failure
from methodhub.cli.hub import run
from methodhub.cli.options import DataDir, Json, data_dir_of, not_empty, note, print_fields, print_json, print_table

authority_app = typer.Typer(
    no_args_is_help=True, help="Register the CA certificates whose signature lets devices in (X.509)."
)

_PATH = ("admin", "ca-certificates")


class Auth(StrEnum):
    """How an identity proves itself."""

    SAS = "sas"
    THUMBPRINT = "x509-thumbprint"
    CA = "x509-ca"


AuthChoice = Annotated[
    Auth,
    typer.Option(
        "--auth",
        metavar="WAY",
        help="How it proves itself: sas (a key), x509-thumbprint (a certificate of its own) or x509-ca (a certificate "
        "that a registered CA signed).",
    ),
]
PrimaryThumbprint = Annotated[
    str | None,
    typer.Option("--primary-thumbprint", metavar="HEX", help="SHA-1 or SHA-256 of its certificate."),
]
SecondaryThumbprint = Annotated[
    str | None,
    typer.Option("--secondary-thumbprint", metavar="HEX", help="The same of a second certificate, to change over."),
]
CertificateFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--certificate",
        metavar="FILE",
        help="PEM file to take the thumbprint from, instead of giving it; twice for primary and secondary. Repeatable.",
    ),
]
Name = Annotated[
    str, typer.Argument(metavar="NAME", callback=not_empty, help="Name of the CA certificate, of your choice.")
]
File = Annotated[Path, typer.Argument(metavar="FILE", help="PEM file with the certificate.")]


def read_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text; the hub takes PEM"
        raise Failure(ExitCode.USAGE, f"cannot read {path}: {reason}") from None


def thumbprint_of(path: Path) -> str:
    """SHA-256, in hexadecimal, of the first certificate in a PEM file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    try:
        found = x509.load_pem_x509_certificates(read_text(path).encode())
    except ValueError:
        raise Failure(ExitCode.USAGE, f"{path} holds no certificate in PEM") from None
    return found[0].fingerprint(hashes.SHA256()).hex().upper()


def plain(thumbprint: str) -> str:
    """As OpenSSL and Windows print it, made as the hub takes it."""
    return thumbprint.replace(":", "").replace(" ", "").upper()


def authentication_of(
    auth: Auth, primary: str | None, secondary: str | None, certificates: list[Path] | None
) -> dict[str, Any]:
    """The JSON that REST takes. Raises Failure where the options do not go together."""
    pins = {"primaryThumbprint": primary, "secondaryThumbprint": secondary}
    pins = {name: plain(text) for name, text in pins.items() if text}
    for path in certificates or []:
        free = next((name for name in ("primaryThumbprint", "secondaryThumbprint") if name not in pins), None)
        if free is None:
            raise Failure(ExitCode.USAGE, "an identity has two thumbprints at most, a primary and a secondary one")
        pins[free] = thumbprint_of(path)
    if auth is Auth.THUMBPRINT:
        if not pins:
            raise Failure(ExitCode.USAGE, "--auth x509-thumbprint needs --certificate FILE or --primary-thumbprint HEX")
        return {"type": "selfSigned", "x509Thumbprint": pins}
    if pins:
        raise Failure(ExitCode.USAGE, "thumbprints and certificates belong to --auth x509-thumbprint")
    return {"type": "certificateAuthority" if auth is Auth.CA else "sas"}


def _show(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        print_fields({name: value for name, value in document.items() if name != "certificate"})


@authority_app.command("add", epilog="Example: methodhub ca-certificate add factory ca.pem")
def add(
    name: Name,
    file: File,
    verified: Annotated[
        bool, typer.Option("--verified", help="Skip the proof that you hold the CA's key: let it vouch at once.")
    ] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Register a CA certificate. It vouches for devices once it is verified."""
    body = {"certificate": read_text(file), "verified": verified}
    document = run(data_dir_of(data_dir), lambda hub: hub.call("PUT", *_PATH, name, body=body))
    if as_json:
        print_json(document)
        return
    typer.echo(f"added {name}")
    if not verified:
        typer.echo(f"verification code: {document['verificationCode']}")
        note(
            "sign a certificate with the CA's key whose common name (CN) is that code, then: "
            f"methodhub ca-certificate verify {quote(name)} FILE"
        )


@authority_app.command("list", epilog="Example: methodhub ca-certificate list")
def list_all(data_dir: DataDir = None, as_json: Json = False) -> None:
    """List the registered CA certificates."""
    found = run(data_dir_of(data_dir), lambda hub: hub.call("GET", *_PATH))
    if as_json:
        print_json(found)
    else:
        rows = [
            [each["name"], "verified" if each["verified"] else "unverified", each["subject"], each["notAfter"]]
            for each in found
        ]
        print_table(("name", "state", "subject", "expires"), rows)


@authority_app.command("show", epilog="Example: methodhub ca-certificate show factory")
def show(name: Name, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Show one CA certificate; while it is not verified, with its verification code."""
    _show(run(data_dir_of(data_dir), lambda hub: hub.call("GET", *_PATH, name)), as_json)


@authority_app.command("verify", epilog="Example: methodhub ca-certificate verify factory proof.pem")
def verify(name: Name, file: File, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Prove that you hold the key of a CA: FILE is a certificate that it signed for the verification code."""
    body = {"certificate": read_text(file)}
    document = run(data_dir_of(data_dir), lambda hub: hub.call("POST", *_PATH, name, "verify", body=body))
    if as_json:
        print_json(document)
    else:
        typer.echo(f"verified {name}")


@authority_app.command("remove", epilog="Example: methodhub ca-certificate remove factory")
def remove(name: Name, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Remove a CA certificate; connections of devices that it vouched for are closed."""
    run(data_dir_of(data_dir), lambda hub: hub.call("DELETE", *_PATH, name))
    if as_json:
        print_json({"deleted": True})
    else:
        typer.echo(f"removed {name}")
