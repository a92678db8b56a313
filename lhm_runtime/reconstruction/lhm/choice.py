"""Which reconstructor makes an avatar, and why. Loads torch only when LHM is going to be used."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

from lhm_runtime.errors import BackendError, LhmLiveError
from lhm_runtime.reconstruction.lhm.weights import find_lhm, networks_here

if TYPE_CHECKING:
    from lhm_runtime.reconstruction.lhm.run import LhmRun, Precision

Method = Literal["auto", "projection", "lhm", "lhm-mini", "lhm-500m", "lhm-500m-hf", "lhm-1b", "lhm-1b-hf"]
"""``projection`` needs no weights; ``lhm`` is the best published network that is here, or that of a folder; ``auto``
takes it where it is here and one photo is given, and projection otherwise."""

METHODS: Final[tuple[Method, ...]] = get_args(Method)


def choose(
    method: Method,
    photos: int,
    *,
    weights: Path | None = None,
    device: str | None = None,
    precision: "Precision | None" = None,
) -> "tuple[LhmRun | None, str]":
    """The run of LHM that a method stands for here, None for projection, and why it is that.

    Args:
        method: as asked for.
        photos: how many are given.
        weights: folder of a checkpoint that does not lie among the models.
        device: as for ``prepare_run``.
        precision: as for ``prepare_run``.

    Raises:
        LhmLiveError: LHM was asked for by name and cannot be used; see ``find_lhm`` and ``prepare_run``.
    """
    if method == "projection":
        return None, "projection, as asked for"
    if method != "auto":
        run = _prepare(None if method == "lhm" else method, weights, device, precision)
        return run, f"{run.name}, as asked for"
    if weights is None and not networks_here():
        return None, "projection, as no weights of LHM are on this machine (lhm-live models lists them)"
    if photos > 1:
        return None, f"projection, as LHM looks at one photo and {photos} are given"
    reasons: list[str] = []
    for name in [None] if weights is not None else networks_here():
        try:
            run = _prepare(name, weights, device, precision)
        except LhmLiveError as error:
            reasons.append(str(error))
        else:
            return run, f"{run.name}, the best {'that fits' if reasons else 'whose weights are on this machine'}"
    return None, f"projection, as LHM cannot be used here: {reasons[-1]}"


def _prepare(variant: str | None, weights: Path | None, device: str | None, precision: "Precision | None") -> "LhmRun":
    files = find_lhm(variant, weights)
    if find_spec("torch") is None:
        raise BackendError(
            "LHM needs torch, which is not installed: pip install 'lhm-live[lhm]'; --method projection does without"
        )
    from lhm_runtime.reconstruction.lhm.run import prepare_run  # noqa: PLC0415

    return prepare_run(files, device, precision)
