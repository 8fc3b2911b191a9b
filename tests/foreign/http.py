"""A foreign client over HTTP: Python's requests.

    http.py PORT PORT PORT PORT

The ports are those of four servers' HTTP doors, a healthy cluster. Exits with 1 at the first surprise.
"""
import sys
from urllib.parse import quote

import requests

URLS = [f"http://127.0.0.1:{port}" for port in sys.argv[1:]]
session = requests.Session()


def check(what, found, expected):
    if found != expected:
        raise SystemExit(f"{what}: {found!r} instead of {expected!r}")


# Any bytes, through any server; one connection for many requests.
for index, key in enumerate([b"137", b"a/b c", bytes(range(1, 256)), "é€".encode(), b"%41", b"a?b#c"]):
    value = bytes([index]) * (1 << index * 3)
    path = "/v1/keys/" + quote(key, safe="")
    put = session.put(URLS[0] + path, data=value, timeout=20)
    check("put", (put.status_code, put.json()["outcome"]), (200, "stored"))
    for url in URLS:
        got = session.get(url + path, timeout=20)
        check("get", (got.status_code, got.content, got.headers["ETag"]), (200, value, put.headers["ETag"]))
        same = session.get(url + path, headers={"If-None-Match": got.headers["ETag"]}, timeout=20)
        check("unchanged", (same.status_code, same.content), (304, b""))
    check("delete", session.delete(URLS[1] + path, timeout=20).status_code, 200)
    check("gone", session.get(URLS[2] + path, timeout=20).status_code, 404)

# A stream of unknown length as a body.
put = session.put(URLS[3] + "/v1/keys/chunked", data=(b"x" * 1000 for _ in range(100)), timeout=20)
check("chunked", put.json()["outcome"], "stored")
check("length", len(session.get(URLS[0] + "/v1/keys/chunked", timeout=20).content), 100_000)

# A range, by the links in the answers.
items = [{"key": f"k{i:03}", "value": str(i)} for i in range(300)]
batch = session.post(URLS[0] + "/v1/batch/put", json={"items": items}, timeout=20)
check("batch", (batch.status_code, len(batch.json()["results"])), (200, 300))
found, path = [], "/v1/keys?from=k&to=l&limit=70"
while path:
    page = session.get(URLS[1] + path, timeout=20).json()
    found += [(entry["key"], entry["value"]) for entry in page["entries"]]
    path = page.get("next")
check("range", found, [(item["key"], item["value"]) for item in items])

# The REST proxy store, and the causal store with its payload from server to server.
string = lambda text: {"encoding": "string", "data": text}
put = session.put(URLS[0] + "/set", json=[{"key": string("a"), "value": string("b")}], timeout=20)
check("set", (put.status_code, put.json()), (200, [{"keys_added": 1, "keys_failed": []}]))
got = session.post(URLS[1] + "/fetch", json=[string("a"), string("nobody")], timeout=20)
check("fetch", (got.status_code, got.json()),
      (206, [{"key": string("a"), "value": string("b")}, {"key": string("nobody"), "value": {}}]))
payload = ""
for step in range(8):
    fields = {"key": "causal", "value": f"v{step}", "causal_payload": payload}
    put = session.put(URLS[step % 4] + "/kvs", data=fields, timeout=20)
    check("kvs put", (put.status_code, put.json()["msg"]), (201 if step == 0 else 200, "success"))
    payload = put.json()["causal_payload"]
    got = session.get(URLS[(step + 1) % 4] + "/kvs", params={"key": "causal", "causal_payload": payload}, timeout=20)
    check("kvs get", got.json()["value"], f"v{step}")
print("requests: all as expected")
