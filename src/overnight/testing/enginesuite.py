"""What every `engines.engine.Engine` must do, against the real thing. To hold yours to it:

    class TestMine(RemoteEngineSuite):
        model = "my-model"
        url = "http://127.0.0.1:8000"

        def engine_at(self, url):
            return Messages(url, in_flight_max=16)

`EngineSuite` is for an engine without an address, with `engine` in the place of `url` and `engine_at`.

model           Which the requests name.
words_too_many  A prompt of so many words does not fit: by default more than any model takes.
allows          What the server is known to do otherwise: names of `enginecases.DEPARTURES`. Such a test must fail,
                and is reported as an expected failure; one that passes fails, so that the list stays true.
in_flight_max   Of the engine: how many requests the server works on at once, for the test of priorities.

What an engine cannot do by its `capabilities` is no departure: then the suite asks that it says so. The server must
have nothing else to do meanwhile, and requests cost what they cost.
"""

from collections.abc import Mapping

from overnight.testing.engineanswers import EngineAnswerCases
from overnight.testing.engineaway import EngineAwayCases
from overnight.testing.enginecases import DEPARTURES, EngineCases
from overnight.testing.enginefeatures import EngineFeatureCases
from overnight.testing.enginework import EngineStreamCases, EngineWorkCases


class EngineSuite(EngineAnswerCases, EngineFeatureCases, EngineStreamCases, EngineWorkCases):
    """All cases for any engine."""


class RemoteEngineSuite(EngineAwayCases, EngineSuite):
    """All cases for an engine behind an address."""


def departure_table(suites: Mapping[str, type[EngineCases]]) -> str:
    """What each of `suites` allows, by name: a table in Markdown."""
    rows = [["", *suites], ["---"] * (len(suites) + 1)]
    for departure, what in DEPARTURES.items():
        if any(departure in suite.allows for suite in suites.values()):
            rows.append([what, *("yes" if departure in suite.allows else "" for suite in suites.values())])
    return "".join("|".join(["", *(f" {cell} " if cell else " " for cell in row), ""]) + "\n" for row in rows)
