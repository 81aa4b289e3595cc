"""pywebpush against `lineman mock webpush`, and a message that http_ece encrypts by itself."""

import json
import os

import http_ece
import requests
from cryptography.hazmat.primitives.asymmetric import ec
from py_vapid import Vapid
from pywebpush import WebPushException, webpush

mock = json.loads(os.environ["MOCK"])
origin = mock["urls"][0]
vapid = Vapid()
vapid.generate_keys()


def send(subscription, **more):
    info = {key: subscription[key] for key in ("endpoint", "keys")}
    claims = {"sub": "mailto:push@example.org"}
    return webpush(
        info, "hello from pywebpush", vapid_private_key=vapid, vapid_claims=claims, ttl=30,
        **more,
    )


first, gone = mock["subscriptions"][:2]
answer = send(first)
assert answer.status_code == 201, answer.text
assert answer.headers["location"].startswith(origin)
try:
    send(gone)
    raise AssertionError("it is gone")
except WebPushException as error:
    assert error.response.status_code == 410

unpad = lambda text: text + "=" * (-len(text) % 4)
import base64

keys = {name: base64.urlsafe_b64decode(unpad(value)) for name, value in first["keys"].items()}
body = http_ece.encrypt(
    b"hello from http_ece", private_key=ec.generate_private_key(ec.SECP256R1()),
    dh=keys["p256dh"], auth_secret=keys["auth"], version="aes128gcm",
)
head = vapid.sign({"sub": "mailto:push@example.org", "aud": origin})
headers = {**head, "TTL": "0", "Content-Encoding": "aes128gcm"}
answer = requests.post(first["endpoint"], data=body, headers=headers, timeout=10)
assert answer.status_code == 201, answer.text
del headers["TTL"]
answer = requests.post(first["endpoint"], data=body, headers=headers, timeout=10)
assert (answer.status_code, answer.json()["reason"]) == (400, "BadTtl"), answer.text
