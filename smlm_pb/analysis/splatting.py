"""Adding millions of Gaussian spots to an image, quickly and in bounded memory.

Every molecule becomes a Gaussian of its own width, integrated over the pixels, with total weight one. Drawing them
one by one costs a window per molecule; instead the molecules are sorted by tile and by width, each is laid on the
grid with a quadratic B-spline (nine pixels), and a whole width class is blurred at once by a product in Fourier
space. Mean and variance of every spot are exact, wherever it lies between the pixels: the B-spline always adds a
variance of 1/4 px², which the blur leaves out, and a molecule between two classes is shared by both so that the
variances add up to its own. The higher moments are approximate: a single spot differs from the exact one by at most
3 % of its peak.

Narrow spots are drawn on a grid twice as fine, and those below half a pixel directly on 5 × 5 pixels. Where a class has
few spots they are drawn one by one, exactly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.intp]

#: Spots wider than this many pixels are drawn with this width; it bounds the margin of a tile.
LARGEST_SIGMA_PX = 256.0

_DIRECT_BELOW_PX = 0.5
_DIRECT_REACH = 2
_FINE_BELOW_PX = 1.4
# Width classes per factor of two. A spot halfway between two classes is a mixture of both; its peak is then too
# high by (r^¼ − r^-¼)² with r the ratio of the variances: 1.3 % here.
_CLASSES_PER_OCTAVE = 6
# Large enough for the margins to be small, small enough for a tile to stay in the processor's cache.
_TILE_PX = 448
_CHUNK = 200_000
# Spots whose windows together cover fewer tiles than this are drawn one by one, quicker than by a transform.
_FEW = 2.0
# Truncating the spots at four sigma loses 6e-5 of their weight along each axis.
_REACH = 4.0


class _Spots(NamedTuple):
    """Positions, widths and, where there are several channels or weights, weights: per spot, or in a palette."""

    x: Float32Array
    y: Float32Array
    sigma: Float32Array
    weights: npt.NDArray[Any] | None
    palette: Float32Array | None

    def rows(self, rows: slice | npt.NDArray[Any]) -> _Spots:
        weights = None if self.weights is None else self.weights[rows]
        return _Spots(self.x[rows], self.y[rows], self.sigma[rows], weights, self.palette)

    def channels(self) -> Float32Array | None:
        """Weight of every spot in every channel (n, channels)."""
        if self.weights is None or self.palette is None:
            return self.weights
        return self.palette[self.weights]


class _WidthClasses(NamedTuple):
    """Widths at which spots are drawn: ``low · 2^(k / classes per octave)``, k = 0 … n − 1."""

    low: float
    n: int

    def sigma(self, k: int) -> float:
        return self.low * 2.0 ** (k / _CLASSES_PER_OCTAVE)

    def below(self, sigma: Float32Array) -> npt.NDArray[np.int32]:
        """The class next below each width."""
        k = (np.log2(np.maximum(sigma, self.low) / np.float32(self.low)) * _CLASSES_PER_OCTAVE).astype(np.int32)
        return np.clip(k, 0, max(self.n - 2, 0))

    def share_of(self, k: int, sigma: Float32Array) -> Float32Array:
        """What class k gets of spots between it and the next, so that the mixture has their variance."""
        if self.n == 1:
            return np.ones(len(sigma), np.float32)
        here, next_one = self.sigma(k) ** 2, self.sigma(k + 1) ** 2
        return np.clip((next_one - sigma**2) / np.float32(next_one - here), 0, 1)


def add_spots(
    image: Float32Array,
    x_px: npt.NDArray[Any],
    y_px: npt.NDArray[Any],
    sigma_px: npt.NDArray[Any],
    weights: npt.NDArray[Any] | None = None,
    palette: npt.NDArray[Any] | None = None,
) -> None:
    """Add pixel-integrated Gaussian spots to an image, in place.

    Parameters
    ----------
    image : float32 array (height, width) or (height, width, channels)
        What is added to.
    x_px, y_px : array (n,)
        Positions in pixels of the image, the centre of the first pixel at 0. Spots outside the image count with
        what reaches into it.
    sigma_px : array (n,)
        Standard deviation of each spot in pixels of the image, finite and ≥ 0; 0 puts all weight into one pixel.
    weights : array (n,) or (n, channels), optional
        Total weight of each spot, per channel; one when not given.
    palette : array (k, channels), optional
        With it ``weights`` are rows of the palette, one whole number per spot.
    """
    height, width = image.shape[:2]
    layers = image if image.ndim == 3 else image[:, :, None]
    spots = _Spots(
        np.asarray(x_px, np.float32),
        np.asarray(y_px, np.float32),
        np.minimum(np.asarray(sigma_px, np.float32), np.float32(LARGEST_SIGMA_PX)),
        _as_channels(weights, len(x_px), layers.shape[2]) if palette is None else weights,
        None if palette is None else np.asarray(palette, np.float32),
    )
    spots = _those_that_reach(spots, height, width)
    if not len(spots.x):
        return
    wide = spots.sigma[spots.sigma >= _DIRECT_BELOW_PX]
    low, high = (float(wide.min()), float(wide.max())) if len(wide) else (1.0, 1.0)
    n_classes = 1 if high <= low * (1 + 1e-6) else int(np.ceil(np.log2(high / low) * _CLASSES_PER_OCTAVE)) + 1
    classes = _WidthClasses(low, n_classes)
    n_columns = -(-width // _TILE_PX)
    n_tiles = -(-height // _TILE_PX) * n_columns
    key = _sorting_key(spots, height, width, n_columns, n_tiles, classes)
    order = np.argsort(key, kind="stable")
    bounds = np.cumsum(np.bincount(key, minlength=n_tiles * (n_classes + 1)))
    for tile in range(n_tiles):
        ends = bounds[tile * (n_classes + 1) : (tile + 1) * (n_classes + 1)]
        start = int(bounds[tile * (n_classes + 1) - 1]) if tile else 0
        if ends[-1] > start:
            _add_tile(layers, spots.rows(order[start : ends[-1]]), np.concatenate([[0], ends - start]), classes)


def _as_channels(weights: npt.NDArray[Any] | None, n: int, n_channels: int) -> Float32Array | None:
    if weights is None:
        return None
    table = np.asarray(weights, np.float32)
    return np.broadcast_to(table[:, None] if table.ndim == 1 else table, (n, n_channels))


def _those_that_reach(spots: _Spots, height: int, width: int) -> _Spots:
    margin = _REACH * spots.sigma + 2
    reaches = (spots.x > -margin) & (spots.x < width + margin) & (spots.y > -margin) & (spots.y < height + margin)
    return spots if reaches.all() else spots.rows(reaches)


def _sorting_key(
    spots: _Spots, height: int, width: int, n_columns: int, n_tiles: int, classes: _WidthClasses
) -> npt.NDArray[Any]:
    """Number of tile and width class; class 0 are the spots drawn directly, class k + 1 is width class k."""
    # For 16 bits numpy sorts in linear time.
    kind: Any = np.uint16 if n_tiles * (classes.n + 1) < 2**16 else np.int64
    key: npt.NDArray[Any] = (np.clip(spots.y, 0, height - 1) // _TILE_PX).astype(kind) * kind(n_columns)
    key += (np.clip(spots.x, 0, width - 1) // _TILE_PX).astype(kind)
    key *= kind(classes.n + 1)
    key += np.where(spots.sigma < _DIRECT_BELOW_PX, -1, classes.below(spots.sigma)).astype(np.int32).astype(
        kind
    ) + kind(1)
    return key


def _add_tile(layers: Float32Array, spots: _Spots, bounds: npt.NDArray[Any], classes: _WidthClasses) -> None:
    """Draw the spots of one tile, sorted by class; ``bounds[k + 1]`` to ``bounds[k + 2]`` are those of class k."""
    if bounds[1]:
        _add_directly(layers, spots.rows(slice(0, int(bounds[1]))), _DIRECT_REACH)
    blurred: dict[int, list[tuple[int, _Spots]]] = {1: [], 2: []}
    for k in range(classes.n):
        part = spots.rows(slice(int(bounds[k + 1]), int(bounds[k + 2])))
        if not len(part.x):
            continue
        oversampling = 2 if classes.sigma(k) < _FINE_BELOW_PX else 1
        reach = int(np.ceil(_REACH * classes.sigma(k + 1)))
        if len(part.x) * (2 * reach + 1) ** 2 < _FEW * (oversampling * _TILE_PX) ** 2:
            _add_directly(layers, part, reach)
        else:
            blurred[oversampling].append((k, part))
    for oversampling, parts in blurred.items():
        if parts:
            _add_blurred(layers, parts, classes, oversampling)


def _paste(layer: Float32Array, tile: npt.NDArray[Any], top: int, left: int) -> None:
    height, width = layer.shape
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + tile.shape[0], height), min(left + tile.shape[1], width)
    if y0 < y1 and x0 < x1:
        layer[y0:y1, x0:x1] += tile[y0 - top : y1 - top, x0 - left : x1 - left]


def _spread(
    spots: _Spots,
    factors: list[Float32Array],
    centre: IntArray,
    share_y: Float32Array,
    share_x: Float32Array,
    n_columns: int,
    shape: tuple[int, int],
) -> Float32Array:
    """Sums of the products of the shares around each centre cell, in flat images (cells, channels · factors).

    Each factor (one per spot; none for 1) makes images of its own, side by side.
    """
    from scipy.sparse import csc_array

    n_cells, n_channels = shape
    reach = share_y.shape[1] // 2
    steps = np.arange(-reach, reach + 1)
    around = (steps[:, None] * n_columns + steps).ravel().astype(np.int32)
    n, n_around = len(centre), len(around)
    cells = (centre.astype(np.int32)[:, None] + around).ravel()
    amount = (share_y[:, :, None] * share_x[:, None, :]).ravel()
    colours = spots.channels()
    if colours is None:
        colours = np.ones((n, n_channels), np.float32)
    weighted = np.concatenate([colours * factor[:, None] for factor in factors], axis=1) if factors else colours
    # One column per spot: the product adds up all channels of all images in one pass.
    bounds = np.arange(0, n_around * n + 1, n_around, dtype=np.int32)
    return csc_array((amount, cells, bounds), shape=(n_cells, n)) @ weighted


# -- narrow or few spots: pixel by pixel ------------------------------------------------------------------------


def _add_directly(layers: Float32Array, spots: _Spots, reach: int) -> None:
    """Draw every spot on its own window of ``2 · reach + 1`` pixels."""
    pixel_y, pixel_x = (np.floor(position + np.float32(0.5)).astype(np.intp) for position in (spots.y, spots.x))
    top, left = int(pixel_y.min()) - reach, int(pixel_x.min()) - reach
    shape = (int(pixel_y.max()) + reach + 1 - top, int(pixel_x.max()) + reach + 1 - left)
    sums = np.zeros((shape[0] * shape[1], layers.shape[2]), np.float32)
    chunk = max(1, 9 * _CHUNK // (2 * reach + 1) ** 2)
    for start in range(0, len(spots.x), chunk):
        rows = slice(start, start + chunk)
        part = spots.rows(rows)
        centre = (pixel_y[rows] - top) * shape[1] + (pixel_x[rows] - left)
        share_y = _pixel_shares(part.y - pixel_y[rows], part.sigma, reach)
        share_x = _pixel_shares(part.x - pixel_x[rows], part.sigma, reach)
        sums += _spread(part, [], centre, share_y, share_x, shape[1], sums.shape)
    for c in range(layers.shape[2]):
        _paste(layers[:, :, c], sums[:, c].reshape(shape), top, left)


def _pixel_shares(offset: npt.NDArray[Any], sigma: Float32Array, reach: int) -> Float32Array:
    """Share of a spot in the pixels of its window along one axis (n, 2 · reach + 1)."""
    from scipy.special import ndtr

    scale = 1 / np.maximum(sigma, np.float32(1e-6))
    steps = np.arange(2 * reach + 2, dtype=np.float32) - np.float32(reach + 0.5)
    share = np.diff(ndtr((steps - offset.astype(np.float32)[:, None]) * scale[:, None]), axis=1)
    share /= np.maximum(share.sum(axis=1, keepdims=True), np.float32(1e-12))
    return share


# -- wider spots: B-spline and Fourier blur per width class ----------------------------------------------------


def _add_blurred(
    layers: Float32Array, parts: list[tuple[int, _Spots]], classes: _WidthClasses, oversampling: int
) -> None:
    """Draw spots by width class; ``parts`` are classes, ascending, each with the spots between it and the next."""
    from scipy import fft

    margin = int(np.ceil(_REACH * classes.sigma(min(parts[-1][0] + 1, classes.n - 1)))) + 2
    top = int(np.floor(min(spots.y.min() for _, spots in parts))) - margin
    left = int(np.floor(min(spots.x.min() for _, spots in parts))) - margin
    bottom = int(np.ceil(max(spots.y.max() for _, spots in parts))) + margin + 1
    right = int(np.ceil(max(spots.x.max() for _, spots in parts))) + margin + 1
    # Several pixels of the fine grid share the area of one pixel of the image.
    n_rows, n_columns = (oversampling * fft.next_fast_len(size, real=True) for size in (bottom - top, right - left))
    squared_frequency = fft.fftfreq(n_rows)[:, None] ** 2 + fft.rfftfreq(n_columns) ** 2
    exponent = (-2 * np.pi**2 * squared_frequency).astype(np.float32)
    spectra = np.zeros((layers.shape[2], n_rows, n_columns // 2 + 1), np.complex64)

    def blur(sums: Float32Array, k: int) -> None:
        # The B-spline adds 1/4 px², of which the integration over a pixel would anyway add 1/12.
        transfer = np.exp(exponent * np.float32((classes.sigma(k) * oversampling) ** 2 - 1 / 6))
        for c, layer in enumerate(sums.T):
            spectra[c] += fft.rfft2(np.ascontiguousarray(layer).reshape(n_rows, n_columns), workers=2) * transfer

    n_channels = layers.shape[2]
    waiting: dict[int, Float32Array] = {}
    for k, spots in parts:
        for done in [number for number in waiting if number < k]:
            blur(waiting.pop(done), done)
        for start in range(0, len(spots.x), _CHUNK):
            part = spots.rows(slice(start, start + _CHUNK))
            share = classes.share_of(k, part.sigma)
            factors = [share, 1 - share][: classes.n - k]
            row, share_y = _spline_shares((part.y - top) * oversampling + np.float32((oversampling - 1) / 2))
            column, share_x = _spline_shares((part.x - left) * oversampling + np.float32((oversampling - 1) / 2))
            centre, shape = row * n_columns + column, (n_rows * n_columns, n_channels)
            added = _spread(part, factors, centre, share_y, share_x, n_columns, shape)
            for number in range(k, k + len(factors)):
                own = added[:, (number - k) * n_channels : (number - k + 1) * n_channels]
                waiting[number] = waiting[number] + own if number in waiting else own
    for number, sums in waiting.items():
        blur(sums, number)

    for c in range(layers.shape[2]):
        tile = fft.irfft2(spectra[c], s=(n_rows, n_columns), workers=2)
        tile = tile.reshape(n_rows // oversampling, oversampling, -1, oversampling).sum(axis=(1, 3))
        # The Fourier blur leaves noise of the order of 1e-7 where nothing is.
        _paste(layers[:, :, c], np.maximum(tile, 0), top, left)


def _spline_shares(position: Float32Array) -> tuple[IntArray, Float32Array]:
    """Nearest cell, and the share of the three cells around it: sum 1, exact mean, variance 1/4 everywhere."""
    cell = np.floor(position + np.float32(0.5))
    offset = position - cell
    share = np.empty((len(position), 3), np.float32)
    share[:, 0] = (np.float32(0.5) - offset) ** 2 / 2
    share[:, 1] = np.float32(0.75) - offset**2
    share[:, 2] = (np.float32(0.5) + offset) ** 2 / 2
    return cell.astype(np.intp), share
