"""What a job of a given size takes, stage by stage: formulae over constants that benchmarks/scale/scaling.py measured.

Every constant holds for one core of the machine in the results, or for the one server process that was pushed to. The
plan multiplies them: that is extrapolation, and what breaks before it does is listed in docs/scale.md.
"""

from __future__ import annotations

from dataclasses import dataclass

SECONDS = 3600.0  # of an hour
NUMBER_BYTES = {"float32": 4, "float16": 2, "int8": 1}  # of a store's vectors
HELD_GB = 0.27  # edgecsd.features.mapped.HELD_VALUES as float32: more is left on disk
PROCESS_GB = 1.0  # libraries, network, a batch, blocks of mining (mining.py: 0.4 beyond start)


@dataclass(frozen=True)
class Job:
    """What is asked. price: of a node and hour; storage_price: of a GB and month; both in one currency, 0: not told.

    train_images  photos that the query model is trained on, for `epochs`; mined exactly or by inverted lists
    gallery_model  a key of Constants.extraction; index: flat, hnsw, ivf or ivfpq; dtype: of the store
    """

    images: int
    dim: int = 512
    nodes: int = 1
    cores: int = 2
    train_images: int = 100_000
    epochs: int = 10
    gallery_model: str = "tf_efficientnet_lite2"
    mining: str = "exact"
    index: str = "hnsw"
    dtype: str = "float16"
    links: int = 32
    pq_bytes: int = 64
    price: float = 0.0
    storage_price: float = 0.0


@dataclass(frozen=True)
class Constants:
    """Measured. Rates are a second and core: images, multiply-adds, vectors; bytes are of one item.

    scaling        what share of one core's rate another core adds (torchrun, two processes)
    item_bytes     of a row of items.parquet; pushed_bytes: of a pushed row on the server's disk beyond its vector
    index_add      vectors a second by index type, at dimension `dim` and `rows` vectors
    growth         the power with which an index's seconds a vector grow with the number of vectors, by type
    push_rows      rows a second of one client and one server process, at dimension `dim`
    probed         the share of the gallery that inverted lists look at for a recall of 0.95; it depends on the photos
    item_memory    bytes of an item in a process that opened the store: id, digest, its row by id
    listed_memory  bytes of an id in a process that listed the photos
    process_gb     GB of a process that embeds
    """

    dim: int
    rows: int
    extraction: dict[str, float]
    scaling: float
    training: float
    mining_products: float
    item_bytes: float
    index_add: dict[str, float]
    growth: dict[str, float]
    push_rows: float
    pushed_bytes: float
    probed: float
    item_memory: float
    listed_memory: float
    process_gb: float


@dataclass(frozen=True)
class Stage:
    """hours of all nodes together at work; node_hours: what is paid; memory: GB of one node; storage: GB kept."""

    name: str
    hours: float
    node_hours: float
    memory: float
    storage: float
    formula: str

    def money(self, job: Job) -> float:
        """Of the machines; storage is a matter of months and told apart."""
        return self.node_hours * job.price


def plan(job: Job, known: Constants) -> list[Stage]:
    """The stages of a job in their order."""
    return [_extract(job, known), _mine(job, known), _train(job, known), _index(job, known), _push(job, known)]


def speedup(job: Job, known: Constants) -> float:
    """How many cores' worth all nodes are: the first whole, each other with the measured share."""
    return 1 + known.scaling * (job.nodes * job.cores - 1)


def _extract(job: Job, known: Constants) -> Stage:
    hours = job.images / known.extraction[job.gallery_model] / speedup(job, known) / SECONDS
    storage = job.images * (NUMBER_BYTES[job.dtype] * job.dim + known.item_bytes) / 1e9
    memory = job.cores * (known.process_gb + job.images * (known.item_memory + known.listed_memory) / 1e9)
    return Stage(
        "extract",
        hours,
        hours * job.nodes,
        memory,
        storage,
        "N / (images a second x S); store N (bytes x D + item bytes)",
    )


def _mine(job: Job, known: Constants) -> Stage:
    lists = 4 * job.images**0.5
    a_query = float(job.images) if job.mining == "exact" else lists + job.images * known.probed
    products = job.train_images * a_query * job.dim
    making = 0.0 if job.mining == "exact" else job.images * lists * job.dim / known.mining_products
    hours = (making + products / known.mining_products / speedup(job, known)) / SECONDS
    formula = (
        "T N D / (products a second x S)" if job.mining == "exact" else "(4 N^1.5 D + T (4 N^0.5 + p N) D / S) / m"
    )
    return Stage(
        f"mine ({job.mining})", hours, hours * job.nodes, _held(job, known), job.train_images * 1024 * 6 / 1e9, formula
    )


def _train(job: Job, known: Constants) -> Stage:
    hours = job.epochs * job.train_images / known.training / speedup(job, known) / SECONDS
    formula = "E T / (images a second x S); memory at most 1.5 GB a process, and ids"
    return Stage("train", hours, hours * job.nodes, _held(job, known), 0.0, formula)


def _held(job: Job, known: Constants) -> float:
    """GB of a node's processes that mine or train: vectors up to HELD_GB of gallery and photos each, blocks, ids."""
    vectors = sum(min(HELD_GB, 4 * count * job.dim / 1e9) for count in (job.images, job.train_images))
    items = job.images * known.item_memory + job.train_images * (known.item_memory + known.listed_memory)
    return job.cores * (PROCESS_GB + vectors + items / 1e9)


def _index(job: Job, known: Constants) -> Stage:
    rate = known.index_add[job.index] * known.dim / job.dim
    rate *= (known.rows / max(known.rows, job.images / job.nodes)) ** known.growth[job.index]
    hours = job.images / job.nodes / (rate * (1 + known.scaling * (job.cores - 1))) / SECONDS
    size = job.images * index_bytes(job) / 1e9
    formula = "N / nodes / vectors a second; memory and storage: bytes x N"
    return Stage(f"index ({job.index})", hours, hours * job.nodes, size / job.nodes, size, formula)


def index_bytes(job: Job) -> float:
    """Of one vector in memory while it is searched."""
    vector = 4.0 * job.dim
    return {"flat": vector, "ivf": vector + 8, "hnsw": vector + 4 * 2 * job.links, "ivfpq": job.pq_bytes + 8.0}[
        job.index
    ]


def _push(job: Job, known: Constants) -> Stage:
    rate = known.push_rows * known.dim / job.dim
    hours = job.images / (rate * job.nodes) / SECONDS
    storage = job.images * (4 * job.dim + known.pushed_bytes) / 1e9
    memory = job.images * index_bytes(job) / job.nodes / 1e9
    return Stage("push", hours, hours * job.nodes, memory, storage, "N / (rows a second x servers)")
