"""A procedural patient: brain, tumour and four contrasts, made from formulas and random numbers.

Nothing is derived from a scan or an atlas. The brain is described in millimetres of an adult head (x to the right, y to
the front, z up) by depths: the distance of a point below a surface, negative outside. The voxels only sample this
description, so a patient has the same anatomy and tumour at any size of the volume.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

NOT_ENHANCING, SCATTERED = 1, 2  # indices of the two unusual patients

FIELD = (162.0, 202.0, 158.0)  # mm, a box that contains every brain; scaled to the largest that fits the volume
BRAIN = 1.5e6  # mm3, about the volume of a brain with its sulci
TISSUES = ("csf", "grey", "white", "vessel", "oedema", "enhancing", "necrotic")
SIGNAL = {  # by contrast, in the order of TISSUES
    "T1": (0.22, 0.60, 0.84, 0.45, 0.60, 0.55, 0.32),
    "T1ce": (0.22, 0.62, 0.85, 1.30, 0.60, 1.35, 0.30),
    "T2": (1.20, 0.64, 0.45, 0.50, 0.88, 0.70, 1.02),
    "FLAIR": (0.15, 0.62, 0.50, 0.35, 1.00, 0.76, 0.52),
}
Points = Sequence[np.ndarray]  # x, y and z in mm: three arrays that broadcast, or the three 1-D axes of a grid
Maps = dict[str, np.ndarray]  # volumes (x, y, z) by name


# Shapes and noise -----------------------------------------------------------------------------------------------------
def norm(vector: Sequence[np.ndarray]) -> np.ndarray:
    """Length of a vector given by its components."""
    return np.sqrt(sum(v * v for v in vector))


def ellipsoid(points: Points, centre: Sequence[float], radii: Sequence[float]) -> np.ndarray:
    """Depth (mm) below the surface of an ellipsoid, to first order."""
    offset = [p - c for p, c in zip(points, centre, strict=True)]
    level = norm([o / r for o, r in zip(offset, radii, strict=True)]) + 1e-3  # 1 on the surface
    slope = norm([o / r**2 for o, r in zip(offset, radii, strict=True)]) / level + 1e-6  # per mm
    return (1 - level) / slope


def union(*depths: np.ndarray, blend: float = 3.0) -> np.ndarray:
    """Depth below the surface of the union of several bodies; `blend` (mm) rounds the edges where they meet."""
    return blend * np.logaddexp.reduce([depth / blend for depth in depths])


def smooth_noise(rng: np.random.Generator, axes: Points, length: float) -> np.ndarray:
    """Gaussian noise of mean 0 and variance 1 that varies over `length` (mm), on the grid of three 1-D axes (mm).

    Not `scipy.ndimage.gaussian_filter` of white noise on the voxels: that would be another patient at another size.
    """
    knots = np.arange(-110 - 2 * length, 110 + 3 * length, length, dtype=np.float32)
    noise = rng.standard_normal((len(knots),) * 3, dtype=np.float32)
    for axis in axes:
        weights = np.exp(-0.5 * ((axis[:, None] - knots) / length) ** 2)  # (voxels, knots)
        weights[weights < 1e-6] = 0  # denormal numbers make the product slow
        weights /= np.linalg.norm(weights, axis=1, keepdims=True)
        noise = np.tensordot(noise, weights, axes=(0, 1))  # consumes the first axis, appends the new one
    return noise


def smooth_noise_at(rng: np.random.Generator, points: Points, length: float) -> np.ndarray:
    """Smooth noise at any points, not only those of a grid (slower)."""
    lattice = rng.standard_normal((48, 48, 48), dtype=np.float32)
    places = np.stack(points) / np.float32(length)
    return 2.2 * ndimage.map_coordinates(lattice, places, order=3, prefilter=False, mode="grid-wrap")


def distance_to_zero(field: np.ndarray, voxel: float) -> np.ndarray:
    """Distance (mm) to the curved surface on which a smooth field is 0, to first order."""
    return np.abs(field) / (norm(np.gradient(field, voxel)) + 0.01)


# Anatomy --------------------------------------------------------------------------------------------------------------
def cerebrum(points: Points) -> np.ndarray:
    """Depth (mm) below the smooth hull of the cerebrum: an egg with a flat base and two temporal lobes."""
    x, y, z = points
    egg = ellipsoid((x * (1 + 0.0014 * y), y, z), (0, 0, 2), (67, 85, 64))
    arch = 19 * np.exp(-((x / 32) ** 2) - ((y + 42) / 36) ** 2) - 35  # the base, higher above the cerebellum
    upper = -union(-egg, 0.8 * (arch - z), blend=4)
    return union(upper, ellipsoid((np.abs(x), y, z), (39, 0, -27), (26, 40, 23)))


def ventricles(points: Points, width: float) -> np.ndarray:
    """Depth (mm) in the ventricles; the lateral ones are two horns, bent outwards at the front and the back."""
    x, y, z = np.abs(points[0]), points[1], points[2]
    along = (-60, -50, -36, -10, 14, 28, 36)  # y of the knots, from the back to the front
    aside, above = np.interp(y, along, (27, 26, 22, 9, 8, 13, 17)), np.interp(y, along, (-3, -1, 4, 15, 11, 4, -1))
    radius = width * np.interp(y, along, (-2, 3.5, 6.5, 4.5, 5, 4, -2))
    horns = radius - np.hypot(x - aside, 0.75 * (z - above))
    third, fourth = ellipsoid(points, (0, -10, -5), (2.2, 14, 10)), ellipsoid(points, (0, -41, -38), (6, 6, 9))
    return np.maximum.reduce([horns.astype(np.float32), third, fourth])


def anatomy(rng: np.random.Generator, axes: Points, points: Points) -> Maps:
    """Depths (mm) in the brain, its tissue without the sulci, white matter, nuclei, ventricles and vessels."""
    x, y, z = np.abs(points[0]), points[1], points[2]  # one formula for left and right
    voxel = float(axes[0][1] - axes[0][0])
    wave = smooth_noise(rng, axes, 9)

    # Sulci are surfaces that run inwards from the hull: the zeros of a noise that varies little along the radius.
    hull = cerebrum(points)
    offset = [p + 3.5 * smooth_noise(rng, axes, 6) for p in (x - 20, 0.75 * y, z)]
    stretch = np.sqrt(58 / (norm(offset) + 1))
    sheet = distance_to_zero(smooth_noise_at(rng, [o * stretch for o in offset], 7) + 0.3 * wave, voxel)
    floor = 20 + 5 * smooth_noise(rng, axes, 15)  # mm below the hull, or from the midline
    centre = np.maximum(ellipsoid(points, (0, -6, -4), (36, 42, 28)), 0)  # callosum to midbrain, without sulci
    sulci = norm([sheet, np.maximum(np.minimum(hull, x + 6) - floor, 0), centre]) - 0.9
    fissure = np.hypot(points[0] + 0.8 * wave, centre) - 1.2
    slant = 0.9 * (z + 4 - 0.45 * y) + 3 * wave  # the lateral fissure, which ends at the insula
    lateral = norm([slant, np.maximum(38 - x, 0), np.maximum(np.abs(y - 2) - 26, 0)]) - 1.1
    cortex = np.minimum.reduce([hull - 1.2, sulci, fissure, lateral])

    stem = ellipsoid(points, (0, -24, -42), (13, 13, 30))
    cerebellum = ellipsoid((x, y, z), (19, -50, -38), (33, 30, 25))
    fan = 3.5 - np.abs((30 * np.arctan2(z + 38, -22 - y) + 1.5 * wave) % 7 - 3.5)  # mm to its nearest sulcus
    leaves = np.minimum(cerebellum - 1.2, norm([fan, np.maximum(cerebellum - 13, 0), np.maximum(y + 42, 0)]) - 0.5)

    nuclei = [((11, -16, -1), (9, 15, 9)), ((26, 4, -2), (6.5, 17, 10)), ((13.5, 20, 4), (5, 10, 9))]
    vessels = 1 - np.hypot(sheet, distance_to_zero(smooth_noise(rng, axes, 8), voxel))  # lines where two surfaces meet
    sinus = 0.08 * np.clip(z, -20, 20) - np.hypot(points[0], hull - 2)  # along the top of the midline
    return {
        "brain": union(hull, cerebellum, stem),
        "tissue": np.maximum.reduce([cortex, leaves, stem - 1]),
        "white": np.maximum.reduce([cortex - 3.2, leaves - 1.7, stem - 2]),
        "nuclei": np.maximum.reduce([ellipsoid((x, y, z), *nucleus) for nucleus in nuclei]),
        "ventricles": ventricles(points, width=rng.uniform(0.75, 1.25)),
        "vessels": np.maximum(np.minimum.reduce([vessels, 14 - hull, hull + 2]), sinus),
    }


# Tumour ---------------------------------------------------------------------------------------------------------------
def plan_lesions(rng: np.random.Generator, count: int) -> np.ndarray:
    """x, y, z of the centre, radius, and radius of the core of each lesion, in mm (count, 5)."""
    share = rng.uniform(0.03, 0.08) if count == 1 else 0.06  # volume of all lesions as a share of the brain
    radii = np.cbrt(0.75 / np.pi * share * BRAIN / count) * rng.uniform(0.85, 1.1, count)
    drawn = rng.uniform(-0.5, 0.5, (8000, 3)) * FIELD
    deep, apart = cerebrum(list(drawn.T)) > 6 + 0.6 * radii.max(), np.abs(drawn[:, 0]) > 8 + 0.4 * radii.max()
    first, *others = np.array_split(drawn[deep & apart], count)
    centres = first[:1]
    for candidates in others:  # take the one that is farthest from all lesions so far
        gaps = np.linalg.norm(candidates[:, None] - centres, axis=-1).min(axis=1)
        centres = np.vstack([centres, candidates[gaps.argmax()]])
        radii[len(centres) - 1] = min(radii[len(centres) - 1], max(gaps.max() / 2 - 5, 4))
    return np.column_stack([centres, radii, radii * rng.uniform(0.55, 0.7, count)]).astype(np.float32)


def away(points: Points, centre: Sequence[float]) -> np.ndarray:
    """Distance (mm) to a centre."""
    return norm([p - c for p, c in zip(points, centre, strict=True)])


def displaced(rng: np.random.Generator, axes: Points, lesions: np.ndarray) -> Points:
    """The position of each voxel in the common brain: scaling, a smooth warp, displacement by tumours."""
    grid = np.ix_(*axes)
    growth = rng.uniform(0.95, 1.05, 3).astype(np.float32)
    points = [g * k + 2.5 * smooth_noise(rng, axes, 28) for g, k in zip(grid, growth, strict=True)]
    for *centre, radius, core in lesions:
        distance = away(grid, centre)
        push = 0.35 * core / (distance + core) * np.exp(-((distance / radius) ** 2))
        points = [p - push * (g - c) for p, g, c in zip(points, grid, centre, strict=True)]
    return points


def tumour(rng: np.random.Generator, axes: Points, lesions: np.ndarray, normal: Maps, enhances: bool) -> Maps:
    """Depths (mm) in the oedema, in the core, and in the necrosis within the core; the rest of the core enhances."""
    grid = np.ix_(*axes)
    size = float(lesions[:, 4].mean())
    oedema = np.maximum.reduce([radius - away(grid, centre) for *centre, radius, _ in lesions])
    core = np.maximum.reduce([radius - away(grid, centre) for *centre, _, radius in lesions])
    core = np.minimum(core + 0.25 * size * smooth_noise(rng, axes, 0.45 * size), normal["brain"] - 2)
    voxel = float(axes[0][1] - axes[0][0])
    attraction = ndimage.gaussian_filter(np.clip(normal["white"], -6, 3), 2.5 / voxel)  # oedema prefers white matter
    oedema = oedema + 0.3 * size * smooth_noise(rng, axes, 0.45 * size) + attraction
    limits = normal["brain"] - 1.5, normal["tissue"] + 1, -normal["ventricles"]  # closes narrow sulci
    oedema = np.minimum.reduce([oedema, *limits])
    ring = 0.24 * size * (1 + 0.35 * smooth_noise(rng, axes, 0.4 * size))
    ring = enhances * np.maximum(ring, max(2, 0.8 * voxel))  # a closed ring at any voxel size
    return {"oedema": oedema, "core": core, "necrosis": core - ring}


# Patients -------------------------------------------------------------------------------------------------------------
def tissue_shares(normal: Maps, ill: Maps, voxel: float) -> Maps:
    """The fraction of each voxel that each tissue fills, later tissues over earlier ones; fractions sum to 1."""
    shares = {tissue: np.full_like(normal["brain"], tissue == "csf") for tissue in TISSUES}
    for tissue, depth, opacity in [
        ("grey", normal["tissue"], 1),
        ("white", normal["white"], 1),
        ("grey", np.minimum(normal["nuclei"], normal["white"]), 0.65),
        ("csf", normal["ventricles"], 1),
        ("oedema", ill["oedema"], 0.9),
        ("vessel", normal["vessels"], 1),
        ("enhancing", ill["core"], 1),
        ("necrotic", ill["necrosis"], 1),
    ]:
        cover = opacity * np.clip(depth / voxel + 0.5, 0, 1)
        for share in shares.values():
            share *= 1 - cover
        shares[tissue] += cover
    return shares


def scan(rng: np.random.Generator, axes: Points, shares: Maps, signal: Sequence[float]) -> np.ndarray:
    """The image of the tissues: signal with texture, a bias field, Rician noise and a random gain; 1 or more."""
    gain = np.exp(rng.uniform(np.log(250), np.log(1500)))
    strength = (np.array(signal) * rng.normal(1, 0.02, len(signal))).astype(np.float32)
    image = sum(shares[tissue] * value for tissue, value in zip(TISSUES, strength, strict=True))
    ill = shares["oedema"] + shares["enhancing"] + shares["necrotic"]
    image = image * (1 + (0.02 + 0.08 * ill) * smooth_noise(rng, axes, 3.5))
    image = image * np.exp(0.1 * smooth_noise(rng, axes, 60))
    noise = 0.018 * rng.standard_normal((2, *image.shape), dtype=np.float32)
    return np.maximum(np.rint(np.float32(gain) * np.hypot(image + noise[0], noise[1])), 1)


def make_patient(
    seed: int, index: int, shape: Sequence[int], lesions: int | None = None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Make one patient, which depends only on seed and index, not on the data set or the number of patients.

    Returns:
        The images by modality (int16) and the label (uint8: 0 background, 1 necrotic, 2 oedema, 3 enhancing), all of
        the given shape and in RAS order.
    """
    rng = np.random.default_rng([seed, index])
    scale = min(edge / side for edge, side in zip(shape, FIELD, strict=True))  # voxels per mm of the adult head
    box = [min(edge, round(side * scale)) for edge, side in zip(shape, FIELD, strict=True)]
    axes = [(np.arange(edge, dtype=np.float32) - (edge - 1) / 2) / np.float32(scale) for edge in box]

    plan = plan_lesions(rng, lesions or (10 if index == SCATTERED else 1))
    normal = anatomy(rng, axes, displaced(rng, axes, plan))
    ill = tumour(rng, axes, plan, normal, enhances=index != NOT_ENHANCING)
    shares = tissue_shares(normal, ill, 1 / scale)

    brain = normal["brain"] > 0
    inside = tuple(slice((edge - b) // 2, (edge - b) // 2 + b) for edge, b in zip(shape, box, strict=True))
    label = np.zeros(shape, np.uint8)
    label[inside] = brain * np.select([ill["necrosis"] > 0, ill["core"] > 0, ill["oedema"] > 0], [1, 3, 2])
    images = {modality: np.zeros(shape, np.int16) for modality in SIGNAL}
    for stream, (modality, image) in zip(rng.spawn(len(images)), images.items(), strict=True):
        image[inside] = brain * scan(stream, axes, shares, SIGNAL[modality])
    return images, label
