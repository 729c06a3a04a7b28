"""The scores of run_eval.py: how much of the exposures' structure a fused picture keeps, and how it looks.

Gray pictures are (H, W), stacks of exposures (K, H, W), any K >= 1, with values 0..255 in any dtype, never 0..1; colour
pictures are (H, W, 3) BGR uint8. Everything is computed in float64. Three different quantities are published as
"MEF-SSIM": here `mef_ssim` is the 2015 definition, `mef_ssim_lum` the later variant that MEFNet is trained with.
"""

import functools
import warnings
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from utils.errors import UserError, optional
from utils.pictures.pixels import size_of

WINDOW = 11  # side of the patches, in pixels
EDGE = WINDOW // 2
N = WINDOW * WINDOW
EPS = np.finfo(np.float64).eps
SCALE_WEIGHTS = np.array([0.0448, 0.2856, 0.3001]) / 0.6305  # the three finest of MS-SSIM's, normalised
STRIP_PIXELS = 1 << 18  # pixels per strip: its intermediate planes fit in the cache
UNCLIPPED = (0.05 * 255, 0.95 * 255)  # range of B, G and R outside which noise or clipping may change a colour
COLOURED = 10  # CIELAB chroma below which a hue is hardly visible and mostly noise


def matlab_gray(image: np.ndarray) -> np.ndarray:
    """Returns the gray picture (H, W) float64 of whole numbers 0..255 that Matlab's rgb2gray makes of BGR uint8.

    Its weights are the first row of the inverse of NTSC's YIQ matrix (documented as 0.2989, 0.5870, 0.1140), and it
    rounds halves up. All published MEF-SSIM figures were computed on such pictures.
    """
    _check_colour(image)
    weights = (0.114020904255103, 0.587043074451121, 0.298936021293775)  # B, G, R
    return np.floor(image.astype(np.float64) @ np.array(weights) + 0.5)


def mef_ssim(fused: np.ndarray, stack: np.ndarray) -> float:
    """Returns MEF-SSIM (Ma, Zeng and Wang, TIP 2015, doi 10.1109/TIP.2015.2442920), at most 1: higher is better.

    Each 11x11 patch is compared with a desired patch: a blend of the exposures' structures, with the contrast of the
    strongest exposure. Three scales are combined as Q1^0.071 Q2^0.453 Q3^0.476. Brightness does not count: adding a
    constant to `fused` changes nothing. To compare with published figures, convert all pictures by `matlab_gray`, and
    `fused` after it was saved. The computation is the authors' Matlab code in closed form: each norm is a quadratic
    form in the covariances of the inputs under a box or a Gaussian window.

    Args:
        fused: (H, W), 0..255.
        stack: (K, H, W), 0..255, the exposures in any order.

    Raises:
        ValueError: Wrong shapes or range, or a side under MIN_SIDE pixels.
    """
    return combine_scales(mef_ssim_scales(fused, stack, len(SCALE_WEIGHTS)))


