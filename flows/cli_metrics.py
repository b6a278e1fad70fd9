"""`catchment metrics`: the catalog's figures in Prometheus's text format, printed once or served."""

import sys
from collections.abc import Iterator, Mapping
from typing import Annotated

from cyclopts import Parameter
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from blocks._catalog_metrics import DURATION_BOUNDS, LAG_BOUNDS, Figures, Histogram, read_metrics
from blocks._errors import CatchmentError, WrongUse
from blocks.library import ImageLibrary
from flows.cli_options import Library, open_library

Listen = Annotated[
    str | None,
    Parameter(help="Serve them at this address, HOST:PORT or PORT (then on 127.0.0.1), until Ctrl-C."),
]


def metrics(*, listen: Listen = None, library: Library = None) -> int:
    """Print the library's figures in Prometheus's text format, or serve them where a Prometheus can fetch them.

    Everything is read from the catalog when it is asked for, so the figures survive restarts and count every machine.
    """
    home = open_library(library)
    registry = CollectorRegistry(auto_describe=False)
    if listen is None:
        registry.register(CatalogCollector(home, is_strict=True))
        sys.stdout.write(generate_latest(registry).decode())
        return 0
    registry.register(CatalogCollector(home))
    host, port = parse_address(listen)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise WrongUse(f"{listen} can not be listened on ({error.strerror}): choose another.") from error
    print(f"metrics at http://{host}:{server.server_port}/metrics (Ctrl-C ends)", file=sys.stderr)  # noqa: T201
    thread.join()
    return 0


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`, `[IPv6]:PORT` or `PORT`, the host being loopback where none is named.

    Raises:
        WrongUse: it is none of these.
    """
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 <= int(port) <= 65_535):
        raise WrongUse(f"{text!r} is no address to listen on: write HOST:PORT, such as 127.0.0.1:9464.")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


class CatalogCollector(Collector):
    """Reads the catalog whenever it is asked; where it can not, that itself is the figure."""

    def __init__(self, library: ImageLibrary, *, is_strict: bool = False) -> None:
        self._library = library
        self._is_strict = is_strict

    def collect(self) -> Iterator[Metric]:
        """Yield every family of figures.

        Raises:
            LibraryUnavailable: with `is_strict`, the catalog can not be read.
        """
        try:
            found = read_metrics(self._library.catalog())
        except CatchmentError:
            if self._is_strict:
                raise
            yield GaugeMetricFamily("ingestion_catalog_up", "Whether the catalog can be read.", value=0)
            return
        yield GaugeMetricFamily("ingestion_catalog_up", "Whether the catalog can be read.", value=1)
        yield _counter("ingestion_requests", "Finished runs.", ("source_type", "status"), found.requests)
        yield _histograms(
            "ingestion_request_duration_seconds", "How long finished runs took.", DURATION_BOUNDS, found.durations
        )
        yield _counter("ingestion_frames", "Images stored.", ("camera_id", "source_type"), found.frames)
        yield _counter(
            "ingestion_files", "Files dealt with, by what became of them.", ("source_type", "verdict"), found.files
        )
        for verdict in ("duplicate", "quarantined"):
            some: Figures = {(kind,): count for (kind, name), count in found.files.items() if name == verdict}
            yield _counter(f"ingestion_{verdict}_files", f"Files that were {verdict}.", ("source_type",), some)
        yield _counter("ingestion_bytes", "Bytes that came.", ("source_type",), found.bytes)
        yield _histograms("ingestion_capture_to_store_seconds", "Time from capture to store.", LAG_BOUNDS, found.lags)
        yield _gauge("ingestion_waiting_files", "Files that failed and will be tried again.", found.waiting)
        stamps = {name: moment.timestamp() for name, moment in found.last_success.items()}
        yield _gauge("ingestion_last_success_timestamp_seconds", "When the last good run of a source ended.", stamps)


def _counter(name: str, text: str, labels: tuple[str, ...], values: Figures) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family


def _gauge(name: str, text: str, values: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("source",))
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family


def _histograms(name: str, text: str, bounds: tuple[float, ...], found: list[Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=("source_type",))
    for one in found:
        buckets = [(str(bound), float(count)) for bound, count in zip(bounds, one.counts, strict=True)]
        family.add_metric(one.labels, [*buckets, ("+Inf", float(one.count))], one.sum)
    return family
