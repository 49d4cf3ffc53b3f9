"""Where fuzzing starts, and every input that once broke a claim."""

import gzip

from overnight.store import checkpoint

_PARAMS = (
    b'{"model":"m","max_tokens":8,"messages":[{"role":"user","content":"hi"}]}',
    b'{"model":"m","max_tokens":8,"stream":false,"system":[{"type":"text","text":"be brief"}],'
    b'"messages":[{"role":"user","content":[{"type":"text","text":"hi"},{"type":"tool_result","tool_use_id":"t",'
    b'"content":[{"type":"text","text":"x"}]}]},{"role":"assistant","content":""}],"temperature":0.5,"top_k":3}',
    b'{"model":"m","max_tokens":1,"tools":[{"name":"f","input_schema":{"type":"object"}}],"tool_choice":'
    b'{"type":"tool","name":"f"},"thinking":{"type":"disabled"},"stop_sequences":["a"],'
    b'"output_config":{"format":{"type":"json_schema","schema":{}}},"messages":[{"role":"user","content":"x"}]}',
    b'{"model":"m","max_tokens":1,"speed":"fast","messages":[{"role":"user","content":[{"type":"document",'
    b'"source":{"type":"text","data":"x"},"title":null},{"type":"search_result","title":"t","source":"s",'
    b'"content":[{"type":"text","text":"y"}]}]},{"role":"assistant","content":[{"type":"tool_use","id":"i",'
    b'"name":"f","input":{"a":1e5}},{"type":"thinking","thinking":"","signature":""}]}]}',
)
_BODIES = (
    b'{"requests":[{"custom_id":"a","params":%b},\n {"params":{"\\u00e9":-1.5e3},"custom_id":"b"}]}' % _PARAMS[0],
    '{"requests":[{"custom_id":"A-_9","params":{"é":["\\ud83d\\ude00",null,true]}}],"x":{}}\r\n'.encode(),
    b'{"requests":[{"custom_id":"a","params":{"x":"\\ud800"}}]}',
    b'{"requests":[{"custom_id":1,"custom_id":"a","params":{}}]}',
    b'{"requests":[]}',
    b'{"requests":[{"custom_id":"a","params":\r{\r"x":1}}]}',
    *(b'{"requests":[{"custom_id":"a","params":{"x":%b}}]}' % (b"[" * deep + b"]" * deep) for deep in (100, 985)),
    b"[" * 2000,
)
_MESSAGES = (
    b'{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"hi"}],'
    b'"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":2,"service_tier":"standard"}}',
    b'{"type":"message","role":"assistant",\n"usage":{},"content":[{"text":"{}"}]}',
    b'{"type":"message","role":"assistant","usage":{"input_tokens":1},"content":[{"input":{"input_tokens":1}}]}',
    b'{"type":"message","role":"assistant","content":[],"usage":{"x":{"service_tier":"standard"},"service_tier":"p"}}',
    b'{"type":"message","role":"assistant","content":[],"usage":{"service_tier":"standard","service_tier":"p"}}',
)
_LOG = b"".join(checkpoint.encode(checkpoint.frame([b"one\n", b"two\n"][:lines])) for lines in (1, 2, 1))
_ANSWERS = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nconnection: close\r\ncontent-length: 22\r\n\r\n"
    + gzip.compress(b"ok", mtime=0),
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
)
_ERRORS = (
    b'{"type":"error","error":{"type":"overloaded_error","message":"full"},"request_id":"req_1"}',
    b'{"error":{"message":"bad","type":"server_error","code":null}}',
    b'{"error":"plain"}',
    b'{"message":"also plain"}',
    b"Sat, 21 Nov 2026 07:00:00 GMT",
    b"1.5",
)
_STRUCTURED = tuple(bytes((number * step + number // 7) % 256 for number in range(200)) for step in (0, 1, 7, 29, 83))

SEEDS: dict[str, tuple[bytes, ...]] = {
    "create_body": _BODIES,
    "written_body": _STRUCTURED,
    "params_of_a_request": _PARAMS,
    "message_of_an_engine": _MESSAGES,
    "written_message": _STRUCTURED,
    "compressed_body": tuple(
        bytes([kind, 40]) + stored
        for kind in range(4)
        for stored in (b"", b"hello " * 20, gzip.compress(b"hello " * 9, mtime=0), gzip.compress(b"a", mtime=0) * 2)
    ),
    "checkpoint_log": (_LOG, _LOG[:-5], b""),
    "damaged_log": _STRUCTURED,
    "answer_of_a_server": tuple(
        bytes([used]) + b"\x10\x01\x02\x03\x20\x04\x05\x06" + answer for answer in _ANSWERS for used in (0, 1)
    ),
    "error_of_a_server": tuple(
        bytes([status % 256, status // 256]) + body for body in _ERRORS for status in (0, 200, 229, 300, 303, 329)
    ),
}

# What was found, and what it showed when it was.
FOUND: dict[str, dict[str, bytes]] = {
    "message_of_an_engine": {
        "content with the very bytes of the usage got the service tier": _MESSAGES[2],
        "an empty usage broke the first text with {} in it": _MESSAGES[1],
        "the tier of something inside the usage was changed": _MESSAGES[3],
        "of a repeated tier the first was changed": _MESSAGES[4],
    },
    "damaged_log": {
        # The offsets are those of today's frame header, 32 bytes.
        "a flipped bit made the block of a frame the last one": bytes([1, 0, 0, 0, 32, 0, 0, 0]),
        "a flipped bit in the flush behind a frame was not seen": bytes([1, 0, 0, 0, 36, 0, 3, 0]),
        "nor one that makes the flush the last block": bytes([1, 0, 0, 0, 37, 0, 2, 0]),
        "the count of lines was not checked": bytes([1, 0, 0, 0, 20, 0, 0, 0]),
    },
    "error_of_a_server": {
        "a date with too large a year ended the run": bytes([229, 0])
        + b"Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "as did too large an offset": bytes([229, 0]) + b"Mon, 01 Jan 2020 00:00:00 +99999999999999999999",
    },
}
