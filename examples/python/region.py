"""One region as a client sees it: addresses, retries, refusals.

Everything here follows from the contract in proto/anabranch/v1/events.proto:

- a *refused* append was not written; its status carries a `Refusal` that says why;
- an *unknown* outcome (UNAVAILABLE, DEADLINE_EXCEEDED) may have been written, so it is repeated with
  the same (producer, epoch, sequence) or the same event ids, and then cannot be written twice.
"""
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

from anabranch.v1 import cluster_pb2, cluster_pb2_grpc, events_pb2, events_pb2_grpc

UNKNOWN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
ATTEMPT_SECONDS = 5
GIVE_UP_SECONDS = 60
# The messages of v1 and v1alpha are the same; only the service's name differs.
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


def refusal_of(error):
    """The `Refusal` in a failed call's `grpc-status-details-bin`, or None."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        refusal = events_pb2.Refusal()
        if detail.Unpack(refusal):
            return refusal
    return None


class Region:
    """Nodes of one region. Calls go to one of them and move on when it does not answer."""

    def __init__(self, addresses):
        self.addresses = [address.removeprefix("http://") for address in addresses]
        self.at = 0
        self.retries = 0
        self._connect()

    def _connect(self):
        self.channel = grpc.insecure_channel(self.addresses[self.at])
        self.events = events_pb2_grpc.EventsStub(self.channel)
        self.cluster = cluster_pb2_grpc.ClusterStub(self.channel)

    def move_on(self):
        """Goes to the next address."""
        self.channel.close()
        self.at = (self.at + 1) % len(self.addresses)
        self._connect()

    def retry(self, call):
        """Calls `call(self)` until it is answered. What may be unknown must be safe to repeat."""
        give_up = time.monotonic() + GIVE_UP_SECONDS
        wait = 0.05
        while True:
            try:
                return call(self)
            except grpc.RpcError as error:
                refusal = refusal_of(error)
                overloaded = refusal is not None and refusal.WhichOneof("reason") == "overload"
                if time.monotonic() > give_up or not (overloaded or error.code() in UNKNOWN):
                    raise
                self.retries += 1
                if overloaded:
                    # RESOURCE_EXHAUSTED: nothing was written, and the server says when to come back.
                    wait = max(wait, refusal.overload.retry_after_ms / 1000)
                else:
                    self.move_on()
                time.sleep(wait)
                wait = min(wait * 2, 2)

    def append(self, request):
        """Appends; `request` must carry a producer or event ids, so that repeating is safe."""
        assert request.HasField("producer") or all(event.id for event in request.events)
        return self.retry(lambda region: region.events.Append(request, timeout=ATTEMPT_SECONDS))

    def read(self, request):
        """A bounded read: its events, and the cursor after them."""

        def once(region):
            events, cursor = [], b""
            for response in region.events.Read(request, timeout=GIVE_UP_SECONDS):
                events += response.batch.events
                cursor = response.cursor or cursor
            return events, cursor

        return self.retry(once)

    def follow(self, request, enough):
        """Follows until `enough(events)`; returns the events and the cursor after them.

        If the node goes away, another one goes on from the cursor: none skipped, none twice.
        """
        request.follow = True
        events, cursor = [], b""

        def once(region):
            nonlocal cursor
            call = region.events.Read(request, timeout=GIVE_UP_SECONDS)
            try:
                for response in call:
                    events.extend(response.batch.events)
                    if response.cursor:
                        request.cursor = cursor = response.cursor
                    if enough(events):
                        return
            finally:
                call.cancel()
            raise AssertionError("the subscription ended by itself")

        self.retry(once)
        return events, cursor

    def status(self):
        """What the node says about itself and its region."""
        return self.retry(
            lambda region: region.cluster.Status(cluster_pb2.StatusRequest(), timeout=ATTEMPT_SECONDS)
        )

    def health(self):
        """The standard health service's answer for the whole server."""
        check = health_pb2.HealthCheckRequest()
        return self.retry(
            lambda region: health_pb2_grpc.HealthStub(region.channel).Check(
                check, timeout=ATTEMPT_SECONDS
            )
        ).status

    def services(self):
        """Names of the services, as server reflection lists them."""
        ask = reflection_pb2.ServerReflectionRequest(list_services="")

        def once(region):
            reflect = region.channel.stream_stream(
                REFLECTION,
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            answer = next(reflect(iter([ask]), timeout=ATTEMPT_SECONDS))
            return {service.name for service in answer.list_services_response.service}

        return self.retry(once)
