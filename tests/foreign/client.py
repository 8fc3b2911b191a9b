"""A foreign client: Python's thrift library, with code generated from chord.thrift and original.thrift.

    client.py FOLDER MODE HOST:PORT

FOLDER holds the generated packages `chord` and `original`. MODE is `all` (a healthy cluster: every call in every
format), or `outage` (two of the replicas of "137" are down). Prints what it did; exits with 1 at the first surprise.
"""
import json
import sys

sys.path.insert(0, sys.argv[1])
MODE, (HOST, PORT) = sys.argv[2], sys.argv[3].split(":")

from chord import Chord
from chord.ttypes import (ChordError, DeleteRequest, ErrorCode, GetRequest, InspectRequest, Level, PrepareRequest,
                          PutRequest, ScanRequest, StatusRequest, TopologyRequest)
from original import KVStore
from original import ttypes as old
from thrift import Thrift
from thrift.protocol import TBinaryProtocol, TCompactProtocol
from thrift.transport import TSocket, TTransport

TRANSPORTS = {"framed": TTransport.TFramedTransport, "unframed": TTransport.TBufferedTransport}
PROTOCOLS = {"binary": TBinaryProtocol.TBinaryProtocol, "compact": TCompactProtocol.TCompactProtocol}


def connect(service, framing="unframed", protocol="binary"):
    socket = TSocket.TSocket(HOST, int(PORT))
    socket.setTimeout(20000)
    transport = TRANSPORTS[framing](socket)
    transport.open()
    return service.Client(PROTOCOLS[protocol](transport)), transport


def refused(call, kind):
    try:
        call()
    except kind as error:
        return error
    raise SystemExit(f"nothing was thrown where {kind.__name__} was due")


def expect(condition, what):
    if not condition:
        raise SystemExit(f"not as expected: {what}")


def every_call(framing, protocol):
    client, transport = connect(Chord, framing, protocol)
    name = f"{framing}-{protocol}-".encode()
    key, value = name + b"a", bytes(range(256))
    put = client.put(PutRequest(key=key, value=value, level=Level.QUORUM))
    expect(put.version.time > 0, put)
    got = client.get(GetRequest(key=key, level=Level.QUORUM))
    expect(got.found and got.value == value and got.version == put.version, "the value of all bytes")
    large = bytes(i % 251 for i in range(2_000_000))
    client.put(PutRequest(key=name + b"b", value=large))
    expect(client.get(GetRequest(key=name + b"b", level=Level.ALL)).value == large, "the value of 2 MB")
    ticket = client.prepare(PrepareRequest(key=name + b"c")).version
    for _ in range(2):
        again = client.put(PutRequest(key=name + b"c", value=b"", level=Level.QUORUM, ticket=ticket))
        expect(again.version == ticket, "the ticket's version")
    scan = client.scan(ScanRequest(from_key=name, to_key=name + b"z", limit=2))
    expect([entry.key for entry in scan.entries] == [key, name + b"b"] and scan.next_key, "a scan, cut")
    rest = client.scan(ScanRequest(from_key=scan.next_key, to_key=name + b"z"))
    expect([entry.key for entry in rest.entries] == [name + b"c"] and rest.next_key is None, "the rest of it")
    client.remove(DeleteRequest(key=key))
    gone = client.get(GetRequest(key=key))
    expect(not gone.found and gone.version.time > put.version.time, "a deleted key")
    expect(not client.get(GetRequest(key=name + b"never")).found, "a key never written")
    expect(client.status(StatusRequest()).voting, "a server that votes")
    topology = client.topology(TopologyRequest())
    expect(len(topology.servers) == 4 and len(topology.ranges) == 4, topology)
    expect(client.inspect(InspectRequest(limit=1)).entries is not None, "an inspection")
    error = refused(lambda: client.put(PutRequest(key=b"", value=b"v")), ChordError)
    expect(error.code == ErrorCode.INVALID_REQUEST and "empty" in error.message, error)
    error = refused(lambda: client.get(GetRequest(key=b"k" * 65537)), ChordError)
    expect(error.code == ErrorCode.INVALID_REQUEST, error)
    error = refused(lambda: client.get(GetRequest(key=b"k", level=9)), ChordError)
    expect(error.code == ErrorCode.INVALID_REQUEST and "level" in error.message, error)
    # A method that no service has; the connection goes on.
    refused(lambda: unknown_method(client), Thrift.TApplicationException)
    for number in range(200):
        client.put(PutRequest(key=name + b"%d" % number, value=b"x" * number, level=Level.QUORUM))
    expect(client.get(GetRequest(key=name + b"199")).value == b"x" * 199, "many calls on one connection")
    transport.close()
    print(f"{framing} {protocol}: every call")


def unknown_method(client):
    protocol = client._oprot
    protocol.writeMessageBegin("frobnicate", Thrift.TMessageType.CALL, 7)
    protocol.writeStructBegin("arguments")
    protocol.writeFieldStop()
    protocol.writeStructEnd()
    protocol.writeMessageEnd()
    protocol.trans.flush()
    (_, kind, sequence) = client._iprot.readMessageBegin()
    expect((kind, sequence) == (Thrift.TMessageType.EXCEPTION, 7), "the answer to a method that there is not")
    error = Thrift.TApplicationException()
    error.read(client._iprot)
    client._iprot.readMessageEnd()
    raise error


def request(level, key, value=None):
    return old.ClientRequest(constLevel=level, kv=old.KV(key=key, value=value))


def the_original():
    client, transport = connect(KVStore)
    expect(client.hello() != "", "a greeting")
    expect(client.getServerID() == 0, "the id of server 0")
    expect(json.loads(client.getInfo())["server"] == 0, "information about server 0")
    put = client.clientPut(request("QUORUM", 137, "v"))
    expect(put.status == "SUCCESS", put)
    got = client.clientGet(request("QUORUM", 137))
    expect(got.status == "SUCCESS" and got.kv.key == 137 and got.kv.value == "v" and got.kv.time > 0, got)
    expect(client.clientGet(request("QUORUM", 9)).status == "FAIL", "a key never written")
    # Its keys are the three-digit keys of today.
    today, other = connect(Chord)
    expect(today.get(GetRequest(key=b"137")).value == b"v", "the key 137")
    other.close()
    for level, key in [("QUORUM", 300), ("QUORUM", -1), ("ALL", 1), ("quorum", 1)]:
        error = refused(lambda: client.clientPut(request(level, key, "w")), old.SystemException)
        expect(error.message == "Bad request format", error)
    error = refused(lambda: client.clientPut(request("QUORUM", 1)), old.SystemException)
    expect(error.message == "Bad request format", error)
    expect(client.clientGet(request("QUORUM", 137)).kv.value == "v", "the connection goes on")
    transport.close()
    print("the original's interface: every call")


def outage():
    client, transport = connect(Chord, "framed", "compact")
    error = refused(lambda: client.put(PutRequest(key=b"137", value=b"w", level=Level.QUORUM)), ChordError)
    expect((error.code, error.required_replicas, error.alive) == (ErrorCode.UNAVAILABLE, 2, 1), error)
    expect(client.get(GetRequest(key=b"137", level=Level.ONE)).value == b"v", "the old value at ONE")
    transport.close()
    client, transport = connect(KVStore)
    error = refused(lambda: client.clientPut(request("QUORUM", 137, "w")), old.SystemException)
    expect(error.message == "Not enough replicas alive", error)
    transport.close()
    print("too few replicas: told apart")


if MODE == "all":
    for framing in TRANSPORTS:
        for protocol in PROTOCOLS:
            every_call(framing, protocol)
    the_original()
else:
    outage()
