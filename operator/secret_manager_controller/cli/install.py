"""`msmctl install --print`: the manifests that install this very version, for `kubectl apply -f -`."""

from __future__ import annotations

import re
from importlib.resources import files

import click

IMAGE = re.compile(r"^( +image: ).*$", re.MULTILINE)
MANIFEST = "install.yaml"


@click.command("install")
@click.option("--print", "printed", is_flag=True, required=True, help="Print the manifests; nothing is applied.")
@click.option("--image", metavar="IMAGE", help="The controller's image, with its tag or digest.")
def command(printed: bool, image: str | None) -> None:  # noqa: ARG001 - it has to be given, so that its name says what happens.
    """Print the manifests that install the controller."""
    text = (files("secret_manager_controller.cli") / MANIFEST).read_text()
    if image is not None:
        if not re.fullmatch(r"[\w./:@-]+", image, re.ASCII):
            raise click.BadParameter("that is no name of an image", param_hint="--image")
        text = IMAGE.sub(lambda found: found[1] + image, text)
    click.echo(text, nl=False)
