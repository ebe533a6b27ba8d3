"""The recipe's table [ssh]: how the ssh communicator comes to a machine."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from amibuild.recipe.section import Section
from amibuild.recipe.values import BASTION, USER, Printable, Switch, Whole, matching


class Address(StrEnum):
    PUBLIC = "public"
    PRIVATE = "private"


class Ssh(Section):
    """How the ssh communicator comes to a machine. A key is made for each bake unless one is named.

    `private_key` and `certificate` are paths of files, `~` included.
    """

    user: Annotated[str, matching(USER, "a user's name such as admin")] = Field(
        default="admin",
        description="The image's default user, who may become root by sudo; or root.",
    )
    port: Whole = Field(default=22, ge=1, le=65535, description="Port that its sshd listens on.")
    address: Address = Field(
        default=Address.PUBLIC,
        description="Which address of the machine to use: public or private.",
    )
    private_key: Printable | None = Field(
        default=None,
        min_length=1,
        description="File of a private key of yours, without passphrase.",
    )
    certificate: Printable | None = Field(
        default=None,
        min_length=1,
        description="File of a certificate of private_key; the source trusts who signed it.",
    )
    agent: Switch = Field(default=False, description="Whether to use the keys of your ssh-agent.")
    bastion: (
        Annotated[str, matching(BASTION, "a host such as me@bastion.example.com:22")] | None
    ) = Field(
        default=None,
        description="Host to go through; ~/.ssh/config and known_hosts say how, and its key.",
    )
    proxy_command: Printable | None = Field(
        default=None,
        min_length=1,
        description="Command whose input and output lead to the machine; %h and %p are filled in.",
    )

    @model_validator(mode="after")
    def _one_of_each(self) -> Ssh:
        if self.agent and self.private_key is not None:
            raise ValueError("has private_key and agent: one of them opens the machine")
        if self.certificate is not None and self.private_key is None:
            raise ValueError("certificate is for a key: name its private_key")
        if self.bastion is not None and self.proxy_command is not None:
            raise ValueError("has bastion and proxy_command: one of them is the way")
        return self

    @property
    def is_direct(self) -> bool:
        """Whether the machine sees this host, and nobody between."""
        return self.bastion is None and self.proxy_command is None