def mef_ssim_scales(fused: np.ndarray, stack: np.ndarray, scales: int = 6) -> np.ndarray:
    """Returns the scale profile (scales,): the mean of MEF-SSIM's 2015 map at each dyadic scale, finest first.

    The published number uses the first three scales. A halo around a window or a grey veil over the scene shows only in
    the coarser ones. A scale at which a side is under 11 pixels is NaN. Arguments and errors as for `mef_ssim`.
    """
    fused, stack = _checked(fused, stack)
    smallest = WINDOW << (len(SCALE_WEIGHTS) - 1)
    if min(fused.shape) < smallest:
        raise UserError(f"MEF-SSIM needs pictures of at least {smallest}x{smallest} pixels, got {size_of(fused)}")
    profile = np.full(scales, np.nan)
    for scale in range(scales):
        if min(fused.shape) < WINDOW:
            break
        rows = max(1, STRIP_PIXELS // fused.shape[1])
        strips = [slice(top, top + rows + 2 * EDGE) for top in range(0, fused.shape[0] - 2 * EDGE, rows)]
        maps = [_structure_map(fused[strip], stack[:, strip]) for strip in strips]
        profile[scale] = sum(m.sum() for m in maps) / sum(m.size for m in maps)
        fused, stack = _halved(fused), np.stack([_halved(x) for x in stack])
    return profile


def combine_scales(profile: np.ndarray) -> float:
    """Returns MEF-SSIM from a scale profile: the weighted product of its three finest scales.

    A negative value (inverted structure) has no real power: it is replaced by a tiny positive one, with a warning.
    """
    finest = profile[: len(SCALE_WEIGHTS)]
    if (finest <= 0).any():
        warnings.warn("MEF-SSIM: inverted structure, a scale's score below 0 was raised to just above it", stacklevel=2)
    return float(np.prod(np.maximum(finest, EPS) ** SCALE_WEIGHTS))


def mef_ssim_lum(fused: np.ndarray, stack: np.ndarray) -> float:
    """Returns MEFNet's training and test metric (Ma et al., TIP 2020, its mefssim.py): higher is better.

    Often published as "MEF-SSIM", but another quantity: the mean of a structure map times the mean of a luminance map,
    at one scale, with a Gaussian window of sigma 11/6 and zero padding, so that the border counts. Structure compares
    with the exposure whose patch has the largest variance. Luminance compares with a mean of the exposures, weighted by
    how well each is exposed in the patch and as a whole. (MEFNet uses float luma instead of `matlab_gray`: a difference
    of less than 0.001.)

    Args:
        fused: (H, W), 0..255.
        stack: (K, H, W), 0..255, the exposures in any order.
    """
    fused, stack = _checked(fused, stack)
    fused, stack = fused / 255, stack / 255
    c1, c2 = 0.01**2, 0.03**2

    def blur(x: np.ndarray) -> np.ndarray:
        return _gaussian(x, WINDOW, WINDOW / 6, cv2.BORDER_CONSTANT)

    def exposedness(x: np.ndarray) -> np.ndarray:
        return np.exp(-((x - 0.5) ** 2) / (2 * 0.2**2))

    mean_f = blur(fused)
    var_f = blur(fused * fused) - mean_f**2
    most, structure = np.full(fused.shape, -np.inf), np.empty(fused.shape)
    wanted, total = np.zeros(fused.shape), np.zeros(fused.shape)
    for x in stack:
        mean = blur(x)
        var = blur(x * x) - mean**2
        cov = blur(fused * x) - mean_f * mean
        stronger = var > most
        structure[stronger] = ((2 * cov + c2) / (var_f + var + c2))[stronger]
        most[stronger] = var[stronger]
        weight = exposedness(mean.mean()) * exposedness(mean)
        wanted += weight * mean
        total += weight
    wanted /= total
    luminance = (2 * mean_f * wanted + c1) / (mean_f**2 + wanted**2 + c1)
    return float(luminance.mean() * structure.mean())


def q_abf(fused: np.ndarray, stack: np.ndarray) -> float:
    """Returns Q^AB/F (Xydeas and Petrovic, Electronics Letters 2000), 0..1: the share of the inputs' edges kept.

    Compares Sobel strength and orientation of each input with those of the fused picture, through the published
    sigmoids, weighted by the input's edge strength; 1 if no input has an edge. As in the common code (MEFB and others),
    the difference of orientations, each in (-pi/2, pi/2], is not wrapped around, so noise can lower the value of
    near-vertical edges; unlike that code, equal edge strengths have the ratio 1. MEFB averages over R, G and B.
    Arguments as for `mef_ssim`.
    """
    fused, stack = _checked(fused, stack)
    strength_f, angle_f = _edges(fused)
    kept, total = 0.0, 0.0
    for x in stack:
        strength, angle = _edges(x)
        larger = np.maximum(strength, strength_f)
        ratio = np.divide(np.minimum(strength, strength_f), larger, out=np.ones_like(larger), where=larger > 0)
        alike = 1 - np.abs(angle - angle_f) / (np.pi / 2)
        q = 0.9994 / (1 + np.exp(-15 * (ratio - 0.5))) * 0.9879 / (1 + np.exp(-22 * (alike - 0.8)))
        kept += (q * strength).sum()
        total += strength.sum()
    return float(kept / total) if total > 0 else 1.0


def viff(fused: np.ndarray, stack: np.ndarray) -> float:
    """Returns VIFF, visual information fidelity for fusion (Han et al., Information Fusion 14, 2013): higher is better.

    At each pixel and scale, only the exposure with the smallest regression gain counts. The score of a scale is the
    visual information of these exposures that the fused picture keeps, over all that they have; the four scales are
    weighted 1, 0, 0.15 and 1 over 2.15. Stronger contrast than the inputs' gives values above 1; it is 1 if no input
    has any information. It follows the author's code, which takes CIELAB lightness of colour pictures; here the caller
    chooses the plane. Arguments as for `mef_ssim`.

    Raises:
        ValueError: Wrong shapes or range, or a side under 41 pixels.
    """
    fused, stack = _checked(fused, stack)
    if min(fused.shape) < 41:
        raise UserError(f"VIFF needs pictures of at least 41x41 pixels, got {size_of(fused)}")
    noise, tiny, ratios = 0.005 * 255 * 255, 1e-10, []
    for scale, window in enumerate((17, 9, 5, 3)):
        if scale:
            fused, *stack = (_valid_gaussian(x, window, window / 5)[::2, ::2] for x in (fused, *stack))

        def blur(x: np.ndarray, window: int = window) -> np.ndarray:
            return _valid_gaussian(x, window, window / 5)

        mean_f = blur(fused)
        var_f = np.maximum(blur(fused * fused) - mean_f**2, 0)
        least = np.full(mean_f.shape, np.inf)
        kept, full = np.empty(mean_f.shape), np.empty(mean_f.shape)
        for x in stack:
            mean = blur(x)
            var = np.maximum(blur(x * x) - mean**2, 0)
            cov = blur(fused * x) - mean_f * mean
            gain = np.where(np.minimum(var, var_f) > tiny, np.maximum(cov, 0) / (var + tiny), 0)
            distortion = np.maximum(var_f - gain * cov, tiny)
            fewer = gain < least
            least[fewer] = gain[fewer]
            kept[fewer] = np.log10(1 + gain**2 * var / (distortion + noise))[fewer]
            full[fewer] = np.log10(1 + var / noise)[fewer]
        ratios.append((kept + 1e-7).sum() / (full + 1e-7).sum())
    return float(np.dot(ratios, (1, 0, 0.15, 1)) / 2.15)


def entropy(gray: np.ndarray) -> float:
    """Returns the entropy in bits of the histogram of a gray picture (H, W) of whole numbers. Noise raises it."""
    from skimage.measure import shannon_entropy  # imported here: MEF-SSIM works without scikit-image

    return float(shannon_entropy(_checked_gray(gray)))


def average_gradient(gray: np.ndarray) -> float:
    """Returns the average gradient of (H, W), 0..255, over (H - 1)(W - 1) as MEFB does. Noise and halos raise it."""
    gray = _checked_gray(gray)
    dy, dx = np.gradient(gray)
    return float(np.sqrt((dx**2 + dy**2) / 2).sum() / ((gray.shape[0] - 1) * (gray.shape[1] - 1)))


def spatial_frequency(gray: np.ndarray) -> float:
    """Returns the root of the squared steps between neighbours, summed and divided by H W, of (H, W), 0..255 (MEFB's).

    Noise, halos and sharpening raise it.
    """
    gray = _checked_gray(gray)
    return float(np.sqrt(((np.diff(gray, axis=0) ** 2).sum() + (np.diff(gray, axis=1) ** 2).sum()) / gray.size))


def standard_deviation(gray: np.ndarray) -> float:
    """Returns the standard deviation of (H, W), 0..255. Over-enhancement raises it."""
    return float(np.std(_checked_gray(gray)))


def clipped_share(gray: np.ndarray) -> float:
    """Returns the share, 0..1, of pure black (0) and pure white (255) pixels of a rounded gray picture (H, W)."""
    gray = _checked_gray(gray)
    return float(np.mean((gray <= 0) | (gray >= 255)))


def colourfulness(image: np.ndarray) -> float:
    """Returns the colourfulness of BGR uint8 (Hasler and Suesstrunk, SPIE 5007, 2003, eq. 10-11); 0 for a gray one."""
    _check_colour(image)
    b, g, r = np.moveaxis(image.astype(np.float64), 2, 0)
    rg, yb = r - g, (r + g) / 2 - b
    return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


def colour_errors(image: np.ndarray, shots: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Returns how the colours of a fused picture differ from the scene's: (difference, hue error, saturation).

    The true colour of a pixel is that of its best exposed shot: of the shots that are unclipped there (B, G and R all
    in .05 to .95 of the range), the one with luma nearest to the middle of the range. One factor for B, G and R scales
    it to the picture's luma, as another exposure of the same surface would show it. Pixels where this leaves the gamut
    (above 1) are ignored. Over the others, in CIELAB (sRGB, D65):

    - difference: mean distance of a, b; 0 is best, about 2 is just visible side by side;
    - hue error: mean angle between the two a, b in degrees, where both have a chroma of at least 10;
    - saturation: mean chroma of the picture over mean chroma of the truth; 1 is best, 0 is gray.

    A value is NaN where no pixel can be compared.

    Args:
        image: (H, W, 3) BGR uint8.
        shots: One or more pictures of the same form; preferably shots that were not fused.
    """
    _check_alike(image, *shots)
    rows = max(1, STRIP_PIXELS // image.shape[1])
    strips = (slice(top, top + rows) for top in range(0, image.shape[0], rows))
    sums = np.sum([_colour_sums(image[strip], [shot[strip] for shot in shots]) for strip in strips], 0)
    pixels, distance, chroma, true_chroma, coloured, angle = map(float, sums)
    return (
        distance / pixels if pixels else float("nan"),
        angle / coloured if coloured else float("nan"),
        chroma / true_chroma if true_chroma else float("nan"),
    )


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio in dB of BGR uint8 against a reference picture, over all channels."""
    from skimage.metrics import peak_signal_noise_ratio

    _check_alike(image, reference)
    if np.array_equal(image, reference):
        return float("inf")
    return float(peak_signal_noise_ratio(reference, image, data_range=255))


def ssim(gray: np.ndarray, reference: np.ndarray) -> float:
    """Returns Wang's SSIM (Gaussian window 11x11, sigma 1.5, population covariance) of two gray pictures, 0..255."""
    from skimage.metrics import structural_similarity

    gray, reference = _checked_gray(gray), _checked_gray(reference)
    settings = dict(data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    return float(structural_similarity(reference, gray, **settings))


def ntire_score(psnr: float, ssim: float, lpips: float) -> float:
    """Returns the score of the NTIRE 2026 challenge on exposure fusion of dynamic scenes, as far as fidelity goes.

    30 PSNR/50 + 22.5 (SSIM - .5)/.5 + 30 (1 - LPIPS/.4), not clamped: higher is better, and a picture that equals the
    reference has no finite PSNR, hence no finite score.
    """
    return 30 * psnr / 50 + 22.5 * (ssim - 0.5) / 0.5 + 30 * (1 - lpips / 0.4)


@functools.cache
def load_lpips() -> Callable[[np.ndarray, np.ndarray], float]:
    """Returns LPIPS 0.1 with AlexNet (Zhang et al., CVPR 2018), as a function of a picture and a reference, BGR uint8.

    Lower is better. It needs the package lpips, which downloads AlexNet's weights at the first use.
    """
    network = optional("lpips", "LPIPS").LPIPS(net="alex", verbose=False).eval()

    def distance(image: np.ndarray, reference: np.ndarray) -> float:
        import torch

        _check_alike(image, reference)
        with torch.no_grad():
            return float(network(*(2 * _rgb_tensor(x) - 1 for x in (image, reference))))

    return distance


@functools.cache
def load_iqa(name: str) -> tuple[Callable[[np.ndarray], float], bool]:
    """Returns a measure without reference as a function of BGR uint8, and whether lower values are better.

    Args:
        name: A no-reference measure of the package pyiqa ("musiq", "brisque", ...), which downloads its weights.
    """
    pyiqa = optional("pyiqa", name)
    if name not in (known := pyiqa.list_models(metric_mode="NR")):
        raise UserError(f"pyiqa has no measure {name} without a reference, only {', '.join(known)}")
    network = pyiqa.create_metric(name, device="cpu")
    return lambda image: float(network(_rgb_tensor(image))), bool(network.lower_better)


def _rgb_tensor(image: np.ndarray):
    """Returns BGR uint8 as a PyTorch tensor (1, 3, H, W), RGB in [0, 1]."""
    import torch

    _check_colour(image)
    return torch.from_numpy(image[..., ::-1] / 255).permute(2, 0, 1)[None].float()


def _checked(fused: np.ndarray, stack: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns both as float64; raises ValueError unless shapes and values are those of the module's docstring."""
    fused, stack = np.asarray(fused, np.float64), np.asarray(stack, np.float64)
    if fused.ndim != 2 or stack.ndim != 3 or not len(stack) or stack.shape[1:] != fused.shape:
        raise UserError(f"expected a gray picture (H, W) and a stack (K, H, W), got {fused.shape} and {stack.shape}")
    return _in_range(fused, "fused picture"), _in_range(stack, "stack")


def _checked_gray(gray: np.ndarray) -> np.ndarray:
    """Returns a gray picture as float64; raises ValueError unless it is (H, W) in 0..255."""
    gray = np.asarray(gray, np.float64)
    if gray.ndim != 2 or not gray.size:
        raise UserError(f"expected a gray picture (H, W), got {gray.shape}")
    return _in_range(gray, "picture")


def _in_range(x: np.ndarray, name: str) -> np.ndarray:
    """Returns `x`; raises ValueError unless it is in 0..255. Fractions in 0..1 mean a picture divided by 255."""
    divided = x.min() >= 0 and x.max() <= 1 and (x != np.rint(x)).any()  # whole numbers 0 and 1 are a black picture
    if not (x.min() >= 0 and x.max() <= 255) or divided:  # also true for NaN
        fix = ": multiply it by 255" if divided else ""
        raise UserError(f"the {name} must have values 0..255, got {x.min():g}..{x.max():g}{fix}")
    return x


def _check_colour(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UserError(f"expected a colour picture (H, W, 3) BGR uint8, got {image.shape} {image.dtype}")


def _check_alike(image: np.ndarray, *others: np.ndarray) -> None:
    for other in (image, *others):
        _check_colour(other)
        if other.shape != image.shape:
            raise UserError(f"expected pictures of one size, got {size_of(image)} and {size_of(other)}")


def _halved(x: np.ndarray) -> np.ndarray:
    """Returns the 2x2 means of (H, W), as (ceil(H/2), ceil(W/2)); an odd side repeats its last row or column.

    As Matlab's imfilter with symmetric extension, every second pixel.
    """
    x = np.pad(x, [(0, side % 2) for side in x.shape], mode="edge")
    return (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4


def _structure_map(fused: np.ndarray, stack: np.ndarray) -> np.ndarray:
    """Returns the 2015 map (H - 10, W - 10) of gray (H, W) and (K, H, W), each value at most 1.

    With x_k the mean-removed patch of exposure k, the desired patch is r = s sum_k a_k x_k. So its norm, its variance
    and its covariance with the fused patch need only inner products of the x_k, under the uniform window times 121
    (`dot`) or under the Gaussian one (`gauss`). For whole numbers and their 2x2 means the uniform sums are exact in
    float64, hence exactly 0 where the exposures are flat.
    """
    box_sums = [_box_sum(x) for x in stack]
    gauss_means = [_valid_gaussian(x) for x in stack]

    norms = [np.sqrt(np.maximum(_box_sum(x * x) - s * s / N, 0)) for x, s in zip(stack, box_sums, strict=True)]
    total, total_sum = stack.sum(axis=0), sum(box_sums)
    norm_of_sum = np.sqrt(np.maximum(_box_sum(total * total) - total_sum**2 / N, 0))
    consistency = np.minimum((norm_of_sum + EPS) / (sum(norms) + EPS), 1)  # R
    p = np.minimum(np.tan(np.pi / 2 * consistency), 10)

    strengths = [norm + 0.001 for norm in norms]
    weights = [(e / WINDOW) ** p + EPS for e in strengths]
    a = [w / sum(weights) / e for w, e in zip(weights, strengths, strict=True)]

    dot_rr, gauss_rr = np.zeros_like(p), np.zeros_like(p)  # ||sum_k a_k x_k||^2 and its Gaussian variance
    for i in range(len(stack)):
        for j in range(i, len(stack)):
            product = stack[i] * stack[j]
            factor = (1 if i == j else 2) * a[i] * a[j]
            dot_rr += factor * (_box_sum(product) - box_sums[i] * box_sums[j] / N)
            gauss_rr += factor * (_valid_gaussian(product) - gauss_means[i] * gauss_means[j])
    # ||sum_k a_k x_k|| is at most 1; below 1e-6 it is rounding: the patches cancel, or are flat
    shape = dot_rr > 1e-12
    s = np.where(shape, np.max(strengths, axis=0) / np.sqrt(np.where(shape, dot_rr, 1)), 0)

    mean_f = _valid_gaussian(fused)
    var_f = np.maximum(_valid_gaussian(fused * fused) - mean_f**2, 0)
    var_r = np.maximum(gauss_rr, 0) * s**2
    cov = s * sum(a[k] * (_valid_gaussian(stack[k] * fused) - gauss_means[k] * mean_f) for k in range(len(stack)))
    most = np.sqrt(var_r * var_f)  # Cauchy-Schwarz, which rounding can break
    c = (0.03 * 255) ** 2
    return (2 * np.clip(cov, -most, most) + c) / (var_r + var_f + c)


def _box_sum(x: np.ndarray) -> np.ndarray:
    """Returns the sums (H - 10, W - 10) of (H, W) over all 11x11 windows inside it."""
    return cv2.boxFilter(x, cv2.CV_64F, (WINDOW, WINDOW), normalize=False)[EDGE:-EDGE, EDGE:-EDGE]


def _gaussian(x: np.ndarray, window: int, sigma: float, border: int) -> np.ndarray:
    """Returns the means of (H, W) under a Gaussian window, same size, extended at the edges as OpenCV's `border`."""
    kernel = cv2.getGaussianKernel(window, sigma, cv2.CV_64F)
    return cv2.sepFilter2D(x, cv2.CV_64F, kernel, kernel, borderType=border)


def _valid_gaussian(x: np.ndarray, window: int = WINDOW, sigma: float = 1.5) -> np.ndarray:
    """Returns the means (H - window + 1, W - window + 1) of (H, W) under all Gaussian windows inside it."""
    edge = window // 2
    return _gaussian(x, window, sigma, cv2.BORDER_REFLECT)[edge:-edge, edge:-edge]


def _colour_sums(image: np.ndarray, shots: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the sums for `colour_errors`, over its pixels: count, distance, chroma, true chroma; and count and angle
    of the coloured ones."""
    from skimage.color import rgb2lab

    luma = np.array((0.114, 0.587, 0.299))  # B, G, R
    truth, best = np.zeros(image.shape), np.full(image.shape[:2], np.inf)
    for shot in shots:
        unclipped = (shot.min(2) >= UNCLIPPED[0]) & (shot.max(2) <= UNCLIPPED[1])
        distance = np.where(unclipped, np.abs(shot @ luma - 127.5), np.inf)
        nearer = distance < best
        truth[nearer], best[nearer] = shot[nearer], distance[nearer]
    seen = np.isfinite(best)
    image, truth = image[seen] / 255, truth[seen]
    truth *= ((image @ luma) / (truth @ luma))[:, None]
    in_gamut = truth.max(1) <= 1
    ab, true_ab = (rgb2lab(x[in_gamut][:, ::-1])[:, 1:] for x in (image, truth))
    chroma, true_chroma = np.hypot(*ab.T), np.hypot(*true_ab.T)
    coloured = (chroma >= COLOURED) & (true_chroma >= COLOURED)
    turn = np.arctan2(*ab[coloured].T) - np.arctan2(*true_ab[coloured].T)
    angle = np.degrees(np.abs((turn + np.pi) % (2 * np.pi) - np.pi))
    counted = (np.ones(len(ab)), np.hypot(*(ab - true_ab).T), chroma, true_chroma, coloured, angle)
    return np.array([x.sum() for x in counted])


def _edges(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns Sobel strength and orientation, in (-pi/2, pi/2], of (H, W); black outside, signs as Matlab's conv2."""
    dx = -cv2.Sobel(x, cv2.CV_64F, 1, 0, borderType=cv2.BORDER_CONSTANT)
    dy = cv2.Sobel(x, cv2.CV_64F, 0, 1, borderType=cv2.BORDER_CONSTANT)
    angle = np.arctan(np.divide(dy, dx, out=np.full_like(dx, np.inf), where=dx != 0))
    return np.hypot(dx, dy), angle
