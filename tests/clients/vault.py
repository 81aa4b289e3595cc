"""Reads and writes device tokens as a program of somebody else would that knows only how they are
kept: AES-256-GCM of the `cryptography` package on the columns of the SQLite file FILE. The keys are
in the environment variable TOKEN_KEYS, as `ID=BASE64 ID=BASE64 ...`, the first one the current.

vault.py open FILE    prints {device_id: token} of all rows as JSON, having checked their indexes
vault.py seal FILE    seals every token anew, with the current key and bound to nothing
vault.py forge FILE   gives each device the sealed token of the next one
"""

import base64
import hashlib
import hmac
import json
import os
import sqlite3
import sys

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEYS = {
    name: base64.b64decode(text, validate=True)
    for name, text in (entry.split("=", 1) for entry in os.environ["TOKEN_KEYS"].split())
}
COLUMNS = ("encrypted_token", "token_iv", "token_tag")


def bound(row):
    """The additional authenticated data."""
    if row["token_binding"] == 1:
        return b"push_token"
    fields = ("token_key_id", "app_id", "platform", "service", "device_id")
    return ":".join(["push_token:2", *(row[field] for field in fields)]).encode()


def open_token(row):
    sealed, iv, tag = (base64.b64decode(row[column], validate=True) for column in COLUMNS)
    assert (len(iv), len(tag)) == (12, 16)
    return AESGCM(KEYS[row["token_key_id"]]).decrypt(iv, sealed + tag, bound(row)).decode()


def index(row, token):
    key = HKDF(SHA256(), 32, salt=None, info=b"lineman token index").derive(KEYS[row["token_key_id"]])
    identity = json.loads(token)["endpoint"] if row["service"] == "webpush" else token
    text = "\0".join([row["app_id"], row["service"], identity])
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def write(file, row, values):
    names = ", ".join(f"{name} = ?" for name in values)
    file.execute(f"UPDATE device_registrations SET {names} WHERE id = ?", [*values.values(), row["id"]])


def main(task, path):
    file = sqlite3.connect(path)
    file.row_factory = sqlite3.Row
    rows = [dict(row) for row in file.execute("SELECT * FROM device_registrations ORDER BY id")]
    tokens = [open_token(row) for row in rows]
    for row, token in zip(rows, tokens):
        assert hmac.compare_digest(row["token_index"], index(row, token)), row["device_id"]
    if task == "open":
        print(json.dumps({row["device_id"]: token for row, token in zip(rows, tokens)}))
    elif task == "seal":
        for row, token in zip(rows, tokens):
            row |= {"token_key_id": next(iter(KEYS)), "token_binding": 1}
            iv = os.urandom(12)
            sealed = AESGCM(KEYS[row["token_key_id"]]).encrypt(iv, token.encode(), bound(row))
            parts = (base64.b64encode(part).decode() for part in (sealed[:-16], iv, sealed[-16:]))
            values = dict(zip(COLUMNS, parts), token_index=index(row, token))
            write(file, row, values | {name: row[name] for name in ("token_key_id", "token_binding")})
    elif task == "forge":
        for row, other in zip(rows, rows[1:] + rows[:1]):
            write(file, row, {column: other[column] for column in COLUMNS})
    else:
        sys.exit(__doc__)
    file.commit()


main(*sys.argv[1:])
