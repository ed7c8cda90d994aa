"""Turn SOPS documents and plain files into leaves; every key stays in memory.

What belongs here: the SOPS format, key rings, and reading one file. What must not: where files and
keys come from, what becomes of the leaves, and any network.

    Decryptor.read      one file → Document of Leaf
    ├── formats/        text → tree, for each format
    ├── metadata, rules the `sops` block
    ├── datakey         key ring + recipients → data key: age, pgp (gpg, openpgp), shamir, what a KMS has unwrapped
    └── sops, cipher    tree + data key → leaves; the MAC
    Decryptor.decrypt   the same, and the file as it reads decrypted (plainfile)
"""

from secret_manager_controller.decrypt.decryptor import Decryptor
from secret_manager_controller.decrypt.document import (
    MAX_FILE_BYTES,
    DecryptedFile,
    Document,
    Format,
    Leaf,
)
from secret_manager_controller.decrypt.formats.registry import sops_container
from secret_manager_controller.decrypt.keyring import KeyRing
from secret_manager_controller.decrypt.metadata import WrappedKey
from secret_manager_controller.decrypt.pgp import sweep_gpg_homes

__all__ = [
    "MAX_FILE_BYTES",
    "DecryptedFile",
    "Decryptor",
    "Document",
    "Format",
    "KeyRing",
    "Leaf",
    "WrappedKey",
    "sops_container",
    "sweep_gpg_homes",
]
