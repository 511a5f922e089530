"""A tour of Anabranch from Python: two regions, one history.

    python tour.py --endpoint 127.0.0.1:7101 --other 127.0.0.1:7201

`--endpoint` is a node of one region, `--other` of another. Each step prints what it found and
asserts it, so the tour fails if anything is not as it says.
"""
import argparse
import os
import time
import uuid

import grpc
from grpc_health.v1 import health_pb2

from anabranch.v1 import events_pb2, types_pb2
from region import Region, refusal_of

GLOBAL = types_pb2.ORDER_GLOBAL
REGIONAL = types_pb2.ORDER_REGIONAL
# Nothing listens here: what a retry does when a node is gone.
NOBODY = "127.0.0.1:1"
FINAL_WITHIN_SECONDS = 60


def event(stream, kind, payload=b"{}"):
    """An event with an id of its own: appending it again yields the first result."""
    return events_pb2.NewEvent(
        stream=stream, id=uuid.uuid4().bytes, type=kind, metadata={"by": "tour"}, payload=payload
    )


def dot(of):
    """A dot as a tuple: (region, incarnation, shard, seq), the identity of an event everywhere."""
    return (of.origin.region, of.origin.incarnation, of.origin.shard, of.seq)


def dots(events):
    return [dot(each.dot) for each in events]


def appended_dots(response):
    first = dot(response.first)
    return [(*first[:3], first[3] + n) for n in range(response.events)]


class Tour:
    """The steps, and what they share."""

    def __init__(self, here, there):
        # The first address does not answer, so every call proves the retry once.
        self.here = Region([NOBODY, here])
        self.there = Region([there])
        self.category = f"tour{uuid.uuid4().hex[:8]}"
        self.stream = f"{self.category}-1"
        self.producer = os.urandom(16)
        self.sequence = 0
        self.written = []

    def tagged(self, *events, **more):
        """An append with the producer's next triple."""
        self.sequence += 1
        producer = events_pb2.Producer(id=self.producer, epoch=1, sequence=self.sequence)
        return events_pb2.AppendRequest(events=events, producer=producer, **more)

    def says_what_it_is(self):
        """Health and reflection are on, so grpcurl and load balancers work as they are."""
        for region in (self.here, self.there):
            assert region.health() == health_pb2.HealthCheckResponse.SERVING
            services = region.services()
            served = {"anabranch.v1.Events", "anabranch.v1.Cluster", "grpc.health.v1.Health"}
            assert served <= services, services
        names = [region.status().region for region in (self.here, self.there)]
        assert names[0] != names[1], f"two endpoints of the one region {names[0]}"
        assert self.here.retries > 0, "the first address cannot have answered"
        print(f"regions {names[0]} and {names[1]} serve; one dead address was passed by")

    def appends_once(self):
        """A repeated request yields the first result, by its triple and by its events' ids."""
        request = self.tagged(
            event(self.stream, "Opened", b'{"n": 1}'), event(self.stream, "Noted", b'{"n": 2}')
        )
        first = self.here.append(request)
        again = self.here.append(request)
        assert not first.repeated and again.repeated
        assert dot(first.first) == dot(again.first)
        assert [(r.stream, r.last_revision) for r in first.revisions] == [(self.stream, 1)]
        by_id = self.here.append(events_pb2.AppendRequest(events=request.events))
        assert by_id.repeated and dot(by_id.first) == dot(first.first)
        self.written += appended_dots(first)
        print(f"appended {first.events} events at regional position {first.position}, once")
        return first

    def is_refused(self):
        """A failed expectation: nothing is written, and the refusal says what is there."""
        expects = events_pb2.Expectation(
            stream=self.stream, no_stream=events_pb2.Expectation.NoStream()
        )
        request = self.tagged(event(self.stream, "Opened"), expectations=[expects])
        try:
            self.here.append(request)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
            conflicts = refusal_of(error).conflicts.conflicts
        else:
            raise AssertionError("a stream with two events passed for none")
        assert [c.expectation.stream for c in conflicts] == [self.stream]
        assert conflicts[0].actual == 1
        print(f"refused: {self.stream} was to be new, and is at revision {conflicts[0].actual}")

    def reads_regionally(self, first):
        """At once, in this region's order, with the events as written."""
        request = events_pb2.ReadRequest(
            stream=self.stream, order=REGIONAL, session_token=first.session_token
        )
        events, _ = self.here.read(request)
        assert dots(events) == self.written, "the region's order is the order of writing"
        assert [each.revision for each in events] == [0, 1]
        assert [each.payload for each in events] == [b'{"n": 1}', b'{"n": 2}']
        assert all(each.metadata["by"] == "tour" for each in events)
        print(f"read {len(events)} events of {self.stream} in regional order")

    def writes_there(self, first):
        """In the other region, after it has what was written here: the session carries over."""
        seen = events_pb2.ReadRequest(
            stream=self.stream,
            order=REGIONAL,
            session_token=first.session_token,
            session_deadline_ms=30_000,
        )
        events, _ = self.there.read(seen)
        assert dots(events) == self.written, "the token waits until this region has it too"
        response = self.there.append(self.tagged(event(self.stream, "Answered")))
        assert response.first.origin.region != first.first.origin.region
        self.written += appended_dots(response)
        print(f"the other region read its way up and wrote {self.stream} too")

    def category_read(self, **more):
        return events_pb2.ReadRequest(category=self.category, **more)

    def finally_in(self, region):
        """All that was written, in global order, once it is final."""
        give_up = time.monotonic() + FINAL_WITHIN_SECONDS
        while True:
            events, _ = region.read(self.category_read(order=GLOBAL))
            if len(events) >= len(self.written):
                return events
            assert time.monotonic() < give_up, f"only {len(events)} events became final"
            time.sleep(0.05)

    def orders_globally(self):
        """The same order in both regions, position by position."""
        here, there = (self.finally_in(region) for region in (self.here, self.there))
        assert dots(here) == dots(there) == self.written, "causes come before effects"
        places = [each.global_position for each in here]
        assert places == [each.global_position for each in there]
        assert places == sorted(set(places)), "positions rise"
        print(f"both regions have them at global positions {places}")

    def follows_and_moves(self):
        """A subscription here, resumed there with its cursor: none skipped, none twice."""
        seen = len(self.written)
        request = self.category_read(order=GLOBAL)
        events, cursor = self.here.follow(request, lambda events: len(events) >= seen)
        assert dots(events) == self.written and cursor
        for kind in ("Closed", "Archived"):
            response = self.here.append(self.tagged(event(self.stream, kind)))
            self.written += appended_dots(response)
        request = self.category_read(order=GLOBAL, cursor=cursor)
        rest, _ = self.there.follow(request, lambda events: len(events) >= 2)
        assert dots(rest) == self.written[seen:], "exactly what came after the cursor"
        print(f"a cursor of {len(cursor)} bytes went on in the other region with {len(rest)} events")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--endpoint", default="127.0.0.1:7101", help="a node of one region")
    arguments.add_argument("--other", default="127.0.0.1:7201", help="a node of another region")
    given = arguments.parse_args()

    tour = Tour(given.endpoint, given.other)
    tour.says_what_it_is()
    first = tour.appends_once()
    tour.is_refused()
    tour.reads_regionally(first)
    tour.writes_there(first)
    tour.orders_globally()
    tour.follows_and_moves()
    print(f"the tour is over: {len(tour.written)} events, {tour.here.retries} retries")


if __name__ == "__main__":
    main()
