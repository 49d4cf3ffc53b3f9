"""What every `engines.transport.Transport` must do, the odd cases of HTTP/1.1 included. To hold yours to it:

    class TestMine(TransportSuite):
        def transport(self, base_url, headers):
            return Mine(base_url, headers=headers)

A case runs against a `ScriptedServer`, so it knows what is on the wire, and ends by itself after
`exchanges.CASE_S`. Another event loop is tested by overriding `run`, for instance with `uvloop.run`.
"""

from overnight.testing.answers import AnswerCases
from overnight.testing.connections import ConnectionCases
from overnight.testing.streams import StreamCases


class TransportSuite(AnswerCases, ConnectionCases, StreamCases):
    """All cases."""
