"""Keys of a bake over SSH: the machine's own, made before it exists, and one that opens it.

Both are ed25519. The machine gets its half of each by user-data, before its sshd begins: what then
answers at its address has that very key, or is somebody else.
"""

from __future__ import annotations

import io
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import BaseModel, ConfigDict, Field

from amibuild.errors import HostError, PlanError
from amibuild.files import write_atomically
from amibuild.recipe.ssh import Ssh

# Of five between the frame's two; the first is the same for all ed25519 keys.
TELLING_LINE = 4


class Identity(BaseModel):
    """The private halves of both, as OpenSSH writes them. A resumed bake needs them again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host_key: str = Field(repr=False)
    user_key: str = Field(repr=False)

    @cached_property
    def host(self) -> paramiko.PKey:
        return paramiko.Ed25519Key.from_private_key(io.StringIO(self.host_key))

    @cached_property
    def user(self) -> paramiko.PKey:
        return paramiko.Ed25519Key.from_private_key(io.StringIO(self.user_key))

    @property
    def telling(self) -> dict[str, str]:
        """Of each a line that no other key has, and that is the same wherever it is written."""
        return {
            "the builder's host key": self.host_key.splitlines()[TELLING_LINE],
            "the key of the bake": self.user_key.splitlines()[TELLING_LINE],
        }


def new_identity() -> Identity:
    return Identity(host_key=_new_key(), user_key=_new_key())


def kept_identity(path: Path) -> Identity:
    """That of a bake, in a file that only its user reads; new where there is none yet.

    Raises: HostError when it is damaged.
    """
    if path.exists() and path.stat().st_size:
        return read_identity(path, path.name)
    made = new_identity()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)  # which it keeps
    write_atomically(path, made.model_dump_json())
    return made


def read_identity(path: Path, bake_id: str) -> Identity:
    """That of a bake whose machine is there already.

    Raises: HostError when it is gone or damaged.
    """
    try:
        return Identity.model_validate_json(path.read_text())
    except FileNotFoundError as error:
        raise HostError(
            f"the keys of bake {bake_id} are gone: there is no {path}",
            hint="they are where it was baked, as long as its machines: run this there",
        ) from error
    except ValueError as error:
        raise HostError(
            f"the keys of bake {bake_id} can't be read: {path} is damaged",
            hint="nobody else knows its machine's host key: bake anew",
        ) from error


@dataclass(frozen=True)
class Login:
    """Who comes, and with what: a key, or those of the agent where there is none."""

    user: str
    key: paramiko.PKey | None


def login(settings: Ssh, identity: Identity) -> Login:
    """Raises: PlanError when the recipe's key can't be read."""
    if settings.agent:
        return Login(settings.user, None)
    if settings.private_key is None:
        return Login(settings.user, identity.user)
    return Login(settings.user, own_key(settings))


def own_key(settings: Ssh) -> paramiko.PKey:
    """The recipe's private key, with its certificate where it has one. Raises: PlanError."""
    path = Path(settings.private_key or "").expanduser()
    try:
        key = paramiko.PKey.from_path(path)
    except TypeError as error:  # cryptography's way to ask for one
        raise PlanError(
            f"ssh.private_key: {path} has a passphrase",
            hint="add it to an agent with ssh-add, and set ssh.agent = true",
        ) from error
    except (OSError, ValueError, paramiko.SSHException) as error:
        raise PlanError(f"ssh.private_key: {path} can't be read: {error}") from error
    # paramiko takes a certificate that lies beside the key too, and would come with nothing else:
    # a machine that is told of the key alone knows no authority.
    key.public_blob = None
    if settings.certificate is not None:
        certificate = Path(settings.certificate).expanduser()
        try:
            key.load_certificate(str(certificate))
        except (OSError, ValueError, paramiko.SSHException) as error:
            raise PlanError(f"ssh.certificate: {certificate} can't be read: {error}") from error
        if not _is_of(key, key.public_blob):
            raise PlanError(f"ssh.certificate: {certificate} is not one of {path}")
    return key


def _is_of(key: paramiko.PKey, loaded: paramiko.pkey.PublicBlob | None) -> bool:
    """Whether the certificate is of this key, and not of another of its type.

    Source: OpenSSH's PROTOCOL.certkeys: type, nonce, then what a public key has behind its type.
    """
    certificate, public = (
        paramiko.Message(loaded.key_blob if loaded else b""),
        paramiko.Message(key.asbytes()),
    )
    for message, heads in ((certificate, 2), (public, 1)):
        for _ in range(heads):
            message.get_binary()
    return certificate.get_remainder().startswith(public.get_remainder())


def admitted(settings: Ssh, who: Login) -> tuple[str, ...]:
    """The public keys that the machine is told of. Of a certificate it knows the authority."""
    if settings.certificate is not None:
        return ()
    if who.key is not None:
        return (public_line(who.key),)
    with closing(paramiko.Agent()) as agent:
        keys = tuple(public_line(key) for key in agent.get_keys())
    if not keys:
        raise PlanError("ssh.agent: there is no agent here with a key", hint="ssh-add adds one")
    return keys


def public_line(key: paramiko.PKey | paramiko.AgentKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"


def _new_key() -> str:
    made = Ed25519PrivateKey.generate()
    return made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
